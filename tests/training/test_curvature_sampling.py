"""Curvature terms for a sample of the structures: uniform samples, unbiased estimates, less work."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_run import ORACLE, config, record, run, training_data
from torch import Tensor

from hesse.datasets import Dataset
from hesse.losses import default_loss
from hesse.structures import Properties
from hesse.training import TrainConfig
from hesse.training import loader as training_loader
from hesse.training.curvature_sampling import sample_probes, sample_structures
from hesse.training.initial_model import build_initial_potential
from hesse.training.loader import TrainingLoader
from hesse.training.step import LossAndGradient, sum_counts
from oracles import labeled, molecules


@pytest.fixture
def always_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two microbatches for any number of atoms: the molecules of these tests are small."""
    monkeypatch.setattr(training_loader, "SPLIT_ABOVE_ATOMS", {"cpu": 1, "other": 1})


def curved(*, probes: int = 1) -> Dataset:
    """Eight structures, all with products and Hessians."""
    return labeled(ORACLE, molecules([4, 3, 5, 2, 6, 3, 4, 5], seed=3), probes=probes, hessian=True)


class Bench:
    """A network before its first step, and the gradient for any structures."""

    def __init__(self, data: Dataset, **changes: Any) -> None:
        self.config: TrainConfig = config(**changes)
        self.model = build_initial_potential(self.config, data, None)
        self.feed = TrainingLoader(data, self.config, self.model.cutoff)
        self.step = LossAndGradient(self.model)
        self.weights = self.config.weights.by_name()

    def gradient(self, microbatches: Any, counts: Any = None) -> tuple[float, Tensor]:
        """The loss of microbatches and its gradient in all parameters as one vector."""
        self.model.zero_grad(set_to_none=True)
        total, _ = self.step(microbatches, self.weights, counts)
        slopes = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.step.trainable_parameters()]
        return float(total), torch.cat([slope.reshape(-1) for slope in slopes])

    def at(self, indices: list[int], step: int) -> tuple[float, Tensor]:
        return self.gradient(self.feed.load(indices, step))


# --- the sample ------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2**63 - 1), st.booleans()), min_size=1, max_size=30, unique_by=lambda k: k[0]),
    st.floats(0.01, 1.0),
    st.integers(0, 2**63 - 1),
    st.integers(0, 10**6),
    st.randoms(use_true_random=False),
)
def test_the_sample_has_the_right_size_and_depends_on_the_set_only(
    structures: list[tuple[int, bool]], fraction: float, seed: int, step: int, random: Any
) -> None:
    keys, holders = (torch.tensor(column) for column in zip(*structures, strict=True))
    mask = sample_structures(keys, holders, fraction, seed=seed, step=step)
    n = int(holders.sum())
    assert int(mask.sum()) == (0 if n == 0 else max(1, round(fraction * n)))
    assert not bool((mask & ~holders).any())
    assert torch.equal(mask, sample_structures(keys, holders, fraction, seed=seed, step=step))
    order = list(range(len(keys)))
    random.shuffle(order)
    assert torch.equal(mask[order], sample_structures(keys[order], holders[order], fraction, seed=seed, step=step))


def test_all_samples_are_equally_probable() -> None:
    """All 20 sets of 3 of 6 over 2,000 steps: chi squared with 19 degrees of freedom stays below its 1e-6 quantile."""
    data = molecules([3] * 7, seed=5)
    keys = labeled(ORACLE, data, probes=1).rng_keys
    holders = torch.tensor([True, True, False, True, True, True, True])
    steps, count = 2000, dict.fromkeys(itertools.combinations([0, 1, 3, 4, 5, 6], 3), 0)
    for step in range(steps):
        mask = sample_structures(keys, holders, 0.5, seed=11, step=step)
        count[tuple(torch.nonzero(mask)[:, 0].tolist())] += 1
    expected = steps / len(count)
    assert sum((n - expected) ** 2 / expected for n in count.values()) < 62.2


def test_the_sample_is_independent_of_the_probes() -> None:
    """The first sign of a Rademacher probe has mean zero in the sample and among the others."""
    data = curved()
    bench = Bench(data, probe={"source": "fresh"}, curvature={"fraction": 0.5})
    signs: dict[bool, list[float]] = {True: [], False: []}
    for step in range(200):
        ((_, labels),) = bench.feed.load(list(range(8)), step)
        assert labels.probes is not None
        for k in range(8):
            first = float(labels.probes[0, labels.atom_slice(k)][0, 0])
            signs[bool(labels.mask("hvp")[0, k])].append(first)
    for values in signs.values():
        assert len(values) == 800
        assert abs(sum(values)) < 5 * math.sqrt(len(values))


# --- the estimate ----------------------------------------------------------------------------------------------------


def test_the_mean_over_all_samples_is_the_full_gradient(monkeypatch: pytest.MonkeyPatch, always_split: None) -> None:
    """All 28 sets of 2 of 8 structures: equal to the last digits, not only within a statistical error."""
    bench = Bench(curved(), curvature={"fraction": 0.25})
    whole = Bench(curved())
    all_indices = list(range(8))
    loss, slope = whole.at(all_indices, 0)
    losses, slopes = [], []
    for chosen in itertools.combinations(all_indices, 2):
        mask = torch.tensor([k in chosen for k in all_indices])
        with monkeypatch.context() as patch:
            patch.setattr(training_loader, "sample_structures", lambda *_, mask=mask, **__: mask)
            sampled_loss, sampled_slope = bench.at(all_indices, 0)
        losses.append(sampled_loss)
        slopes.append(sampled_slope)
    assert sum(losses) / len(losses) == pytest.approx(loss, rel=1e-12)
    torch.testing.assert_close(torch.stack(slopes).mean(0), slope, rtol=1e-10, atol=1e-11)
    assert max(losses) > 1.01 * min(losses)


@pytest.mark.parametrize(
    "changes",
    [
        {"curvature": {"fraction": 0.4, "probes": 1}},
        {"curvature": {"fraction": 0.4}, "weights": {"energy": 1, "forces": 0, "hvp": 0.0, "hessian": 0.2}},
    ],
    ids=["one of two pairs", "Hessians"],
)
def test_the_mean_over_steps_converges_to_the_full_gradient(always_split: None, changes: dict[str, Any]) -> None:
    """Mixed data: five structures without curvature. Along the full gradient and along random directions, the mean over
    60 steps is within five standard errors, estimated from the draws themselves."""
    data = training_data()
    bench = Bench(data, **changes)
    whole = Bench(data, **{**changes, "curvature": {}})
    all_indices = list(range(10))
    loss, slope = whole.at(all_indices, 0)
    draws = [bench.at(all_indices, step) for step in range(60)]
    slopes = torch.stack([draw_slope for _, draw_slope in draws])
    directions = torch.randn(20, len(slope), generator=torch.Generator().manual_seed(0), dtype=slope.dtype)
    for direction in (slope, *directions):
        direction = direction / direction.norm()
        values = slopes @ direction
        assert float(values.std()) > 0
        assert abs(float(values.mean() - slope @ direction)) < 5 * float(values.std()) / math.sqrt(len(values))
    losses = torch.tensor([draw_loss for draw_loss, _ in draws])
    assert abs(float(losses.mean()) - loss) < 5 * float(losses.std()) / math.sqrt(len(losses))


def test_the_variance_is_that_of_a_simple_random_sample() -> None:
    """(1/m − 1/n) S² (Cochran), with S² from the products of single structures; 800 samples estimate it within 5 %."""
    bench = Bench(curved(), curvature={"fraction": 0.25}, weights={"energy": 0, "forces": 0, "hvp": 1})
    all_indices = list(range(8))
    each = torch.tensor([bench.at([k], 0)[0] for k in all_indices], dtype=torch.float64)
    expected = (1 / 2 - 1 / 8) * float(each.var())
    means = []
    for step in range(800):
        ((_, labels),) = bench.feed.load(all_indices, step)
        means.append(float(each[labels.mask("hvp")[0]].mean()))
    assert float(torch.tensor(means).var()) == pytest.approx(expected, rel=0.2)
    assert bench.at(all_indices, 7)[0] == pytest.approx(means[7], rel=1e-10)


def test_pairs_are_sampled_uniformly() -> None:
    data = labeled(ORACLE, molecules([3, 4, 2], seed=1), probes=3, hessian=True)
    absent = torch.tensor([[True, True, True], [True, False, True], [True, True, False]])  # 3, 2 and 2 pairs
    labels = data.labels.replace(hvp_mask=absent)
    keys = data.rng_keys
    count = torch.zeros(3, 3)
    for step in range(450):
        few = sample_probes(labels, keys, 2, seed=3, step=step)
        assert few.probes is not None
        assert few.mask("hvp").sum(0).tolist() == [2, 2, 2]
        for k in range(3):
            rows = labels.atom_slice(k)
            present = [p for p in range(3) if absent[p, k]]
            chosen = [
                next(p for p in present if torch.equal(labels.probes[p, rows], few.probes[q, rows])) for q in range(2)
            ]
            assert len(set(chosen)) == 2
            for q, p in enumerate(chosen):
                assert torch.equal(labels.hvp[p, rows], few.hvp[q, rows])  # type: ignore[index]
                count[p, k] += 1
    assert torch.allclose(count[:, 0], torch.tensor(300.0), atol=5 * math.sqrt(450 * 2 / 9))
    assert count[:, 1].tolist() == [450, 0, 450]
    assert sample_probes(labels, keys, 3, seed=3, step=0) is labels
    assert sample_probes(labels, keys, None, seed=3, step=0) is labels


# --- microbatches ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"weights": {"hessian": 0.1}}, {"probe": {"source": "fresh"}}])
def test_one_or_two_microbatches_give_the_same_step(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    """Structures without curvature are evaluated separately, or masked with the others."""
    results = {}
    for least in (1, 10**6):
        monkeypatch.setattr(training_loader, "SPLIT_ABOVE_ATOMS", {"cpu": least, "other": least})
        for fraction in (1.0, 0.5):
            bench = Bench(training_data(), curvature={"fraction": fraction}, **changes)
            fetched = bench.feed.load(list(range(10)), 4)
            assert len(fetched) == (2 if least == 1 else 1)
            results[least, fraction] = bench.gradient(fetched)
    for fraction in (1.0, 0.5):
        (one, a), (two, b) = results[1, fraction], results[10**6, fraction]
        assert one == pytest.approx(two, rel=1e-12)
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_products_are_computed_for_the_sample_only(always_split: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Second derivatives of two structures of eight, first derivatives of all."""
    from hesse.training import step as module

    requested: list[tuple[bool, tuple[str, ...]]] = []
    original = module.evaluate

    def watched(potential: Any, batch: Any, request: Any, **options: Any) -> Properties:
        requested.append((request.probes is not None or request.hessian, batch.ids))
        return original(potential, batch, request, **options)

    monkeypatch.setattr(module, "evaluate", watched)
    data = curved()
    bench = Bench(data, curvature={"fraction": 0.25}, weights={"hessian": 0.1})
    bench.at(list(range(8)), 0)
    ((first, curved_ids), (second, flat_ids)) = requested
    assert (first, second) == (True, False)
    assert (len(curved_ids), len(flat_ids)) == (2, 6)
    assert {*curved_ids, *flat_ids} == {s.id for s in data.structures}


def test_steps_without_sampling_are_one_microbatch() -> None:
    """Complete labels, or no weight of curvature: the batch does not change."""
    for data, changes in ((curved(), {}), (training_data(), {"weights": {"hvp": 0}, "curvature": {"fraction": 0.1}})):
        bench = Bench(data, **changes)
        ((batch, labels),) = bench.feed.load([1, 0, 2], 5)
        assert batch.ids == tuple(data.structures[k].id for k in (1, 0, 2))
        assert labels.forces is not None
        assert bench.config.weights.hvp == 0 or bool(labels.mask("hvp").all())
    ((_, labels),) = Bench(training_data()).feed.load([0, 1], 0)  # neither holds a product
    assert labels.hvp is None


def test_the_parts_of_several_processes_add_up(always_split: None) -> None:
    """The sample is that of all structures of the step, for any division among processes."""
    bench = Bench(training_data(), curvature={"fraction": 0.5})
    all_indices = [3, 9, 0, 7, 5, 1, 8]
    for step in range(4):
        loss, slope = bench.at(all_indices, step)
        shares = [bench.feed.load(all_indices, step, only=indices) for indices in ([9, 0], [3, 7, 8], [5, 1])]
        counts = sum_counts(default_loss(), [part for share in shares for part in share], bench.weights)
        parts = [bench.gradient(share, counts) for share in shares]
        assert sum(value for value, _ in parts) == pytest.approx(loss, rel=1e-12)
        torch.testing.assert_close(sum(s for _, s in parts), slope, rtol=1e-9, atol=1e-11)


# --- every n-th step -------------------------------------------------------------------------------------------------


def test_every_third_step_has_curvature_terms_with_three_times_the_weight(tmp_path: Path) -> None:
    """At constant parameters (negligible learning rate) the sum over the steps is that with curvature at every step."""
    common: dict[str, Any] = {
        "steps": 6, "batch": {"structures": 10}, "optimizer": {"learning_rate": 1e-300, "weight_decay": 0.0},
        "validate_every": 6,
    }  # fmt: skip
    run(tmp_path / "every", curvature={"every_n_steps": 3}, **common)
    run(tmp_path / "always", **common)
    every_third, always = (
        [row for row in record(tmp_path / name) if row["kind"] == "train"] for name in ("every", "always")
    )
    assert ["hvp" in row for row in every_third] == [True, False, False] * 2
    assert sum(row["loss"] for row in every_third) == pytest.approx(sum(row["loss"] for row in always), rel=1e-10)
    assert every_third[0]["hvp"] == pytest.approx(always[0]["hvp"], rel=1e-12)
    a, b = (next(row for row in record(tmp_path / name) if row["kind"] == "validation") for name in ("every", "always"))
    assert a["loss"] == pytest.approx(b["loss"], rel=1e-12), "the validation loss has all terms"


def test_options_are_checked() -> None:
    for bad in ({"fraction": 0.0}, {"fraction": 1.5}, {"every_n_steps": 0}, {"probes": 0}, {"part": 0.5}):
        with pytest.raises(ValueError, match="curvature"):
            config(curvature=bad)
    assert json.loads(config().model_dump_json())["curvature"] == {"fraction": 1.0, "every_n_steps": 1, "probes": None}
