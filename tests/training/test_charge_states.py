"""A model file records charges and multiplicities of its training data; structures of others are told, once."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from ase.build import molecule
from tiny_run import config, training_data

import hesse
from commands_in_process import exit_code
from hesse.datasets import Dataset, write_dataset
from hesse.deploy import HesseCalculator
from hesse.engines import PotentialEngine
from hesse.errors import ChargeStateWarning
from hesse.models import load_model, read_training_environments
from hesse.structures import Structure, TrainingEnvironments, electronic_state
from hesse.training import train

FROZEN = Path(__file__).parents[1] / "models" / "frozen"


def test_a_multiplicity_that_nobody_stated_is_the_lowest_possible() -> None:
    assert electronic_state(10, 0, 1) == (0, 1)
    assert electronic_state(9, 0, 1) == (0, 2)  # a radical without a statement
    assert electronic_state(9, 0, 0) == (0, 2)
    assert electronic_state(16, 0, 3) == (0, 3)
    assert electronic_state(10, 1, 2) == (1, 2)
    assert electronic_state(10, -2, 2) == (-2, 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("neutral")
    structures = tuple(replace(s, multiplicity=1) for s in training_data().structures)
    data = Dataset(structures, training_data().labels)
    return train(data, None, config(steps=1), output=folder, quiet=True).model_file


def charged(model: Path, charge: int = -2) -> Structure:
    first = training_data().structures[0]
    return replace(first, charge=charge, multiplicity=1)


def test_the_record_survives_a_file(model: Path) -> None:
    summary = read_training_environments(model)
    assert summary is not None
    assert summary.charge_states is not None
    assert set(summary.charge_states) <= {(0, 1), (0, 2)}
    assert TrainingEnvironments.from_text(summary.to_text()).charge_states == summary.charge_states
    assert "charge 0 and multiplicity 1" in summary.describe()
    assert summary.other_charge_state(training_data().structures[0]) is None
    assert summary.other_charge_state(charged(model)) == (-2, electronic_state(
        int(charged(model).numbers.sum()), -2, 1)[1])  # fmt: skip


def test_all_ways_to_compute_tell_once(model: Path) -> None:
    plain, other = training_data().structures[0], charged(model)
    engine = PotentialEngine(load_model(model))
    with pytest.warns(ChargeStateWarning, match=r"has charge -2 and .* trained on charge 0 and multiplicity 1"):
        engine.compute(other)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine.compute(other)
        engine.compute(plain)
    with pytest.warns(ChargeStateWarning, match="charge -4"):
        engine.compute(charged(model, -4))
    with pytest.warns(ChargeStateWarning, match="charge -2"):
        hesse.compute([plain, other], load_model(model))
    atoms = hesse.to_ase(other)
    atoms.calc = HesseCalculator(load_model(model))
    with pytest.warns(ChargeStateWarning, match="charge -2"):
        atoms.get_potential_energy()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ChargeStateWarning)
        atoms.rattle(0.01)
        atoms.get_potential_energy()


def test_labels_tell_once(model: Path, tmp_path: Path) -> None:
    others = [replace(s, charge=-2, multiplicity=0) for s in training_data().structures[:3]]
    with pytest.warns(ChargeStateWarning) as caught:
        hesse.label(others, str(model), tmp_path / "a.h5", workers=0, quiet=True)
    texts = [str(w.message).partition(",")[0].partition(" has ")[2] for w in caught]
    assert len(set(texts)) == len(texts)


@pytest.mark.slow
def test_the_command_line_prints_a_line(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    data = training_data().select([0])
    write_dataset(tmp_path / "other.h5", Dataset((charged(model),), data.labels))
    files = (tmp_path / "other.h5", tmp_path / "out.h5")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code = exit_code(monkeypatch, "label", *files, "--engine", model, "--workers", "1", "--quiet")
    assert code == 0
    shown = capfd.readouterr().err
    assert shown.count("has charge -2 and") == 1
    assert "ChargeStateWarning" not in shown


def test_data_of_several_states_are_all_recorded(tmp_path: Path) -> None:
    data = training_data()
    structures = tuple(replace(s, charge=-2 * (k % 2), multiplicity=0) for k, s in enumerate(data.structures))
    options = config(steps=1, allow_mixed_charges=True)
    result = train(Dataset(structures, data.labels), None, options, output=tmp_path, quiet=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PotentialEngine(result.potential).compute(structures[1])


def test_files_without_the_record_stay_silent(model: Path) -> None:
    summary = read_training_environments(model)
    assert summary is not None
    text = {k: v for k, v in json.loads(summary.to_text()).items() if k != "charge_states"}
    old = TrainingEnvironments.from_text(json.dumps(text))
    assert old.charge_states is None
    assert "charge" not in old.describe()
    potential = load_model(model)
    potential.training_environments = old
    frozen = load_model(FROZEN / "format-2.hesse")
    water = replace(hesse.from_ase(molecule("H2O")), charge=-2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PotentialEngine(potential).compute(charged(model))
        PotentialEngine(frozen).compute(water)


@pytest.mark.parametrize("states", [[], [[0]], "x", [[0, 1]] * 300, [[0, None]]])
def test_a_damaged_record_is_refused(model: Path, states: object) -> None:
    summary = read_training_environments(model)
    assert summary is not None
    text = json.dumps({**json.loads(summary.to_text()), "charge_states": states})
    with pytest.raises((ValueError, TypeError)):
        TrainingEnvironments.from_text(text)
