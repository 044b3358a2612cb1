"""Outputs read with cclib: what counts, and what is left out because it is not certain to what it belongs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from foreign_files import BOHR, HARTREE, known, of, psi4_output, qchem_output
from hesse.datasets import Dataset, read_dataset
from hesse.errors import FileFormatError

pytest.importorskip("cclib")


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Dataset]:
    """Function that writes a text to a file and reads it."""

    def write_and_read(text: str, name: str) -> Dataset:
        (tmp_path / name).write_text(text)
        return read_dataset(tmp_path / name)

    return write_and_read


def left_out(back: Dataset) -> str:
    return "; ".join(back.not_read)


@pytest.mark.parametrize("output", [psi4_output, qchem_output])
def test_numbers_of_other_programs(read: Callable[..., Dataset], output: Callable[[Dataset], str]) -> None:
    data = known()
    back = read(output(data), "a.out")
    z, x, e, f, h = of(data, 0)
    assert (back.structures[0].charge, back.structures[0].multiplicity) == (-1, 2)
    np.testing.assert_array_equal(back.structures[0].numbers, z)
    np.testing.assert_allclose(back.structures[0].positions, x, atol=1e-9)
    assert back.labels.energy is not None
    assert float(back.labels.energy[0]) == pytest.approx(e, abs=1e-8)
    if output is psi4_output:
        assert back.labels.forces is not None
        np.testing.assert_allclose(back.labels.forces, f, atol=1e-9)
    else:
        np.testing.assert_allclose(back.labels.hessian_of(0).reshape(h.shape), h, atol=1e-5)
    assert back.not_read == {}


GHOST_ROWS = {
    "A Quantum Leap Into The Future Of Chemistry": "    2      GH     0.0000000000    0.0000000000    0.4000000000",
    "a quantum leap into the future of chemistry": " @H  0.000000    0.000000    0.400000",
    "Psi4: An Open-Source Ab Initio Electronic Structure Package": "    Gh(HE)    0.00000000   0.00000000   1.00000000",
    "Northwest Computational Chemistry Package": "    2 bqH    1.0000     0.00000000     0.00000000     0.90000000",
    "Amsterdam Density Functional": "   2  Gh.H    0.0000    0.0000    0.9000",
    "Jaguar": "  H2@       0.0000000000      0.0000000000      0.9000000000",
}


@pytest.mark.parametrize("title", GHOST_ROWS)
def test_ghosts_of_other_programs_are_refused(read: Callable[..., Dataset], title: str) -> None:
    with pytest.raises(FileFormatError, match=r"a\.out: .* is a ghost atom"):
        read(f" {title}\n{GHOST_ROWS[title]}\n", "a.out")


QCHEM = """                  Welcome to Q-Chem
     A Quantum Leap Into The Future Of Chemistry

 Q-Chem 5.1
$molecule
0 1
H 0 0 0
H 0 0 1.1
$end
$rem
jobtype opt
method hf
basis sto-3g
$end
"""


def qchem_geometry(half: float, symbol: str = "H") -> str:
    line = f" {'-' * 64}\n"
    head = (
        f"{line}             Standard Nuclear Orientation (Angstroms)\n    I     Atom           X        Y        Z\n"
    )
    rows = [(1, "H", -half), (2, symbol, half)]
    atoms = "".join(f"    {i}      {s:<3}     0.0000000000     0.0000000000    {z:14.10f}\n" for i, s, z in rows)
    return f"{head}{line}{atoms}{line}"


def qchem_energy(energy: float) -> str:
    return f" Total energy in the final basis set = {energy:.10f}\n"


def test_a_geometry_does_not_get_the_energy_of_the_one_before(read: Callable[..., Dataset]) -> None:
    """Q-Chem stopped after a new geometry was printed and before its energy was."""
    steps = QCHEM + qchem_geometry(0.55) + qchem_energy(-1.05) + qchem_geometry(0.4)
    with pytest.raises(FileFormatError, match="did not end normally"):
        read(steps, "cut.out")
    ended = " Total job time:  1.00s(wall), 1.00s(cpu)\n"
    with pytest.raises(FileFormatError, match="not of the last geometry"):
        read(steps + ended, "odd.out")
    whole = read(steps + qchem_energy(-1.1) + ended, "whole.out")
    assert whole.labels.energy is not None
    assert float(whole.labels.energy[0]) == pytest.approx(-1.1 * HARTREE, abs=1e-6)
    assert np.ptp(whole.structures[0].positions[:, 2]) == pytest.approx(0.8)


QCHEM_END = " Total job time:  1.00s(wall), 1.00s(cpu)\n"


def test_the_energy_of_a_second_level_is_not_that_of_the_first(read: Callable[..., Dataset]) -> None:
    """Two jobs for one geometry in one output: which energy belongs to the rest is not known."""

    def job(energy: float) -> str:
        return QCHEM + qchem_geometry(0.4) + qchem_energy(energy) + QCHEM_END

    with pytest.raises(FileFormatError, match="several for the last geometry"):
        read(job(-1.1) + job(-1.2), "two.out")
    assert read(job(-1.1) + job(-1.1 + 1e-8), "same.out").labels.energy is not None


def test_ghosts_and_fields_of_qchem(read: Callable[..., Dataset]) -> None:
    energy = qchem_energy(-1.1) + QCHEM_END
    with pytest.raises(FileFormatError, match="ghost atom"):
        read(QCHEM + qchem_geometry(0.4, "GH") + energy, "a.out")
    field = QCHEM + "$multipole_field\nX 0.01\n$end\n"
    with pytest.raises(FileFormatError, match="external electric field"):
        read(field + qchem_geometry(0.4) + energy, "a.out")


def test_the_charge_with_effective_core_potentials(read: Callable[..., Dataset]) -> None:
    """cclib subtracts electrons from atomic numbers, also where a potential stands for core electrons."""
    electrons = " Nuclear Repulsion Energy =  1.0 hartrees\n There are        8 alpha and        8 beta electrons\n"
    text = QCHEM + qchem_geometry(0.8, "I") + electrons + qchem_energy(-12.0) + QCHEM_END
    structure = read(text, "a.out").structures[0]
    assert (structure.charge, structure.multiplicity) == (0, 1)


def test_mass_weighted_hessians_of_nwchem(read: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch) -> None:
    """NWChem prints Hartree/Bohr² per 1000 u, which cclib hands on; HD along z, with the frequency of its spring."""
    import cclib

    masses = np.array([1.007825, 2.014102])
    spring = 0.37 * np.kron([[1.0, -1.0], [-1.0, 1.0]], np.diag([0.0, 0.0, 1.0]))
    roots = np.sqrt(np.repeat(masses, 3))
    # √(1 Hartree/Bohr²/u) is 5140.4871 cm⁻¹.
    frequency = 5140.4871 * np.sqrt(0.37 * (1.0 / masses).sum())
    record = SimpleNamespace(
        metadata={"package": "NWChem", "success": True},
        atomnos=[1, 1],
        atomcoords=[[[0.0, 0.0, 0.37], [0.0, 0.0, -0.37]]],
        atommasses=masses,
        charge=0,
        mult=1,
        scfenergies=[cclib.parser.utils.convertor(-1.17, "hartree", "eV")],
        hessian=1000.0 * spring / np.outer(roots, roots),
        vibfreqs=np.array([0.0, 0.0, 0.0, 0.0, 0.0, frequency]),
    )
    monkeypatch.setattr(cclib.io, "ccopen", lambda *_, **__: SimpleNamespace(parse=lambda: record))
    back = read("an output", "hd.out")
    np.testing.assert_allclose(back.labels.hessian_of(0).reshape(6, 6), spring * HARTREE / BOHR**2, rtol=1e-10)
    assert back.structures[0].masses is not None
    assert back.structures[0].masses.tolist() == masses.tolist()
    assert back.not_read == {}
    record.vibfreqs = 1.2 * record.vibfreqs  # of another Hessian than the one that cclib found
    doubtful = read("an output", "hd.out")
    assert doubtful.labels.hessian is None
    assert doubtful.labels.energy is not None
    assert "the Hessian (as cclib reads it" in left_out(doubtful)
    record.scfenergies = []
    record.vibfreqs = record.vibfreqs / 1.2
    assert "cclib finds none" in left_out(read("an output", "hd.out"))
    record.hessian = record.hessian[:3, :3]
    with pytest.raises(FileFormatError, match=r"a partial Hessian: of 1 of 2 atoms"):
        read("an output", "hd.out")
    record.hessian = np.ones(35)
    with pytest.raises(FileFormatError, match=r"35 elements where 2 atoms need 36"):
        read("an output", "hd.out")
    record.atomnos = [1, 0]
    with pytest.raises(FileFormatError, match=r"atom 1 of NWChem.*ghost or dummy"):
        read("an output", "hd.out")


def gamess_hessian(matrix: np.ndarray) -> str:
    """The table of GAMESS: blocks of two atoms, whose rows begin with their own."""
    lines = ["          CARTESIAN FORCE CONSTANT MATRIX", f"          {'-' * 31}", ""]
    for first in range(0, len(matrix), 6):
        lines += [
            "                                   1                          2",
            "                               C",
            "",
        ]
        for row in range(first, len(matrix)):
            head = f"{row // 3 + 1:3d}   C            " if row % 3 == 0 else " " * 19
            lines.append(f"{head:<19}{'XYZ'[row % 3]}" + "".join(f"{v:9.6f}" for v in matrix[row, first : first + 6]))
        lines.append("")
    return "\n".join(lines)


@pytest.mark.parametrize("i", [0, 1])
def test_hessians_of_gamess(read: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch, i: int) -> None:
    """cclib misplaces the columns of more than two atoms; an even and an odd number of atoms."""
    import cclib

    z, x, _, _, h = of(known(), i)
    matrix = h * BOHR**2 / HARTREE
    record = SimpleNamespace(
        metadata={"package": "GAMESS", "success": True},
        atomnos=z,
        atomcoords=[x],
        charge=0,
        mult=1,
        hessian=matrix * 0.0,
    )
    monkeypatch.setattr(cclib.io, "ccopen", lambda *_, **__: SimpleNamespace(parse=lambda: record))
    text = gamess_hessian(np.zeros_like(matrix)) + gamess_hessian(matrix)
    back = read(text, "a.out")
    np.testing.assert_allclose(back.labels.hessian_of(0).reshape(h.shape), h, atol=1e-6 * HARTREE / BOHR**2)
    start = text.rindex("MATRIX")
    for damaged in (text[:-200], text[:start] + text[start:].replace("0.", "**", 1), text[:-40].replace("Z", "Q")):
        with pytest.raises(FileFormatError, match="incomplete or damaged"):
            read(damaged, "a.out")


def test_charge_and_multiplicity_are_named_if_assumed(
    read: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    import cclib

    record = SimpleNamespace(
        metadata={"package": "Molpro"}, atomnos=[2], atomcoords=[[[0.0, 0.0, 0.0]]], scfenergies=[-78.0]
    )
    monkeypatch.setattr(cclib.io, "ccopen", lambda *_, **__: SimpleNamespace(parse=lambda: record))
    assert "taken as 0 and 1" in left_out(read("an output", "he.out"))
