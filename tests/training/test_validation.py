"""Validation from a few probes per structure: the same ones every time, unbiased, with the right standard error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from tiny_run import ORACLE, config, training_data

from hesse.curvature import evaluate
from hesse.datasets import Dataset
from hesse.errors import MissingLabelError
from hesse.losses import Loss, LossTerm, LossWeights, per_structure_loss, weighted_loss
from hesse.potential import Potential
from hesse.structures import Properties, Request, Structure, collate
from hesse.training.error_sums import SquaredErrors
from hesse.training.initial_model import build_initial_potential
from hesse.training.validation import ValidationMetrics, hessian_errors, validate
from hesse.training.validation_probes import with_validation_probes
from oracles import labeled, molecules

HVP = LossWeights(energy=0, forces=0, hvp=1).loss()


@pytest.fixture(scope="module")
def model() -> Potential:
    """An untrained network, whose Hessian errors are large."""
    return build_initial_potential(config(), training_data(), None)


def with_hessians() -> Dataset:
    return labeled(ORACLE, molecules([4, 3, 5, 2, 6, 3], seed=9), probes=0, hessian=True)


def scores(model: Potential, data: Dataset, **options: Any) -> ValidationMetrics:
    return validate(model, data, HVP, dtype=torch.float64, device="cpu", max_atoms=100, **options)


# --- which probes ----------------------------------------------------------------------------------------------------


def test_the_probes_of_a_structure_are_always_the_same() -> None:
    """They depend on seed and id only, not on the batch, its order, or the number of probes."""
    data = with_hessians()
    labels = with_validation_probes(collate(data.structures, 4.0), data.labels, 4, seed=3)
    assert labels.hessian is None
    assert labels.probes is not None
    assert labels.hvp is not None
    assert bool(labels.mask("hvp").all())
    assert set(labels.probes.unique().tolist()) == {-1.0, 1.0}
    few = data.select([5, 1])
    again = with_validation_probes(collate(few.structures, 4.0), few.labels, 2, seed=3)
    other = with_validation_probes(collate(few.structures, 4.0), few.labels, 2, seed=4)
    for position, index in enumerate([5, 1]):
        atoms, rows = again.atom_slice(position), labels.atom_slice(index)
        assert torch.equal(again.probes[:, atoms], labels.probes[:2, rows])  # type: ignore[index]
        assert not torch.equal(other.probes[:, atoms], labels.probes[:2, rows])  # type: ignore[index]
        exact = torch.einsum("iajb,kjb->kia", data.labels.hessian_of(index), labels.probes[:, rows])
        torch.testing.assert_close(labels.hvp[:, rows], exact)


def test_structures_without_a_hessian_have_their_first_stored_pairs() -> None:
    structures = molecules([3, 4, 2, 5], seed=2)
    pairs = labeled(ORACLE, structures[:2], probes=6)
    full = labeled(ORACLE, structures[2:3], probes=0, hessian=True)
    plain = labeled(ORACLE, structures[3:], probes=0)
    labels = Properties.concatenate([pairs.labels, full.labels, plain.labels])
    absent = labels.mask("hvp").clone()
    absent[[0, 2, 3, 5], 1] = False  # the second structure has its pairs 1 and 4 only
    labels = labels.replace(hvp_mask=absent)
    batch = collate(structures, 4.0)
    chosen = with_validation_probes(batch, labels, 4, seed=0)
    assert chosen.mask("hvp").T.tolist() == [[True] * 4, [True, True, False, False], [True] * 4, [False] * 4]
    first, second = labels.atom_slice(0), labels.atom_slice(1)
    assert torch.equal(chosen.hvp[:, first], labels.hvp[:4, first])  # type: ignore[index]
    assert torch.equal(chosen.probes[:2, second], labels.probes[[1, 4]][:, second])  # type: ignore[index]
    assert torch.equal(chosen.hvp[:2, second], labels.hvp[[1, 4]][:, second])  # type: ignore[index]
    only_pairs = with_validation_probes(collate(structures[:2], 4.0), pairs.labels, 9, seed=0)
    assert torch.equal(only_pairs.hvp, pairs.labels.hvp)  # type: ignore[arg-type]
    assert with_validation_probes(collate(structures[3:], 4.0), plain.labels, 4, seed=0).hvp is None


# --- the estimate ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_estimate_is_unbiased(model: Potential) -> None:
    """The mean over 300 seeds is the full-matrix error within 4 standard errors (false alarm: 1 in 16,000).

    Power: a bias of 7 % is more than 6.4 standard errors, so that it is found with a probability above 99 %. Products
    that are not divided by the number of probes, or probes of another length, are wrong by factors.
    """
    data = with_hessians()
    exact = hessian_errors(model, data, dtype=torch.float64, device="cpu", max_atoms=100)
    draws = [scores(model, data, seed=seed, n_probes=4) for seed in range(300)]
    for values, expected in (
        (np.array([draw.loss for draw in draws]), exact["hessian"]),
        (np.array([draw.rmse["hessian"] ** 2 for draw in draws]), exact["hessian_rmse"] ** 2),
    ):
        standard_error = values.std(ddof=1) / math.sqrt(len(values))
        assert 0.07 * expected > 6.4 * standard_error, "the power is lower than stated"
        assert abs(values.mean() - expected) < 4 * standard_error
        assert values.std() > 0.005 * expected  # the probes differ


@pytest.mark.slow
def test_more_probes_have_a_smaller_spread(model: Potential) -> None:
    """The variance is proportional to 1/K: 16 times smaller with 32 probes than with 2 (F test of 100 draws each: a
    ratio of variances below 8 or above 32 has a probability below 1e-3)."""
    data = with_hessians()
    few, many = (np.var([scores(model, data, seed=s, n_probes=k).loss for s in range(100)]) for k in (2, 32))
    assert 8 < few / many < 32


# --- its standard error ----------------------------------------------------------------------------------------------


def jackknife(squared: np.ndarray, counts: np.ndarray, groups: list[list[int]]) -> float:
    values = [math.sqrt(np.delete(squared, g).sum() / np.delete(counts, g).sum()) for g in groups]
    return math.sqrt((len(groups) - 1) * np.var(values))


def test_the_standard_error_of_a_validation(model: Potential) -> None:
    """From squared errors of single structures; structures of one group are summed first."""
    structures = [
        Structure(s.numbers, s.positions, id=s.id, group=group)
        for s, group in zip(with_hessians().structures, ["a", "a", "b", "c", "c", "c"], strict=True)
    ]
    data = Dataset(structures, with_hessians().labels)
    batch = collate(structures, 4.0)
    labels = with_validation_probes(batch, data.labels, 4, seed=0)
    predicted = evaluate(model, batch, Request(probes=labels.probes))
    n = data.n_atoms.numpy()
    squared = per_structure_loss(predicted, labels, "hvp").numpy() * 9 * n**2 * 4  # sums over components
    counts = 3.0 * n * 4
    rmse = math.sqrt(squared.sum() / counts.sum())
    expected = jackknife(squared, counts, [[0, 1], [2], [3, 4, 5]])
    score = scores(model, data)
    assert score.rmse["hvp"] == pytest.approx(rmse, rel=1e-10)
    assert score.standard_errors["hvp"] == pytest.approx(expected, rel=1e-10)
    assert score.as_row()["hvp_rmse_standard_error"] == score.standard_errors["hvp"]
    assert f"Hv {rmse:.3g} ± {expected:.1g}" in score.summary()

    one_group = Dataset([Structure(s.numbers, s.positions, id=s.id, group="a") for s in structures], data.labels)
    expected = jackknife(squared, counts, [[k] for k in range(6)])
    assert scores(model, one_group).standard_errors["hvp"] == pytest.approx(expected, rel=1e-10)
    assert scores(model, data.select([0])).standard_errors == {}


@pytest.mark.slow
@pytest.mark.parametrize("structures_per_group", [1, 5])
def test_the_standard_error_is_the_spread_over_samples(structures_per_group: int) -> None:
    """1,500 validation sets of 60 groups from a population with groups of different errors, and four noisy probes for
    each structure. The root mean square of the standard errors is the standard deviation of the RMSE within 8 %: 1,500
    sets determine both to about 2 %. With five structures in a group, one over structures is below 0.75 of that."""
    generator = np.random.default_rng(0)
    rmse, errors, errors_without_groups = [], [], []
    for _ in range(1500):
        group = np.repeat(np.arange(60), structures_per_group)
        n_atoms = generator.integers(5, 15, size=60)[group]
        true_error = np.exp(0.4 * generator.standard_normal(60))[group] * np.exp(
            0.2 * generator.standard_normal(len(group))
        )
        probe_noise = generator.chisquare(4, size=len(group)) / 4
        sums, ungrouped = SquaredErrors(), SquaredErrors()
        counts = torch.from_numpy(12 * n_atoms)
        squared = torch.from_numpy(true_error**2 * probe_noise) * counts
        sums.add([(f"g{g}", f"s{k}") for k, g in enumerate(group)], squared, counts)
        ungrouped.add([(f"s{k}", f"s{k}") for k in range(len(group))], squared, counts)
        value, error = sums.rmse()
        _, error_without_groups = ungrouped.rmse()
        assert error is not None
        assert error_without_groups is not None
        rmse.append(value)
        errors.append(error)
        errors_without_groups.append(error_without_groups)
    spread = float(np.std(rmse, ddof=1))
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(spread, rel=0.08)
    if structures_per_group > 1:
        assert np.mean(errors_without_groups) < 0.75 * spread


# --- terms and weights -----------------------------------------------------------------------------------------------


def with_weights(data: Dataset, weights: list[float]) -> Dataset:
    labels = data.labels.replace(weight=torch.tensor(weights, dtype=torch.float64))
    return Dataset(data.structures, labels, metadata=data.metadata)


@pytest.mark.parametrize("form", ["mse", "rmse"])
@pytest.mark.parametrize("normalization", ["structure", "components"])
def test_terms_of_hessians_are_estimated_from_probes(model: Potential, normalization: str, form: str) -> None:
    """The exact term from full Hessians. The standard deviation of the estimate from 400 probes, over 20 seeds, is 1 %
    of it; 6 % are allowed."""
    data = with_weights(with_hessians(), [2.0, 1.0, 0.5, 1.0, 0.0, 3.0])
    loss = Loss([LossTerm(quantity="hessian", form=form, normalization=normalization, weight=0.5)])  # type: ignore[arg-type]
    batch = collate(list(data.structures), model.cutoff)
    exact, _ = weighted_loss(evaluate(model, batch, Request(hessian=True)), data.labels, loss)
    estimate = validate(model, data, loss, dtype=torch.float64, device="cpu", max_atoms=9, n_probes=400).loss
    assert estimate == pytest.approx(float(exact), rel=0.06)


def test_weights_of_structures_count_in_the_loss_and_not_in_the_errors(model: Potential) -> None:
    data = with_hessians()
    weighted = with_weights(data, [9.0, 1.0, 0.5, 1.0, 0.0, 3.0])
    one, other = scores(model, data), scores(model, weighted)
    assert one.rmse == other.rmse
    assert one.standard_errors == other.standard_errors
    each = [scores(model, data.select([i])).loss for i in range(6)]
    assert other.loss == pytest.approx(np.average(each, weights=[9.0, 1.0, 0.5, 1.0, 0.0, 3.0]), rel=1e-12)
    options: dict[str, Any] = {"dtype": torch.float64, "device": "cpu", "max_atoms": 100}
    assert hessian_errors(model, weighted, **options) == hessian_errors(model, data, **options)


def test_a_validation_in_which_no_structure_counts_is_refused(model: Potential) -> None:
    """Its loss would be zero, the best of all."""
    with pytest.raises(MissingLabelError, match="weight"):
        scores(model, with_weights(with_hessians(), [0.0] * 6))
