"""`hesse sample` md, rattle, irc and select through the command line. (nms is in test_label_command.py.)"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase.io import read, write

import oracles
from commands_in_process import invoke
from hesse.datasets import read_dataset, write_dataset
from hesse.engines import make_engine
from hesse.errors import HesseError
from hesse.structures import Structure, to_ase

MORSE = ("--engine", "ase:closed_form_engines:morse")
LEVEL = make_engine(MORSE[1]).level


def hesse(*arguments, folder):
    done = invoke(*arguments, folder=folder)
    if done.exception is None or isinstance(done.exception, SystemExit):
        return done.exit_code, done.stdout, done.stderr
    assert isinstance(done.exception, HesseError), done.exception
    return done.exception.exit_code, done.stdout, f"{done.stderr}{type(done.exception).__name__}: {done.exception}"


@pytest.fixture
def molecules(tmp_path):
    path = tmp_path / "molecules.extxyz"
    write(path, [to_ase(s) for s in (oracles.molecule(3, 4, name="three"), oracles.molecule(4, 2, name="four"))])
    return path


@pytest.mark.slow
def test_dynamics_then_selection(molecules, tmp_path):
    quick = ("--count", 3, "--stride", 5, "--equilibration", 5, "--quiet")
    code, out, err = hesse("sample", "md", molecules, "md.h5", *MORSE, *quick, folder=tmp_path)
    assert (code, out, err) == (0, f"md.h5: 8 geometries of 2 molecules ({LEVEL})\n", "")
    made = read_dataset(tmp_path / "md.h5")
    assert made.metadata["level"] == made.metadata["sampling_level"]
    assert made.metadata["level"].startswith("MorseCalculator@")
    assert bool(made.labels.mask("energy").all())
    code, out, err = hesse(
        "sample", "select", "md.h5", "few.h5", "--window", "1.0", "--per-group", 2, "--tolerance", 0, folder=tmp_path
    )
    assert (code, out) == (0, "few.h5: 4 of 8 structures kept\n")
    assert err == "left out: 4 beyond the number per group\n"
    kept = read_dataset(tmp_path / "few.h5")
    assert bool(kept.labels.mask("energy").all())
    assert {s.id for s in kept.structures} < {s.id for s in made.structures}


def test_rattling_and_duplicates(molecules, tmp_path):
    code, out, _ = hesse(
        "sample", "rattle", molecules, "r.extxyz", "--size", 0.001, "--size", 0.2, "--count", 4, folder=tmp_path
    )
    assert (code, out) == (0, "r.extxyz: 16 geometries of 2 molecules\n")
    assert [a.info["tag"] for a in read(tmp_path / "r.extxyz", ":")].count("rattle-0.2") == 8
    code, out, err = hesse("sample", "select", "r.extxyz", "s.extxyz", folder=tmp_path)
    assert code == 0
    assert "duplicates" in err
    assert [a.info["tag"] for a in read(tmp_path / "s.extxyz", ":")].count("rattle-0.001") == 2


def test_stored_hessians_are_used(molecules, tmp_path):
    structures = read_dataset(molecules).structures
    labeled = oracles.labeled(oracles.Morse(), structures, hessian=True)
    write_dataset(tmp_path / "l.h5", replace(labeled, metadata={"level": LEVEL}))
    options = ("--no-relax", "--exclude-reaction", "--imaginary", "freeze", "--count", 2, "--quiet")
    code, out, err = hesse("sample", "nms", "l.h5", "n.h5", *MORSE, *options, folder=tmp_path)
    assert (code, out) == (0, f"n.h5: 4 geometries of 2 molecules ({LEVEL})\n")
    assert err == "2 Hessians were in the input\n"
    wrong = replace(labeled, metadata={"level": "other"})
    write_dataset(tmp_path / "w.h5", wrong)
    code, _, err = hesse("sample", "nms", "w.h5", "x.h5", *MORSE, *options, folder=tmp_path)
    assert code == 2
    assert "--no-reuse" in err
    flipped = labeled.labels.replace(hessian=-labeled.labels.hessian)
    write_dataset(tmp_path / "f.h5", replace(labeled, labels=flipped, metadata={"level": LEVEL}))
    code, _, err = hesse("sample", "nms", "f.h5", "x.h5", *MORSE, *options, folder=tmp_path)
    assert (code, "InconsistentLabelsError" in err) == (2, True), err


@pytest.mark.slow
def test_structures_without_imaginary_mode_have_no_path(tmp_path):
    write(tmp_path / "pair.extxyz", [to_ase(Structure([6, 6], [[0, 0, 0], [1.1, 0, 0]], id="pair"))])
    code, out, err = hesse("sample", "irc", "pair.extxyz", "p.h5", "--no-search", *MORSE, "--quiet", folder=tmp_path)
    assert (code, out) == (1, "")
    assert "no imaginary mode" in err
    assert "ExecutionError: none of 1 molecules" in err
    assert not (tmp_path / "p.h5").exists()


@pytest.mark.parametrize(
    ("arguments", "reply"),
    [
        (("md", "molecules.extxyz", "o.h5", "--step", "-1"), "time step"),
        (("md", "molecules.extxyz", "o.csv"), "written as .h5 or .extxyz"),
        (("md", "nowhere.xyz", "o.h5"), "nowhere.xyz"),
        (("md", "molecules.extxyz", "o.h5", "--engine", "gnf2"), 'Did you mean "gfn2"'),
        (("rattle", "molecules.extxyz", "o.h5", "--strain", "0.1"), "no cell"),
        (("rattle", "molecules.extxyz", "molecules.extxyz", "--overwrite"), "this is an input"),
        (("irc", "molecules.extxyz", "o.h5", "--step", "0"), "step"),
        (("select", "molecules.extxyz", "o.h5", "--window", "1"), "needs energies"),
        (("select", "molecules.extxyz", "o.h5", "--tolerance", "0"), "needs a tolerance"),
        (("nms", "molecules.extxyz", "o.h5", "--exclude-reaction"), "--no-relax"),
    ],
)
def test_wrong_requests_exit_with_2(molecules, tmp_path, arguments, reply):
    code, _, err = hesse("sample", *arguments, folder=tmp_path)
    assert code == 2, err
    assert reply in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["molecules.extxyz"]


def test_nothing_is_overwritten_without_the_option(molecules, tmp_path):
    target = tmp_path / "o.extxyz"
    target.write_text("mine")
    code, _, err = hesse("sample", "rattle", molecules, target, folder=tmp_path)
    assert code == 2
    assert "exists already" in err
    assert target.read_text() == "mine"
    code, _, _ = hesse("sample", "rattle", molecules, target, "--overwrite", "--count", 1, folder=tmp_path)
    assert code == 0
    assert len(read(target, ":")) == 2
    assert np.isfinite(read(target, 0).positions).all()
