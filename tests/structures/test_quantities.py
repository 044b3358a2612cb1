"""The table of quantities: records, files, units and requests follow from it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hesse
from hesse.datasets import Dataset, read_dataset, write_dataset
from hesse.datasets.transforms import convert_units
from hesse.errors import LabelShapeError, RequestError
from hesse.losses import weighted_loss
from hesse.structures import (
    COLUMNS,
    Properties,
    Quantity,
    Request,
    label_names,
    quantities,
    quantity,
    register_quantity,
)
from oracles import molecules

DIPOLE = Quantity(name="dipole", description="", per="structure", components=(3,), length_power=1, has_error=True)
CHARGES = Quantity(name="charges", description="charge of each atom", per="atom", unit="e")


@pytest.fixture
def registered() -> Iterator[None]:
    """Two further quantities, which are removed from the table at the end."""
    register_quantity(DIPOLE)
    register_quantity(CHARGES)
    yield
    for name in ("dipole", "charges"):
        del quantities._QUANTITIES[name]
    quantities._COLUMNS.clear()
    quantities._COLUMNS.update(quantities._ordered_columns())


def data_with_dipoles() -> Dataset:
    rng = np.random.default_rng(0)
    structures = molecules([3, 4, 2])
    labels = [
        Properties.single(3, energy=-1.0, dipole=rng.normal(size=3), dipole_error=0.1, charges=rng.normal(size=3)),
        Properties.single(4, energy=-2.0, charges=rng.normal(size=4)),
        Properties.single(2, dipole=rng.normal(size=3)),
    ]
    return Dataset(tuple(structures), Properties.concatenate(labels))


def test_units_follow_from_the_powers() -> None:
    units = {name: quantity(name).unit for name in label_names()}
    assert units == {
        "energy": "eV", "forces": "eV/Å", "hvp": "eV/Å²", "hessian": "eV/Å²", "atomic_energies": "eV", "stress": "eV/Å³"
    }  # fmt: skip
    assert DIPOLE.unit == "Å"


def test_records_of_a_new_quantity(registered: None) -> None:
    labels = data_with_dipoles().labels
    assert labels.mask("dipole").tolist() == [True, False, True]
    assert torch.isnan(labels["dipole"][1]).all()  # type: ignore[index]
    assert labels["charges"].shape == (9,)  # type: ignore[union-attr]
    assert "dipole 2" in repr(labels)
    part = labels.select(torch.tensor([2, 0]))
    assert torch.equal(part["dipole"], labels["dipole"][[2, 0]])  # type: ignore[index, arg-type]
    assert set(vars(labels.pick(["dipole"]))) == {"n_atoms", "dipole", "dipole_mask"}
    with pytest.raises(LabelShapeError, match=r'structure "x": dipole of shape \(2,\), expected \(3,\)'):
        Properties.single(2, dipole=[0.0, 1.0], structure_id="x")


@pytest.mark.parametrize("name", ["data.h5", "data.extxyz"])
def test_files_of_a_new_quantity(registered: None, tmp_path: Path, name: str) -> None:
    data = data_with_dipoles()
    write_dataset(tmp_path / name, data)
    back = read_dataset(tmp_path / name)
    for key in ("dipole", "dipole_mask", "dipole_error", "charges", "charges_mask"):
        one, other = data.labels[key], back.labels[key]
        assert one is not None
        assert other is not None
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_units_of_a_new_quantity(registered: None) -> None:
    data = data_with_dipoles()
    _, labels = convert_units(data.structures, data.labels, energy="hartree", length="bohr")
    bohr = 0.529177210544
    torch.testing.assert_close(labels["dipole"], data.labels["dipole"] * bohr, equal_nan=True)  # type: ignore[operator]
    torch.testing.assert_close(labels["dipole_error"], data.labels["dipole_error"] * bohr, equal_nan=True)  # type: ignore[operator]
    assert labels["charges"] is data.labels["charges"]


def test_the_loss_of_a_new_quantity(registered: None) -> None:
    labels = data_with_dipoles().labels
    assert labels["dipole"] is not None
    guess = labels.replace(dipole=labels["dipole"] + 0.5, charges=labels["charges"] + 2.0)  # type: ignore[operator]
    total, terms = weighted_loss(guess, labels, {"dipole": 2.0, "charges": 1.0})
    assert {name: float(v) for name, v in terms.items()} == pytest.approx({"dipole": 0.25, "charges": 4.0})
    assert float(total) == pytest.approx(4.5)
    assert hesse.TrainConfig(weights={"dipole": 2.0}).make_loss().weights()["dipole"] == 2.0  # type: ignore[arg-type]


def test_unknown_names_get_a_reply(registered: None) -> None:
    labels = data_with_dipoles().labels
    with pytest.raises(RequestError, match=r'unknown property .forcs.\. Did you mean "forces"'):
        labels.mask("forcs")
    with pytest.raises(RequestError, match='Did you mean "dipole"'):
        Properties.single(3, dipol=[0, 0, 0])
    with pytest.raises(RequestError, match='Did you mean "dipole"'):
        Properties(n_atoms=torch.tensor([1]), dipol=torch.zeros(1, 3))
    with pytest.raises(AttributeError, match='Did you mean "dipole"'):
        _ = labels.dipol  # type: ignore[attr-defined]
    with pytest.raises(RequestError, match='Did you mean "dipole"'):
        Request(dipol=True)
    with pytest.raises(RequestError, match="requested by their probes"):
        Request(hvp=True)
    with pytest.raises(AttributeError, match=r"properties\.replace\(energy=\.\.\.\)"):
        labels.energy = None  # type: ignore[misc]


@pytest.mark.parametrize("name", ["energy", "forces_mask", "hvp_error", "n_atoms", "replace", "mask"])
def test_taken_names_are_refused(name: str) -> None:
    with pytest.raises(RequestError, match="choose another name"):
        register_quantity(Quantity(name=name, description="", per="structure"))


def test_every_method_of_a_record_is_a_taken_name() -> None:
    assert {name for name in vars(Properties) if not name.startswith("_")} <= quantities._METHODS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per": "element"}, "only for each structure or each atom"),
        ({"per": "probe atom"}, "only for each structure or each atom"),
        ({"per": "structure", "is_flag": True}, "cannot be labels"),
    ],
)
def test_quantities_without_an_implementation_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        register_quantity(Quantity(name="overlap", description="", **options))
    assert "overlap" not in quantities.QUANTITIES


def test_a_missing_flag_is_false() -> None:
    saddle = register_quantity(
        Quantity(name="is_saddle", description="", per="structure", role="input", is_flag=True, source="")
    )
    try:
        joined = Properties.concatenate([Properties.single(1, is_saddle=True), Properties.single(2)])
        flags = joined["is_saddle"]
        assert flags is not None
        assert flags.tolist() == [True, False]
    finally:
        del quantities._QUANTITIES[saddle.name]
        quantities._COLUMNS.clear()
        quantities._COLUMNS.update(quantities._ordered_columns())


def test_registering_twice(registered: None) -> None:
    assert register_quantity(DIPOLE) is DIPOLE
    with pytest.raises(RequestError, match="choose another name"):
        register_quantity(Quantity(name="dipole", description="", per="atom"))
    with pytest.raises(RequestError, match="must be a Python identifier"):
        Quantity(name="dipole moment", description="", per="structure")


def test_requests() -> None:
    request = Request(forces=True, hessian=True)
    assert repr(request) == "Request(energy, forces, hessian)"
    assert repr(request.replace(energy=False, probes=torch.zeros(2, 3, 3))) == "Request(forces, hessian, 2 probes)"
    with pytest.raises(AttributeError, match=r"request\.replace"):
        request.forces = False


def test_records_are_copied_and_pickled() -> None:
    labels = Properties.single(2, energy=1.0, forces=np.ones((2, 3)), weight=3.0)
    for other in (copy.deepcopy(labels), pickle.loads(pickle.dumps(labels)), labels.replace()):
        assert vars(other).keys() == vars(labels).keys()
        assert all(torch.equal(vars(other)[name], value) for name, value in vars(labels).items())


def test_weights_of_structures_are_kept_in_files(tmp_path: Path) -> None:
    structures = molecules([3, 2])
    labels = [Properties.single(3, energy=0.0, weight=0.5), Properties.single(2, energy=0.0)]
    data = Dataset(tuple(structures), Properties.concatenate(labels))
    for name in ("a.h5", "a.extxyz"):
        write_dataset(tmp_path / name, data)
        weight = read_dataset(tmp_path / name).labels.weight
        assert weight is not None
        assert weight.tolist() == [0.5, 1.0]


def test_every_column_belongs_to_a_quantity() -> None:
    for name, column in COLUMNS.items():
        assert name.startswith(column.quantity.name)
        assert (column.kind == "mask") == name.endswith("_mask")
