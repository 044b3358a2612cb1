"""Interruption, bugs, a full standard output, and protection of inputs, for all verbs."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

import hesse
import hesse.datasets
from commands_in_process import exit_code
from hesse.datasets import Dataset, write_dataset
from hesse.models import Hipnn, HipnnConfig, save_model
from oracles import Morse, labeled, molecules


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data.h5"
    write_dataset(path, labeled(Morse(), molecules([3, 4], 0)))
    return path


def raising(error: BaseException) -> object:
    def read(*arguments: object, **options: object) -> Dataset:
        raise error

    return read


def test_the_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"hesse {hesse.__version__}\n"


def test_ctrl_c_prints_interrupted(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hesse.datasets, "read_dataset", raising(KeyboardInterrupt()))
    assert exit_code(monkeypatch, "info", file) == 1
    assert capsys.readouterr() == ("", "interrupted\n")


def test_a_bug_in_hesse_is_reported_as_one(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for defect in (ZeroDivisionError("oops"), OSError(errno.EIO, "Input/output error")):
        monkeypatch.setattr(hesse.datasets, "read_dataset", Mock(side_effect=defect))
        assert exit_code(monkeypatch, "info", file) == 1
        assert "defect in Hesse" in capsys.readouterr().err


def test_an_error_in_user_code_names_file_and_line(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_crash.py").write_text(
        "from hesse.models.adapters import CallablePotential\n"
        "def energy(positions, numbers, cell, pbc):\n"
        "    return positions @ positions[0, :2]\n"
        "def make(): return CallablePotential(energy)\n"
    )
    assert exit_code(monkeypatch, "evaluate", "python:my_crash:make", file, "--quiet") == 1
    err = capsys.readouterr().err
    assert "my_crash.py, line 3, in code that Hesse called" in err
    assert "defect in Hesse" not in err


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output(file: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "hesse", "info", str(file)], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.decode() == "WriteError: standard output: No space left on device\n"


def test_no_verb_overwrites_its_input(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model.hesse"
    torch.manual_seed(0)
    save_model(model, Hipnn(HipnnConfig(features=4, sensitivities=4, blocks=1, onsite_layers=1), (1, 6, 8)), {})
    before = file.read_bytes(), model.read_bytes()
    for words in (
        ("convert", file, file),
        ("label", file, file, "--engine", "ase:closed_form_engines:morse"),
        ("sample", "nms", file, file, "--engine", "ase:closed_form_engines:morse"),
    ):
        assert exit_code(monkeypatch, *words) == 2
        assert "this is an input" in capsys.readouterr().err
    for words in (
        ("info", file, "--json", file),
        ("evaluate", model, file, "--json", file),
        ("evaluate", model, file, "--json", model),
    ):
        assert exit_code(monkeypatch, *words) == 2
        assert "ends in .json" in capsys.readouterr().err
    assert (file.read_bytes(), model.read_bytes()) == before


@pytest.mark.parametrize(
    ("option", "code", "target"),
    [
        ((), 0, True),
        pytest.param(("--strict",), 2, False, marks=pytest.mark.slow),
        pytest.param(("--quiet",), 0, True, marks=pytest.mark.slow),
    ],
)
def test_what_is_not_read_is_said_once(tmp_path: Path, option: tuple[str, ...], code: int, target: bool) -> None:
    """One line in the words of Hesse, from a whole process; with --strict an error."""
    (tmp_path / "a.xyz").write_text("1\nProperties=species:S:1:pos:R:3:tags:I:1 my_key=1\nHe 0 0 0 1\n" * 2)
    done = subprocess.run(
        [sys.executable, "-m", "hesse", "convert", "a.xyz", "a.h5", *option],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code
    line = "a.xyz: not read: my_key (2 times), tags (2 times)"
    expected = {0: f"{line}\na.h5: 2 structures, 2 atoms\n", 2: f"FileFormatError: {line} (--strict)\n"}[code]
    assert done.stderr == ("" if "--quiet" in option else expected)
    assert (tmp_path / "a.h5").exists() == target
