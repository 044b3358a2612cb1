"""What a run says before its first step about energies per element, curvature in validation, and idle processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule
from tiny_run import ORACLE, config, record, training_data, validation_data

from hesse.datasets import Dataset, StreamingDataset, open_dataset, write_dataset
from hesse.models import fit_reference_energies, undetermined_elements
from hesse.structures import Properties, Structure, from_ase
from hesse.training import train
from hesse.training.start_messages import curvature_messages, idle_messages, reference_energy_messages
from oracles import labeled, molecules


def energies_of(*names: str, weights: list[float] | None = None) -> tuple[torch.Tensor, Properties]:
    structures = [from_ase(molecule(name)) for name in names]
    labels = [Properties.single(len(s), energy=float(k)) for k, s in enumerate(structures)]
    both = Properties.concatenate(labels)
    if weights is not None:
        both = both.replace(weight=torch.tensor(weights))
    return torch.cat([torch.tensor(s.numbers) for s in structures]), both


def test_elements_that_compositions_do_not_determine() -> None:
    elements = (1, 6, 8)
    assert undetermined_elements(*energies_of("H2O"), (1, 8)) == (1, 8)
    assert undetermined_elements(*energies_of("H2O", "H2O", "H2O"), (1, 8)) == (1, 8)
    assert undetermined_elements(*energies_of("H2O", "H2"), (1, 8)) == ()
    assert undetermined_elements(*energies_of("H2O", "H2", "CH4"), elements) == ()
    # Methane and ethylene, and carbon monoxide for oxygen; without it, oxygen of formaldehyde is known too.
    assert undetermined_elements(*energies_of("CH4", "C2H4", "H2CO"), elements) == ()
    assert undetermined_elements(*energies_of("H2O", "CH4"), elements) == (1, 6, 8)
    assert undetermined_elements(*energies_of("H2", "CO"), elements) == (6, 8)  # hydrogen alone is known
    assert undetermined_elements(*energies_of("H2O", "H2", weights=[1.0, 0.0]), (1, 8)) == (1, 8)


def test_a_shift_along_undetermined_energies_changes_no_energy_of_the_data() -> None:
    numbers, labels = energies_of("H2O", "CH4")
    fitted = fit_reference_energies(numbers, labels, (1, 6, 8))
    shift = torch.tensor([1.0, -4.0, -2.0], dtype=torch.float64)
    for composition in ([2, 0, 1], [4, 1, 0]):
        counts = torch.tensor(composition, dtype=torch.float64)
        assert float(counts @ shift) == pytest.approx(0.0)
        assert float(counts @ (fitted + shift)) == pytest.approx(float(counts @ fitted))


def one_molecule() -> Dataset:
    first = training_data().structures[0]
    generator = np.random.default_rng(0)
    structures = [
        Structure(first.numbers, first.positions + generator.normal(0, 0.03, first.positions.shape), id=f"s{k}")
        for k in range(4)
    ]
    return labeled(ORACLE, structures, probes=1)


def test_a_run_on_one_molecule_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(one_molecule(), None, config(steps=2), output=tmp_path / "a")
    assert "warning: the energies per element of " in capsys.readouterr().err
    assert any("total energies of other molecules" in row.get("text", "") for row in record(tmp_path / "a"))
    for options in ({"reference_energies": "keep"}, {"weights": {"energy": 0.0}}):
        train(one_molecule(), None, config(steps=2, **options), output=tmp_path / str(options), quiet=True)
        assert not any("energies per element" in row.get("text", "") for row in record(tmp_path / str(options)))


def test_data_that_determine_all_elements_say_nothing() -> None:
    assert reference_energy_messages(training_data()) == []


def test_curvature_that_validation_does_not_see_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = labeled(ORACLE, molecules([4, 3], seed=9), probes=0)
    fresh = config(probe={"source": "fresh"}, steps=4)
    (text,) = curvature_messages(plain, fresh)
    assert text.startswith("warning: hvp is trained, and no validation structure has a Hessian")
    assert curvature_messages(validation_data(), fresh) == []
    assert curvature_messages(plain, config(weights={"hvp": 0.0})) == []
    result = train(training_data(), plain, fresh, output=tmp_path)
    shown = capsys.readouterr().err
    assert text in shown
    assert ", loss " in shown
    last = shown.rstrip().rpartition("\n")[2]
    assert "(hvp " in last
    assert "F " in last
    assert "hvp" in result.table()
    assert "of the training steps" in result.table()


@pytest.mark.slow
def test_fresh_probes_have_errors_in_training_and_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In memory and streamed, with the products of stored Hessians."""
    sizes = [2 + k % 3 for k in range(150)]
    data = labeled(ORACLE, molecules(sizes, seed=2), probes=0, hessian=True)
    held_out = labeled(ORACLE, molecules(sizes, seed=900), probes=0, hessian=True)
    write_dataset(tmp_path / "train.h5", data)
    write_dataset(tmp_path / "held.h5", held_out)
    streamed = [open_dataset(tmp_path / name, memory_mib=0.12) for name in ("train.h5", "held.h5")]
    assert all(isinstance(part, StreamingDataset) for part in streamed)
    for name, (training, validation) in {"memory": (data, held_out), "streamed": streamed}.items():
        result = train(training, validation, config(probe={"source": "fresh"}, steps=4), output=tmp_path / name)
        assert "  Hv " in capsys.readouterr().err
        rows = record(tmp_path / name)
        assert all(row["hvp"] > 0 for row in rows if row["kind"] == "train")
        assert all(row["hvp_rmse"] > 0 for row in rows if row["kind"] == "validation")
        assert result.scores["hvp_rmse"] > 0
        assert result.scores["hessian_rmse"] > 0
        assert result.training_terms["hvp"] > 0


def test_a_run_without_validation_shows_the_terms_of_its_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = config(probe={"source": "fresh"}, curvature={"every_n_steps": 3}, steps=5)
    result = train(training_data(), None, options, output=tmp_path)
    assert "(energy " in capsys.readouterr().err
    rows = [row for row in record(tmp_path) if row["kind"] == "train"]
    assert result.training_terms["energy"] == pytest.approx(np.mean([row["energy"] for row in rows]))
    assert result.training_terms["hvp"] == pytest.approx(np.mean([row["hvp"] for row in rows if "hvp" in row]))
    assert "hvp" in result.table()
    again = train(training_data(), None, options, output=tmp_path, quiet=True)  # finished: the same result
    assert dict(again.training_terms) == dict(result.training_terms)


def test_idle_processes_are_told() -> None:
    assert idle_messages(10, 4, 4) == []
    (text,) = idle_messages(10, 2, 4)
    assert text.startswith("warning: 4 processes share steps of at most 2 structures: the others wait. Use --devices 2")
