"""`hesse phonons`: files in and out, the numbers it writes, and replies to wrong options."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from typer.testing import CliRunner, Result

import hesse
from hesse.cli.app import app
from hesse.errors import HesseError, RequestError
from hesse.lattice.result_folders import check_result_folder

pytest.importorskip("phonopy", reason="needs phonopy")
pytest.importorskip("seekpath", reason="needs seekpath")

EMT = ("--engine", "ase:ase.calculators.emt:EMT")
POSCAR = "copper\n3.59\n0.0 0.5 0.5\n0.5 0.0 0.5\n0.5 0.5 0.0\nCu\n1\ndirect\n0 0 0\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "POSCAR").write_text(POSCAR)
    return tmp_path


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["phonons", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit | HesseError):
        raise result.exception
    return result


def test_from_a_poscar_to_bands_and_back(folder: Path) -> None:
    options = ("--supercell", "2", "2", "2", "--mesh", "6", "6", "6", "--temperature", "100", "--temperature", "300")
    done = run("POSCAR", *EMT, *options, "--out", "copper", "--labels", "labels.h5", "--json", "one.json", "--quiet")
    assert done.exit_code == 0, done.output
    assert "1 of 3 directions" in done.output
    assert "no imaginary modes" in done.output
    assert (folder / "copper" / "bands.png").stat().st_size > 10_000
    (row,) = json.loads((folder / "one.json").read_text())
    assert row["space_group"].startswith("Fm-3m")
    assert row["temperature"] == [100.0, 300.0]
    assert row["n_imaginary"] == 0
    direct = hesse.read_phonons(folder / "copper")
    np.testing.assert_allclose(row["free_energy"], direct.thermal([100, 300], (6, 6, 6)).free_energy, rtol=1e-6)
    assert hesse.read_dataset(folder / "labels.h5").labels.hvp is not None
    # Files of phonopy in, compared with themselves.
    again = run("copper", "--reference", "copper", "--mesh", "6", "6", "6", "--plot", "x.svg", "--json", "two.json")
    assert again.exit_code == 0, again.output
    (back,) = json.loads((folder / "two.json").read_text())
    assert back["reference"]["frequency_largest"] < 1e-6
    assert back["gamma"] == pytest.approx(row["gamma"], abs=1e-5)
    assert "<svg" in (folder / "x.svg").read_text()


def test_cell_and_supercell_of_phonopys_files(folder: Path) -> None:
    assert (
        run("POSCAR", *EMT, "--supercell", "2", "2", "1", "--out", "o", "--write", "params", "--quiet").exit_code == 0
    )
    done = run("o/phonopy_params.yaml", *EMT, "--displacement", "0.02", "--json", "x.json", "--quiet")
    assert done.exit_code == 0, done.output
    (row,) = json.loads((folder / "x.json").read_text())
    assert row["atoms_supercell"] == 4
    assert row["method"] == "displacements of 0.02 Å"
    text = run("POSCAR", *EMT, "--supercell-matrix", "-1 1 1 1 -1 1 1 1 -1", "--quiet")
    assert "supercell of 4 atoms" in text.output


SMALL = (*EMT, "--supercell", "1", "1", "1", "--mesh", "2", "2", "2", "--quiet")
ALUMINUM = POSCAR.replace("3.59", "4.05").replace("Cu", "Al")


@pytest.fixture(scope="module")
def aluminum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the phonons of aluminum."""
    folder = tmp_path_factory.mktemp("aluminum")
    (folder / "POSCAR").write_text(ALUMINUM)
    assert run(str(folder / "POSCAR"), *SMALL, "--out", str(folder / "o"), "--write", "params").exit_code == 0
    return folder


def test_results_of_another_crystal_are_not_replaced(folder: Path, aluminum: Path) -> None:
    shutil.copytree(aluminum / "o", folder / "o")
    stored = (folder / "o" / "phonopy_params.yaml").read_text()
    refused = run("POSCAR", *SMALL, "--out", "o", "--write", "params")
    words = r"o has results of another crystal \(.*: Al, space group 225, 16.6 Å³; now Cu,.*--overwrite"
    assert isinstance(refused.exception, RequestError)
    assert re.search(words, str(refused.exception))
    assert (folder / "o" / "phonopy_params.yaml").read_text() == stored
    done = run("POSCAR", *SMALL, "--out", "o", "--write", "params", "--overwrite")
    assert done.exit_code == 0, done.output
    assert "Cu" in (folder / "o" / "phonopy_params.yaml").read_text()


def test_what_counts_as_the_same_crystal(aluminum: Path, tmp_path: Path) -> None:
    names = ("phonopy_params.yaml",)
    own = hesse.as_structures(bulk("Al", a=4.05, cubic=True))[0]
    (tmp_path / "o").mkdir()
    for file in ((aluminum / "o" / ".crystal.json"), (aluminum / "o" / "phonopy_params.yaml")):
        check_result_folder(tmp_path / "o", hesse.as_structures(bulk("Cu"))[0], names)  # empty until now
        shutil.copy(file, tmp_path / "o" / file.name)
        for same in (own, hesse.as_structures(bulk("Al", a=4.2))[0]):
            check_result_folder(tmp_path / "o", same, names)
        for other in (bulk("Cu", a=4.05), bulk("Al", "bcc", a=3.2), bulk("Al", a=4.6)):
            with pytest.raises(RequestError, match=f"another crystal .{file.name}: Al, space group 225"):
                check_result_folder(tmp_path / "o", hesse.as_structures(other)[0], names)
        (tmp_path / "o" / file.name).unlink()


def test_pictures_alone_know_their_crystal(folder: Path, aluminum: Path) -> None:
    assert run("POSCAR", *SMALL, "--out", "o", "--write", "text").exit_code == 0
    for kind in ("text", "hdf5"):
        refused = run(str(aluminum / "o"), "--out", "o", "--write", kind)
        assert "o has results of another crystal (.crystal.json: Cu" in str(refused.exception)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--plot", "x.jpg"), "x.jpg: pictures are written as"),
        (("--temperature", "-5"), "not negative"),
        (("--mesh", "0", "2", "2"), "mesh"),
        (("--born", "missing"), "missing: there is no such BORN file"),
        (("--reference", "aluminum/o"), "another crystal: its primitive cell has Al, not Cu"),
        (("--reference", "nothing"), "nothing"),
        (("--out", "POSCAR"), "POSCAR is a file; expected a folder"),
        (("--json", "aluminum"), "ends in .json"),
    ],
)
def test_input_is_checked_before_the_work(
    folder: Path, aluminum: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    (folder / "aluminum").symlink_to(aluminum)
    monkeypatch.setattr("hesse.lattice.phonon_calculation.state_of", lambda *_, **__: pytest.fail("work first"))
    done = run("POSCAR", *EMT, "--supercell", "1", "1", "1", "--quiet", *arguments)
    assert isinstance(done.exception, HesseError), done.output
    assert words in str(done.exception)


def test_a_file_of_several_crystals(folder: Path) -> None:
    write(folder / "two.extxyz", [bulk("Cu", a=3.6), bulk("Cu", a=3.7)])
    done = run("two.extxyz", *EMT)
    assert "two.extxyz: expected one structure, got 2." in str(done.exception)
    assert "hesse convert two.extxyz one.extxyz --match " in str(done.exception)
    command = str(done.exception).partition("example: hesse ")[2].split()
    assert CliRunner().invoke(app, command).exit_code == 0
    assert len(hesse.read_dataset(folder / "one.extxyz")) == 1


@pytest.mark.slow
def test_volumes(folder: Path) -> None:
    done = run(
        "POSCAR", *EMT, "--supercell", "2", "2", "2", "--relax-cell", "--grueneisen", "--qha", "--mesh", "6", "6", "6",
        "--json", "x.json", "--quiet",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    (row,) = json.loads((folder / "x.json").read_text())
    assert 1.5 < row["grueneisen"][0] < 2.5
    assert row["quasiharmonic"][0]["temperature"] == 300.0
    assert 3e-5 < row["quasiharmonic"][0]["expansion"] < 7e-5  # measured: 5.0e-5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("POSCAR", "--supercell", "2", "2", "2"), "is a crystal structure: give an engine"),
        (("POSCAR", *EMT, "--supercell-matrix", "1 2 3"), "nine whole numbers"),
        (("POSCAR", *EMT, "--supercell-matrix", "1 0 0 0 1 0 0 0 1", "--supercell", "2", "2", "2"), "either"),
        (("POSCAR", *EMT, "--supercell", "0", "2", "2"), "volume"),
        (("POSCAR", *EMT, "--supercell", "1", "1", "1", "--write", "params"), "--out DIR"),
        (("POSCAR", "--qha"), "give an engine"),
        (("missing", *EMT), "no such file"),
        (("POSCAR", *EMT, "--supercell", "1", "1", "1", "--born", "missing"), "BORN"),
        (("POSCAR", *EMT, "--supercell", "1", "1", "1", "--labels", "labels.txt"), "labels.txt"),
        (("POSCAR", *EMT, "--supercell", "1", "1", "1", "--json", "POSCAR"), "POSCAR"),
        (("POSCAR", *EMT, "--supercell", "1", "1", "1", "--temperature=-3"), "temperature"),
        (("water.xyz", *EMT), "molecule"),
    ],
)
def test_wrong_options_get_a_reply(folder: Path, arguments: tuple[str, ...], words: str) -> None:
    (folder / "water.xyz").write_text("3\n\nO 0 0 0.119\nH 0 0.763 -0.477\nH 0 -0.763 -0.477\n")
    done = run(*arguments, "--quiet")
    assert done.exit_code != 0
    assert isinstance(done.exception, HesseError), done.output
    assert re.search(words, str(done.exception))
    assert (folder / "POSCAR").read_text() == POSCAR
