"""Training of existing potentials."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_run import config, record, tensors, training_data, validation_data
from torch import Tensor, nn

from hesse.curvature import evaluate
from hesse.datasets import Dataset, write_dataset
from hesse.errors import ConfigError, FileFormatError, RequestError, UnknownElementError, UnknownOptionError
from hesse.models import (
    AniConfig,
    Hipnn,
    HipnnConfig,
    ReferenceEnergies,
    SumPotential,
    Zbl,
    build_model,
    load_model,
    save_model,
)
from hesse.models.adapters import Adapter, CallablePotential
from hesse.potential import Potential
from hesse.smooth import masked_norm, smooth_cutoff
from hesse.structures import Batch, Request, collate
from hesse.training import TrainConfig, TrainResult, load_config, train
from hesse.training.config_file import run_from_config as run_files
from oracles import molecules


class Springs(Potential):
    """A potential of the user: a learnable pair energy, with a running statistic."""

    cutoff = 4.0

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.layer = nn.Linear(6, 1).double()
        with torch.no_grad():
            for parameter in self.layer.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, batch: Batch) -> Tensor:
        if self.training:
            self.calls += 1
        r = masked_norm(batch.neighbor_vectors(), batch.neighbor_mask, fill=self.cutoff)
        bells = torch.exp(-(r[..., None] - torch.linspace(0.8, 3.5, 6, dtype=r.dtype)).square())
        return (self.layer(bells)[..., 0] * smooth_cutoff(r, self.cutoff) * batch.neighbor_mask).sum(-1)


class Foreign(Adapter):
    """An adapter whose files contain one line of text."""

    suffix = ".line"

    def __init__(self) -> None:
        super().__init__()
        self.original = Springs()
        self.cutoff = self.original.cutoff

    def forward(self, batch: Batch) -> Tensor:
        return self.original(batch)

    def save(self, path: str | Path) -> None:
        Path(path).write_text(" ".join(str(w) for w in self.original.layer.weight.flatten().tolist()))


def go(folder: Path, potential: Potential | None, *, data: Dataset | None = None, **changes: Any) -> TrainResult:
    settings = config(**changes)
    return train(data or training_data(), validation_data(), settings, output=folder, potential=potential, quiet=True)


def test_a_potential_of_the_user_is_copied_and_trained(tmp_path: Path) -> None:
    springs = Springs()
    before = copy.deepcopy(springs.state_dict())
    result = go(tmp_path / "run", springs, steps=60, optimizer={"learning_rate": 3e-2}, validate_every=10)
    assert all(torch.equal(before[name], value) for name, value in springs.state_dict().items())
    rows = [row for row in record(tmp_path / "run") if row["kind"] == "validation"]
    assert result.scores["forces_rmse"] < 0.7 * rows[0]["forces_rmse"]
    assert result.model_file.name == "model.safetensors"
    # The result is the best model: its error is that in the record of its step.
    data = validation_data()
    assert isinstance(result.potential, Springs)
    assert not result.potential.training
    assert result.potential.calls > 0  # statistics travel with the average
    forces = evaluate(result.potential, collate(data.structures, 4.0), Request(forces=True)).forces
    assert forces is not None
    assert data.labels.forces is not None
    error = float((forces - data.labels.forces).square().mean().sqrt())
    assert error == pytest.approx(result.scores["forces_rmse"], rel=1e-9)


def test_an_interrupted_run_of_a_potential_of_the_user(tmp_path: Path) -> None:
    class Interrupt(Springs):
        left = 9

        def forward(self, batch: Batch) -> Tensor:
            Interrupt.left -= self.training
            if Interrupt.left < 0:
                raise KeyboardInterrupt
            return super().forward(batch)

    whole = go(tmp_path / "whole", Springs(), steps=14)
    # The fingerprint of a run includes the class: the same one is interrupted and continued.
    Interrupt.left = 9
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "broken", Interrupt(), steps=14)
    Interrupt.left = 10**6
    continued = go(tmp_path / "broken", Interrupt(), steps=14)
    assert record(tmp_path / "whole") == record(tmp_path / "broken")
    one, two = tensors(tmp_path / "whole" / "model.safetensors"), tensors(tmp_path / "broken" / "model.safetensors")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert continued.scores == whole.scores
    # The finished run returns the same result.
    assert go(tmp_path / "broken", Interrupt(), steps=14).scores == whole.scores


def test_a_run_is_not_continued_from_other_weights(tmp_path: Path) -> None:
    go(tmp_path / "run", Springs(0), steps=4)
    with pytest.raises(FileFormatError, match="another configuration"):
        go(tmp_path / "run", Springs(1), steps=4)
    with pytest.raises(FileFormatError, match="another configuration"):
        go(tmp_path / "run", None, steps=4)


def test_an_adapted_potential_is_also_saved_in_its_own_format(tmp_path: Path) -> None:
    result = go(tmp_path / "run", Foreign(), steps=8)
    assert result.model_file == tmp_path / "run" / "model.line"
    assert isinstance(result.potential, Foreign)
    saved = [float(word) for word in result.model_file.read_text().split()]
    assert saved == result.potential.original.layer.weight.flatten().tolist()
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert {"model.safetensors", "last.safetensors", "last.line"} <= names


def test_frozen_parameters_do_not_change(tmp_path: Path) -> None:
    springs = Springs()
    springs.layer.bias.requires_grad_(False)
    result = go(tmp_path / "run", springs, steps=6)
    trained = result.potential
    assert isinstance(trained, Springs)
    assert torch.equal(trained.layer.bias, springs.layer.bias)
    assert not trained.layer.bias.requires_grad
    assert not torch.equal(trained.layer.weight, springs.layer.weight)
    with pytest.raises(ConfigError, match="no parameter"):
        go(tmp_path / "other", Springs().requires_grad_(False))


def test_reference_energies_are_fitted_to_the_residual_energies(tmp_path: Path) -> None:
    """Another level of theory has other energies per element; the least-squares shift removes them exactly."""
    base = Hipnn(HipnnConfig.model_validate(config().model.model_dump()), (1, 6, 8)).double()
    structures = molecules([3, 5, 4, 6, 2, 4, 5, 3], seed=3)
    predicted = evaluate(base, collate(structures, base.cutoff), Request(forces=True))
    zero = {1: -13.5, 6: -1030.25, 8: 4.0}
    offsets = torch.tensor([sum(zero[int(z)] for z in s.numbers) for s in structures], dtype=torch.float64)
    assert predicted.energy is not None
    data = Dataset(tuple(structures), predicted.replace(energy=predicted.energy + offsets, regularizer=None))
    unchanged = train(
        data, None, config(steps=1, weights={"hvp": 0.0}), output=tmp_path / "a", potential=base, quiet=True
    )
    assert isinstance(unchanged.potential, Hipnn)
    assert torch.equal(unchanged.potential.references.energies, base.references.energies)
    fitted = train(
        data, None, config(steps=1, weights={"hvp": 0.0}, reference_energies="fit"), output=tmp_path / "b",
        potential=base, quiet=True,
    )  # fmt: skip
    assert isinstance(fitted.potential, Hipnn)
    shift = fitted.potential.references.energies - base.references.energies
    assert shift.tolist() == pytest.approx([zero[1], zero[6], zero[8]], abs=1e-8)
    first = next(row for row in record(tmp_path / "b") if row["kind"] == "train")
    assert first["energy"] < 1e-16
    with pytest.raises(RequestError, match="no energies per element"):
        go(tmp_path / "c", Springs(), reference_energies="fit")


def test_a_repulsion_is_part_of_the_model_when_reference_energies_are_fitted(tmp_path: Path) -> None:
    result = go(tmp_path / "run", None, steps=4, repulsion={"reach": 2.0})
    assert isinstance(result.potential, SumPotential)
    prior, network = result.potential.parts
    assert isinstance(prior, Zbl)
    assert isinstance(network, Hipnn)
    assert prior.config.reach == 2.0
    data = training_data()
    batch = collate(data.structures, 8.0)
    repulsion = evaluate(prior, batch, Request()).energy
    assert repulsion is not None
    assert data.labels.energy is not None
    assert float(repulsion.max()) > 0.1
    composition = torch.stack([torch.bincount(torch.tensor(s.numbers.tolist()), minlength=9) for s in data.structures])
    composition = composition[:, [1, 6, 8]].double()
    expected = torch.linalg.lstsq(composition, (data.labels.energy - repulsion)[:, None], driver="gelsd").solution
    assert network.references.energies.tolist() == pytest.approx(expected[:, 0].tolist(), abs=1e-8)


def test_yaml_names_a_potential_to_start_from(tmp_path: Path) -> None:
    data = training_data()
    write_dataset(tmp_path / "data.h5", data)
    folder = tmp_path / "configs"
    folder.mkdir()
    base = Hipnn(HipnnConfig.model_validate(config().model.model_dump()), (1, 6, 8)).double()
    save_model(folder / "base.hesse", base)
    content = {
        **{k: v for k, v in config(steps=3).model_dump(mode="json").items() if k not in ("model", "repulsion")},
        "init_from": "base.hesse", "data": {"train": "../data.h5"}, "output": "run",
    }  # fmt: skip
    (folder / "go.yaml").write_text(yaml.safe_dump(content))
    settings = load_config(folder / "go.yaml")
    assert settings.init_from == str(folder / "base.hesse")
    result = run_files(settings, quiet=True)
    assert isinstance(result.potential, Hipnn)
    assert result.potential.config == base.config
    moved = load_model(result.model_file).state_dict()["readouts.0.weight"] - base.state_dict()["readouts.0.weight"]
    assert 0 < float(moved.abs().max()) < 0.1  # a few small steps
    with pytest.raises(ConfigError, match="leave out model"):
        load_config(folder / "go.yaml", ["model.kind=ani"])
    with pytest.raises(ConfigError, match="leave one of them out"):
        train(data, config=TrainConfig(init_from=str(folder / "base.hesse")), output=tmp_path / "x", potential=base)
    with pytest.raises(FileFormatError, match="no such model file"):
        run_files(load_config(folder / "go.yaml", ["init_from=none.hesse", f"output={tmp_path / 'y'}"]), quiet=True)


def test_potentials_that_cannot_be_trained_are_refused_before_the_first_step(tmp_path: Path) -> None:
    without_oxygen = SumPotential([ReferenceEnergies((1, 6)), Springs()])
    with pytest.raises(UnknownElementError, match=r'structure ".*" holds O; SumPotential knows H, C only'):
        go(tmp_path / "a", without_oxygen)

    with pytest.raises(RequestError, match=r"expected a potential: .* got an object of type Linear"):
        go(tmp_path / "d", nn.Linear(2, 2))  # type: ignore[arg-type]
    save_model(tmp_path / "model.hesse", Hipnn(HipnnConfig(features=2, sensitivities=2), (1, 6, 8)))
    for folder in (tmp_path, tmp_path / "somewhere" / ".."):
        start = TrainConfig(init_from=str(tmp_path / "model.hesse"))
        with pytest.raises(ConfigError, match="would be replaced by this run"):
            train(training_data(), config=start, output=folder, restart=True, quiet=True)

    class Stuck(Springs):
        def __deepcopy__(self, memo: object) -> Springs:
            raise TypeError("holds a handle")

    with pytest.raises(RequestError, match=r"cannot be copied \(TypeError: holds a handle"):
        go(tmp_path / "b", Stuck())
    with pytest.raises(UnknownOptionError, match=r'no potential "macee:x\.model"'):
        train(training_data(), config=TrainConfig(init_from="macee:x.model"), output=tmp_path / "c", quiet=True)


def test_any_energy_function_can_be_trained(tmp_path: Path) -> None:
    class Pairs(nn.Module):
        """-w Σ exp(-r²), all pairs."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(0.1, dtype=torch.float64))

        def forward(self, positions: Tensor, numbers: Tensor, cell: Tensor, pbc: Tensor) -> Tensor:
            i, j = torch.triu_indices(len(positions), len(positions), offset=1)
            return -self.weight * torch.exp(-(positions[i] - positions[j]).square().sum(-1)).sum()

    exact = CallablePotential(Pairs())
    with torch.no_grad():
        exact.energy.weight.fill_(1.7)
    structures = molecules([3, 4, 5], seed=4)
    answer = evaluate(exact, collate(structures, 1.0), Request(forces=True))
    data = Dataset(tuple(structures), answer)
    result = train(
        data, None, config(steps=150, weights={"hvp": 0.0}, optimizer={"learning_rate": 5e-2, "ema_decay": 0.5}),
        output=tmp_path / "run", potential=CallablePotential(Pairs()), quiet=True,
    )  # fmt: skip
    assert isinstance(result.potential, CallablePotential)
    assert float(result.potential.energy.weight.detach()) == pytest.approx(1.7, abs=0.02)


def test_a_run_is_not_continued_with_another_formula_on_the_same_weights(tmp_path: Path) -> None:
    smooth, cosine = (
        build_model(AniConfig(hidden=(4,), cutoff_function=function), (1, 6, 8)).double()
        for function in ("smooth", "cosine")
    )
    cosine.load_state_dict(smooth.state_dict())
    go(tmp_path / "run", smooth, steps=1)
    with pytest.raises(FileFormatError, match="the potential that it starts from"):
        go(tmp_path / "run", cosine, steps=1)


def test_a_run_from_a_factory_with_random_weights_is_reproducible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_factory_of_nets.py").write_text(
        "from hesse.models import AniConfig, build_model\n"
        "def make():\n    return build_model(AniConfig(hidden=(4,)), (1, 6, 8)).double()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    plain = {k: v for k, v in config(steps=2).model_dump(mode="json").items() if k not in ("model", "repulsion")}
    settings = TrainConfig.model_validate({**plain, "init_from": "python:my_factory_of_nets:make"})
    first = train(training_data(), validation_data(), settings, output=tmp_path / "run", quiet=True)
    again = train(training_data(), validation_data(), settings, output=tmp_path / "run", quiet=True)
    assert again.scores == first.scores


def test_dropout_is_the_same_in_a_continued_run(tmp_path: Path) -> None:
    class Dropping(Springs):
        left = 10**6

        def forward(self, batch: Batch) -> Tensor:
            Dropping.left -= self.training
            if Dropping.left < 0:
                raise KeyboardInterrupt
            return nn.functional.dropout(super().forward(batch), 0.3, self.training)

    go(tmp_path / "whole", Dropping(), steps=14)
    Dropping.left = 9
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "broken", Dropping(), steps=14)
    Dropping.left = 10**6
    torch.rand(3)  # other random numbers in between
    go(tmp_path / "broken", Dropping(), steps=14)
    assert record(tmp_path / "whole") == record(tmp_path / "broken")


def test_data_by_path_potential_by_name_and_settings_as_a_mapping(tmp_path: Path) -> None:
    write_dataset(tmp_path / "train.h5", training_data())
    write_dataset(tmp_path / "validation.h5", validation_data())
    start = Hipnn(HipnnConfig.model_validate(config().model.model_dump()), (1, 6, 8)).double()
    save_model(tmp_path / "start.hesse", start)
    result = train(
        tmp_path / "train.h5", str(tmp_path / "validation.h5"), {"steps": 2, "dtype": "float64", "compile": "never"},
        output=tmp_path / "run", potential=tmp_path / "start.hesse", quiet=True,
    )  # fmt: skip
    assert isinstance(result.potential, Hipnn)
    assert [line.split()[0] for line in result.table().splitlines()] == [
        "energy",
        "energy_per_atom",
        "forces",
        "hvp",
        "hessian",
    ]
    assert f"{result.scores['forces_rmse']:.4g} eV/Å" in result.table()
    error = result.scores["hvp_rmse_standard_error"]
    assert f"{result.scores['hvp_rmse']:.4g} ± {error:.1g} eV/Å²" in result.table()


def test_wrong_arguments_get_a_reply(tmp_path: Path) -> None:
    data = training_data()
    with pytest.raises(RequestError, match="expected a data set"):
        train(3, output=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"expected a hesse\.TrainConfig or a mapping of options, got str"):
        train(data, config="run.yaml", output=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(UnknownOptionError, match=r'config: no option "stepps"\. Did you mean "steps"\?'):
        train(data, config={"stepps": 3}, output=tmp_path)
