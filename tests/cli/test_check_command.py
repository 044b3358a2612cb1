"""`hesse check`: table, rows, exit codes and error messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from commands_in_process import Run
from hesse.checks import CHECKS
from hesse.datasets import write_dataset
from hesse.models import Hipnn, HipnnConfig, save_model
from oracles import Morse, crystal, labeled, molecules

FAST = ("--only", "rotation", "--only", "cutoff", "--quiet")


def written(path: Path, **options: object) -> Path:
    torch.manual_seed(1)
    small = {"features": 4, "sensitivities": 4, "blocks": 1, "onsite_layers": 1, "cutoff": 4.0, "longest": 3.5}
    save_model(path, Hipnn(HipnnConfig(**{**small, **options}), (1, 6, 8)), {})  # type: ignore[arg-type]
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return written(tmp_path / "model.hesse")


@pytest.mark.slow
def test_a_model_that_passes(run: Run, model: Path, tmp_path: Path) -> None:
    target = tmp_path / "checks.json"
    code, out, err = run("check", model, "--no-compile", "--json", target, "--quiet")
    assert (code, err) == (0, "")
    rows = json.loads(target.read_text())
    assert [row["name"] for row in rows] == [c.name for c in CHECKS if c.name != "compile"]
    for row in rows:
        assert list(row) == ["name", "status", "value", "limit", "bound", "message"]
        assert row["status"] == "pass", row
        assert row["name"] in out
    assert out.endswith(f"{len(rows)} passed\n")


def test_a_failure_is_explained_and_exits_with_1(run: Run, tmp_path: Path) -> None:
    published = written(tmp_path / "published.hesse", cutoff_function="cosine")
    code, out, err = run("check", published, *FAST)
    assert (code, err) == (1, "")
    assert "FAILED cutoff: C¹: the curvature jumps by" in out
    assert "hesse.smooth.smooth_cutoff" in out
    assert out.endswith("1 passed, 1 failed\n")


def test_structures_of_a_file(run: Run, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "data.h5"
    write_dataset(file, labeled(Morse(), [*molecules([3, 4] * 10), crystal(0)]))
    code, out, err = run("check", model, "--structures", file, "--only", "periodic", "--only", "stress")
    assert code == 0
    assert "note: 16 of 21 structures are used" in err
    assert "2 passed" in out


def test_the_list_of_checks(run: Run, model: Path) -> None:
    for words in (("--list",), (model, "--list")):
        code, out, _ = run("check", *words)
        assert code == 0
        for check in CHECKS:
            assert f"{check.name}: {check.question}\n" in out


def test_a_check_without_a_model_is_refused(run: Run) -> None:
    code, _, err = run("check")
    assert code == 2
    assert "expected a MODEL" in err


def test_a_potential_of_a_user_module(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wells_of_mine.py").write_text(
        "from oracles import Morse\n\ndef make():\n    return Morse(cutoff=5.0)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    code, out, _ = run("check", "python:wells_of_mine:make", "--only", "hessian-symmetry", "--quiet")
    assert code == 0
    assert "1 passed" in out


@pytest.mark.parametrize(
    ("arguments", "reply"),
    [
        (("{folder}/none.hesse",), "no such model file"),
        (("{data}",), "this is HDF5: a data set?"),
        (("made:up.pt",), 'no potential "made:up.pt"'),
        (("{model}", "--only", "rotatoin"), 'Did you mean "rotation"?'),
        (("{model}", "--skip", "al"), 'no check "al"'),
        (("{model}", "--structures", "{folder}/none.h5"), "none.h5"),
        (("{model}", "--structures", "{fluorine}"), "holds F"),
        (("{model}", "--json", "{folder}/nowhere/checks.json"), "no folder"),
        (("{model}", "--json", "{model}"), "ends in .json"),
        (("{model}", "--device", "abacus"), 'device "abacus"'),
        (("{model}", "--dtype", "float8"), "float8"),
        ((), "MODEL"),
    ],
)
def test_wrong_requests_exit_with_2(
    run: Run, model: Path, tmp_path: Path, arguments: tuple[str, ...], reply: str
) -> None:
    data, fluorine = tmp_path / "data.h5", tmp_path / "fluorine.h5"
    write_dataset(data, labeled(Morse(), molecules([3])))
    write_dataset(fluorine, labeled(Morse(), molecules([3], elements=(9,))))
    names = {"model": model, "data": data, "fluorine": fluorine, "folder": tmp_path}
    before = model.read_bytes()
    code, out, err = run("check", *(a.format(**names) for a in arguments))
    assert code == 2
    assert reply in err
    assert out == ""
    assert model.read_bytes() == before


def test_an_empty_selection_is_refused(run: Run, model: Path) -> None:
    """An empty table and exit code 0 would look like success."""
    code, out, err = run("check", model, "--only", "rotation", "--skip", "rotation")
    assert code == 2
    assert "no check is left" in err
    assert not out
