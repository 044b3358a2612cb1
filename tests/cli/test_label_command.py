"""The verbs `sample nms` and `label`: output, files and exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from ase.build import bulk, molecule
from ase.io import read, write

import oracles
from commands_in_process import invoke
from hesse.cli.common_options import workers_for
from hesse.datasets import read_dataset
from hesse.engines import make_engine
from hesse.errors import HesseError, NotReadWarning
from hesse.structures import from_ase, to_ase

LEVEL = make_engine("ase:closed_form_engines:morse").level


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def hesse(*arguments, folder):
    """Run a verb in this process; the last test runs the program itself."""
    done = invoke(*arguments, folder=folder)
    if done.exception is None or isinstance(done.exception, SystemExit):
        return Done(done.exit_code, done.stdout, done.stderr)
    assert isinstance(done.exception, HesseError), done.exception
    return Done(done.exception.exit_code, done.stdout, f"{type(done.exception).__name__}: {done.exception}")


@pytest.fixture
def molecules(tmp_path):
    path = tmp_path / "molecules.extxyz"
    write(path, [to_ase(s) for s in (oracles.molecule(3, 4, name="three"), oracles.molecule(4, 2, name="four"))])
    return path


@pytest.mark.slow
def test_from_molecules_to_labels(molecules, tmp_path):
    morse = ("--engine", "ase:closed_form_engines:morse", "--quiet")
    sampled = hesse(
        "sample", "nms", molecules, "s.extxyz", "--temperature", 300, "--temperature", 900, "--count", 3, *morse,
        folder=tmp_path,
    )  # fmt: skip
    assert sampled.returncode == 0, sampled.stderr
    assert sampled.stdout == f"s.extxyz: 14 geometries of 2 molecules ({LEVEL})\n"
    assert sampled.stderr == ""
    assert [a.info["tag"] for a in read(tmp_path / "s.extxyz", ":")].count("nms-900K") == 6

    command = ("label", "s.extxyz", "l.h5", "--probes", 2, "--hessian", "--workers", 2, *morse)
    labeled = hesse(*command, folder=tmp_path)
    assert labeled.returncode == 0, labeled.stderr
    assert labeled.stdout.startswith(f"l.h5: 14 structures labeled ({LEVEL})\n")
    assert "hvp error: median" in labeled.stdout
    data = read_dataset(tmp_path / "l.h5")
    assert tuple(data.labels.hvp_mask.shape if data.labels.hvp_mask is not None else data.labels.mask("hvp").shape) == (
        2,
        14,
    )
    assert bool(data.labels.mask("hessian").all())
    again = hesse(*command, folder=tmp_path)
    assert "14 were in l.h5.ledger.sqlite before" in again.stdout


@pytest.mark.slow
def test_unknown_keys_are_listed_and_parameters_are_stored(tmp_path):
    frame = to_ase(oracles.molecule(3, 4, name="three"))
    frame.info["charge_total"] = 0
    write(tmp_path / "in.extxyz", [frame])
    (tmp_path / "lj_with_parameters.py").write_text(
        "from ase.calculators.lj import LennardJones\ndef make():\n    return LennardJones(sigma=1.0)\n"
    )
    arguments = ("in.extxyz", "out.extxyz", "--engine", "ase:lj_with_parameters:make", "--quiet")
    with pytest.warns(NotReadWarning, match="not read: charge_total"):
        done = hesse("label", *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert '"sigma": 1.0' in read_dataset(tmp_path / "out.extxyz", check=False).metadata["parameters"]


def test_failures_are_listed_and_exit_with_1_only_if_all_failed(tmp_path):
    good, sodium = oracles.molecule(3, 1, name="good"), oracles.molecule(3, 2, elements=(11,), name="sodium")
    write(tmp_path / "mixed.extxyz", [to_ase(good), to_ase(sodium)])
    write(tmp_path / "bad.extxyz", [to_ase(sodium)])
    options = ("--engine", "ase:closed_form_engines:killer", "--quiet")
    some = hesse("label", "mixed.extxyz", "m.h5", *options, folder=tmp_path)
    assert some.returncode == 0
    assert "1 structures failed" in some.stderr
    assert "1 x EngineError: no convergence" in some.stderr
    none = hesse("label", "bad.extxyz", "b.h5", *options, folder=tmp_path)
    assert none.returncode == 1
    assert none.stderr.startswith("ExecutionError: none of 1 structures could be labeled")
    assert not (tmp_path / "b.h5").exists()


def test_suspects_are_listed_and_exit_with_1_only_if_all_are_suspect(tmp_path):
    good, noisy = oracles.molecule(3, 1, name="good"), oracles.molecule(4, 8, elements=(19,), name="noisy")
    write(tmp_path / "mixed.extxyz", [to_ase(good), to_ase(noisy)])
    write(tmp_path / "bad.extxyz", [to_ase(noisy)])
    options = ("--engine", "ase:closed_form_engines:killer", "--quiet", "--probes", 2)
    some = hesse("label", "mixed.extxyz", "m.extxyz", *options, folder=tmp_path)
    assert some.returncode == 0
    assert "1 structures are suspect (flagged in m.extxyz" in some.stderr
    assert '("noisy")' in some.stderr
    assert "suspect=T" in (tmp_path / "m.extxyz").read_text()
    shown = hesse("info", "m.extxyz", folder=tmp_path)
    assert "suspect: 1 structures, kept out of training and evaluation" in shown.stdout
    bad = hesse("label", "bad.extxyz", "b.h5", *options, folder=tmp_path)
    assert bad.returncode == 1
    assert "no label can be used" in bad.stderr
    assert (tmp_path / "b.h5").exists()


@pytest.mark.slow
def test_a_dry_run_prints_the_plan_and_does_nothing(molecules, tmp_path):
    command = ("label", "molecules.extxyz", "l.h5", "--engine", "ase:closed_form_engines:morse", "--quiet")
    fresh = hesse(*command, "--dry-run", folder=tmp_path)
    assert fresh.returncode == 0, fresh.stderr
    assert "to compute     2: 2 forces, 2 Hessian-vector products" in fresh.stdout
    assert "time           unknown" in fresh.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["molecules.extxyz"]
    assert hesse(*command, "--limit", 1, folder=tmp_path).returncode == 0
    more = hesse(*command, "--probes", 3, "--dry-run", folder=tmp_path)
    assert "to compute     2: 1 forces, 5 Hessian-vector products" in more.stdout
    assert "of which       1 have some labels" in more.stdout
    assert "time           about" in more.stdout
    done = hesse(*command, "--probes", 3, folder=tmp_path)
    assert "1 had some labels before" in done.stdout
    assert "complete       2" in hesse(*command, "--probes", 3, "--dry-run", folder=tmp_path).stdout


@pytest.mark.parametrize(
    ("arguments", "reply"),
    [
        (("label", "molecules.extxyz", "o.h5", "--engine", "gnf2"), 'Did you mean "gfn2"'),
        (
            ("label", "molecules.extxyz", "o.h5", "--engine", "gfn2", "--probe", "radmacher"),
            'Did you mean "rademacher"',
        ),
        (("label", "molecules.extxyz", "o.h5", "--engine", "gfn2", "--step", "7"), "step"),
        (("label", "molecules.extxyz", "o.h5", "--engine", "gfn2", "--scheduler", "here"), "neither the address"),
        (
            ("label", "molecules.extxyz", "o.h5", "--engine", "gfn2", "--scheduler", "tcp://a:1", "--workers", "2"),
            "both",
        ),
        (("label", "nowhere.extxyz", "o.h5", "--engine", "gfn2"), "nowhere.extxyz"),
        (("label", "molecules.extxyz", "no/o.h5", "--engine", "gfn2"), "there is no folder"),
        (("sample", "nms", "molecules.extxyz", "o.csv"), "written as .h5 or .extxyz"),
        (("sample", "nms", "molecules.extxyz", "o.h5", "--temperature", "-4"), "temperatures"),
    ],
)
def test_wrong_requests_exit_with_2(molecules, tmp_path, arguments, reply):
    done = hesse(*arguments, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert reply in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["molecules.extxyz"]


@pytest.mark.slow
def test_the_process_returns_the_exit_codes(molecules, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "hesse", "label", str(molecules), "o.h5", "--engine", "gnf2"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == 'UnknownOptionError: no engine "gnf2". Did you mean "gfn2"?\n'


def test_a_handful_of_molecules_starts_no_process(tmp_path, monkeypatch):
    """Numbers are those of a worker, bit by bit; more structures, a crystal or a limit of time need processes."""
    write(tmp_path / "a.xyz", [molecule("H2O"), molecule("CH4")])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with monkeypatch.context() as patch:
        patch.setattr("hesse.runtime.parallel.pool.WorkerProcess", None)
        done = hesse("label", "a.xyz", "here.h5", "--engine", "gfn2", "--hessian", "--quiet", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    done = hesse("label", "a.xyz", "there.h5", "--engine", "gfn2", "--hessian", "--workers", 1, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    here, there = read_dataset(tmp_path / "here.h5").labels, read_dataset(tmp_path / "there.h5").labels
    assert torch.equal(here.hessian, there.hessian)
    few, crystal = [from_ase(molecule("H2O"))] * 2, [from_ase(bulk("Si"))]
    assert workers_for(None, "gfn2", few) == 0
    assert workers_for(2, "gfn2", few) == 2
    assert workers_for(None, "gfn2", crystal) is None
    assert workers_for(None, "pyscf:hf/sto-3g", few) is None
    assert workers_for(None, "gfn2", few, processes=True) is None
    assert workers_for(None, "gfn2", few * 3) is None
