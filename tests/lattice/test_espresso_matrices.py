"""Dynamical matrices of Quantum ESPRESSO: files made here from known force constants, and files of programs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.cell import Cell

import hesse
from hesse.errors import FileFormatError, RequestError
from hesse.lattice import Phonons, holds_phonons, read_cell, read_phonons
from hesse.lattice.bravais_cells import bravais_cell

pytest.importorskip("phonopy", reason="needs phonopy")

BOHR, RYDBERG, MASS = 0.52917721067, 13.605693009, 1 / 911.4442421  # Å, eV, u
THZ_PER_INVERSE_CM = 0.0299792458
HEADER = "Dynamical matrix file\n\n"


@pytest.fixture(scope="module")
def alloy() -> Phonons:
    """An ordered alloy whose cell is neither cubic nor upright, with atoms away from the origin."""
    atoms = Atoms("CuAu", cell=[[2.7, 0, 0.1], [0.2, 2.8, 0], [0, 0.1, 3.7]], pbc=True)
    atoms.set_scaled_positions([[0.1, 0.2, 0.3], [0.62, 0.7, 0.81]])
    return hesse.phonons(atoms, EMT(), supercell=(2, 1, 3))


def write(folder: Path, phonons: Phonons, *, every: int = 1, name: str = "dyn") -> list[Path]:
    """One file for each wave vector, as ph.x writes them, from the force constants of the supercell."""
    cell, atoms = phonons.structure.cell, phonons.structure
    constants, supercell = phonons.force_constants, phonons.supercell
    primitive = phonons.record.primitive
    alat = 7.0 * BOHR
    files = []
    for k, q in enumerate(phonons.commensurate[::every], start=1):
        offsets = supercell.positions - supercell.positions[primitive.s2p_map]
        phases = np.exp(2j * np.pi * np.rint(offsets @ np.linalg.inv(cell)) @ q)
        matrix = np.zeros((2, 2, 3, 3), dtype=complex)
        for j, site in enumerate(primitive.s2p_map):
            matrix[:, list(primitive.p2s_map).index(site)] += constants[:, j] * phases[j]
        matrix *= BOHR**2 / RYDBERG
        text = HEADER + "  2  2  0  7.0 0.0 0.0 0.0 0.0 0.0\nBasis vectors\n"
        text += "".join("".join(f"{x:19.12f}" for x in row / alat) + "\n" for row in cell)
        text += "".join(
            f"   {i + 1}  '{s}  '  {m / MASS:.10f}\n"
            for i, (s, m) in enumerate(zip(("Cu1", "Au"), atoms.atomic_masses, strict=True))
        )
        for i, row in enumerate(atoms.positions / alat):
            text += f"  {i + 1}  {i + 1} " + "".join(f"{x:19.12f}" for x in row) + "\n"
        cartesian = q @ np.linalg.inv(cell).T * alat
        text += "\n     Dynamical  Matrix in cartesian axes\n\n     q = ( " + " ".join(f"{x:.12f}" for x in cartesian)
        text += " )\n\n"
        for i in range(2):
            for j in range(2):
                text += f"    {i + 1}    {j + 1}\n"
                for row in matrix[i, j]:
                    text += "".join(f"{z.real:20.14f}{z.imag:20.14f}" for z in row) + "\n"
        files.append(folder / f"{name}{k}")
        files[-1].write_text(text + "\n     Diagonalizing the dynamical matrix\n")
    return files


def test_force_constants_survive(alloy: Phonons, tmp_path: Path) -> None:
    files = write(tmp_path, alloy)
    (tmp_path / "dyn0").write_text("2 1 3\n6\n")
    for source in (files[3], tmp_path / "dyn0", tmp_path):
        assert holds_phonons(source)
        found = read_phonons(source)
        np.testing.assert_allclose(found.structure.atomic_masses, alloy.structure.atomic_masses, rtol=1e-6)
        q = np.random.default_rng(0).uniform(-1, 1, (5, 3))
        np.testing.assert_allclose(found.frequencies(q), alloy.frequencies(q), atol=1e-4)
    structure, matrix = read_cell(files[0])
    assert np.array_equal(matrix, np.diag([2, 1, 3]))
    np.testing.assert_allclose(structure.positions, alloy.structure.positions, atol=1e-6)


def test_one_of_q_and_minus_q_is_enough(alloy: Phonons, tmp_path: Path) -> None:
    files = write(tmp_path, alloy)
    texts = {f: f.read_text() for f in files}
    halves = [f for f in files if re.search(r"q = \(.*-", texts[f]) is None]
    assert len(halves) < len(files)
    for file in set(files) - set(halves):
        file.unlink()
    np.testing.assert_allclose(read_phonons(tmp_path).gamma, alloy.gamma, atol=1e-4)


def test_sum_rule_can_be_imposed(alloy: Phonons, tmp_path: Path) -> None:
    files = write(tmp_path, alloy)
    text = files[0].read_text().splitlines(keepends=True)
    for k, line in enumerate(text):
        if line.split() == ["1", "1"]:  # a crystal that is tied to its place
            values = [float(w) for w in text[k + 1].split()]
            text[k + 1] = " ".join(f"{v + 0.01 * (i == 0):.14f}" for i, v in enumerate(values)) + "\n"
    files[0].write_text("".join(text))
    found = read_phonons(files[0])
    assert found.report.sum_rule > 0.01
    assert abs(found.gamma[:3]).max() > 0.02
    assert abs(np.sort(abs(found.symmetrized().gamma))[:3]).max() < 1e-3


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t[: len(t) * 2 // 3], "incomplete"),
        (lambda t: t.replace("Dynamical matrix file", "<?xml?>"), "does not begin with"),
        (lambda t: re.sub(r"('Cu1  ').*", r"\1", t), "mass of Cu is missing"),
        (lambda t: re.sub(r"('Cu1  ').*", r"\1 0.0", t), "mass of Cu is missing"),
        (lambda t: t.replace("Cu1", "Qq"), "no element"),
        (lambda t: t.replace("2  2  0  7.0", "2  2  9999  7.0"), "damaged|ibrav"),
        (lambda t: t.replace("2  2  0  7.0", "2  2  0  7.5"), "another crystal"),
        (lambda t: t.replace(" 0.", " x."), "damaged"),
        (lambda t: t.replace(" 0.", " nan ", 40), "damaged"),
        (lambda t: t.split("     Dynamical")[0], "no dynamical matrix"),
    ],
)
def test_damaged_files(alloy: Phonons, tmp_path: Path, damage: Callable[[str], str], message: str) -> None:
    files = write(tmp_path, alloy)
    files[1].write_text(damage(files[1].read_text()))
    with pytest.raises(FileFormatError, match=message):
        read_phonons(files[0])


def test_incomplete_grids(alloy: Phonons, tmp_path: Path) -> None:
    files = write(tmp_path, alloy)
    files[0].unlink()
    with pytest.raises(FileFormatError, match=r"1 of 6 wave vectors.*first at \[0\.0, 0\.0, 0\.0\]"):
        read_phonons(files[1])
    files[1].write_text(re.sub(r"q = \(.*\)", "q = ( 0.0123 0.1 0.2 )", files[1].read_text()))
    with pytest.raises(FileFormatError, match="no regular grid"):
        read_phonons(files[1])


def test_questions_of_which_files(alloy: Phonons, tmp_path: Path) -> None:
    write(tmp_path, alloy)
    files = write(tmp_path, alloy, name="other.dyn")
    with pytest.raises(FileFormatError, match=r"2 sets of dynamical matrices \(dyn\*, other.dyn\*\)"):
        read_phonons(tmp_path)
    with pytest.raises(RequestError, match="leave it out"):
        read_phonons(files[0], supercell=2)
    assert not holds_phonons(tmp_path / "missing1")


@pytest.mark.parametrize(
    ("number", "parameters", "name", "volume"),
    [
        (1, (2, 0, 0, 0, 0, 0), "CUB", 1),
        (2, (2, 0, 0, 0, 0, 0), "FCC", 1 / 4),
        (3, (2, 0, 0, 0, 0, 0), "BCC", 1 / 2),
        (-3, (2, 0, 0, 0, 0, 0), "BCC", 1 / 2),
        (4, (2, 0, 1.6, 0, 0, 0), "HEX", 1.6 * np.sqrt(0.75)),
        (5, (2, 0, 0, 0.3, 0, 0), "RHL", np.sqrt(1 - 3 * 0.09 + 2 * 0.027)),
        (6, (2, 0, 1.6, 0, 0, 0), "TET", 1.6),
        (7, (2, 0, 1.6, 0, 0, 0), "BCT", 1.6 / 2),
        (8, (2, 1.2, 1.6, 0, 0, 0), "ORC", 1.92),
        (9, (2, 1.2, 1.6, 0, 0, 0), "ORCC", 1.92 / 2),
        (-9, (2, 1.2, 1.6, 0, 0, 0), "ORCC", 1.92 / 2),
        (10, (2, 1.2, 1.6, 0, 0, 0), "ORCF", 1.92 / 4),
        (11, (2, 1.2, 1.6, 0, 0, 0), "ORCI", 1.92 / 2),
        (12, (2, 1.2, 1.6, 0.2, 0, 0), "MCL", 1.92 * np.sqrt(0.96)),
        (-12, (2, 1.2, 1.6, 0, 0.2, 0), "MCL", 1.92 * np.sqrt(0.96)),
        (13, (2, 1.2, 1.6, 0.2, 0, 0), "MCLC", 1.92 * np.sqrt(0.96) / 2),
        (14, (2, 1.2, 1.6, 0.1, 0.2, 0.3), "TRI", 1.92 * np.sqrt(1 + 0.012 - 0.14)),
    ],
)
def test_bravais_lattices(number: int, parameters: tuple[float, ...], name: str, volume: float) -> None:
    cell = bravais_cell(number, parameters)
    assert np.linalg.det(cell) == pytest.approx(volume)
    assert Cell(cell).get_bravais_lattice().name == name


@pytest.mark.parametrize("parameters", [(2, 0, 0, 0, 0, 0), (2, 0, 1, -0.6, 0, 0)])
def test_impossible_lattices(parameters: tuple[float, ...]) -> None:
    with pytest.raises(FileFormatError, match="no lattice with a volume"):
        bravais_cell(5 if parameters[3] else 4, parameters)


def _shared(shared_data: Path, name: str) -> Path:
    if not (shared_data / name).is_dir():
        pytest.skip(f"no reference data: shared/data/{name}")
    return shared_data / name


def _printed(file: Path) -> np.ndarray:
    words = re.findall(r"freq \(\s*\d+\)\s*=\s*(\S+)\s*\[THz", file.read_text())
    return np.sort([float(w) for w in words])


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("sscha/SnTe_ToyModel/hessian_T100_2", 3),
        ("sscha/SnTe_ToyModel/final_sscha_T300_1", 3),
        ("sscha/LaH10/dyn1", 1),
        pytest.param("sscha/TestPhononSupercell/dynmat0", 8, marks=pytest.mark.slow),
        pytest.param("qe_phonon_alas/alas.dyn0", 8, marks=pytest.mark.slow),
    ],
)
def test_frequencies_in_the_files(shared_data: Path, name: str, ends: int) -> None:
    from hesse.lattice.espresso_files import matrix_files, read_matrices

    file = _shared(shared_data, name.split("/")[0]).joinpath(*name.split("/")[1:])
    phonons, files = read_phonons(file, born=False), matrix_files(file)
    assert len(files) == ends
    q = read_matrices(file).q
    for each in files:
        nearest = np.abs(np.sort(phonons.frequencies(q), axis=1) - _printed(each)).max(axis=1).min()
        assert nearest < 5e-5


@pytest.mark.slow
def test_interpolated_frequencies_of_a_polar_crystal(shared_data: Path) -> None:
    """AlAs with Born charges against matdyn.x, which puts the broken sum rule on the atoms themselves."""
    folder = _shared(shared_data, "qe_phonon_alas")
    stored = read_phonons(folder / "alas.dyn1")
    record = stored.to_phonopy()
    constants = np.array(record.force_constants)
    for a, site in enumerate(record.primitive.p2s_map):
        constants[a, site] -= constants[a].sum(axis=0)
    record.force_constants = constants
    phonons = replace(stored, record=record)
    lines = (folder / "matdyn.freq").read_text().splitlines()[1:]
    expected = np.array([[float(w) for w in line.split()] for line in lines[1::2]])
    q = (
        np.array([[float(w) for w in line.split()] for line in lines[0::2]])
        @ (phonons.structure.cell / (10.5 * BOHR)).T
    )
    found = phonons.frequencies(q, direction=[1, 0, 0]) / THZ_PER_INVERSE_CM
    assert np.abs(found - expected).max() < 0.06
    on_grid = np.abs(q * 4 - np.rint(q * 4)).max(axis=1) < 1e-3
    assert on_grid.sum() == 3
    assert np.abs(found - expected)[on_grid].max() < 0.004
