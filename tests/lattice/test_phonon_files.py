"""Phonons from files of phonopy and to them; Born charges; replies to files that do not fit."""

from __future__ import annotations

import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase.io import write as write_with_ase

import oracles
from hesse.errors import FileFormatError, HarmonicWarning, LabelShapeError, MissingLabelError, RequestError
from hesse.lattice import Phonons, compare_phonons, phonons, read_phonons
from hesse.structures import to_ase

sys.path.insert(0, str(Path(__file__).parent))
from closed_forms import argon_like, fcc, rock_salt

pytest.importorskip("phonopy", reason="needs phonopy")

Q = [[0.0, 0.0, 0.0], [0.5, 0.0, 0.5], [0.13, -0.27, 0.4]]
CHARGES = {"born": np.array([np.eye(3), -np.eye(3)]), "dielectric": 2.5 * np.eye(3)}


@pytest.fixture(scope="module")
def salt() -> Phonons:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HarmonicWarning)
        return phonons(rock_salt(), argon_like(), supercell=2)


@pytest.fixture
def folder(salt: Phonons, tmp_path: Path) -> Path:
    """A folder with phonopy_disp.yaml and FORCE_SETS, as phonopy's users have them."""
    from phonopy.file_IO import write_FORCE_SETS

    salt.record.save(
        tmp_path / "phonopy_disp.yaml", settings={"force_sets": False, "force_constants": False, "displacements": True}
    )
    write_FORCE_SETS(salt.record.dataset, filename=tmp_path / "FORCE_SETS")
    return tmp_path


def test_what_is_written_is_read(salt: Phonons, tmp_path: Path) -> None:
    salt.save(tmp_path / "phonopy_params.yaml")
    back = read_phonons(tmp_path)
    assert back.report.method == "force constants in the YAML file"
    np.testing.assert_allclose(back.frequencies(Q), salt.frequencies(Q), atol=1e-6)
    text, hdf5 = tmp_path / "text", tmp_path / "hdf5"
    for other in (text, hdf5):
        other.mkdir()
        salt.record.save(other / "phonopy_disp.yaml", settings={"force_sets": False, "force_constants": False})
    salt.save(text / "FORCE_CONSTANTS", "text")
    salt.save(hdf5 / "force_constants.hdf5", "hdf5")
    for path in (text, hdf5, hdf5 / "force_constants.hdf5"):
        np.testing.assert_allclose(read_phonons(path).frequencies(Q), salt.frequencies(Q), atol=1e-6)
    copy = salt.to_phonopy()
    copy.run_qpoints(Q)
    np.testing.assert_allclose(copy.qpoints.frequencies, salt.frequencies(Q), atol=1e-9)


def test_cells_of_programs_in_bohr_are_in_angstrom(salt: Phonons, tmp_path: Path) -> None:
    from phonopy import Phonopy
    from phonopy.physical_units import get_calculator_physical_units
    from phonopy.structure.atoms import PhonopyAtoms

    units, cell = get_calculator_physical_units("qe"), salt.record.unitcell
    length = units.distance_to_A
    record = Phonopy(
        PhonopyAtoms(
            numbers=cell.numbers, cell=cell.cell / length, scaled_positions=cell.scaled_positions, masses=cell.masses
        ),
        salt.record.supercell_matrix,
        primitive_matrix=salt.record.primitive_matrix,
        calculator="qe",
    )
    record.force_constants = np.array(salt.record.force_constants) * length / units.force_to_eVperA
    record.save(tmp_path / "phonopy_params.yaml", settings={"force_constants": True})
    back = read_phonons(tmp_path)
    for found, expected in ((back.structure, salt.structure), (back.primitive, salt.primitive)):
        np.testing.assert_allclose(found.cell, expected.cell, atol=1e-6)
        np.testing.assert_allclose(found.positions, expected.positions, atol=1e-6)
    np.testing.assert_allclose(back.frequencies(Q), salt.frequencies(Q), atol=1e-5)


def test_forces_of_displaced_supercells(salt: Phonons, folder: Path) -> None:
    for path in (folder, folder / "phonopy_disp.yaml", folder / "FORCE_SETS"):
        back = read_phonons(path)
        assert back.report.method == "forces of FORCE_SETS"
        assert back.report.n_displacements == 2
        np.testing.assert_allclose(back.frequencies(Q), salt.frequencies(Q), atol=1e-4)


def test_a_poscar_needs_its_supercell(salt: Phonons, folder: Path) -> None:
    (folder / "phonopy_disp.yaml").unlink()
    write_with_ase(folder / "POSCAR-unitcell", to_ase(rock_salt()), format="vasp", direct=True)
    with pytest.raises(RequestError, match="--supercell"):
        read_phonons(folder)
    np.testing.assert_allclose(read_phonons(folder, supercell=2).frequencies(Q), salt.frequencies(Q), atol=2e-3)
    with pytest.raises(FileFormatError, match="54 atoms"):
        read_phonons(folder, supercell=3)
    (folder / "POSCAR-unitcell").unlink()
    with pytest.raises(FileFormatError, match="POSCAR-unitcell"):
        read_phonons(folder, supercell=2)


def test_born_charges_split_optical_modes(salt: Phonons, folder: Path) -> None:
    polar = salt.with_born(CHARGES)
    assert polar.polar
    assert not salt.polar
    along = polar.frequencies([0.0, 0.0, 0.0], direction=[0, 0, 1])
    transverse = salt.frequencies([0.0, 0.0, 0.0])[-1]
    # ω_LO² − ω_TO² = Z² e² / (ε0 ε∞ V μ), of a cubic diatomic crystal.
    volume = abs(np.linalg.det(salt.primitive.cell))
    reduced = 1.0 / (1.0 / salt.primitive.atomic_masses).sum()
    plasma = 15.633302**2 * 4 * np.pi * 14.399645 / (2.5 * volume * reduced)
    assert along[-1] ** 2 == pytest.approx(abs(transverse) * transverse + plasma, rel=1e-4)
    (folder / "BORN").write_text("14.399645\n2.5 0 0 0 2.5 0 0 0 2.5\n1 0 0 0 1 0 0 0 1\n-1 0 0 0 -1 0 0 0 -1\n")
    back = read_phonons(folder)
    assert back.polar
    np.testing.assert_allclose(back.frequencies([0, 0, 0], direction=[0, 0, 1]), along, atol=1e-3)
    assert not read_phonons(folder, born=False).polar
    for text in ("14.4\n2.5 0 0 0 2.5 0 0 0 2.5\n1 0 0 0 1 0 0 0 1\n", "14.4\n", "charges\nof another\ncrystal\n"):
        (folder / "BORN").write_text(text)
        with pytest.raises(FileFormatError, match="the 2 symmetry-distinct atoms of 2"):
            read_phonons(folder)
    with pytest.raises(LabelShapeError, match=r"\(2, 3, 3\)"):
        salt.with_born({"born": np.zeros((3, 3, 3)), "dielectric": np.eye(3)})
    with pytest.raises(RequestError, match="dielectric"):
        salt.with_born({"born": np.zeros((2, 3, 3))})
    with pytest.raises(FileFormatError, match="no such BORN file"):
        salt.with_born(folder / "missing")


def test_files_that_do_not_fit_get_a_reply(salt: Phonons, folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    with pytest.raises(FileFormatError, match="cells are unknown"):
        read_phonons(other)
    shutil.copy(folder / "phonopy_disp.yaml", other)
    with pytest.raises(MissingLabelError, match="--engine"):
        read_phonons(other)
    (other / "FORCE_CONSTANTS").write_text("1 1\n1 1\n1 0 0\n0 1 0\n0 0 1\n")
    with pytest.raises(LabelShapeError, match="between 1 and 1 atoms, but the supercell has 16"):
        read_phonons(other)
    lines = (folder / "FORCE_SETS").read_text().splitlines()
    for text in ("\n".join(lines[:10]), "forces", "\n".join(["54", *lines[1:]])):
        (folder / "FORCE_SETS").write_text(text)
        with pytest.raises((FileFormatError, LabelShapeError), match="FORCE_SETS"):
            read_phonons(folder)
    (other / "FORCE_CONSTANTS").unlink()
    content = yaml.safe_load((folder / "phonopy_disp.yaml").read_text())
    for cell in ("unit_cell", "primitive_cell", "supercell"):
        for point in content.get(cell, {"points": []})["points"]:
            point["symbol"] = point["symbol"].replace("Na", "Po")  # phonopy has no mass of polonium
            point.pop("mass", None)
    (other / "phonopy_disp.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(FileFormatError, match="mass"):
        read_phonons(other)
    with pytest.raises(FileFormatError, match="no such file"):
        read_phonons(folder / "phonopy_missing.yaml")


def test_comparison_with_a_reference(salt: Phonons) -> None:
    same = compare_phonons(salt, salt, mesh=(4, 4, 4))
    assert same.largest == pytest.approx(0.0, abs=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HarmonicWarning)
        stiff = phonons(rock_salt(), oracles.LennardJones(epsilon=0.6, sigma=2.55, cutoff=4.5), supercell=2)
        aluminum = phonons(fcc(), argon_like(), supercell=2)
    row = compare_phonons(stiff, salt, temperatures=[300.0], mesh=(4, 4, 4)).row()
    largest = max(abs(salt.mesh((4, 4, 4))[2].max()), abs(salt.mesh((4, 4, 4))[2].min()))
    assert row["frequency_largest"] == pytest.approx(largest, rel=1e-3)  # twice the frequencies: four times as stiff
    with pytest.raises(RequestError, match="another crystal"):
        compare_phonons(salt, aluminum)
