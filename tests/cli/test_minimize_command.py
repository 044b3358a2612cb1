"""The verbs `minimize` and `neb`, and what follows them: `saddle --from-path`, `irc`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import write

import closed_form_engines
import hesse as package
import oracles
from commands_in_process import hesse, invoke
from hesse.datasets import read_dataset
from hesse.errors import ConfigError, ExecutionError, RequestError
from hesse.sampling import follow_paths, search_minima, search_saddles
from hesse.structures import Structure, to_ase

MORSE = ("--engine", "ase:closed_form_engines:morse", "--quiet")
TETRAHEDRON = np.array([[0.55, 0, -0.39], [-0.55, 0, -0.39], [0, 0.55, 0.39], [0, -0.55, 0.39]])
SQUARE = 1.05 * np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]])


@pytest.fixture
def structures(tmp_path: Path) -> Path:
    frames = [Structure([6] * 4, SQUARE, id="square"), oracles.molecule(3, 1, name="chain")]
    crowded = Structure([1, 1], [[0, 0, 0], [0, 0, 0.1]], id="crowded")
    write(tmp_path / "in.extxyz", [to_ase(s) for s in (*frames, crowded)])
    return tmp_path


def test_many_structures_are_relaxed_and_failures_told(structures):
    done = hesse("minimize", "in.extxyz", "min.h5", *MORSE, "--json", "rows.json", folder=structures)
    assert done.exit_code == 0, done.stderr
    assert "min.h5: 2 of 3 structures relaxed (MorseCalculator@" in done.stdout
    assert "crowded: not relaxed: " in done.stderr
    rows = json.loads((structures / "rows.json").read_text())
    assert [row["converged"] for row in rows] == [True, True, False]
    assert set(rows[0]) >= {"id", "energy", "fmax", "steps", "converged", "reason"}
    found = read_dataset(structures / "min.h5")
    assert [s.id for s in found.structures] == ["square", "chain"]
    assert float(found.labels.forces.norm(dim=-1).max()) < 0.005
    again = hesse("minimize", "in.extxyz", "min.h5", *MORSE, "--overwrite", folder=structures)
    assert "2 searches were finished before" in again.stdout


def test_false_imaginary_modes_are_removed(structures):
    done = hesse("minimize", "in.extxyz", "min.h5", *MORSE, "--remove-imaginary", "--json", "a.json", folder=structures)
    assert "1 were displaced along an imaginary mode" in done.stdout
    square, chain, _ = json.loads((structures / "a.json").read_text())
    assert (square["n_imaginary"], chain["rounds"]) == (0, 0)
    assert square["rounds"] >= 1
    assert square["lowest_frequency"] > 0
    assert square["energy"] == pytest.approx(0.0, abs=1e-3)


def test_a_model_relaxes_all_in_one_pass(structures):
    torch.manual_seed(0)
    model = package.HesseNet(package.HesseNetConfig(features=4, channels=2, radial=3, cutoff=3.0), (1, 6, 8)).double()
    package.save_model(structures / "m.hesse", model)
    options = ("--engine", "m.hesse", "--quiet", "--steps", 3, "--fmax", 1e-9)
    with pytest.raises(ExecutionError, match="the reasons are above"):
        hesse("minimize", "in.extxyz", "min.extxyz", *options, folder=structures)
    failed = read_dataset(structures / "min.failed.extxyz")
    assert [s.id for s in failed.structures] == ["square", "chain"]
    assert {s.tag for s in failed.structures} == {"failed"}


@pytest.mark.parametrize("relaxed", [(), ("--no-relax-ends",)], ids=str)
def test_no_path_between_equal_ends(structures, relaxed):
    """The same file twice, and two starts that relax to one minimum."""
    one = Structure([6] * 4, TETRAHEDRON, id="one")
    write(structures / "r.xyz", to_ase(one))
    ends = [("r.xyz", "as given")]
    if not relaxed:
        write(structures / "p.xyz", to_ase(one.with_positions(1.02 * TETRAHEDRON)))
        ends.append(("p.xyz", "once relaxed"))
    for product, when in ends:
        done = invoke("neb", "r.xyz", product, "band.extxyz", *MORSE, *relaxed, folder=structures)
        assert isinstance(done.exception, ExecutionError)
        assert "one: no path: " in done.stderr
        assert f"reactant and product are the same geometry {when}" in done.stderr
        assert not (structures / "band.extxyz").exists()


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("minimize", "in.extxyz", "o.h5", "--fmax", 0), "--fmax: expected a number of eV/Å above 0, got 0"),
        (("minimize", "in.extxyz", "o.h5", "--fmax", -1), "--fmax"),
        (("minimize", "in.extxyz", "o.h5", "--fmax", "nan"), "--fmax"),
        (("neb", "in.extxyz", "in.extxyz", "o.h5", "--fmax", 0), "--fmax"),
        (("neb", "in.extxyz", "in.extxyz", "o.h5", "--spring", 0), "--spring: expected a number of eV/Å² above 0"),
        (("saddle", "in.extxyz", "o.h5", "--fmax", -1), "--fmax"),
        (("saddle", "in.extxyz", "o.h5", "--trust", 0), "--trust: expected a number of Å above 0"),
        (("irc", "in.extxyz", "o.h5", "--fmax", 0), "--fmax"),
        (("irc", "in.extxyz", "o.h5", "--step", -0.1), "--step: expected a number of Å √u above 0"),
        (("reaction", "in.extxyz", "in.extxyz", "--fmax", 0), "--fmax"),
        (("reaction", "in.extxyz", "in.extxyz", "--distance", 0), "--distance"),
        (("reaction", "in.extxyz", "in.extxyz", "--temperature", 0), "--temperature: expected a number of K above 0"),
        (("md", "in.extxyz", "o.h5", "--fmax", 0), "--fmax"),
    ],
    ids=lambda x: x if isinstance(x, str) else "-".join(map(str, x)).replace("in.extxyz", ""),
)
def test_limits_that_are_no_limits_are_refused_before_the_start(structures, words, option):
    before = sorted(structures.iterdir())
    with pytest.raises(ConfigError, match=option):
        hesse(*words, folder=structures)
    assert sorted(structures.iterdir()) == before


@pytest.mark.parametrize("search", [search_minima, search_saddles, follow_paths])
def test_python_refuses_them_too(search):
    one = package.Dataset.from_pairs([(Structure([6] * 4, TETRAHEDRON), package.Properties.single(4))])
    with pytest.raises(ConfigError, match="fmax: expected a number above 0, got 0"):
        search(one, closed_form_engines.morse(), fmax=0)


@pytest.mark.slow
def test_from_two_minima_to_a_saddle_and_its_path(structures):
    write(structures / "r.xyz", to_ase(Structure([6] * 4, TETRAHEDRON, id="left")))
    write(structures / "p.xyz", to_ase(Structure([6] * 4, TETRAHEDRON * [1, 1, -1], id="right")))
    done = hesse("neb", "r.xyz", "p.xyz", "band.extxyz", *MORSE, "--images", 5, "--json", "b.json", folder=structures)
    assert done.exit_code == 0, done.stderr
    assert "band.extxyz: 1 of 1 paths converged (MorseCalculator@" in done.stdout
    (row,) = json.loads((structures / "b.json").read_text())
    assert row["barrier"] == pytest.approx(2.199, abs=0.02)
    assert row["images"] == 7
    band = read_dataset(structures / "band.extxyz")
    assert len(band) == 7
    assert len({s.group for s in band.structures}) == 1
    assert not list(structures.glob("*.band-*"))
    again = hesse("neb", "r.xyz", "p.xyz", "band.extxyz", *MORSE, "--images", 5, "--overwrite", folder=structures)
    assert "1 searches were finished before" in again.stdout
    done = hesse("saddle", "band.extxyz", "ts.h5", *MORSE, "--from-path", folder=structures)
    assert "ts.h5: 1 of 1 transition states" in done.stdout
    done = hesse("saddle", "band.extxyz", "ts2.h5", *MORSE, "--from-path", "--method", "davidson", folder=structures)
    assert "products H v" in done.stdout
    assert read_dataset(structures / "ts2.h5").labels.hessian is None
    first = hesse("irc", "ts.h5", "path.extxyz", *MORSE, "--relax-ends", "--json", "c.json", folder=structures)
    assert "1 of 1 paths are complete (MorseCalculator@" in first.stdout
    before = (structures / "path.extxyz").read_bytes()
    again = hesse("irc", "ts.h5", "path.extxyz", *MORSE, "--relax-ends", "--overwrite", folder=structures)
    assert "1 searches were finished before" in again.stdout
    assert (structures / "path.extxyz").read_bytes() == before


def test_wrong_requests_change_nothing(structures):
    (structures / "min.h5").write_text("mine")
    with pytest.raises(RequestError, match="--overwrite"):
        hesse("minimize", "in.extxyz", "min.h5", *MORSE, folder=structures)
    assert (structures / "min.h5").read_text() == "mine"
    write(structures / "p.xyz", to_ase(oracles.molecule(3, 1)))
    with pytest.raises(RequestError, match="3 reactants and 1 products"):
        hesse("neb", "in.extxyz", "p.xyz", "band.extxyz", *MORSE, folder=structures)
    with pytest.raises(RequestError, match="need energies"):
        hesse("saddle", "in.extxyz", "ts.h5", *MORSE, "--from-path", folder=structures)
    write(structures / "r.xyz", to_ase(Structure([6, 6, 8], oracles.molecule(3, 1).positions)))
    write(structures / "p.xyz", to_ase(Structure([6, 8, 6], oracles.molecule(3, 1).positions)))
    with pytest.raises(ExecutionError, match="nothing was found"):
        hesse("neb", "r.xyz", "p.xyz", "band.extxyz", *MORSE, folder=structures)
