"""`hesse convert` and `hesse info` on files of other programs: units, signs, subsets, unknown keys."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from commands_in_process import succeed as run
from foreign_files import BOHR, checkpoint_text, hess_text, known, of, write_deepmd, write_openreact
from hesse.datasets import Dataset, read_dataset
from hesse.errors import FileFormatError, InconsistentLabelsError, NotReadWarning, RequestError, UnitError


@pytest.fixture(scope="module")
def data() -> Dataset:
    return known()


def test_gradients_stored_as_forces(tmp_path: Path, data: Dataset) -> None:
    write_deepmd(tmp_path / "in", data, sign=-1.0, nopbc=False)
    with pytest.raises(InconsistentLabelsError, match="--negate-forces"):
        run("convert", tmp_path / "in", tmp_path / "a.h5")
    for option in ("--negate-forces", "--forces-are-gradients"):
        done = run("convert", tmp_path / "in", tmp_path / "a.h5", option, "--overwrite")
        assert "note: 3 of 3 frames in boxes" in done.stderr
        assert "Hessians agree with the forces: factor 1.000" in done.stderr
    np.testing.assert_array_equal(of(read_dataset(tmp_path / "a.h5"), 1)[3], of(data, 1)[3])


def test_derivatives_of_forces_stored_as_hessians(tmp_path: Path, data: Dataset) -> None:
    write_openreact(tmp_path / "a.h5", data)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        for group in file.values():
            group["hessian"][...] *= -1
    with pytest.raises(InconsistentLabelsError, match=r"multiplied by -1.*"):
        run("convert", tmp_path / "a.h5", tmp_path / "b.h5")
    words = ("convert", tmp_path / "a.h5", tmp_path / "b.h5", "--negate-curvature", "--sample", 3, "--seed", 1)
    with pytest.warns(NotReadWarning, match=r"a\.h5: not read: smiles \(3 times\)"):
        done = run(*words)
    assert "b.h5: 3 structures" in done.stderr
    back = read_dataset(tmp_path / "b.h5")
    index = int(back.structures[0].group[1:])
    np.testing.assert_allclose(of(back, 0)[4], of(data, index)[4])


def test_units_of_forces_and_curvature(tmp_path: Path, data: Dataset) -> None:
    write_openreact(tmp_path / "a.h5", data)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        for group in file.values():
            group["forces"][...] *= BOHR
            group["hessian"][...] *= BOHR**2
    with pytest.raises(InconsistentLabelsError, match=r"--forces-unit, --curvature-unit"):
        run("convert", tmp_path / "a.h5", tmp_path / "b.h5")
    units = ("--energy-unit", "Hartree", "--forces-unit", "hartree/bohr", "--curvature-unit", "hartree/bohr^2")
    run("convert", tmp_path / "a.h5", tmp_path / "b.h5", *units, "--match", "M2/*")
    np.testing.assert_allclose(of(read_dataset(tmp_path / "b.h5"), 0)[4], of(data, 2)[4])
    run("info", tmp_path / "a.h5", *units)
    with pytest.raises(UnitError, match="--forces-unit was given, but"):
        run("convert", tmp_path / "b.h5", tmp_path / "c.h5", "--forces-unit", "hartree/bohr")


def test_charge_and_multiplicity_options(tmp_path: Path, data: Dataset) -> None:
    (tmp_path / "a.hess").write_text(hess_text(data))
    with pytest.warns(NotReadWarning, match="charge and multiplicity are not stated"):
        run("convert", tmp_path / "a.hess", tmp_path / "a.h5", "--charge", -1, "--multiplicity", 2)
    back = read_dataset(tmp_path / "a.h5").structures[0]
    assert (back.charge, back.multiplicity) == (-1, 2)


def test_one_hessian_as_ase_vibrations(tmp_path: Path, data: Dataset) -> None:
    (tmp_path / "a.fchk").write_text(checkpoint_text(data))
    done = run("convert", tmp_path / "a.fchk", tmp_path / "a.json")
    assert "not written: energy, forces" in done.stderr
    run("info", tmp_path / "a.json", "--json", tmp_path / "card.json")
    card = json.loads((tmp_path / "card.json").read_text(encoding="utf-8"))
    assert (card["structures"], card["charged"]) == (1, 1)
    write_openreact(tmp_path / "b.h5", data)
    with pytest.raises(RequestError, match="one structure, got 6"):
        run("convert", tmp_path / "b.h5", tmp_path / "b.json")


def test_info_on_a_subset(tmp_path: Path, data: Dataset) -> None:
    write_openreact(tmp_path / "a.h5", data)
    shown = run("info", tmp_path / "a.h5", "--limit", 2).stdout
    assert "structures         2" in shown
    assert "smiles" in shown
    (tmp_path / "x.pt").write_bytes(b"\x80\x04")
    with pytest.raises(FileFormatError, match="runs any program"):
        run("info", tmp_path / "x.pt")


def test_a_charge_that_contradicts_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("1\ncharge=1 multiplicity=2\nHe 0 0 0\n")
    for option, value in (("--charge", 2), ("--multiplicity", 4)):
        with pytest.raises(RequestError, match="Leave the option out"):
            run("convert", tmp_path / "a.xyz", tmp_path / "a.h5", option, value)
    run("convert", tmp_path / "a.xyz", tmp_path / "a.h5", "--charge", 1)


def test_several_files_become_one(tmp_path: Path) -> None:
    for name, z in (("a", 0.7), ("b", 0.8)):
        (tmp_path / f"{name}.xyz").write_text(f"2\nh2\nH 0 0 0\nH 0 0 {z}\n1\n{name}1\nHe 0 0 0\n")
    done = run("convert", tmp_path / "a.xyz", tmp_path / "b.xyz", tmp_path / "all.h5")
    assert "2 structures have ids that occur in several files" in done.stderr
    assert read_dataset(tmp_path / "all.h5").ids == ("a/h2", "a1", "b/h2", "b1")
    with pytest.raises(RequestError, match="occurs twice"):
        run("convert", tmp_path / "a.xyz", tmp_path / "a.xyz", tmp_path / "twice.h5")
    assert not (tmp_path / "twice.h5").exists()
