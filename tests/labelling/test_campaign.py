"""Label campaigns: correct labels, nothing is computed twice or lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import closed_form_engines
import oracles
from hesse.datasets import read_dataset
from hesse.engines import AseEngine, FiniteDifferences, make_engine
from hesse.errors import ConfigError, ExecutionError, RequestError, UnknownOptionError
from hesse.labelling import LabelSpec, label, ledger_path, plan_labels
from hesse.labelling.ledger_records import Attempt
from hesse.labelling.plan import make_plan
from hesse.labelling.worker import check_labels
from hesse.structures import Structure

MORSE = "ase:closed_form_engines:morse"
KILLER = "ase:closed_form_engines:killer"


@pytest.fixture(scope="module")
def structures():
    return oracles.molecules([2, 3, 4, 5, 6, 3])


def dimer(z, name):
    return Structure([z, 1], [[0, 0, 0], [0, 0, 1.2]], id=name)


@pytest.mark.parametrize(
    ("suffix", "workers"), [pytest.param(".h5", 2, marks=pytest.mark.slow), (".h5", 0), (".extxyz", 0)]
)
def test_labels_are_correct_and_written(structures, tmp_path, suffix, workers):
    output = tmp_path / f"out{suffix}"
    request = LabelSpec(n_probes=2, hessian=True, seed=3, probe="gaussian")
    engine = MORSE if workers else make_engine(MORSE)
    report = label(structures, engine, output, spec=request, workers=workers, quiet=True)
    assert (len(report.dataset), report.failures, report.n_reused) == (6, (), 0)
    data = read_dataset(output)
    assert [s.id for s in data.structures] == [s.id for s in structures]
    assert data.metadata["level"].startswith("MorseCalculator@")
    assert data.metadata["probe"] == "gaussian"
    assert data.metadata["probe_seed"] == "3"
    for k, structure in enumerate(structures):
        exact, here = oracles.Morse().exact(structure), data.labels.atom_slice(k)
        assert data.labels.energy[k].item() == pytest.approx(exact.energy, rel=1e-9)
        assert data.labels.forces[here].numpy() == pytest.approx(-exact.gradient, abs=1e-6)
        hvp = np.einsum("iajb,kjb->kia", exact.hessian, data.labels.probes[:, here].numpy())
        assert data.labels.hvp[:, here].numpy() == pytest.approx(hvp, rel=1e-4, abs=1e-2)
        assert data.labels.hessian_of(k).numpy() == pytest.approx(exact.hessian, rel=1e-4, abs=1e-2)
    assert bool((data.labels.hvp_error < 1e-2).all())


def test_probes_depend_on_the_structure_not_on_the_campaign(structures):
    def probes(chosen, **options):
        request = LabelSpec(seed=options.pop("seed", 0))
        labels = label(chosen, closed_form_engines.own_engine(), spec=request, workers=0, quiet=True).dataset.labels
        return {s.id: labels.probes[:, labels.atom_slice(k)] for k, s in enumerate(chosen)}

    full, part, other = probes(structures), probes(structures[::-2]), probes(structures, seed=1)
    assert all(torch.equal(part[name], full[name]) for name in part)
    assert not all(torch.equal(other[name], full[name]) for name in full)


def test_probes_that_are_translations_give_valid_labels(tmp_path):
    """Every eighth Rademacher probe of a diatomic is one: H v = 0, and the file must still pass the checks."""
    pairs = [Structure([6, 8], [[0, 0, 0], [0.3, 0.4, 1.0]], id=f"pair-{k}") for k in range(40)]
    labels = label(pairs, closed_form_engines.own_engine(), tmp_path / "o.h5", workers=0, quiet=True).dataset.labels
    assert int((labels.hvp[0].reshape(40, 6).abs().amax(1) < 1e-9).sum()) >= 2
    assert len(read_dataset(tmp_path / "o.h5")) == 40


def test_only_missing_labels_are_computed(structures, tmp_path):
    output = tmp_path / "out.h5"

    def run(chosen, engine=None, **options):
        engine = engine or closed_form_engines.own_engine()
        report = label(chosen, engine, output, workers=0, quiet=True, **options)
        return report.n_reused, engine.calls, len(report.dataset)

    # A point at the structure and two for each product.
    assert run(structures[:4]) == (0, 12, 4)
    assert run(structures[:4]) == (4, 0, 4)
    assert run(structures) == (4, 6, 6)
    assert run(structures[2:3]) == (1, 0, 1)
    # Another geometry with the same id, or other settings: new labels.
    moved = structures[0].with_positions(structures[0].positions * 1.01, id=structures[0].id)
    assert run([moved])[:2] == (0, 3)
    coarse = closed_form_engines.ClosedForm(oracles.Morse(), FiniteDifferences(step=2e-3))
    assert run(structures[:1], coarse)[:2] == (0, 3)
    assert run(structures)[:2] == (6, 0)


def test_more_labels_are_added_to_existing_ones(structures, tmp_path):
    """More probes, Hessians, another distribution: each costs its own gradients and one at the structure, and every
    label equals that of a new campaign."""
    output, chosen = tmp_path / "out.h5", structures[2:4]
    atoms = [len(s) for s in chosen]

    def run(**request):
        engine = closed_form_engines.own_engine()
        report = label(chosen, engine, output, spec=LabelSpec(**request), workers=0, quiet=True)
        return engine.calls, report

    first = run(n_probes=1)[1].dataset.labels
    calls, report = run(n_probes=4)
    assert calls == 2 * (1 + 2 * 3)
    assert (report.n_reused, report.n_partial) == (0, 2)
    four = report.dataset.labels
    for name in ("probes", "hvp", "hvp_error"):
        assert torch.equal(getattr(four, name)[:1], getattr(first, name))
    for name in ("energy", "forces"):
        assert torch.equal(getattr(four, name), getattr(first, name))
    calls, report = run(n_probes=2, hessian=True)
    assert calls == sum(1 + 6 * n for n in atoms)
    assert torch.equal(report.dataset.labels.hvp, four.hvp[:2])
    assert run(n_probes=4, hessian=True)[0] == 0
    assert run(n_probes=0)[0] == 0
    assert run(n_probes=1, probe="gaussian")[0] == 2 * 3
    assert run(n_probes=1, seed=5)[0] == 2 * 3
    scratch = label(
        chosen, closed_form_engines.own_engine(), spec=LabelSpec(n_probes=4, hessian=True), workers=0, quiet=True
    ).dataset.labels
    complete = run(n_probes=4, hessian=True)[1].dataset.labels
    for name in ("energy", "forces", "probes", "hvp", "hessian", "hvp_error", "hessian_error", "forces_error"):
        assert torch.equal(getattr(complete, name), getattr(scratch, name)), name
    assert read_dataset(output).content_hash() == replace(report.dataset, labels=complete).content_hash()


def test_a_failure_counts_only_for_the_quantities_of_its_attempt(structures, tmp_path):
    """A structure that failed with its Hessian is tried again without it, but not with it."""
    output, chosen = tmp_path / "out.h5", [structures[0], structures[3]]

    def run(**request):
        engine = closed_form_engines.HessianFails()
        report = label(chosen, engine, output, spec=LabelSpec(**request), workers=0, quiet=True)
        return [f.id for f in report.failures], engine.asked

    with pytest.raises(ExecutionError, match="2 x EngineError: no Hessian today"):
        run(n_probes=1, hessian=True)
    assert run(n_probes=1) == ([], 2)
    with pytest.raises(ExecutionError, match="2 x EngineError: no Hessian today"):
        run(n_probes=1, hessian=True)
    engine = closed_form_engines.HessianFails()
    plan = plan_labels(chosen, engine, output, spec=LabelSpec(hessian=True))
    assert (len(plan.pending), plan.n_complete, sorted(plan.failed)) == (0, 0, [0, 1])
    plan = plan_labels(chosen, engine, output, spec=LabelSpec(hessian=True), retry_failed=True)
    assert plan.count_missing() == {"hessian": 2}


def test_plans_count_missing_labels_and_estimate_the_time(structures, tmp_path):
    output, engine = tmp_path / "out.h5", closed_form_engines.own_engine()
    plan = plan_labels(structures, engine, output, spec=LabelSpec(n_probes=2))
    assert (len(plan.pending), plan.n_complete, plan.failed, plan.seconds) == (6, 0, {}, None)
    assert plan.count_missing() == {"forces": 6, "hvp": 12}
    assert not output.exists()
    assert not ledger_path(output).exists()
    label(structures[:4], engine, output, workers=0, quiet=True)
    plan = plan_labels(structures, engine, output, spec=LabelSpec(n_probes=2))
    assert (len(plan.pending), plan.n_partial, plan.n_timings) == (6, 4, 4)
    assert plan.count_missing() == {"forces": 2, "hvp": 8}
    assert plan.seconds > 0.0
    assert plan_labels(structures[:4], engine, output).seconds == 0.0


def test_the_time_is_estimated_from_the_number_of_atoms():
    quantities = ("forces", "hvp/rademacher/0/0")
    known = [Attempt((str(n), "g"), quantities, n, 3e-4 * n**2) for n in (4, 8, 16)]
    large = [oracles.molecule(n, 1, name=f"m{n}") for n in (12, 20)]
    plan = make_plan(large, LabelSpec(), {}, known, retry_failed=False)
    assert plan.seconds == pytest.approx(3e-4 * (12**2 + 20**2), rel=1e-6)
    plan = make_plan(large, LabelSpec(n_probes=4), {}, known, retry_failed=False)
    assert plan.seconds == pytest.approx(3e-4 * (12**2 + 20**2) * 3, rel=1e-6)


@pytest.mark.slow
def test_failures_are_recorded_and_a_crash_costs_one_structure(structures, tmp_path):
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
    assert (again.n_reused, len(again.failures)) == (len(mixed), 5)
    harmless = [bad[2], structures[0]]
    retried = label(harmless, make_engine(KILLER), output, workers=0, retry_failed=True, quiet=True)
    assert (retried.n_reused, len(retried.failures)) == (1, 1)


def test_no_label_at_all_is_an_error_with_the_reasons(tmp_path):
    sodium = [dimer(11, "one"), dimer(11, "two")]
    with pytest.raises(ExecutionError, match=r"none of 2 structures.*2 x EngineError: .*no convergence"):
        label(
            sodium,
            AseEngine(closed_form_engines.killer()),
            tmp_path / "o.h5",
            workers=0,
            quiet=True,
        )
    assert not (tmp_path / "o.h5").exists()


@pytest.mark.slow
def test_labels_that_fail_a_check_are_kept_and_flagged(structures, tmp_path):
    """Potassium makes the forces noisy: its structure stays in ledger and file, flagged."""
    noisy = oracles.molecule(4, 8, elements=(19,), name="noisy")
    mixed, output = [*structures[1:3], noisy, *structures[3:]], tmp_path / "out.h5"
    report = label(mixed, KILLER, output, spec=LabelSpec(n_probes=2), workers=1, quiet=True)
    assert report.failures == ()
    assert [s.id for s in report.suspects] == ["noisy"]
    (summary,) = report.suspects_by_reason()
    assert summary[0] == 1
    assert "sum rule" in summary[1] or "error" in summary[1]
    data = read_dataset(output)
    assert [s.id for s in data.structures] == [s.id for s in mixed]
    assert data.labels.suspect_mask().tolist() == [s.id == "noisy" for s in mixed]
    assert len(data.without_suspects()) == len(mixed) - 1
    again = label(mixed, KILLER, output, spec=LabelSpec(n_probes=2), workers=1, quiet=True)
    assert (again.n_reused, again.suspects) == (len(mixed), report.suspects)


def test_each_quantity_is_suspect_for_itself():
    """A wrong Hessian does not make the products suspect; wrong forces do, because products are taken from them."""
    structure = oracles.molecule(5, 1, name="five")
    labels = oracles.labeled(oracles.Morse(), [structure], probes=2, hessian=True).labels
    requested = LabelSpec(n_probes=2, hessian=True).quantities_of(structure)
    assert check_labels(structure, labels, requested) == {}
    tripled = labels.replace(hessian=3.0 * labels.hessian)
    assert set(check_labels(structure, tripled, requested)) == {"hessian"}
    shifted = labels.hvp.clone()
    shifted[1] += 10.0
    assert set(check_labels(structure, labels.replace(hvp=shifted), requested)) == {"hvp/rademacher/0/1"}
    push = torch.zeros_like(labels.forces)
    push[0, 0] = 300.0
    pushed = labels.replace(forces=labels.forces + push)
    assert "forces" in check_labels(structure, pushed, requested)
    later = requested[2:]
    one = pushed.replace(probes=labels.probes[1:], hvp=labels.hvp[1:])
    assert set(check_labels(structure, one, later)) == set(later)


def test_labels_of_a_noisy_engine_are_suspect(structures):
    noisy = closed_form_engines.ClosedForm(oracles.Morse(), noise=1.0)
    report = label(structures[2:], noisy, spec=LabelSpec(n_probes=3), workers=0, quiet=True)
    assert len(report.suspects) == len(structures) - 2
    assert bool(report.dataset.labels.suspect_mask().all())


def test_bad_requests(structures, tmp_path):
    engine = closed_form_engines.own_engine()
    for arguments, options, error, reply in (
        ((structures, "gfm2"), {}, UnknownOptionError, "gfn2"),
        ((structures, engine), {"workers": 2}, RequestError, "by its name"),
        (([], engine), {"workers": 0}, RequestError, "empty list"),
        (([structures[0]] * 2, engine), {"workers": 0}, RequestError, "occurs 2 times"),
        ((structures, MORSE, tmp_path / "x.csv"), {}, RequestError, "h5 or .extxyz"),
        ((structures, MORSE, tmp_path / "no" / "x.h5"), {}, RequestError, "no folder"),
        ((structures, "ase:closed_form_engines:fails"), {}, RequestError, "no license"),
    ):
        with pytest.raises(error, match=reply):
            label(*arguments, **options, quiet=True)
    with pytest.raises(ConfigError, match="negative"):
        LabelSpec(n_probes=-1)
    with pytest.raises(UnknownOptionError, match="rademacher"):
        LabelSpec(probe="rademachr")
