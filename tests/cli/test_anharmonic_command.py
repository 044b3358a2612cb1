"""`hesse anharmonic`: files of several temperatures, and replies to wrong options before any work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from hesse.cli.app import app
from hesse.errors import HesseError

pytest.importorskip("phonopy", reason="needs phonopy")
pytest.importorskip("seekpath", reason="needs seekpath")

from hesse.lattice import Anharmonic, AnharmonicRound, Phonons

EMT = ("--engine", "ase:ase.calculators.emt:EMT")
POSCAR = "copper\n3.59\n1 0 0\n0 1 0\n0 0 1\nCu\n4\ndirect\n0 0 0\n0.5 0.5 0\n0.5 0 0.5\n0 0.5 0.5\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "POSCAR").write_text(POSCAR)
    (tmp_path / "other.vasp").write_text(POSCAR.replace("Cu", "Al").replace("3.59", "4.05"))
    return tmp_path


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["anharmonic", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit | HesseError):
        raise result.exception
    return result


def test_several_temperatures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def draw(path: Path, phonons: object, **options: object) -> None:
        path.write_text(f"{options['label']} {list(options['further'])} {options['reference_label']}")  # type: ignore[call-overload]
        drawn.append(path.name)

    def compute(start: Phonons, engine: str, kelvin: float, **_: object) -> Anharmonic:
        errors = np.zeros((len(start.commensurate), 12))
        return Anharmonic(kelvin, start, start, 0.0, 0.0, errors, 16, (AnharmonicRound(1, 16.0, 0.0, 1.0),), True)

    monkeypatch.setattr("hesse.reports.phonon_figure.draw_phonons", draw)
    monkeypatch.setattr("hesse.lattice.anharmonic", compute)
    options = ("--supercell", "1", "1", "1", "--quiet")
    temperatures = ("--temperature", "100", "--temperature", "300")
    done = run("POSCAR", *EMT, *options, *temperatures, "--out", "o", "--plot", "b.svg")
    assert done.exit_code == 0, done.output
    assert drawn == ["b.svg", "bands_anharmonic.png"]
    assert (folder / "b.svg").read_text() == "100 K ['300 K'] harmonic"
    assert {"phonopy_params_100K.yaml", "phonopy_params_300K.yaml"} <= {path.name for path in (folder / "o").iterdir()}
    refused = run("other.vasp", *EMT, *options, "--out", "o")
    assert "o has results of another crystal (.crystal.json: Cu, space group 225" in str(refused.exception)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("POSCAR", *EMT, "--plot", "x.jpg"), "x.jpg: pictures are written as"),
        (("POSCAR", *EMT, "--snapshots", "8"), "snapshots: expected an even number of at least 16, got 8"),
        (("missing", *EMT, "--snapshots", "8"), "missing: there is no such file"),
        (("POSCAR", *EMT, "--tolerance=-1"), "tolerance: expected a positive number of THz, got -1"),
        (("POSCAR", *EMT, "--out", "other.vasp"), "other.vasp is a file; expected a folder"),
        (("POSCAR", "--ensemble", "frames.extxyz"), "POSCAR is a crystal structure: with --ensemble CRYSTAL has to be"),
    ],
)
def test_input_is_checked_before_the_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.setattr("hesse.lattice.phonon_calculation.state_of", lambda *_, **__: pytest.fail("work first"))
    done = run(*arguments, "--quiet")
    assert isinstance(done.exception, HesseError), done.output
    assert words in str(done.exception)
