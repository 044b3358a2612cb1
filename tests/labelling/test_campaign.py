"""Label campaigns: right labels, nothing computed twice, and no way to lose what was done."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import closed_form_engines
import oracles
from hesse.datasets import read_dataset
from hesse.engines import AseEngine, Differences, make_engine
from hesse.errors import ConfigError, RequestError, UnknownOptionError, WorkError
from hesse.labelling import LabelRequest, label, ledger_path, reason_to_reject
from hesse.structures import Labels, Structure

MORSE = "ase:closed_form_engines:morse"
KILLER = "ase:closed_form_engines:killer"


@pytest.fixture(scope="module")
def structures():
    return oracles.molecules([2, 3, 4, 5, 6, 3])


def dimer(z, name):
    return Structure([z, 1], [[0, 0, 0], [0, 0, 1.2]], id=name)


@pytest.mark.parametrize(("suffix", "workers"), [(".h5", 2), (".extxyz", 0)])
def test_labels_are_right_and_reach_the_file(structures, tmp_path, suffix, workers):
    output = tmp_path / f"out{suffix}"
    request = LabelRequest(probes=2, hessian=True, seed=3, probe="gaussian")
    engine = MORSE if workers else make_engine(MORSE)
    report = label(structures, engine, output, request=request, workers=workers, quiet=True)
    assert (len(report.dataset), report.failures, report.reused) == (6, (), 0)
    data = read_dataset(output)
    assert [s.id for s in data.structures] == [s.id for s in structures]
    assert data.attributes["level"] == "MorseCalculator"
    assert data.attributes["probe"] == "gaussian"
    assert data.attributes["probe_seed"] == "3"
    for k, structure in enumerate(structures):
        exact, here = oracles.Morse().exact(structure), data.labels.atoms_of(k)
        assert data.labels.energy[k].item() == pytest.approx(exact.energy, rel=1e-9)
        assert data.labels.forces[here].numpy() == pytest.approx(-exact.gradient, abs=1e-6)
        hvp = np.einsum("iajb,kjb->kia", exact.hessian, data.labels.probes[:, here].numpy())
        assert data.labels.hvp[:, here].numpy() == pytest.approx(hvp, abs=1e-4)
        assert data.labels.hessian_of(k).numpy() == pytest.approx(exact.hessian, abs=5e-3)
    assert bool((data.labels.hvp_error < 1e-3).all())


def test_probes_belong_to_the_structure_not_to_the_campaign(structures):
    def probes(chosen, **options):
        request = LabelRequest(seed=options.pop("seed", 0))
        labels = label(chosen, closed_form_engines.own_engine(), request=request, workers=0, quiet=True).dataset.labels
        return {s.id: labels.probes[:, labels.atoms_of(k)] for k, s in enumerate(chosen)}

    full, part, other = probes(structures), probes(structures[::-2]), probes(structures, seed=1)
    assert all(torch.equal(part[name], full[name]) for name in part)
    assert not all(torch.equal(other[name], full[name]) for name in full)


def test_probes_that_happen_to_be_translations_make_sound_labels(tmp_path):
    """Every eighth Rademacher probe of a diatomic is one: H v = 0, and the file must still be believed."""
    pairs = [Structure([6, 8], [[0, 0, 0], [0.3, 0.4, 1.0]], id=f"pair-{k}") for k in range(40)]
    labels = label(pairs, closed_form_engines.own_engine(), tmp_path / "o.h5", workers=0, quiet=True).dataset.labels
    assert int((labels.hvp[0].reshape(40, 6).abs().amax(1) < 1e-9).sum()) >= 2
    assert len(read_dataset(tmp_path / "o.h5")) == 40


def test_only_what_is_missing_is_computed(structures, tmp_path):
    output = tmp_path / "out.h5"

    def run(chosen, engine=None, **options):
        engine = engine or closed_form_engines.own_engine()
        report = label(chosen, engine, output, workers=0, quiet=True, **options)
        return report.reused, engine.calls, len(report.dataset)

    assert run(structures[:4]) == (0, 20, 4)
    assert run(structures[:4]) == (4, 0, 4)
    assert run(structures) == (4, 10, 6)
    assert run(structures[2:3]) == (1, 0, 1)
    # Another geometry under the same id, another request, other settings: other questions.
    moved = structures[0].moved(structures[0].positions * 1.01, id=structures[0].id)
    assert run([moved])[:2] == (0, 5)
    assert run(structures[:1], request=LabelRequest(probes=2))[:2] == (0, 9)
    coarse = closed_form_engines.ClosedForm(oracles.Morse(), Differences(step=2e-3))
    assert run(structures[:1], coarse)[:2] == (0, 5)
    assert run(structures)[:2] == (6, 0)


def test_failures_are_records_and_crashes_cost_one_structure(structures, tmp_path):
    """Fluorine segfaults, neon exits, sodium raises, magnesium gives NaN; two atoms lie on each other."""
    bad = [dimer(9, "segfault"), dimer(10, "exit"), dimer(11, "raise"), dimer(12, "nan")]
    clash = Structure([1, 1], [[0, 0, 0], [0, 0, 0.05]], id="clash")
    mixed = [structures[0], bad[0], structures[1], *bad[1:], clash, *structures[2:]]
    output = tmp_path / "out.h5"
    report = label(mixed, KILLER, output, workers=1, quiet=True)
    assert [s.id for s in report.dataset.structures] == [s.id for s in structures]
    reasons = {f.id: f.reason for f in report.failures}
    assert "SIGSEGV" in reasons["segfault"]
    assert "exit code 3" in reasons["exit"]
    assert "no convergence" in reasons["raise"]
    assert "finite" in reasons["nan"]
    assert "apart" in reasons["clash"]
    assert sum(count for count, _ in report.failures_by_reason()) == 5
    again = label(mixed, KILLER, output, workers=1, quiet=True)
    assert (again.reused, len(again.failures)) == (len(mixed), 5)
    harmless = [bad[2], structures[0]]
    retried = label(harmless, make_engine(KILLER), output, workers=0, retry_failed=True, quiet=True)
    assert (retried.reused, len(retried.failures)) == (1, 1)


def test_nothing_labelled_is_an_error_with_the_reasons(tmp_path):
    sodium = [dimer(11, "one"), dimer(11, "two")]
    with pytest.raises(WorkError, match=r"none of 2 structures.*2 x EngineError: .*no convergence"):
        label(
            sodium,
            AseEngine(closed_form_engines.killer()),
            tmp_path / "o.h5",
            workers=0,
            quiet=True,
        )
    assert not (tmp_path / "o.h5").exists()


def test_labels_that_contradict_symmetry_are_rejected():
    structure = oracles.molecule(5, 1, name="five")
    data = oracles.labelled(oracles.Morse(), [structure], probes=2, hessian=True)
    assert reason_to_reject(structure, data.labels) == ""
    push = torch.zeros_like(data.labels.forces)
    push[0, 0] = 30.0
    cases = {
        "forces violate the translational": replace(data.labels, forces=data.labels.forces + push),
        "products violate the rotational": replace(data.labels, forces=-data.labels.forces, hessian=None),
        "products violate the translational": replace(data.labels, hvp=data.labels.hvp + 10.0, hessian=None),
        "Hessian violate the rotational": replace(
            data.labels, hessian=3.0 * data.labels.hessian, hvp=None, probes=None
        ),
        "estimated error of 9": replace(
            data.labels, hvp_error=torch.tensor([[0.0], [9.0]], dtype=torch.float64), hessian=None
        ),
    }
    for reason, labels in cases.items():
        assert reason in reason_to_reject(structure, labels)
        assert '"five"' in reason_to_reject(structure, labels)
    assert reason_to_reject(oracles.atom(), Labels.of(1, energy=0.0, forces=np.zeros((1, 3)))) == ""


def test_a_noisy_engine_is_found_out(structures):
    noisy = closed_form_engines.ClosedForm(oracles.Morse(), noise=0.02)
    with pytest.raises(WorkError, match=r"estimated error|violate"):
        label(structures[2:], noisy, workers=0, quiet=True)


def test_bad_requests(structures, tmp_path):
    engine = closed_form_engines.own_engine()
    for arguments, options, error, reply in (
        ((structures, "gfm2"), {}, UnknownOptionError, "gfn2"),
        ((structures, engine), {}, RequestError, "as text"),
        (([], engine), {"workers": 0}, RequestError, "no structure"),
        (([structures[0]] * 2, engine), {"workers": 0}, RequestError, "stands 2 times"),
        ((structures, MORSE, tmp_path / "x.csv"), {}, RequestError, "h5 or .extxyz"),
        ((structures, MORSE, tmp_path / "no" / "x.h5"), {}, RequestError, "no folder"),
        ((structures, "ase:closed_form_engines:fails"), {}, RequestError, "no licence"),
    ):
        with pytest.raises(error, match=reply):
            label(*arguments, **options, quiet=True)
    with pytest.raises(ConfigError, match="negative"):
        LabelRequest(probes=-1)
    with pytest.raises(UnknownOptionError, match="rademacher"):
        LabelRequest(probe="rademachr")


# --- stopping ---------------------------------------------------------------------------------------------------------

_PROGRAM = textwrap.dedent(
    """
    import sys
    import oracles
    from hesse.errors import HesseError
    from hesse.labelling import label
    structures = [oracles.molecule(3, k) for k in range(30)]
    try:
        report = label(structures, "ase:closed_form_engines:slow", sys.argv[1], workers=2, quiet=True)
    except HesseError as error:
        print(type(error).__name__, error)
        sys.exit(error.exit_code)
    print(report.reused, len(report.dataset))
    """
)


def start_campaign(output: Path) -> subprocess.Popen:
    """Two processes, thirty structures, 0.1 s each."""
    tests = str(Path(__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(output)],
        env={**os.environ, "PYTHONPATH": tests, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def count_done(output: Path) -> int:
    if not ledger_path(output).exists():
        return 0
    connection = sqlite3.connect(ledger_path(output), timeout=5.0)
    try:
        return connection.execute("SELECT count(*) FROM labels WHERE status = 'done'").fetchone()[0]
    except sqlite3.OperationalError:
        return 0
    finally:
        connection.close()


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def children_of(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_killed_and_stopped_campaigns_continue(tmp_path):
    """kill -9 in the middle, then SIGTERM, then to the end: no record is lost or computed twice, no worker is left."""
    output = tmp_path / "out.h5"
    killed = start_campaign(output)
    wait_for(lambda: count_done(output) >= 8)
    workers = children_of(killed.pid)
    assert len(workers) == 2
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    wait_for(lambda: not any(alive(w) for w in workers), 20.0)
    first = count_done(output)
    assert first >= 8
    assert not output.exists()

    stopped = start_campaign(output)
    wait_for(lambda: count_done(output) >= first + 4)
    stopped.send_signal(signal.SIGTERM)
    out, err = stopped.communicate(timeout=30)
    second = count_done(output)
    assert stopped.returncode == 1, err
    assert out.startswith(f"InterruptedRunError stopped after {second} of 30 structures")
    assert "the same command continues" in out
    assert first + 4 <= second < 30

    # The rest in this process: who works is no part of the question.
    structures = [oracles.molecule(3, k) for k in range(30)]
    report = label(structures, make_engine("ase:closed_form_engines:slow"), output, workers=0, quiet=True)
    assert report.reused == second
    assert [s.id for s in read_dataset(output).structures] == [s.id for s in structures]
