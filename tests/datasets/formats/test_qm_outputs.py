"""Outputs of Gaussian, ORCA and other programs: numbers, orientations, units and signs, checked within the files."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from foreign_files import (
    BOHR,
    HARTREE,
    checkpoint_text,
    engrad_text,
    gaussian_text,
    hess_text,
    known,
    of,
    orca_output,
)
from hesse.datasets import Dataset, Subset, check_dataset, read_dataset, sum_rule_errors
from hesse.errors import FileFormatError, HesseError, InconsistentLabelsError, RequestError, UnitError
from hesse.harmonic.normal_modes import normal_modes


@pytest.fixture(scope="module")
def data() -> Dataset:
    return known()


def require_same(back: Dataset, data: Dataset, *, digits: float = 1e-8, forces: bool = True) -> None:
    """Equal up to the digits of the file, in atomic units."""
    assert (back.structures[0].charge, back.structures[0].multiplicity) == (-1, 2)
    z, x, e, f, h = of(data, 0)
    assert back.labels.energy is not None
    np.testing.assert_array_equal(back.structures[0].numbers, z)
    np.testing.assert_allclose(back.structures[0].positions, x, atol=digits)
    assert float(back.labels.energy[0]) == pytest.approx(e, abs=2e-6 * HARTREE)
    if forces:
        assert back.labels.forces is not None
        np.testing.assert_allclose(back.labels.forces, f, atol=digits * HARTREE / BOHR)
    np.testing.assert_allclose(back.labels.hessian_of(0).reshape(h.shape), h, atol=digits * HARTREE / BOHR**2)


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["unix", "windows"])
@pytest.mark.parametrize("bar", [False, True], ids=["backslash", "bar"])
def test_gaussian_archive(tmp_path: Path, data: Dataset, newline: str, bar: bool) -> None:
    (tmp_path / "a.log").write_text(gaussian_text(data, newline=newline, bar=bar), newline="")
    back = read_dataset(tmp_path / "a.log")
    require_same(back, data)
    assert back.metadata["level"] == "B97D/6-31G(d)"
    assert back.structures[0].id == "a"


def test_several_jobs_in_one_output(tmp_path: Path, data: Dataset) -> None:
    optimization = gaussian_text(data).replace("\\Freq\\", "\\FOpt\\").replace("\\NImag=0", "")
    (tmp_path / "a.out").write_text(optimization + gaussian_text(data))
    assert [s.id for s in read_dataset(tmp_path / "a.out").structures] == ["a"]
    (tmp_path / "a.out").write_text(gaussian_text(data) + gaussian_text(data, 1))
    assert [s.id for s in read_dataset(tmp_path / "a.out").structures] == ["a-0", "a-1"]
    (tmp_path / "a.out").write_text(optimization)
    only = read_dataset(tmp_path / "a.out")
    assert only.labels.mask("energy").tolist() == [True]
    assert only.labels.hessian is None


def test_the_energy_of_an_excited_state_is_not_guessed(tmp_path: Path, data: Dataset) -> None:
    (tmp_path / "a.log").write_text(gaussian_text(data, route="#P B97D/6-31G(d) td(root=1) Freq"))
    back = read_dataset(tmp_path / "a.log")
    assert back.labels.energy is None
    assert "excited" in next(iter(back.not_read))


def test_checkpoint(tmp_path: Path, data: Dataset) -> None:
    (tmp_path / "a.fchk").write_text(checkpoint_text(data))
    back = read_dataset(tmp_path / "a.fchk")
    require_same(back, data)
    assert back.metadata["level"] == "B3LYP/6-31G(d)"


def test_orca(tmp_path: Path, data: Dataset) -> None:
    """Charge, multiplicity, the exact energy and the gradient come from other files in the same folder."""
    (tmp_path / "a.hess").write_text(hess_text(data))
    alone = read_dataset(tmp_path / "a.hess")
    assert alone.labels.forces is None
    assert "taken as 0 and 1" in next(iter(alone.not_read))
    (tmp_path / "a.out").write_text(orca_output(data))
    for name in ("a.hess", "a.out"):
        back = read_dataset(tmp_path / name)
        require_same(back, data, digits=1e-8)
        assert back.not_read == {}
        assert back.metadata["level"] == "PBE0 def2-SVP Freq"
    (tmp_path / "a.out").write_text(orca_output(data, gradient=False))
    assert read_dataset(tmp_path / "a.hess").labels.forces is None
    (tmp_path / "a.engrad").write_text(engrad_text(data))
    require_same(read_dataset(tmp_path / "a.hess"), data)
    # Files of another geometry are ignored.
    (tmp_path / "a.engrad").write_text(engrad_text(data, 1))
    (tmp_path / "a.out").write_text(orca_output(data, 1))
    other = read_dataset(tmp_path / "a.hess")
    assert other.labels.forces is None
    # An output without a Hessian file.
    (tmp_path / "b.out").write_text(orca_output(data))
    single = read_dataset(tmp_path / "b.out")
    assert single.labels.hessian is None
    assert single.labels.forces is not None
    np.testing.assert_allclose(single.labels.forces, of(data, 0)[3], atol=1e-7)


def test_wrong_signs_are_caught(tmp_path: Path, data: Dataset) -> None:
    text = checkpoint_text(data)
    place = text.index("Cartesian Gradient")
    end = text.index("Cartesian Force")
    lines = text[place:end].splitlines()
    flipped = [lines[0], *(" ".join(f"{-float(v):.8E}" for v in line.split()) for line in lines[1:])]
    (tmp_path / "a.fchk").write_text(text[:place] + "\n".join(flipped) + "\n" + text[end:])
    with pytest.raises(InconsistentLabelsError, match="--negate-forces"):
        read_dataset(tmp_path / "a.fchk")


def test_a_hessian_must_give_the_printed_frequencies(tmp_path: Path, data: Dataset) -> None:
    modes = normal_modes(data.structures[0], data.labels.hessian_of(0).numpy())
    for factor in (1.0, 1.1):
        table = " Frequencies -- " + " ".join(f"{f * factor:.4f}" for f in modes.frequencies) + "\n"
        text = gaussian_text(data).replace(" 1\\1\\", f"{table} 1\\1\\")
        (tmp_path / "a.log").write_text(text)
        if factor == 1.0:
            read_dataset(tmp_path / "a.log")
        else:
            with pytest.raises(InconsistentLabelsError, match=r"a\.log.*prints"):
                read_dataset(tmp_path / "a.log")


def test_folders(tmp_path: Path, data: Dataset) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.log").write_text(gaussian_text(data))
    (tmp_path / "sub" / "b.fchk").write_text(checkpoint_text(data, 1))
    (tmp_path / "sub" / "c.hess").write_text(hess_text(data, 2))
    (tmp_path / "sub" / "c.out").write_text(orca_output(data, 2))
    (tmp_path / "died.log").write_text(gaussian_text(data)[:500])
    (tmp_path / "notes.txt").write_text("not an output")
    back = read_dataset(tmp_path)
    assert [s.id for s in back.structures] == ["a", "sub/b", "sub/c"]
    assert back.metadata["level"] == "B3LYP/6-31G(d); B97D/6-31G(d); PBE0 def2-SVP Freq"
    assert len(back.not_read) == 1
    assert next(iter(back.not_read)).startswith("died.log: ")
    assert "did not end normally" in next(iter(back.not_read))
    assert [s.id for s in read_dataset(tmp_path, subset=Subset(match="sub/*")).structures] == ["sub/b", "sub/c"]
    with pytest.raises(UnitError, match="known units"):
        read_dataset(tmp_path, energy_unit="hartree")
    for name in ("a.log", "sub/b.fchk", "sub/c.hess", "sub/c.out"):
        (tmp_path / name).unlink()
    with pytest.raises(FileFormatError, match="none of 1 outputs could be read"):
        read_dataset(tmp_path)
    with pytest.raises(RequestError, match="no structure matches"):
        read_dataset(tmp_path, subset=Subset(match="x*"))


def test_invalid_files(tmp_path: Path, data: Dataset) -> None:
    pytest.importorskip("cclib")
    for name, text, words in (
        ("a.log", "nothing known\n", "not an output of a known program"),
        ("b.log", gaussian_text(data)[:-120], "did not end normally"),
        ("c.log", gaussian_text(data).replace("-1,2", "-1;2"), "unusual job"),
        ("d.fchk", checkpoint_text(data)[:900], "damaged|missing"),
        ("e.hess", hess_text(data)[:700], "damaged"),
        ("f.hess", hess_text(data).replace("$hessian\n9", "$hessian\n6"), "partial"),
        ("g.out", "\0\1\2" * 100, "binary"),
        ("h.out", orca_output(data)[:60], "did not end normally"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(FileFormatError, match=words):
            read_dataset(tmp_path / name)


# --- published outputs -----------------------------------------------------------------------------------------------

ISOTOPES = {1: 1.00782503207, 6: 12.0, 7: 14.0030740048, 8: 15.99491461956, 9: 18.99840322, 17: 34.96885268}
"""Masses of the most abundant isotopes (u), which these programs use."""


def jobs(shared_data: Path, tmp_path: Path) -> list[Path]:
    root = shared_data / "qc_freq"
    if not root.is_dir():
        pytest.skip("no outputs of frequency calculations")
    for archive in (root / "autode").glob("*.zip"):
        with zipfile.ZipFile(archive) as file:
            file.extractall(tmp_path)
    files = [*sorted(root.rglob("*")), *sorted(tmp_path.rglob("*"))]
    return [f for f in files if f.suffix in (".log", ".out", ".fchk", ".hess") and "MACOSX" not in str(f)]


def printed_frequencies(file: Path) -> np.ndarray | None:
    """The last table of modes, parsed independently of the reader."""
    text = file.read_text(errors="replace")
    if file.suffix == ".hess":
        lines = text.split("$vibrational_frequencies")[1].split("$")[0].split("\n")[2:]
        values = [float(line.split()[1]) for line in lines if line.strip()]
        return np.array([v for v in values if v != 0])
    matches = [float(w) for line in re.findall(r"^ Frequencies -- (.*)$", text, re.MULTILINE) for w in line.split()]
    return np.array(matches) if matches else None


def test_published_hessians_give_their_frequencies(shared_data: Path, tmp_path: Path) -> None:
    """Sum rules, printed frequencies, and (away from stationary points) the rotational sum rule of every Hessian."""
    compared, read, turned = 0, 0, 0
    for file in jobs(shared_data, tmp_path):
        try:
            data = read_dataset(file)
        except HesseError:
            continue
        if data.labels.hessian is None or (file.suffix == ".out" and file.with_suffix(".hess").exists()):
            continue
        read += 1
        structure, hessian = data.structures[0], data.labels.hessian_of(0).numpy()
        orca = file.with_suffix(".hess").exists()
        noise = 0.5 if orca else 0.1 if "nwchem" in file.name or "GAMESS" in str(file) else 5e-5
        assert np.abs(hessian.sum(2)).max() < noise, file
        turned += check_dataset(data)[0].status == "consistent"
        if data.labels.forces is not None:
            defect = sum_rule_errors(data.structures, data.labels)
            assert float(defect.hessian_rotation.nan_to_num(0.0).max()) < 0.6, file
        printed = printed_frequencies(file)
        if printed is None or len(structure) < 2:
            continue
        masses = [ISOTOPES[z] for z in structure.numbers.tolist()]
        ours = normal_modes(structure, hessian, masses=masses).frequencies
        if len(printed) > len(ours):  # the table occurs twice
            printed = printed[-len(ours) :]
        ours = ours[-len(printed) :]  # one program took a linear molecule for a bent one
        compared += 1
        np.testing.assert_allclose(ours, np.sort(printed), atol=3.0 if orca else 0.01, err_msg=str(file))
    assert (read, compared) >= (50, 45)
    assert turned >= 5


def test_published_energies_equal_those_in_the_text(shared_data: Path, tmp_path: Path) -> None:
    seen = 0
    for file in jobs(shared_data, tmp_path):
        if file.suffix not in (".log", ".out"):
            continue
        text = file.read_text(errors="replace")
        if "Gaussian, Inc." not in text or " Freq" not in text:
            continue
        try:
            data = read_dataset(file)
        except HesseError:
            continue
        double = re.findall(r"E\(B2PLYPD3\) =\s+(-?\d\.\d+D\+\d+)", text)
        single = re.findall(r"SCF Done:\s+E\([^)]*\) =\s+(-?\d+\.\d+)", text)
        # A single point at another level may follow.
        stated = np.array([float(e.replace("D", "e")) for e in (double or single)])
        assert data.labels.energy is not None
        assert np.abs(stated - float(data.labels.energy[0]) / HARTREE).min() < 2e-7, file
        seen += 1
    assert seen >= 35


def test_gradients_of_orca_are_slopes_of_its_energies(shared_data: Path, tmp_path: Path) -> None:
    """Outputs at displaced geometries: finite differences of energies give the gradients, with their sign."""
    jobs(shared_data, tmp_path)
    folder = tmp_path / "num_hess" / "numerical_hessian"

    def labels(name: str) -> tuple[np.ndarray, float, np.ndarray]:
        data = read_dataset(folder / f"{name}_orca.out")
        assert data.labels.energy is not None
        assert data.labels.forces is not None
        return data.structures[0].positions, float(data.labels.energy[0]), data.labels.forces.numpy()

    (x_plus, e_plus, f_plus), (x_minus, e_minus, f_minus) = labels("H2_0x+"), labels("H2_0x-")
    width = (x_plus - x_minus)[0, 0]
    _, _, f_middle = labels("H2")
    assert -(e_plus - e_minus) / width == pytest.approx(f_middle[0, 0], rel=1e-3)
    column = -(f_plus - f_minus)[:, 0] / width
    hessian = read_dataset(tmp_path / "num_hess" / "H2_hess_orca.hess").labels.hessian_of(0).numpy()
    np.testing.assert_allclose(column, hessian[0, 0, :, 0], rtol=2e-2)
