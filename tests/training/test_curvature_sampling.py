"""Curvature on part of a step: the draws are fair, the estimate is unbiased, and work is saved."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_run import ORACLE, config, record, run, training_data
from torch import Tensor

from hesse.datasets import Dataset
from hesse.structures import Properties
from hesse.training import TrainConfig, curvature_sampling
from hesse.training.curvature_sampling import CurvatureSampler, sample_probes, sample_structures
from hesse.training.initial_model import build_initial_potential
from hesse.training.loader import TrainingLoader
from hesse.training.step import LossAndGradient, count_labeled_structures
from oracles import labeled, molecules


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts whatever their size: molecules of these tests are small."""
    monkeypatch.setattr(curvature_sampling, "SPLIT_ABOVE_ATOMS", {"cpu": 1, "other": 1})


def curved(*, probes: int = 1) -> Dataset:
    """Eight structures that all hold products and Hessians."""
    return labeled(ORACLE, molecules([4, 3, 5, 2, 6, 3, 4, 5], seed=3), probes=probes, hessian=True)


class Bench:
    """A network at its first step, and the gradient of any fetched structures."""

    def __init__(self, data: Dataset, **changes: Any) -> None:
        self.config: TrainConfig = config(**changes)
        self.model = build_initial_potential(self.config, data, None)
        self.feed = TrainingLoader(data, self.config, self.model.cutoff)
        self.step = LossAndGradient(self.model)
        self.weights = self.config.weights.model_dump()

    def gradient(self, found: Any, counts: Any = None) -> tuple[float, Tensor]:
        """The loss of parts and its gradient in all parameters, as one vector."""
        self.model.zero_grad(set_to_none=True)
        total, _ = self.step(found, self.weights, counts)
        slopes = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.step.trainable_parameters()]
        return float(total), torch.cat([slope.reshape(-1) for slope in slopes])

    def at(self, indices: list[int], step: int) -> tuple[float, Tensor]:
        return self.gradient(self.feed.load(indices, step))


# --- who is drawn ----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2**63 - 1), st.booleans()), min_size=1, max_size=30, unique_by=lambda k: k[0]),
    st.floats(0.01, 1.0),
    st.integers(0, 2**63 - 1),
    st.integers(0, 10**6),
    st.randoms(use_true_random=False),
)
def test_a_draw_is_of_the_right_size_and_belongs_to_the_set(
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


def test_every_set_of_structures_is_as_likely_as_any_other() -> None:
    """All 20 sets of 3 of 6 over 2,000 steps: chi squared with 19 degrees of freedom stays below its 1e-6 quantile."""
    data = molecules([3] * 7, seed=5)
    keys = CurvatureSampler.from_data(labeled(ORACLE, data, probes=1), config()).keys
    holders = torch.tensor([True, True, False, True, True, True, True])
    steps, count = 2000, dict.fromkeys(itertools.combinations([0, 1, 3, 4, 5, 6], 3), 0)
    for step in range(steps):
        mask = sample_structures(keys, holders, 0.5, seed=11, step=step)
        count[tuple(torch.nonzero(mask)[:, 0].tolist())] += 1
    expected = steps / len(count)
    assert sum((found - expected) ** 2 / expected for found in count.values()) < 62.2


def test_the_draw_has_nothing_to_do_with_the_probes() -> None:
    """The first sign of a Rademacher probe, among the drawn and among the others: a fair coin in both."""
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


def test_the_mean_over_all_draws_is_the_gradient_of_the_whole_step(
    monkeypatch: pytest.MonkeyPatch, apart: None
) -> None:
    """All 28 sets of 2 of 8 structures: not within an error, but to the last digits."""
    bench = Bench(curved(), curvature={"fraction": 0.25})
    whole = Bench(curved())
    everyone = list(range(8))
    loss, slope = whole.at(everyone, 0)
    losses, slopes = [], []
    for chosen in itertools.combinations(everyone, 2):
        mask = torch.tensor([k in chosen for k in everyone])
        with monkeypatch.context() as patch:
            patch.setattr(curvature_sampling, "sample_structures", lambda *_, mask=mask, **__: mask)
            found = bench.at(everyone, 0)
        losses.append(found[0])
        slopes.append(found[1])
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
def test_the_mean_over_steps_approaches_it_as_fast_as_theory_says(apart: None, changes: dict[str, Any]) -> None:
    """Mixed data: five structures without curvature. Along the full gradient and along random directions, the mean over
    60 steps is within five standard errors, estimated from the draws themselves."""
    data = training_data()
    bench = Bench(data, **changes)
    whole = Bench(data, **{**changes, "curvature": {}})
    everyone = list(range(10))
    loss, slope = whole.at(everyone, 0)
    draws = [bench.at(everyone, step) for step in range(60)]
    slopes = torch.stack([found for _, found in draws])
    directions = torch.randn(20, len(slope), generator=torch.Generator().manual_seed(0), dtype=slope.dtype)
    for direction in (slope, *directions):
        direction = direction / direction.norm()
        values = slopes @ direction
        assert float(values.std()) > 0
        assert abs(float(values.mean() - slope @ direction)) < 5 * float(values.std()) / math.sqrt(len(values))
    losses = torch.tensor([found for found, _ in draws])
    assert abs(float(losses.mean()) - loss) < 5 * float(losses.std()) / math.sqrt(len(losses))


def test_the_variance_is_that_of_a_simple_random_sample() -> None:
    """(1/m − 1/n) S² (Cochran), with S² from the structures' own products; 800 draws give it to some 5 %."""
    bench = Bench(curved(), curvature={"fraction": 0.25}, weights={"energy": 0, "forces": 0, "hvp": 1})
    everyone = list(range(8))
    each = torch.tensor([bench.at([k], 0)[0] for k in everyone], dtype=torch.float64)
    expected = (1 / 2 - 1 / 8) * float(each.var())
    draw = bench.feed.curvature_sampler
    means = []
    for step in range(800):
        ((share),) = draw.split(everyone, step)
        means.append(float(each[share.masks["hvp"]].mean()))
    assert float(torch.tensor(means).var()) == pytest.approx(expected, rel=0.2)
    assert bench.at(everyone, 7)[0] == pytest.approx(means[7], rel=1e-10)


def test_one_of_several_pairs_is_drawn_fairly_and_stays_a_pair() -> None:
    data = labeled(ORACLE, molecules([3, 4, 2], seed=1), probes=3, hessian=True)
    absent = torch.tensor([[True, True, True], [True, False, True], [True, True, False]])  # 3, 2 and 2 pairs
    labels = replace(data.labels, hvp_mask=absent)
    keys = CurvatureSampler.from_data(data, config()).keys
    count = torch.zeros(3, 3)
    for step in range(450):
        few = sample_probes(labels, keys, 2, seed=3, step=step)
        assert few.probes is not None
        assert few.mask("hvp").sum(0).tolist() == [2, 2, 2]
        for k in range(3):
            rows = labels.atom_slice(k)
            held = [p for p in range(3) if absent[p, k]]
            found = [
                next(p for p in held if torch.equal(labels.probes[p, rows], few.probes[q, rows])) for q in range(2)
            ]
            assert len(set(found)) == 2
            for q, p in enumerate(found):
                assert torch.equal(labels.hvp[p, rows], few.hvp[q, rows])  # type: ignore[index]
                count[p, k] += 1
    assert torch.allclose(count[:, 0], torch.tensor(300.0), atol=5 * math.sqrt(450 * 2 / 9))
    assert count[:, 1].tolist() == [450, 0, 450]
    assert sample_probes(labels, keys, 3, seed=3, step=0) is labels
    assert sample_probes(labels, keys, None, seed=3, step=0) is labels


# --- parts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"weights": {"hessian": 0.1}}, {"probe": {"source": "fresh"}}])
def test_apart_or_together_is_the_same_step(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    """Structures without curvature, evaluated on their own or with the others and masked."""
    found = {}
    for least in (1, 10**6):
        monkeypatch.setattr(curvature_sampling, "SPLIT_ABOVE_ATOMS", {"cpu": least, "other": least})
        for fraction in (1.0, 0.5):
            bench = Bench(training_data(), curvature={"fraction": fraction}, **changes)
            fetched = bench.feed.load(list(range(10)), 4)
            assert len(fetched) == (2 if least == 1 else 1)
            found[least, fraction] = bench.gradient(fetched)
    for fraction in (1.0, 0.5):
        (one, a), (two, b) = found[1, fraction], found[10**6, fraction]
        assert one == pytest.approx(two, rel=1e-12)
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_products_are_taken_of_the_drawn_structures_only(apart: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the network is asked for: second derivatives of two structures of eight, first ones of all."""
    from hesse.training import step as module

    asked: list[tuple[bool, tuple[str, ...]]] = []
    original = module.evaluate

    def watched(potential: Any, batch: Any, request: Any, **options: Any) -> Properties:
        asked.append((request.probes is not None or request.hessian, batch.ids))
        return original(potential, batch, request, **options)

    monkeypatch.setattr(module, "evaluate", watched)
    data = curved()
    bench = Bench(data, curvature={"fraction": 0.25}, weights={"hessian": 0.1})
    bench.at(list(range(8)), 0)
    ((first, bent), (second, plain)) = asked
    assert (first, second) == (True, False)
    assert (len(bent), len(plain)) == (2, 6)
    assert {*bent, *plain} == {s.id for s in data.structures}


def test_nothing_is_parted_where_there_is_nothing_to_gain() -> None:
    """Complete labels, or no weight on curvature: the batch as it is."""
    for data, changes in ((curved(), {}), (training_data(), {"weights": {"hvp": 0}, "curvature": {"fraction": 0.1}})):
        bench = Bench(data, **changes)
        ((batch, labels),) = bench.feed.load([1, 0, 2], 5)
        assert batch.ids == tuple(data.structures[k].id for k in (1, 0, 2))
        assert labels.forces is not None
        assert bench.config.weights.hvp == 0 or bool(labels.mask("hvp").all())
    ((_, labels),) = Bench(training_data()).feed.load([0, 1], 0)  # neither holds a product
    assert labels.hvp is None


def test_shares_of_several_processes_add_up_to_the_step_of_one(apart: None) -> None:
    """The draw is of the whole step, whoever evaluates what."""
    bench = Bench(training_data(), curvature={"fraction": 0.5})
    everyone = [3, 9, 0, 7, 5, 1, 8]
    for step in range(4):
        loss, slope = bench.at(everyone, step)
        shares = [bench.feed.load(mine, step, step_indices=everyone) for mine in ([9, 0], [3, 7, 8], [5, 1])]
        counts = count_labeled_structures([part for share in shares for part in share], bench.weights)
        found = [bench.gradient(share, counts) for share in shares]
        assert sum(value for value, _ in found) == pytest.approx(loss, rel=1e-12)
        torch.testing.assert_close(sum(s for _, s in found), slope, rtol=1e-9, atol=1e-11)


# --- every so many steps ---------------------------------------------------------------------------------------------


def test_every_third_step_has_curvature_of_three_times_the_weight(tmp_path: Path) -> None:
    """At constant parameters (a rate of next to nothing) the sum over the steps is that of curvature at every step."""
    common: dict[str, Any] = {
        "steps": 6, "batch": {"structures": 10}, "optimizer": {"learning_rate": 1e-300, "weight_decay": 0.0},
        "validate_every": 6,
    }  # fmt: skip
    run(tmp_path / "every", curvature={"every_n_steps": 3}, **common)
    run(tmp_path / "always", **common)
    some, always = ([row for row in record(tmp_path / name) if row["kind"] == "train"] for name in ("every", "always"))
    assert ["hvp" in row for row in some] == [True, False, False] * 2
    assert sum(row["loss"] for row in some) == pytest.approx(sum(row["loss"] for row in always), rel=1e-10)
    assert some[0]["hvp"] == pytest.approx(always[0]["hvp"], rel=1e-12)
    a, b = (next(row for row in record(tmp_path / name) if row["kind"] == "validation") for name in ("every", "always"))
    assert a["loss"] == pytest.approx(b["loss"], rel=1e-12), "the validation loss has all terms"


def test_options_are_checked() -> None:
    for bad in ({"fraction": 0.0}, {"fraction": 1.5}, {"every_n_steps": 0}, {"probes": 0}, {"part": 0.5}):
        with pytest.raises(ValueError, match="curvature"):
            config(curvature=bad)
    assert json.loads(config().model_dump_json())["curvature"] == {"fraction": 1.0, "every_n_steps": 1, "probes": None}
