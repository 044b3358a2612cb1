"""`hesse phonons`: files in and out, the numbers it writes, and replies to wrong options."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import hesse
from hesse.cli.app import app
from hesse.errors import HesseError

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
    import re

    (folder / "water.xyz").write_text("3\n\nO 0 0 0.119\nH 0 0.763 -0.477\nH 0 -0.763 -0.477\n")
    done = run(*arguments, "--quiet")
    assert done.exit_code != 0
    assert isinstance(done.exception, HesseError), done.output
    assert re.search(words, str(done.exception))
    assert (folder / "POSCAR").read_text() == POSCAR
