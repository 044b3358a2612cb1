"""The verbs `saddle` and `irc`."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from ase.io import write
from typer.testing import CliRunner

import oracles
from hesse.cli.app import app
from hesse.datasets import read_dataset
from hesse.errors import ExecutionError, HesseError, RequestError, UnknownOptionError
from hesse.structures import Structure, to_ase

MORSE = ("--engine", "ase:closed_form_engines:morse", "--quiet")


def hesse(*arguments, folder):
    with contextlib.chdir(folder):
        done = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(done.exception, HesseError):
        raise done.exception
    return done


@pytest.fixture
def guesses(tmp_path):
    hopeless = Structure([6, 6, 6], [[0, 0, 0], [1.1, 0, 0], [0.55, 0.95, 0]], id="hopeless")
    write(tmp_path / "guesses.extxyz", [to_ase(oracles.rhombus(1)), to_ase(hopeless)])
    return tmp_path


def test_from_guesses_to_paths(guesses):
    done = hesse("saddle", "guesses.extxyz", "ts.h5", *MORSE, "--json", "saddles.json", "--steps", 60, folder=guesses)
    assert done.exit_code == 0, done.stderr
    assert "rhombus: " in done.stdout
    assert "ts.h5: 1 of 2 transition states" in done.stdout
    assert "hopeless: no transition state: " in done.stderr
    rows = json.loads((guesses / "saddles.json").read_text())
    assert [row["converged"] for row in rows] == [True, False]
    assert rows[0]["imaginary"] < 0
    assert rows[1]["reason"]
    tops = read_dataset(guesses / "ts.h5")
    assert tops.labels.hessian is not None
    assert tops.metadata["level"].startswith("MorseCalculator@")
    assert float(tops.labels.forces.norm(dim=-1).max()) < 0.005

    done = hesse("irc", "ts.h5", "path.extxyz", *MORSE, "--relax-ends", "--json", "paths.json", folder=guesses)
    assert done.exit_code == 0, done.stderr
    (row,) = json.loads((guesses / "paths.json").read_text())
    assert row["converged"]
    np.testing.assert_allclose(row["relaxed_ends"][0], row["relaxed_ends"][1], atol=1e-3)
    assert row["relaxed_ends"][0] == pytest.approx(-row["forward_drop"], abs=0.01)
    path = read_dataset(guesses / "path.extxyz")
    assert {s.tag for s in path.structures} == {"irc", "end"}
    assert len(path) == row["forward_points"] + row["backward_points"] + 1 + 2
    energies = path.labels.energy[: len(path) - 2].numpy()
    assert energies.argmax() == row["backward_points"]


def test_wrong_requests_change_nothing(guesses):
    (guesses / "ts.h5").write_text("mine")
    with pytest.raises(RequestError, match="--overwrite"):
        hesse("saddle", "guesses.extxyz", "ts.h5", *MORSE, folder=guesses)
    assert (guesses / "ts.h5").read_text() == "mine"
    with pytest.raises(UnknownOptionError):
        hesse("saddle", "guesses.extxyz", "out.h5", "--engine", "gfn7", "--quiet", folder=guesses)
    assert hesse("saddle", "guesses.extxyz", "out.h5", "--method", "newton", folder=guesses).exit_code == 2
    before = (guesses / "guesses.extxyz").read_bytes()
    for taken in ("guesses.extxyz", "out.h5"):
        with pytest.raises(HesseError):
            hesse("saddle", "guesses.extxyz", "out.h5", *MORSE, "--json", taken, folder=guesses)
    assert (guesses / "guesses.extxyz").read_bytes() == before
    with pytest.raises(ExecutionError, match="nothing was found"):
        hesse("irc", "guesses.extxyz", "out.h5", *MORSE, folder=guesses)
    assert not (guesses / "out.h5").exists()
