"""NumPy archives: units are required, and nothing is unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hesse.datasets import read_npz
from hesse.errors import FileFormatError, GeometryError, HesseError, LabelShapeError, LabelValueError, UnitError
from hesse.units import ENERGY_UNITS, LENGTH_UNITS

RNG = np.random.default_rng(0)
HORM: dict[str, Any] = {
    "ids": np.array([0, 7], dtype=np.int32),
    "formula": np.array(["H2", "H2O1"]),
    "energy": np.array([-1.0, -76.0], dtype=np.float32),
    "z_000": np.array([1, 1], dtype=np.int16),
    "pos_000": np.array([[0, 0, 0], [0, 0, 1.4]], dtype=np.float32),
    "forces_000": RNG.normal(size=(2, 3)).astype(np.float32),
    "hessian_000": RNG.normal(size=(6, 6)).astype(np.float32),
    "z_007": np.array([8, 1, 1]),
    "pos_007": RNG.normal(size=(3, 3)),
}
RMD17: dict[str, Any] = {
    "nuclear_charges": np.array([8, 1, 1]),
    "coords": RNG.normal(size=(4, 3, 3)),
    "energies": RNG.normal(size=4),
    "forces": RNG.normal(size=(4, 3, 3)),
}
UNITS = {"energy_unit": "Hartree", "length_unit": "Bohr"}


def test_arrays_per_structure(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", **HORM)
    data = read_npz(tmp_path / "set.npz", **UNITS)
    e, a = ENERGY_UNITS["hartree"], LENGTH_UNITS["bohr"]
    assert [s.id for s in data.structures] == ["set-000", "set-007"]
    assert [s.group for s in data.structures] == ["H2", "H2O1"]
    assert data.structures[0].positions[1, 2] == pytest.approx(1.4 * a)
    assert data.labels.energy is not None
    assert data.labels.forces is not None
    assert data.labels.energy.tolist() == pytest.approx([-e, -76 * e])
    np.testing.assert_allclose(data.labels.forces[:2], HORM["forces_000"] * e / a)
    np.testing.assert_allclose(data.labels.hessian_of(0).reshape(6, 6), HORM["hessian_000"] * e / a**2)
    assert data.labels.mask("forces").tolist() == data.labels.mask("hessian").tolist() == [True, False]
    assert len(read_npz(tmp_path / "set.npz", limit=1, **UNITS)) == 1


def test_geometries_of_one_molecule(tmp_path: Path) -> None:
    np.savez(tmp_path / "water.npz", **RMD17)
    data = read_npz(tmp_path / "water.npz", energy_unit="kcal/mol", length_unit="angstrom")
    assert len(data) == 4
    assert {s.group for s in data.structures} == {"water"}
    assert data.labels.forces is not None
    np.testing.assert_allclose(data.labels.forces[9:12], RMD17["forces"][3] * ENERGY_UNITS["kcal/mol"])


@pytest.mark.parametrize("units", [{}, {"energy_unit": "eV"}, {"length_unit": "angstrom"}])
def test_units_are_required(tmp_path: Path, units: dict[str, str]) -> None:
    np.savez(tmp_path / "set.npz", **HORM)
    with pytest.raises(UnitError, match=r"set\.npz.*--energy-unit eV --length-unit angstrom"):
        read_npz(tmp_path / "set.npz", **units)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"ids": None}, FileFormatError, "expected the arrays ids"),
        ({"ids": np.array([0, 7, 8])}, FileFormatError, "one for each id"),
        ({"z_007": None}, FileFormatError, "id 7 is listed, but z_007"),
        ({"energy": np.zeros((2, 1))}, FileFormatError, "energy has shape"),
        ({"hessian_000": np.zeros((6, 3))}, LabelShapeError, '"set-000": hessian of shape'),
        ({"forces_000": np.zeros((3, 3))}, LabelShapeError, '"set-000": forces of shape'),
        ({"pos_000": np.zeros((3, 3))}, GeometryError, '"set-000": expected numbers'),
        ({"pos_000": np.array([[{}, 0, 0], [0, 0, 1]], dtype=object)}, FileFormatError, "set.npz"),
    ],
    ids=lambda x: x[:16] if isinstance(x, str) else "",
)
def test_a_bad_archive_is_refused(tmp_path: Path, changes: dict[str, Any], kind: type[HesseError], words: str) -> None:
    np.savez(tmp_path / "set.npz", **{k: v for k, v in {**HORM, **changes}.items() if v is not None})
    with pytest.raises(kind, match=words) as caught:
        read_npz(tmp_path / "set.npz", **UNITS)
    assert "set.npz" in str(caught.value)


def test_truncated_missing_and_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    with pytest.raises(FileFormatError, match="no such file"):
        read_npz(path, **UNITS)
    np.savez_compressed(path, **HORM)
    content = path.read_bytes()
    for end in range(0, len(content), 97):
        path.write_bytes(content[:end])
        with pytest.raises(FileFormatError, match=r"set\.npz"):
            read_npz(path, **UNITS)
    with open(path, "wb") as handle:
        np.save(handle, np.zeros(3))
    with pytest.raises(FileFormatError, match="single array"):
        read_npz(path, **UNITS)


def test_charges_and_what_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    arrays = {
        "natoms": [1, 1],
        "z": [2, 2],
        "pos": np.zeros((2, 3)),
        "total_charge": [0, 2],
        "dipole": np.zeros((2, 3)),
    }
    np.savez(path, **arrays, x_000=1.0, x_001=1.0)
    data = read_npz(path, energy_unit="eV", length_unit="angstrom")
    assert [s.charge for s in data.structures] == [0, 2]
    assert data.not_read == {"array dipole": 2, "arrays x_…": 2}
    np.savez(path, **{**arrays, "charge": [1, 2]})
    with pytest.raises(LabelValueError, match='"a-000000": charge is stated twice'):
        read_npz(path, energy_unit="eV", length_unit="angstrom")
