"""Steps on replay data between those on training data."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import ORACLE, assert_same_run, config, record, tensors, training_data, validation_data

from hesse.curvature import evaluate
from hesse.datasets import Dataset, open_dataset, write_dataset
from hesse.errors import ConfigError, InterruptedRunError, MissingLabelError, UnknownElementError
from hesse.losses import weighted_loss
from hesse.models import load_model
from hesse.structures import Properties, Request
from hesse.training import train, trainer
from hesse.training.config_file import load_config, run_from_config
from oracles import labeled, molecules


def special_data() -> Dataset:
    """Structures with curvature, all of one size."""
    return labeled(ORACLE, molecules([4, 4, 4, 4], seed=31), probes=2)


def ordinary_data(sizes: tuple[int, ...] = (3, 5, 4, 6, 2, 3, 4), **options: Any) -> Dataset:
    return labeled(ORACLE, molecules(sizes, seed=41, **options), probes=0)


def run(folder: Path, other: Dataset | None = None, **changes: Any) -> Any:
    settings = config(**{"batch": {"structures": 2}, **changes})
    other = ordinary_data() if other is None else other
    return train(special_data(), validation_data(), settings, output=folder, replay=other, quiet=True)


def test_after_each_training_step_come_replay_steps_without_curvature(tmp_path: Path) -> None:
    run(tmp_path, training_data(), replay={"steps": 2})
    rows = [row for row in record(tmp_path) if row["kind"] == "train"]
    assert [("hvp" in row) for row in rows] == [step % 3 == 0 for step in range(20)]
    assert all("energy" in row and "forces" in row for row in rows)


def test_a_replay_step_has_the_loss_of_the_replay_data(tmp_path: Path) -> None:
    """The first replay step, compared with the loss of the model after the first training step."""
    other = ordinary_data((3, 5))  # one batch
    plain = {"schedule": {"kind": "constant", "warmup": 0}, "optimizer": {"ema_decay": None}, "validate_every": 50}
    run(tmp_path / "one", other, steps=1, **plain)
    run(tmp_path / "two", other, steps=2, **plain)
    model = load_model(tmp_path / "one" / "last.hesse")
    batch, labels = other.batch([0, 1], model.cutoff)
    weights = {"energy": 1.0, "forces": 0.3}
    expected, terms = weighted_loss(evaluate(model, batch, Request(forces=True)), labels, weights, batch=batch)
    row = [row for row in record(tmp_path / "two") if row["kind"] == "train"][1]
    assert row["loss"] == pytest.approx(float(expected), rel=1e-9)
    assert row["forces"] == pytest.approx(float(terms["forces"]), rel=1e-9)


@pytest.mark.parametrize("step", [6, 9])  # a training step and a replay step
def test_an_interrupted_run_with_replay_continues_bitwise_identical(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    options: dict[str, Any] = {"replay": {"steps": 1}, "checkpoint_every": 20}
    original = trainer.Trainer._step

    def signalled(self: Any) -> Any:
        if self.state.step == step:
            signal.raise_signal(signal.SIGTERM)
        return original(self)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_step", signalled)
        with pytest.raises(InterruptedRunError):
            run(tmp_path / "interrupted", **options)
    run(tmp_path / "interrupted", **options)
    run(tmp_path / "uninterrupted", **options)
    assert_same_run(tmp_path / "uninterrupted", tmp_path / "interrupted")


def test_special_structures_need_only_curvature(tmp_path: Path) -> None:
    """Products of the training data, energies and forces of the replay data, which also give energies per element."""
    special = special_data()
    n_atoms, probes, hvp = special.labels.n_atoms, special.labels.probes, special.labels.hvp
    products = Dataset(special.structures, Properties(n_atoms=n_atoms, probes=probes, hvp=hvp), {"level": "another"})
    settings = config(batch={"structures": 2}, replay={"steps": 1})
    other = ordinary_data()
    model = train(products, None, settings, output=tmp_path / "run", replay=other, quiet=True).potential
    rows = [row for row in record(tmp_path / "run") if row["kind"] == "train"]
    assert [("hvp" in row) for row in rows] == [step % 2 == 0 for step in range(20)]
    assert all("energy" in row and "forces" in row for row in rows[1::2])
    plain = train(other, None, config(steps=1, weights={"hvp": 0}), output=tmp_path / "plain", quiet=True).potential
    (name,) = (name for name in model.state_dict() if "reference" in name)
    torch.testing.assert_close(model.state_dict()[name], plain.state_dict()[name])
    with pytest.raises(MissingLabelError, match="no structure holds the label 'energy'"):
        train(products, None, settings, output=tmp_path / "no", quiet=True)
    few = labeled(ORACLE, molecules((3, 4), seed=41, elements=(1, 6)), probes=0)
    with pytest.raises(MissingLabelError, match=r"the replay data, which have some, lack their elements \[8\]"):
        train(products, None, settings, output=tmp_path / "few", replay=few, quiet=True)
    bare = Dataset(special.structures, Properties(n_atoms=n_atoms))
    with pytest.raises(MissingLabelError, match=r"no structure holds the label 'energy' \(found: none\)"):
        train(bare, None, settings, output=tmp_path / "bare", replay=other, quiet=True)


def test_energies_per_element_come_from_replay_data_of_the_same_level(tmp_path: Path) -> None:
    """Four molecules of one composition cannot determine them; the ordinary data do."""
    special = labeled(ORACLE, molecules([4] * 4, seed=3, elements=(6, 1)), probes=1)
    ordinary = ordinary_data()
    assert set(special.elements) < set(ordinary.elements)
    model = train(
        special, None, config(steps=1, validate_every=50), output=tmp_path, replay=ordinary, quiet=True
    ).potential
    plain = train(ordinary, None, config(steps=1, weights={"hvp": 0}), output=tmp_path / "plain", quiet=True).potential
    names = [name for name in model.state_dict() if "reference" in name]
    assert names
    for name in names:
        torch.testing.assert_close(model.state_dict()[name], plain.state_dict()[name])
    assert tuple(model.elements) == ordinary.elements


def test_replay_from_a_configuration_file_streamed_or_not(tmp_path: Path) -> None:
    write_dataset(tmp_path / "train.h5", special_data())
    write_dataset(tmp_path / "other.h5", ordinary_data())
    (tmp_path / "run.yaml").write_text(
        "data: {train: train.h5, replay: other.h5, validation_fraction: 0}\nreplay: {steps: 2}\nsteps: 6\n"
        "batch: {structures: 2}\noutput: run\ncompile: never\n"
        "model: {kind: hipnn, features: 4, sensitivities: 4, blocks: 1, onsite_layers: 1}\n"
    )
    run_from_config(load_config(tmp_path / "run.yaml"), quiet=True)
    assert ["hvp" in row for row in record(tmp_path / "run") if row["kind"] == "train"] == [True, False, False] * 2
    write_dataset(tmp_path / "many.h5", ordinary_data((3, 5, 4, 6) * 15))
    streamed = open_dataset(tmp_path / "many.h5", memory_mib=0.1)
    assert not isinstance(streamed, Dataset)
    result = train(special_data(), None, config(steps=8), output=tmp_path / "s", replay=streamed, quiet=True)
    assert result.steps == 8


def test_a_run_is_not_continued_with_other_replay_data(tmp_path: Path) -> None:
    run(tmp_path, steps=4)
    before = tensors(tmp_path / "checkpoint.safetensors")
    with pytest.raises(Exception, match=r"the replay data \(7 structures before, 2 now\)"):
        run(tmp_path, other=ordinary_data((3, 5)), steps=4)
    with pytest.raises(Exception, match=r"the replay data \(7 structures before, 0 now\)"):
        train(special_data(), validation_data(), config(batch={"structures": 2}, steps=4), output=tmp_path, quiet=True)
    after = tensors(tmp_path / "checkpoint.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_wrong_replay_has_a_reply(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="replay needs other data"):
        train(special_data(), None, config(replay={"steps": 2}), output=tmp_path, quiet=True)
    with pytest.raises(ConfigError, match="every_n_steps and replay exclude each other"):
        run(tmp_path, curvature={"every_n_steps": 2})
    with pytest.raises(ConfigError, match="curvature terms only"):
        run(tmp_path, weights={"energy": 0, "forces": 0, "hvp": 1})
    fluorine = ordinary_data((3, 3), elements=(9,))
    with pytest.raises(UnknownElementError, match=r"the replay data hold the elements \[9\]"):
        run(tmp_path, fluorine)
    no_labels = Dataset(ordinary_data().structures, ordinary_data().labels.pick(("atomic_energies",)))
    with pytest.raises(MissingLabelError):
        run(tmp_path, no_labels)


def test_replay_data_of_another_level_get_a_warning(tmp_path: Path) -> None:
    other = Dataset(ordinary_data().structures, ordinary_data().labels, metadata={"level": "GFN1-xTB"})
    run(tmp_path, other, steps=2)
    texts = [row["text"] for row in record(tmp_path) if row["kind"] == "note"]
    assert any("the replay labels of GFN1-xTB" in text for text in texts)
