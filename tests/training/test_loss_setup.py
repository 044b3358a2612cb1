"""Before the first step: every term is in the loss; measured weights balance the gradients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from shared_runs import CustomPotential
from tiny_run import config, training_data, validation_data

from hesse.datasets import Dataset, PackedDataset
from hesse.errors import ConfigError
from hesse.losses import Loss, LossTerm, LossWeights
from hesse.structures.hessian_blocks import multiply_blocks
from hesse.training import TrainConfig, train
from hesse.training.compiled_step import CompiledLossAndGradient
from hesse.training.curvature_sampling import without_curvature
from hesse.training.initial_model import build_initial_potential
from hesse.training.loader import TrainingLoader
from hesse.training.loss_setup import balanced_weights, describe_terms, measure_terms
from hesse.training.step import LossAndGradient, sum_counts


def setup(**changes: Any) -> tuple[TrainConfig, LossAndGradient, TrainingLoader]:
    settings = config(**changes)
    model = build_initial_potential(settings, training_data(), None)
    return (
        settings,
        LossAndGradient(model, settings.make_loss()),
        TrainingLoader(training_data(), settings, model.cutoff),
    )


def notes(folder: Path) -> list[str]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["text"] for row in rows if row["kind"] == "note"]


def test_balanced_terms_have_gradients_of_equal_norm() -> None:
    """Recomputed here from the gradients of each term alone, on the same batches."""
    data = training_data()
    _, gradient, loader = setup(weights={"balance": True, "energy": 1.0, "forces": 1.0, "hvp": 0.25})
    before = [p.detach().clone() for p in gradient.potential.parameters()]
    terms = measure_terms(gradient, loader, data, fresh_probes=False, average=True)
    weights = balanced_weights(gradient.loss, terms)
    assert weights["energy"] == 4.0  # the default
    norms = {}
    for name, weight in weights.items():
        squares = []
        held = data.mask(name)
        held = held.any(0) if held.dim() == 2 else held
        for indices in loader.epoch(0)[:4]:
            labeled = indices[held[torch.as_tensor(indices)].numpy()]
            gradient.potential.zero_grad(set_to_none=True)
            microbatches = loader.load(labeled, 0, only=labeled)
            gradient(microbatches, {name: weight}, sum_counts(gradient.loss, microbatches, {name: weight}))
            squares.append(
                sum(float(p.grad.square().sum()) for p in gradient.potential.parameters() if p.grad is not None)
            )
        norms[name] = (sum(squares) / len(squares)) ** 0.5
        assert weight * terms[name].gradient_norm == pytest.approx(norms[name], rel=1e-9)
    assert norms["forces"] == pytest.approx(norms["energy"], rel=1e-9)
    assert norms["hvp"] == pytest.approx(0.25 * norms["energy"], rel=1e-9)
    assert all(torch.equal(a, b) for a, b in zip(before, gradient.potential.parameters(), strict=True))


def test_a_run_records_its_terms_and_keeps_its_weights(tmp_path: Path) -> None:
    settings = config(steps=4, checkpoint_every=2, weights={"balance": True, "energy": 1.0, "forces": 1.0, "hvp": 1.0})
    train(training_data(), validation_data(), settings, output=tmp_path / "a", quiet=True)
    first, ratios, *_ = notes(tmp_path / "a")
    assert first.startswith("loss terms and weights: energy 4 (10 of 10 structures), forces ")
    assert "hvp" in first
    assert ratios.startswith("weights balanced: energy : forces : hvp = 1 : ")
    train(training_data(), validation_data(), config(steps=4), output=tmp_path / "b", quiet=True)
    assert "balanced" not in " ".join(notes(tmp_path / "b"))


def test_a_term_that_the_potential_does_not_predict_is_refused(tmp_path: Path) -> None:
    """A potential without regularizer: its weight would have no effect."""
    settings = config(weights={"regularizer": 0.1})
    with pytest.raises(ConfigError, match="the loss term regularizer has a weight, but is not in the loss"):
        train(training_data(), validation_data(), settings, output=tmp_path, potential=CustomPotential(), quiet=True)


def test_counts_of_structures_are_those_with_the_label() -> None:
    data = training_data()
    loss = Loss([LossTerm(quantity="energy"), LossTerm(quantity="hvp", weight=0.5, form="mae")])
    (line,) = describe_terms(loss, data, loss.weights(), fresh_probes=False, balanced=False)
    held = int(data.mask("hvp").any(0).sum())
    assert line == (f"loss terms and weights: energy 1 (10 of 10 structures), hvp mae 0.5 ({held} of 10 structures)")


def test_unusual_measured_weights_get_a_remark() -> None:
    loss = LossWeights.model_validate("balance").loss()
    options: dict[str, Any] = {"fresh_probes": False, "balanced": True}
    usual = {"energy": 4.0, "forces": 0.6, "hvp": 0.1}
    assert len(describe_terms(loss, training_data(), usual, **options)) == 2
    *_, remark = describe_terms(loss, training_data(), {**usual, "forces": 400.0}, **options)
    assert remark.startswith("unusual weights, in units of the default ones with energy 1: forces 1.33e+03. ")


@pytest.mark.parametrize("weighting", ["mass", "soft-modes"])
def test_weighted_probes_are_transformed_ones(weighting: str) -> None:
    """v = P z of the plain probes z of the same seed, and products with the stored Hessians."""
    plain, weighted = (setup(probe={"source": "fresh", "weighting": w})[2] for w in ("none", weighting))
    indices = plain.epoch(0)[0]
    for (_, one), (_, other) in zip(plain.load(indices, 3), weighted.load(indices, 3), strict=True):
        assert one.probes is not None
        assert other.probes is not None
        assert other.hvp is not None
        assert other["probe_transform"] is None
        mask = other.mask("hvp")[0]
        assert bool(mask.any())
        torch.testing.assert_close(other.hvp, other.hessian_matvec(other.probes), equal_nan=True)
        packed = weighted._source
        assert isinstance(packed, PackedDataset)
        transforms = packed.labels.select(torch.as_tensor(indices))["probe_transform"]
        assert transforms is not None
        expected = multiply_blocks(transforms, other.n_atoms, other.hessian_mask, one.probes)
        torch.testing.assert_close(other.probes, expected, equal_nan=True)


def test_roots_of_several_microbatches() -> None:
    """Loss and gradient of √(mean) over two microbatches are those of one microbatch with all structures."""
    terms = [
        {"quantity": "energy", "form": "rmse"},
        {"quantity": "forces", "form": "rmse", "normalization": "components"},
        {"quantity": "hvp", "form": "rmse", "weight": 0.1},
    ]
    _, gradient, loader = setup(loss=terms, batch={"structures": 10})
    (indices,) = loader.epoch(0)
    results = []
    for groups in ([indices], [indices[:4], indices[4:]]):
        gradient.potential.zero_grad(set_to_none=True)
        microbatches = [m for group in groups for m in loader.load(group, 0, only=group)]
        total, values = gradient(microbatches, gradient.loss.weights())
        slopes = [p.grad.clone() for p in gradient.potential.parameters() if p.grad is not None]
        results.append((total, values, slopes))
    (one, ones, slopes), (two, twos, others) = results
    torch.testing.assert_close(one, two)
    torch.testing.assert_close(ones, twos)
    torch.testing.assert_close(slopes, others)


def test_steps_without_a_weighted_label_stay_compiled() -> None:
    """Such a microbatch has nothing to compute: compiled code would fail, and later steps would be eager."""
    _, gradient, loader = setup(weights={"energy": 0.0, "forces": 0.0, "hvp": 1.0})
    gradient.compiled = CompiledLossAndGradient(gradient.potential, gradient.loss, backend="aot_eager")
    batch, labels = loader.load(loader.epoch(0)[0], 0)[0]
    total, terms = gradient([(batch, without_curvature(labels))], gradient.loss.weights())
    assert float(total) == 0.0
    assert terms == {}
    assert gradient.compiled is not None
    assert all(p.grad is None for p in gradient.potential.parameters())


@pytest.mark.parametrize("balance", [False, True])
def test_a_term_whose_structures_all_have_weight_zero_is_refused(balance: bool) -> None:
    data = training_data()
    weight = (~data.mask("hvp").any(0)).to(torch.float64)
    weighted = Dataset(data.structures, data.labels.replace(weight=weight), metadata=data.metadata)
    settings = config()
    model = build_initial_potential(settings, weighted, None)
    gradient = LossAndGradient(model, settings.make_loss())
    with TrainingLoader(weighted, settings, model.cutoff) as loader, pytest.raises(ConfigError, match="loss term hvp"):
        measure_terms(gradient, loader, weighted, fresh_probes=False, average=balance)


@pytest.mark.parametrize(
    "options",
    [
        {"curvature": {"every_n_steps": 2}},
        {"curvature": {"fraction": 0.5}, "weights": {"hvp": 0.0, "hessian": 1.0}},
        {"curvature": {"fraction": 0.5}, "weights": {"hvp": 0.1, "hessian": 1.0}},
    ],
)
def test_weighted_probes_with_curvature_of_a_part_of_the_structures(options: dict[str, Any]) -> None:
    """Batches in which no structure, or some of them, have curvature terms."""
    _, gradient, loader = setup(probe={"source": "fresh", "weighting": "mass"}, **options)
    for step, indices in enumerate(loader.epoch(0)):
        total, _ = gradient(loader.load(indices, step), gradient.loss.weights())
        assert bool(torch.isfinite(total))
