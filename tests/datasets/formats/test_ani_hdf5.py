"""Grouped HDF5: the four layouts, their units and signs, and reading a part of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from foreign_files import BOHR, HARTREE, known, of, write_openreact
from hesse.datasets import Dataset, FileUnits, Subset, check_dataset, iterate_grouped, read_dataset, read_grouped
from hesse.errors import (
    FileFormatError,
    GeometryError,
    InconsistentLabelsError,
    LabelShapeError,
    RequestError,
    UnitError,
    UnknownOptionError,
)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return known()


def test_openreact(tmp_path: Path, data: Dataset) -> None:
    write_openreact(tmp_path / "a.h5", data)
    back = read_dataset(tmp_path / "a.h5")
    assert [s.id for s in back.structures[:3]] == ["M0/000000", "M0/000001", "M1/000000"]
    assert [s.group for s in back.structures[:3]] == ["M0", "M0", "M1"]
    assert back.not_read == {"smiles": 3}
    assert "convention" in back.metadata["source_units"]
    for i in range(3):
        z, x, e, f, h = of(data, i)
        for got in (of(back, 2 * i), of(back, 2 * i + 1)):
            np.testing.assert_array_equal(got[0], z)
            np.testing.assert_array_equal(got[1], x)
            for ours, theirs in zip(got[2:], (e, f, h), strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-13)


def test_wrong_signs_and_units_are_reported(tmp_path: Path, data: Dataset) -> None:
    write_openreact(tmp_path / "a.h5", data)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        for group in file.values():
            group["forces"][...] *= -1
    with pytest.raises(InconsistentLabelsError, match="--negate-forces"):
        read_dataset(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        for group in file.values():
            group["forces"][...] *= -BOHR  # Hartree/Bohr, as quantum-chemistry programs print
            group["hessian"][...] *= BOHR**2
    with pytest.raises(InconsistentLabelsError, match=r"Bohr"):
        read_dataset(tmp_path / "a.h5")
    mended = read_dataset(
        tmp_path / "a.h5", energy_unit="hartree", forces_unit="hartree/bohr", curvature_unit="hartree/bohr^2"
    )
    np.testing.assert_allclose(of(mended, 0)[4], of(data, 0)[4])
    with pytest.raises(UnitError, match="--energy-unit hartree"):
        read_dataset(tmp_path / "a.h5", forces_unit="hartree/bohr")
    for wrong in ("hartree", "hartree/bohr^2", "x/bohr"):
        with pytest.raises(UnitError):
            FileUnits(forces=wrong)


def small(path: Path, **arrays: Any) -> Path:
    """One group `g` of water molecules."""
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            file[f"g/{name.replace('__', '.')}"] = value
    return path


WATER = np.array([8, 1, 1])
X = np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]])


def test_ani_1x(tmp_path: Path) -> None:
    """One array per level of theory, of which one is the default; NaN means a missing label."""
    f = np.random.default_rng(0).normal(size=(3, 3, 3))
    f[1, 0, 0] = np.nan
    columns = {
        "wb97x_dz.energy": np.array([-76.4, -76.3, np.nan]),
        "wb97x_dz.forces": f,
        "ccsd(t)_cbs.energy": np.array([np.nan, -76.35, np.nan]),
        "wb97x_dz.dipole": np.zeros((3, 3)),
    }
    path = small(tmp_path / "a.h5", atomic_numbers=WATER, coordinates=np.stack([X] * 3), **columns)
    back = read_dataset(path)
    assert back.labels.mask("energy").tolist() == [True, True, False]
    assert back.labels.mask("forces").tolist() == [True, False, True]
    assert back.labels.energy is not None
    assert float(back.labels.energy[0]) == pytest.approx(-76.4 * HARTREE)
    assert back.labels.forces is not None
    np.testing.assert_allclose(back.labels.forces[:3], f[0] * HARTREE)
    assert back.metadata["level"] == "wB97X/6-31G(d)"
    assert back.not_read == {"ccsd(t)_cbs.energy": 1, "wb97x_dz.dipole": 1}
    cc = read_dataset(path, rename={"ccsd(t)_cbs.energy": "energy"})
    assert cc.labels.mask("energy").tolist() == [False, True, False]
    assert not cc.labels.mask("forces").any()
    assert cc.metadata["level"] == "ccsd(t)_cbs"
    with pytest.raises(UnknownOptionError, match='Did you mean "energy"'):
        read_dataset(path, rename={"ccsd(t)_cbs.energy": "enrgy"})
    with h5py.File(path, "r+") as file:
        del file["g/wb97x_dz.energy"]
        file["g/hf_dz.energy"] = np.zeros(3)
    with pytest.raises(FileFormatError, match=r"several levels.*--rename 'ccsd\(t\)_cbs.energy=energy'"):
        read_dataset(path)


def test_transition1x(tmp_path: Path) -> None:
    """Units are eV; splits are links to the same groups, which are read once; ends of reactions are tagged."""
    with h5py.File(tmp_path / "t.h5", "w") as file:
        reaction = file.create_group("data/H2O/rxn7")
        for group, count in ((reaction, 4), (reaction.create_group("transition_state"), 1)):
            group["atomic_numbers"] = WATER
            group["positions"] = np.stack([X] * count)
            group["wB97x_6-31G(d).energy"] = np.full(count, -76.4 * HARTREE)
            group["wB97x_6-31G(d).forces"] = np.ones((count, 3, 3))
        file["train/H2O/rxn7"] = reaction
        file["test/other"] = h5py.SoftLink("/data/H2O/rxn7")
        file["away"] = h5py.ExternalLink("elsewhere.h5", "/x")
    back = read_dataset(tmp_path / "t.h5")
    assert [s.tag for s in back.structures] == [""] * 4 + ["transition_state"]
    assert {s.group for s in back.structures} == {"H2O/rxn7"}
    assert back.labels.energy is not None
    assert float(back.labels.energy[0]) == pytest.approx(-76.4 * HARTREE)
    assert back.labels.forces is not None
    assert float(back.labels.forces[0, 0]) == 1.0
    assert back.not_read == {"away (a link to another file)": 1}
    train = read_dataset(tmp_path / "t.h5", subset=Subset(match="train/*"))
    assert [s.id for s in train.structures] == [
        *(f"train/H2O/rxn7/{i:06d}" for i in range(4)),
        "train/H2O/rxn7/transition_state/000000",
    ]


def test_energies_in_another_unit_than_the_convention(tmp_path: Path) -> None:
    arrays = {"species": WATER, "coordinates": X[None], "forces": np.zeros((1, 3, 3))}
    path = small(tmp_path / "a.h5", energies=np.array([-76.4 * HARTREE]), **arrays)
    with pytest.raises(UnitError, match=r"total energies in ev.*--energy-unit ev"):
        read_dataset(path)
    back = read_dataset(path, energy_unit="eV")
    assert back.labels.energy is not None
    assert float(back.labels.energy[0]) == -76.4 * HARTREE
    # Energies of valence electrons only, or of formation, do not show their unit.
    assert len(read_dataset(small(tmp_path / "b.h5", energies=np.array([-5.07]), **arrays))) == 1


def test_padding_is_left_out(tmp_path: Path, data: Dataset) -> None:
    n, count = 6, len(data)
    z, x, h = np.zeros((count, n), dtype=int), np.zeros((count, n, 3)), np.zeros((count, 3 * n, 3 * n))
    e, f = np.zeros(count), np.zeros((count, n, 3))
    for i in range(count):
        zi, xi, ei, fi, hi = of(data, i)
        k = len(zi)
        z[i, :k], x[i, :k], e[i], f[i, :k], h[i, : 3 * k, : 3 * k] = zi, xi, ei, fi, hi
        z[i, k:] = -1
    path = small(tmp_path / "a.h5", species=z, coordinates=x, energies=e, gradient=-f, hessian=h)
    back = read_dataset(path, energy_unit="eV")  # an array called gradient is one
    for i in range(count):
        for ours, theirs in zip(of(back, i), of(data, i), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_only_the_subset_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = 50_000
    path = tmp_path / "big.h5"
    with h5py.File(path, "w") as file:
        for name in ("CH4", "H2O"):
            file[f"{name}/species"] = WATER
            file.create_dataset(f"{name}/coordinates", data=np.broadcast_to(X, (rows, 3, 3)), chunks=(1000, 3, 3))
            file[f"{name}/energies"] = np.arange(rows) * 1e-9 - 76.4
    read: list[int] = []
    plain = h5py.Dataset.__getitem__

    def counted(self: h5py.Dataset, key: Any, **options: Any) -> Any:
        result = plain(self, key, **options)
        read.append(np.size(result))
        return result

    monkeypatch.setattr(h5py.Dataset, "__getitem__", counted)
    first = read_grouped(path, subset=Subset(limit=10))
    assert len(first) == 10
    assert sum(read) < 500
    read.clear()
    sampled = read_grouped(path, subset=Subset(match="H2O/*", sample=20, seed=3))
    assert {s.group for s in sampled.structures} == {"H2O"}
    assert sum(read) < 20 * 64 * 10 + 100
    again = read_grouped(path, subset=Subset(match="H2O/*", sample=20, seed=3))
    assert [s.id for s in again.structures] == [s.id for s in sampled.structures]
    assert sampled.labels.energy is not None
    for s, e in zip(sampled.structures, sampled.labels.energy.tolist(), strict=True):  # rows and labels belong together
        assert e == pytest.approx((int(s.id[-6:]) * 1e-9 - 76.4) * HARTREE, abs=1e-12)


def test_iterate_in_chunks(tmp_path: Path, data: Dataset) -> None:
    write_openreact(tmp_path / "a.h5", data)
    parts = list(iterate_grouped(tmp_path / "a.h5", chunk=1))
    whole = read_grouped(tmp_path / "a.h5")
    assert [len(p) for p in parts] == [1] * 6
    assert [p.structures[0].id for p in parts] == [s.id for s in whole.structures]
    assert torch.equal(torch.cat([p.labels.energy for p in parts]), whole.labels.energy)
    check_dataset(whole)


def test_invalid_files(tmp_path: Path) -> None:
    good = {"species": WATER, "coordinates": X[None], "energies": np.array([-76.4])}
    for name, changes, kind, words in (
        ("a", {"species": None}, FileFormatError, "neither species nor atomic_numbers"),
        ("b", {"species": np.array([b"O", b"H", b"Xx"])}, GeometryError, '"Xx" is a dummy atom'),
        ("z", {"species": np.array([8, 0, 1])}, GeometryError, "ghost or dummy atom between others"),
        ("c", {"species": WATER[:2]}, FileFormatError, "for 1 geometries of 3 atoms"),
        ("d", {"energies": np.zeros(4)}, LabelShapeError, "fits no energy"),
        ("e", {"hessian": np.zeros((1, 8, 8))}, LabelShapeError, "fits no hessian"),
        ("f", {"coordinates": np.zeros((1, 3, 2))}, FileFormatError, "expected \\(geometries, atoms, 3\\)"),
        ("g", {"energies": np.array([b"a"])}, FileFormatError, "expected numbers"),
        ("h", {"coordinates": None}, FileFormatError, "not a Hesse data set"),
    ):
        arrays = {k: v for k, v in {**good, **changes}.items() if v is not None}
        with pytest.raises(kind, match=words):
            read_dataset(small(tmp_path / f"{name}.h5", **arrays))
    path = small(tmp_path / "ok.h5", **good)
    with pytest.raises(RequestError, match="no structure matches"):
        read_dataset(path, subset=Subset(match="nothing"))
    with pytest.raises(RequestError, match="from 1"):
        Subset(limit=0)
    # The header declares 100 GB; nothing is allocated.
    with h5py.File(path, "r+") as file:
        file.create_dataset("huge/coordinates", shape=(10**9, 4, 3), dtype="f8", chunks=(1000, 4, 3))
        file["huge/species"] = np.array([6, 1, 1, 1])
    with pytest.raises(FileFormatError, match="truncated or damaged"):
        read_dataset(path)


def test_subsets_by_pattern_and_wrong_arguments(tmp_path: Path, data: Dataset) -> None:
    write_openreact(tmp_path / "a.h5", data)
    for read in (read_dataset, read_grouped):
        assert [s.id for s in read(tmp_path / "a.h5", subset="M1/*").structures] == ["M1/000000", "M1/000001"]
        assert len(read(tmp_path / "a.h5", subset=None)) == 6
        with pytest.raises(RequestError, match=r"expected a Subset, .* got int"):
            read(tmp_path / "a.h5", subset=3)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"expected a FileUnits, .* got str"):
        read_grouped(tmp_path / "a.h5", units="hartree")  # type: ignore[arg-type]
