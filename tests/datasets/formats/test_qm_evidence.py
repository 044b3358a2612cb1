"""Labels of outputs count only if the job computed, converged and finished them, for the very molecule that is read."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from foreign_files import BOHR, HARTREE, checkpoint_text, engrad_text, gaussian_text, hess_text, known, orca_output
from hesse.datasets import Dataset, Subset, read_dataset
from hesse.datasets.formats.qm_result import QMResult
from hesse.errors import FileFormatError

DEUTERIUM = 2.01410177812


@pytest.fixture(scope="module")
def data() -> Dataset:
    return known()


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Dataset]:
    """Function that writes a text to a file and reads it."""

    def write_and_read(text: str, name: str = "a.log") -> Dataset:
        (tmp_path / name).write_text(text)
        return read_dataset(tmp_path / name)

    return write_and_read


def archive_edited(data: Dataset, edit: Callable[[str], str], route: str = "#P B97D/6-31G(d) Freq") -> str:
    """A Gaussian output whose archive block was edited before its lines were cut."""
    lines = gaussian_text(data, route=route).split("\n")
    body = edit("".join(line[1:] for line in lines[1:-3]))
    return "\n".join([lines[0], *[f" {body[k : k + 70]}" for k in range(0, len(body), 70)], *lines[-3:]])


def left_out(back: Dataset) -> str:
    return "; ".join(back.not_read)


# --- formatted checkpoint files --------------------------------------------------------------------------------------


def entry(name: str, values: list[float]) -> str:
    return f"{name:<40}   R   N={len(values):12d}\n" + "\n".join(f"{v:16.8E}" for v in values) + "\n"


def test_a_single_point_has_no_gradient_in_a_checkpoint(read: Callable[..., Dataset], data: Dataset) -> None:
    """Gaussian fills the gradient that it did not compute with zeros."""
    text = checkpoint_text(data).replace("Freq      ", "SP        ", 1)
    text = text[: text.index("Cartesian Gradient")] + entry("Cartesian Gradient", [0.0] * 9)
    for order in ("", f"{'Nuclear derivative order':<40}   I     {0:12d}\n"):
        back = read(text + order, "sp.fchk")
        assert back.labels.energy is not None
        assert back.labels.forces is None
        assert "gradient" in left_out(back)


def test_masses_in_a_checkpoint(read: Callable[..., Dataset], data: Dataset) -> None:
    standard = data.structures[0].atomic_masses.tolist()
    assert read(checkpoint_text(data) + entry("Real atomic weights", standard), "a.fchk").structures[0].masses is None
    other = [standard[0] + 1.0, *standard[1:]]
    masses = read(checkpoint_text(data) + entry("Real atomic weights", other), "a.fchk").structures[0].masses
    np.testing.assert_allclose(masses, other, atol=1e-6)


# --- Gaussian --------------------------------------------------------------------------------------------------------


def test_isotopes_of_an_archive(read: Callable[..., Dataset], data: Dataset) -> None:
    hydrogen = next(k for k, s in enumerate(data.structures) if 1 in s.numbers)
    index = data.structures[hydrogen].numbers.tolist().index(1)
    lines = gaussian_text(data, hydrogen).split("\n")
    body = "".join(line[1:] for line in lines[1:-3])
    for isotope in ("H(Iso=2)", "H(iso=2.0141018)"):
        atoms = iter(range(100))
        edited = re.sub(
            r"\\(\w+),(?=-?\d+\.\d{10},)",
            lambda m, atoms=atoms, isotope=isotope: f"\\{isotope if next(atoms) == index else m.group(1)},",
            body,
        )
        back = read("\n".join([lines[0], f" {edited}", *lines[-3:]]))
        masses = back.structures[0].masses
        assert masses is not None
        assert masses[index] == pytest.approx(DEUTERIUM, abs=1e-4)
        assert np.delete(masses, index).tolist() == np.delete(data.structures[hydrogen].atomic_masses, index).tolist()


def test_a_scan_is_named(read: Callable[..., Dataset], data: Dataset) -> None:
    with pytest.raises(FileFormatError, match="a scan: its archive lists several energies"):
        read(
            archive_edited(
                data, lambda body: re.sub(r"HF=[-\d.]+", "HF=-1.117,-1.116", body.replace("Freq", "Scan", 1))
            )
        )


def test_a_z_matrix_is_named(read: Callable[..., Dataset], data: Dataset) -> None:
    z_matrix = r"-1,2\\O\\H,1,r\\H,1,r,2,a\\\\r=0.96\\a=104.5\\\\Version"
    with pytest.raises(FileFormatError, match=r"as a Z-matrix.*\.fchk"):
        read(archive_edited(data, lambda body: re.sub(r"-1,2.*Version", z_matrix, body)))


@pytest.mark.parametrize(
    ("route", "words"),
    [
        ("IRC=(CalcFC)", "an IRC: run frequency jobs at the points"),
        ("Freq Test", "keyword Test: run it without"),
        ("Freq integral=(grid=ultrafine)\n  scf=tight IRC=\n (calcfc)", "an IRC"),
    ],
)
def test_jobs_that_write_no_archive_are_named(read: Callable[..., Dataset], route: str, words: str) -> None:
    text = f" Entering Gaussian System, Link 0=g16\n # HF/STO-3G {route}\n Normal termination of Gaussian 16\n"
    with pytest.raises(FileFormatError, match=f"ended normally but wrote none, as with .*{words}"):
        read(text)


def test_energies_of_an_unconverged_scf(read: Callable[..., Dataset], data: Dataset) -> None:
    text = gaussian_text(data).replace("\n", "\n Convergence criterion not met.\n SCF Done:  E(UB97D) = -1.0\n", 1)
    back = read(text)
    assert back.labels.energy is None
    assert "did not converge" in left_out(back)


@pytest.mark.parametrize(
    ("method", "values", "energy"),
    [
        ("UBD-FC", "\\MP2=-9.\\BD=-9.5", None),
        ("UCCD-FC", "\\MP2=-9.\\CCD=-9.5", None),
        ("UB2PLYPD3-FC", "", None),
        ("UB2PLYPD3-FC", "\\MP2=-9.25", -9.25),
        ("UDSDPBEP86", "", None),
        ("UPBE0DH-FC", "\\MP2=-9.25", -9.25),
        ("UPBEQIDH-FC", "", None),
        ("UMP2-FC", "", None),
        ("UCCSD(T)-FC", "\\MP2=-9.\\CCSD=-9.1\\CCSD(T)=-9.2", -9.2),
        ("UCCSD(T)-FC", "\\MP2=-9.\\CCSD=-9.1", None),
        ("ONIOM(MP2/6-31G(d):UFF)", "\\MP2=-9.", None),
    ],
)
def test_the_energy_must_be_of_the_method(
    read: Callable[..., Dataset], data: Dataset, method: str, values: str, energy: float | None
) -> None:
    """An archive lists the energies of lower methods too; none of them stands for that of the job."""
    back = read(archive_edited(data, lambda body: body.replace("UB97D", method).replace("\\RMSD", f"{values}\\RMSD")))
    assert back.labels.hessian is not None
    if energy is None:
        assert back.labels.energy is None
        assert "energy" in left_out(back)
    else:
        assert back.labels.energy is not None
        assert float(back.labels.energy[0]) == pytest.approx(energy * HARTREE, abs=1e-6)


@pytest.mark.parametrize(
    ("route", "words"),
    [
        ("#P B97D/6-31G(d) Freq Charge", "external point charges"),
        ("#P B97D/6-31G(d) charge=angstroms freq", "external point charges"),
        ("# B97D/6-31G(d) Freq Field=X+10", "external electric field"),
        ("#P B97D/6-31G(d) Freq pop=(mk,charge) density=current", ""),
    ],
)
def test_external_charges_and_fields(read: Callable[..., Dataset], data: Dataset, route: str, words: str) -> None:
    checkpoint = checkpoint_text(data).replace(
        f"{'Charge':<40}   I", f"{'Route':<40}   C   N=           5\n{route}\n{'Charge':<40}   I"
    )
    for text, name in ((gaussian_text(data, route=route), "a.log"), (checkpoint, "b.fchk")):
        if words:
            with pytest.raises(FileFormatError, match=words):
                read(text, name)
        else:
            assert read(text, name).not_read == {}


def test_charges_stated_in_the_text(read: Callable[..., Dataset], data: Dataset) -> None:
    """The route of a second job need not repeat the keyword."""
    with pytest.raises(FileFormatError, match="external point charges"):
        read(gaussian_text(data).replace("\n", "\n Self energy of the charges =       0.0149 a.u.\n", 1))
    for line in (
        f"{'Number of point charges in /Mol/':<40}   I     {3:12d}\n",
        entry("External E-field", [0.0, 0.0, 0.001, *[0.0] * 32]),
    ):
        with pytest.raises(FileFormatError, match="external"):
            read(checkpoint_text(data) + line, "a.fchk")


def test_the_energy_of_a_checkpoint_must_be_of_the_method(read: Callable[..., Dataset], data: Dataset) -> None:
    def energy_of(method: str, lines: str = "") -> Dataset:
        return read(checkpoint_text(data).replace("RB3LYP", method, 1) + lines, "a.fchk")

    second_order = f"{'MP2 Energy':<40}   R     {-9.0:22.15E}\n"
    assert energy_of("RB2PLYP", second_order).labels.energy is not None
    for back in (energy_of("RB2PLYP"), energy_of("RBD-FC", second_order), energy_of("ONIOM(B3LYP:UFF)")):
        assert back.labels.energy is None
        assert "energy" in left_out(back)


# --- ORCA ------------------------------------------------------------------------------------------------------------


def test_orca_must_end_and_converge(read: Callable[..., Dataset], data: Dataset) -> None:
    text = orca_output(data)
    with pytest.raises(FileFormatError, match="did not end normally"):
        read(text.replace("****ORCA TERMINATED NORMALLY****", ""), "a.out")
    back = read(re.sub(r"(FINAL SINGLE POINT ENERGY.*)", r"\1 (SCF not fully converged!)", text), "a.out")
    assert back.labels.energy is None
    assert back.labels.forces is None
    assert "did not converge" in left_out(back)


def test_ghosts_and_odd_rows_of_orca_are_refused(read: Callable[..., Dataset], data: Dataset) -> None:
    """A row of another form must not end the table: the rest of the molecule would be lost."""
    lines = orca_output(data, gradient=False).split("\n")
    second = lines.index("-" * 33) + 2
    for row, words in (
        (re.sub(r"^  (\S+)", r"  \1 :", lines[second]), "ghost atom"),
        ("  Q     0.500000     0.000000    0.000000    1.000000", "point charge"),
        ("  O   ************    0.000000    1.000000", "damaged"),
        ("  O     0.000000    1.000000", "three coordinates"),
    ):
        with pytest.raises(FileFormatError, match=words):
            read("\n".join([*lines[:second], row, *lines[second + 1 :]]), "a.out")


def test_excited_states_and_fields_of_orca(read: Callable[..., Dataset], data: Dataset, tmp_path: Path) -> None:
    """FINAL SINGLE POINT ENERGY of a TDDFT job may be that of an excited state."""
    text = orca_output(data).replace("\nFINAL", "\nTD-DFT/TDA EXCITED STATES (SINGLETS)\n\nFINAL")
    (tmp_path / "a.out").write_text(text)
    (tmp_path / "a.engrad").write_text(engrad_text(data))
    for content, name in ((text, "b.out"), (hess_text(data), "a.hess")):
        back = read(content, name)
        assert back.labels.energy is None
        assert back.labels.forces is None
        assert "excited states" in left_out(back)
    with pytest.raises(FileFormatError, match=r"external electric field \(EField\)"):
        read(orca_output(data).replace("\n", "\n|  2> %scf EField 0.0, 0.0, 0.01 end\n", 1), "c.out")


def test_point_charges_of_orca_are_refused(read: Callable[..., Dataset], data: Dataset, tmp_path: Path) -> None:
    text = orca_output(data).replace("\n", '\n|  2> %PointCharges "water.pc"\n', 1)
    with pytest.raises(FileFormatError, match="external point charges"):
        read(text, "a.out")
    for end in ("", "****ORCA TERMINATED NORMALLY****"):
        (tmp_path / "a.out").write_text(text.replace("****ORCA TERMINATED NORMALLY****", end))
        with pytest.raises(FileFormatError, match="external point charges"):
            read(hess_text(data), "a.hess")


def test_an_aborted_output_of_orca_gives_charge_and_multiplicity(
    read: Callable[..., Dataset], data: Dataset, tmp_path: Path
) -> None:
    text = orca_output(data).replace("****ORCA TERMINATED NORMALLY****", "")
    (tmp_path / "a.out").write_text(text)
    back = read(hess_text(data), "a.hess")
    assert (back.structures[0].charge, back.structures[0].multiplicity) == (-1, 2)
    assert back.labels.forces is None
    assert "did not end" in left_out(back)


def test_the_last_job_of_orca_counts(read: Callable[..., Dataset], data: Dataset) -> None:
    """Charge and multiplicity are those of the job whose geometry is read."""
    first = orca_output(data).replace("....   -1", "....    0").replace("....    2", "....    1")
    structure = read(first + orca_output(data), "a.out").structures[0]
    assert (structure.charge, structure.multiplicity) == (-1, 2)


def test_a_partial_hessian_of_orca_is_named(read: Callable[..., Dataset], data: Dataset) -> None:
    with pytest.raises(FileFormatError, match=r"a\.hess: a partial Hessian: of 2 of 3 atoms.*frozen"):
        read(hess_text(data).replace("$hessian\n9", "$hessian\n6"), "a.hess")


def test_heavy_hydrogen_in_a_hessian_file(read: Callable[..., Dataset]) -> None:
    """The masses that ORCA states are kept, and its frequencies are checked with them."""
    force_constant = 30.0  # eV/Å²
    hessian = np.kron([[1.0, -1.0], [-1.0, 1.0]], np.diag([0.0, 0.0, force_constant])) * BOHR**2 / HARTREE
    for mass, own in ((DEUTERIUM, True), (1.008, False)):
        # √(2k/m) for two equal masses; √(1 eV/Å²/u) is 521.4709 cm⁻¹.
        frequency = 521.4709 * np.sqrt(2.0 * force_constant / mass)
        rows = [f"{i} {' '.join(f'{v:.10f}' for v in row)}" for i, row in enumerate(hessian)]
        lines = ["$orca_hessian_file", "", "$hessian", "6", "0 1 2 3 4 5", *rows, "", "$vibrational_frequencies", "6"]
        lines += [*(f"{i} 0.0" for i in range(5)), f"5 {frequency:.3f}", "", "$atoms", "2"]
        lines += [f"H {mass} 0.0 0.0 0.0", f"H {mass} 0.0 0.0 1.4", "", "$end", ""]
        masses = read("\n".join(lines), "a.hess").structures[0].masses
        assert masses is None or masses.tolist() == [mass, mass]
        assert (masses is not None) == own


def test_one_geometry_in_several_jobs_is_one_group(read: Callable[..., Dataset], data: Dataset, tmp_path: Path) -> None:
    """A frequency job run twice must not be both trained on and tested."""
    twice = read(gaussian_text(data) + gaussian_text(data))
    assert [s.id for s in twice.structures] == ["a-0", "a-1"]
    assert len({s.group for s in twice.structures}) == 1
    different = read(gaussian_text(data) + gaussian_text(data).replace("-1,2", "0,1").replace("-1,2", "0,1"))
    assert len({s.group for s in different.structures}) == 2
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "other.log").write_text(gaussian_text(data, 1))
    (folder / "x.log").write_text(gaussian_text(data))
    (folder / "y.fchk").write_text(turned_checkpoint(data))
    groups = {s.id: s.group for s in read_dataset(folder).structures}
    assert groups == {"other": "other", "x": "x", "y": "x"}


def test_ids_of_jobs(read: Callable[..., Dataset], data: Dataset, tmp_path: Path) -> None:
    """Titles distinguish the jobs of one file if all differ; no two files or jobs get the same id."""
    titled = gaussian_text(data).replace("a title", "water")
    both = titled + gaussian_text(data, 1)
    assert read(both).ids == ("a:water", "a:a title")
    assert read(titled).ids == ("a",)
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, text in (
        ("a.log", gaussian_text(data)),
        ("a.fchk", checkpoint_text(data)),
        ("b.log", gaussian_text(data, 1) + gaussian_text(data, 2)),
        ("b-0.log", gaussian_text(data, 2)),
        ("c.log", both),
        ("c:water.log", titled),
    ):
        (folder / name).write_text(text)
    back = read_dataset(folder)
    assert set(back.ids) == {"a.log", "a.fchk", "b:0", "b:1", "b-0", "c-0", "c-1", "c:water"}
    group = dict(zip(back.ids, back.groups, strict=True))
    assert group["a.log"] == group["a.fchk"] == group["c-0"] == group["c:water"]
    assert group["b-0"] == group["b:1"] != group["b:0"] == group["c-1"]
    assert set(read_dataset(folder, subset=Subset(match="a.fchk")).ids) == {"a.fchk"}


def test_a_hessian_file_hides_only_outputs_of_orca(data: Dataset, tmp_path: Path) -> None:
    (tmp_path / "a.hess").write_text(hess_text(data))
    (tmp_path / "a.out").write_text(orca_output(data))
    (tmp_path / "a.log").write_text(gaussian_text(data, 1))
    assert set(read_dataset(tmp_path).ids) == {"a.hess", "a.log"}


def test_jobs_of_other_levels_are_named(read: Callable[..., Dataset], data: Dataset) -> None:
    """A single point that follows a frequency job is not read, and must not vanish silently."""
    single = archive_edited(data, lambda body: re.sub(r"NImag=0.*", r"\\\\@", body.replace("UB97D", "UM062X")))
    back = read(gaussian_text(data) + single)
    assert back.ids == ("a",)
    assert "other jobs (M062X/6-31G(d))" in left_out(back)
    assert read(gaussian_text(data) + single.replace("UM062X", "UB97D")).not_read == {}


def turned_checkpoint(data: Dataset) -> str:
    """A checkpoint file of a single point of the first molecule, in another orientation and order of atoms."""
    text = checkpoint_text(data).replace("Freq      ", "SP        ", 1)
    s = data.structures[0]
    turn = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    x = entry("Current cartesian coordinates", (s.positions[::-1] @ turn / BOHR).ravel().tolist())
    z = f"{'Atomic numbers':<40}   I   N={len(s):12d}\n{' '.join(map(str, s.numbers[::-1]))}\n"
    return text[: text.index("Atomic numbers")] + z + x + text[text.index("Total Energy") : text.index("Cartesian G")]


def test_a_partial_hessian_is_named(read: Callable[..., Dataset], data: Dataset) -> None:
    """Programs leave out frozen atoms, or leave their rows zero."""
    whole = checkpoint_text(data)
    start = whole.index("Cartesian Force Constants")
    of_two = entry("Cartesian Force Constants", [0.1] * 21)
    triangle = np.array([float(w) for w in whole[start:].split()[6:]])
    rows, columns = np.tril_indices(9)
    triangle[(rows >= 6) | (columns >= 6)] = 0.0
    for text in (of_two, entry("Cartesian Force Constants", triangle.tolist())):
        with pytest.raises(FileFormatError, match=r"a partial Hessian: .*2 of 3 atoms.*frozen"):
            read(whole[:start] + text, "a.fchk")

    def shorten(body: str) -> str:
        head, rest = body.split("NImag=0\\\\")
        return f"{head}NImag=0\\\\{','.join(['0.1'] * 21)}\\\\{rest.split(chr(92) * 2, 1)[1]}"

    with pytest.raises(FileFormatError, match=r"a partial Hessian: .*2 of 3 atoms"):
        read(archive_edited(data, shorten))


def test_an_atom_far_from_the_others_is_not_frozen() -> None:
    """Its rows are zero, too, but those of the other atoms add up to zero."""
    pair = np.kron([[1.0, -1.0], [-1.0, 1.0]], np.diag([0.3, 0.0, 0.0]))
    positions = np.array([[0.0, 0.0, 0.0], [0.8, 0.0, 0.0], [0.0, 90.0, 0.0]])

    def result(block: np.ndarray) -> QMResult:
        return QMResult(numbers=np.array([1, 1, 2]), positions=positions, hessian=np.pad(block, ((0, 3), (0, 3))))

    result(pair).to_labeled_structure("far")
    with pytest.raises(FileFormatError, match="a partial Hessian: of 2 of 3 atoms"):
        result(pair + 0.2 * np.eye(6)).to_labeled_structure("frozen")


def test_ghosts_of_gaussian_are_refused(read: Callable[..., Dataset], data: Dataset) -> None:
    for symbol in ("H-Bq", "Bq", "H(Fragment=2)-Bq", "X"):
        with pytest.raises(FileFormatError, match=r"ghost atom|dummy atom"):
            read(archive_edited(data, lambda body, s=symbol: re.sub(r"(-1,2\\)[A-Z][a-z]?,", rf"\g<1>{s},", body)))
    with pytest.raises(FileFormatError, match="ghost atom"):
        read(checkpoint_text(data) + entry("Nuclear charges", [1.0, 0.0, 1.0]), "a.fchk")
