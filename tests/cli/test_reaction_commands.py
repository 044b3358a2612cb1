"""The verbs `saddle` and `irc`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase.io import write

import oracles
from commands_in_process import hesse
from hesse.cli.reaction_commands import _saddle_line, _saddle_summary
from hesse.datasets import read_dataset
from hesse.errors import ExecutionError, HesseError, RequestError, UnknownOptionError
from hesse.sampling import ReactionResult
from hesse.structures import Structure, to_ase

MORSE = ("--engine", "ase:closed_form_engines:morse", "--quiet")


@pytest.fixture
def guesses(tmp_path):
    hopeless = Structure([6, 6, 6], [[0, 0, 0], [1.1, 0, 0], [0.55, 0.95, 0]], id="hopeless")
    write(tmp_path / "guesses.extxyz", [to_ase(oracles.rhombus(1)), to_ase(hopeless)])
    return tmp_path


def test_from_guesses_to_paths(guesses):
    done = hesse("saddle", "guesses.extxyz", "ts.h5", *MORSE, "--json", "saddles.json", "--steps", 60, folder=guesses)
    assert done.exit_code == 0, done.stderr
    assert "rhombus: " in done.stdout
    assert "ts.h5: 1 of 2 transition states (MorseCalculator@" in done.stdout
    assert "hopeless: no transition state: " in done.stderr
    rows = json.loads((guesses / "saddles.json").read_text())
    assert [row["converged"] for row in rows] == [True, False]
    assert rows[0]["imaginary"] < 0
    assert rows[1]["reason"]
    assert 0.0 < rows[0]["rmsd"] < 0.3
    assert rows[0]["energy_change"] == pytest.approx(0.0, abs=0.2)
    assert set(rows[0]["mode_atoms"]) == {"C0", "C1", "C2", "C3"}
    assert (rows[0]["bonds_formed"], rows[0]["bonds_broken"]) == ([], [])
    assert " Å from the start, 0.0" in done.stdout
    assert "1 within 0.3 Å of the start; 0 with other bonds" in done.stdout
    # The last geometry of the search that failed is kept, and marked.
    (failed,) = read_dataset(guesses / "ts.failed.h5").structures
    assert (failed.id, failed.tag) == ("hopeless", "failed")
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


@pytest.mark.slow
def test_finished_searches_are_not_repeated(guesses):
    first = hesse("saddle", "guesses.extxyz", "ts.h5", *MORSE, "--json", "a.json", "--steps", 60, folder=guesses)
    assert "finished before" not in first.stdout
    journal = guesses / "ts.h5.searches.jsonl"
    assert len(journal.read_text().splitlines()) == 3
    # As after an interruption in the second search: its line is cut off, and there are no results.
    journal.write_bytes(journal.read_bytes()[:-50])
    for name in ("ts.h5", "ts.failed.h5"):
        (guesses / name).unlink()
    done = hesse("saddle", "guesses.extxyz", "ts.h5", *MORSE, "--json", "b.json", "--steps", 60, folder=guesses)
    assert "1 searches were finished before" in done.stdout
    assert json.loads((guesses / "a.json").read_text()) == json.loads((guesses / "b.json").read_text())
    tops = read_dataset(guesses / "ts.h5")
    assert tops.labels.hessian is not None
    # Other options are another search.
    done = hesse("saddle", "guesses.extxyz", "ts.h5", *MORSE, "--steps", 61, "--overwrite", folder=guesses)
    assert "finished before" not in done.stdout


def test_geometries_of_failed_searches_replace_nothing(guesses):
    (guesses / "ts.failed.h5").write_text("mine")
    with pytest.raises(RequestError, match="--overwrite"):
        hesse("saddle", "guesses.extxyz", "ts.h5", *MORSE, folder=guesses)
    assert (guesses / "ts.failed.h5").read_text() == "mine"
    (guesses / "guesses.extxyz").rename(guesses / "ts.failed.extxyz")
    with pytest.raises(RequestError):
        hesse("saddle", "ts.failed.extxyz", "ts.extxyz", *MORSE, "--overwrite", folder=guesses)


def test_how_far_a_search_went_is_told():
    row = {"id": "a", "converged": True, "energy": -5.0, "imaginary": -1234.0, "mode_atoms": ["H5", "C1"], "steps": 9}
    row |= {"hessians": 2, "rmsd": 0.9, "energy_change": -1.7, "bonds_formed": ["N2-H5"], "bonds_broken": ["C1-H5"]}
    row |= {"outside_training": True, "extrapolation": "C1 is far"}
    assert _saddle_line(row) == (
        "a: -5.000000 eV, imaginary mode 1234i cm⁻¹ (H5, C1), 9 steps, 2 Hessians; 0.90 Å from the start, 1.70 eV "
        "below it; bonds changed: N2-H5 formed, C1-H5 broken; outside the training data of the model: C1 is far"
    )
    summary = _saddle_summary(Path("ts.h5"), ReactionResult(None, (row,), ()))
    assert summary.splitlines() == [
        "ts.h5: 1 of 1 transition states",
        "  0 within 0.3 Å of the start; 1 with other bonds than the start",
        "  a saddle far from its start may belong to another reaction: look at its path (hesse irc)",
        "  1 of 1 last geometries are outside the training data of the model",
    ]
