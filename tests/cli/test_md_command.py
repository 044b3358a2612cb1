"""The verb `md`."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase.io import read, write

from commands_in_process import hesse
from hesse.errors import ConfigError, ExecutionError, FileFormatError, RequestError
from hesse.structures import Structure, to_ase

SHORT = ("--engine", "python:closed_form_engines:model", "--time", 0.05, "--step", 0.5, "--seeds", 2, "--quiet")


@pytest.fixture
def molecules(tmp_path):
    x = 1.1 / np.sqrt(8) * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    good, pair = Structure([6] * 4, x, id="four"), Structure([6, 6], [[0, 0, 0], [1.1, 0, 0]], id="pair")
    write(tmp_path / "in.extxyz", [to_ase(good), to_ase(pair)])
    close = Structure([6, 6], [[0, 0, 0], [0.4, 0, 0]], id="close")
    write(tmp_path / "close.extxyz", [to_ase(close)])
    return tmp_path


def test_trajectories_rows_and_figures(molecules) -> None:
    files = ("--json", "md.json", "--figure", "md.svg")
    done = hesse("md", "in.extxyz", "md.extxyz", *SHORT, "--stride", 50, *files, folder=molecules)
    assert done.exit_code == 0, done.stderr
    assert "md.extxyz: 4 replicas, 0 failed; 12 snapshots (python:closed_form_engines:model@" in done.stdout
    assert "surviving to the end: 1.00" in done.stdout
    assert "drift of the energy of survivors" in done.stdout
    rows = json.loads((molecules / "md.json").read_text())
    assert [row["id"] for row in rows] == ["four/seed-0", "four/seed-1", "pair/seed-0", "pair/seed-1"]
    assert all(row["survived"] and row["steps"] == 100 for row in rows)
    frames = read(molecules / "md.extxyz", ":")
    assert [len(a) for a in frames] == [4] * 6 + [2] * 6
    assert "surviving fraction" in (molecules / "md.svg").read_text()

    hot = ("--temperature", 30_000, "--figure", "hot.png", "--compare", "md.json", "--json", "hot.json")
    done = hesse("md", "in.extxyz", "hot.h5", *SHORT, *hot, folder=molecules)
    assert "4 failed" in done.stdout
    assert "half have failed after" in done.stdout
    assert "x bond length, such as" in done.stdout or "x collision, such as" in done.stdout
    assert "compared with " in done.stdout
    assert (molecules / "hot.png").read_bytes().startswith(b"\x89PNG")


def test_no_snapshots_are_no_file(molecules) -> None:
    done = hesse("md", "in.extxyz", "md.extxyz", *SHORT, "--stride", 0, folder=molecules)
    assert done.exit_code == 0, done.stderr
    assert "\n4 replicas, 0 failed; no snapshots (--stride 0) (python:closed_form_engines:model@" in f"\n{done.stdout}"
    assert "md.extxyz" not in done.stdout
    assert not (molecules / "md.extxyz").exists()


def test_a_ramp(molecules) -> None:
    ramp = ("--ramp", "jctc2025", "--ceiling", 10, "--interval", 0.02, "--figure", "r.svg")
    engine = ("--engine", "python:closed_form_engines:model", "--seeds", 1, "--quiet")
    done = hesse("md", "in.extxyz", "r.h5", *engine, *ramp, folder=molecules)
    assert "2 replicas, 0 failed" in done.stdout
    assert "temperature (K)" in (molecules / "r.svg").read_text()


def test_nothing_was_started(molecules) -> None:
    with pytest.raises(ExecutionError, match="no replica of 2 was started"):
        hesse("md", "close.extxyz", "md.h5", *SHORT, "--json", "md.json", folder=molecules)
    rows = json.loads((molecules / "md.json").read_text())
    assert [row["reason"] for row in rows] == ["not started"] * 2


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("--temperature", -1), ConfigError, "temperature"),
        (("--step", 0), ConfigError, "--step: expected a number of fs above 0, got 0"),
        (("--time", -1), ConfigError, "--time: expected a number of ps above 0, got -1"),
        (("--figure", "md.pdf"), RequestError, r"\.png or \.svg"),
        (("--json", "md.h5"), RequestError, r"ends in \.json"),
        (("--compare", "missing.json"), FileFormatError, "no such JSON"),
        (("--compare", "in.extxyz"), FileFormatError, "not the JSON of hesse md"),
    ],
)
def test_wrong_options_get_a_reply(molecules, arguments, error, words) -> None:
    with pytest.raises(error, match=words):
        hesse("md", "in.extxyz", "md.h5", *SHORT, *arguments, folder=molecules)
    assert sorted(p.name for p in molecules.iterdir()) == ["close.extxyz", "in.extxyz"]


def test_an_unknown_ramp(molecules) -> None:
    done = hesse("md", "in.extxyz", "md.h5", "--ramp", "slow", folder=molecules)
    assert done.exit_code == 2
    assert "jctc2025" in done.stderr
