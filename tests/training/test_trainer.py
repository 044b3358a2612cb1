"""One training run: its steps, validation, records, and errors."""

from __future__ import annotations

import copy
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_run import ORACLE, assert_same_run, config, record, run, tensors, training_data, validation_data

from hesse.curvature import evaluate
from hesse.datasets import Dataset
from hesse.errors import ConfigError, MissingLabelError, NonFiniteLossError, UnknownElementError, WriteError
from hesse.losses import weighted_loss
from hesse.models import Hipnn, load_model, read_model_header, read_training_environments
from hesse.probes import ProbeSeed, make_probe
from hesse.structures import Batch, Properties, Request, collate
from hesse.training import read_log, run_setup, train, validation
from hesse.training.loader import TrainingLoader
from hesse.training.step import LossAndGradient
from hesse.training.validation import validate
from hesse.training.validation_probes import with_validation_probes
from oracles import Morse, labeled, molecule, molecules


def rows(folder: Path, kind: str = "train") -> list[dict[str, Any]]:
    return [row for row in record(folder) if row["kind"] == kind]


def parameters(folder: Path, kind: str = "model") -> dict[str, torch.Tensor]:
    stored = tensors(folder / "checkpoint.safetensors")
    return {n.removeprefix(f"{kind}."): v for n, v in stored.items() if n.startswith(f"{kind}.")}


# --- training reduces errors -----------------------------------------------------------------------------------------


def test_training_reduces_all_errors_and_curvature_labels_the_hessian_error(tmp_path: Path) -> None:
    """The same network, seed, data and number of steps, with and without Hessian-vector products."""
    oracle = Morse(depth=1.0, width=1.2)
    data = labeled(oracle, [molecule(4, seed=k, elements=(6,)) for k in range(12)])
    test_data = labeled(oracle, [molecule(4, seed=70 + k, elements=(6,)) for k in range(6)], hessian=True)
    errors = {}
    for name, hvp in (("ef", 0.0), ("ef_hvp", 0.3)):
        settings = config(
            steps=250, weights={"hvp": hvp}, optimizer={"learning_rate": 1e-2}, batch={"structures": 12},
            model={"features": 8, "sensitivities": 6}, validate_every=25, checkpoint_every=250,
            allow_shared_structures=True,
        )  # fmt: skip
        result = train(data, data, settings, output=tmp_path / name, quiet=True)
        first = rows(tmp_path / name, "validation")[0]
        for label in ("loss", "energy_rmse", "forces_rmse", "hvp_rmse"):
            assert result.scores[label] < 0.6 * first[label], f"{name}: {label}"

        batch = collate(test_data.structures, result.potential.cutoff)
        hessian = evaluate(result.potential, batch, Request(hessian=True)).hessian
        assert hessian is not None
        assert test_data.labels.hessian is not None
        errors[name] = float((hessian - test_data.labels.hessian).square().mean().sqrt())
        forces = evaluate(
            result.potential, collate(data.structures, result.potential.cutoff), Request(forces=True)
        ).forces
        assert forces is not None
        assert data.labels.forces is not None
        error = (forces - data.labels.forces).square().mean().sqrt()
        assert float(error) == pytest.approx(result.scores["forces_rmse"], rel=1e-10)
    assert errors["ef_hvp"] < 0.75 * errors["ef"]


# --- single steps ----------------------------------------------------------------------------------------------------


def first_loss(folder: Path, **changes: Any) -> float:
    run(folder, steps=1, **changes)
    return float(rows(folder)[0]["loss"])


def initial_model(settings: Any, data: Dataset) -> Hipnn:
    """The network before its first step."""
    from hesse.models import fit_reference_energies

    torch.manual_seed(settings.seed)
    numbers = torch.cat([torch.from_numpy(s.numbers.copy()) for s in data.structures])
    return Hipnn(settings.model, data.elements, fit_reference_energies(numbers, data.labels, data.elements)).double()


def test_the_first_step_is_adamw_on_the_documented_loss(tmp_path: Path) -> None:
    data = training_data()
    settings = config(
        steps=1, batch={"structures": 10}, weights={"energy": 2.0, "regularizer": 0.1}, schedule={"warmup": 5}
    )
    train(data, None, settings, output=tmp_path, quiet=True)

    model = initial_model(settings, data)
    before = copy.deepcopy(model)
    batch, labels = data.batch(list(range(10)), model.cutoff)
    assert labels.probes is not None
    request = Request(forces=True, probes=torch.nan_to_num(labels.probes))
    total, terms = weighted_loss(evaluate(model, batch, request, create_graph=True), labels, settings.weights)
    total.backward()
    (row,) = rows(tmp_path)
    assert row["loss"] == pytest.approx(total.item(), rel=1e-10)
    for name, value in terms.items():
        assert row[name] == pytest.approx(value.item(), rel=1e-9)
    assert row["lr"] == pytest.approx(5e-3 / 5)

    size = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None))
    factor = min(1.0, 10.0 / size)
    after = parameters(tmp_path)
    decayed = set()
    for name, parameter in before.named_parameters():
        slope = dict(model.named_parameters())[name].grad
        assert slope is not None
        slope = factor * slope
        step = slope / (slope.abs() + 1e-8)  # Adam's first step
        plain = parameter - row["lr"] * step
        shrunk = parameter * (1 - row["lr"] * 1e-4) - row["lr"] * step
        if torch.allclose(after[name], shrunk, rtol=0, atol=1e-11) and not torch.allclose(
            plain, shrunk, rtol=0, atol=1e-11
        ):
            decayed.add(name)
        else:
            torch.testing.assert_close(after[name], plain, rtol=0, atol=1e-11)
    assert decayed
    assert all(name.endswith("weight") for name in decayed)


@pytest.mark.parametrize("l_max", [0, 1, 2])
def test_weight_decay_acts_on_matrices_only(l_max: int) -> None:
    model = Hipnn(config(model={"l_max": l_max, "blocks": 2}).model, (1, 6, 8))
    matrices, others = run_setup.weight_decay_groups(model, 0.1)
    assert (matrices["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    names = {id(p): n for n, p in model.named_parameters()}
    assert len(matrices["params"]) + len(others["params"]) == len(names)
    assert all(names[id(p)].endswith("weight") for p in matrices["params"])
    spared = {names[id(p)].rsplit(".", 1)[-1] for p in others["params"]}
    assert {"bias", "sigma", "inverse_mu", "scales"} <= spared


def test_the_gradient_is_clipped(tmp_path: Path) -> None:
    run(tmp_path, steps=1, optimizer={"max_grad_norm": 1e-3})
    state = tensors(tmp_path / "checkpoint.safetensors")
    first_moments = [v for n, v in state.items() if n.endswith("exp_avg")]
    size = math.sqrt(sum(float(m.square().sum()) for m in first_moments)) / 0.1  # (1 − β₁) g
    assert size == pytest.approx(1e-3, rel=1e-3)


def test_the_moving_average(tmp_path: Path) -> None:
    """With a decay d_k = min(0.5, (1 + k)/(10 + k)): m_k = d_k m_{k−1} + (1 − d_k) w_k, from the initial weights."""
    constant = {"schedule": {"kind": "constant", "warmup": 0}, "checkpoint_every": 1}
    settings = config(**constant)
    average = {n: p.detach().clone() for n, p in initial_model(settings, training_data()).named_parameters()}
    for k in range(1, 8):
        folder = tmp_path / str(k)
        run(folder, steps=k, optimizer={"ema_decay": 0.5}, **constant)
        decay = min(0.5, (1 + k) / (10 + k))
        weights = parameters(folder)
        average = {n: decay * m + (1 - decay) * weights[n] for n, m in average.items()}
    stored = parameters(tmp_path / "7", "average")
    for name, value in average.items():
        torch.testing.assert_close(stored[name], value, rtol=0, atol=1e-13)
    # The average is validated and saved.
    saved = tensors(tmp_path / "7" / "last.hesse")
    assert all(torch.equal(saved[n], stored[n]) for n in average)


def test_without_an_average_the_last_weights_are_saved(tmp_path: Path) -> None:
    run(tmp_path, steps=3, optimizer={"ema_decay": None})
    weights, saved = parameters(tmp_path), tensors(tmp_path / "last.hesse")
    assert all(torch.equal(saved[n], weights[n]) for n in saved)


def test_every_structure_occurs_once_per_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    original = TrainingLoader.load

    def watched(self: TrainingLoader, indices: Any, step: int, **options: Any) -> Any:
        if options.get("only") is None:  # not those of the checks before the first step
            seen.append(indices.tolist())
        return original(self, indices, step, **options)

    monkeypatch.setattr(TrainingLoader, "load", watched)
    run(tmp_path / "a", steps=8)  # ten structures by three: four steps an epoch
    first, second = (list(itertools.chain(*epoch)) for epoch in (seen[:4], seen[4:]))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert max(len(batch) for batch in seen) == 3
    before = list(seen)
    seen.clear()
    run(tmp_path / "b", steps=8, seed=1)
    assert seen != before


def test_fresh_probes_are_functions_of_seed_and_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, tuple[str, ...], Properties]] = []
    original = TrainingLoader.load

    def watched(self: TrainingLoader, indices: Any, step: int, **options: Any) -> Any:
        parts = original(self, indices, step, **options)
        drawn.extend((step, batch.ids, labels) for batch, labels in parts)
        return parts

    monkeypatch.setattr(TrainingLoader, "load", watched)
    data = training_data()
    run(tmp_path, steps=8, seed=7, probe={"source": "fresh", "kind": "gaussian", "n_probes": 2})
    index = {s.id: i for i, s in enumerate(data.structures)}
    for step, ids, labels in drawn:
        chosen = [index[name] for name in ids]
        batch, stored = data.batch(chosen, 4.0)
        if labels.probes is None:  # the microbatch without Hessians
            assert not bool(stored.mask("hessian").any())
            continue
        expected = make_probe("gaussian", 2).draw(batch, ProbeSeed(seed=7, epoch=step))
        assert labels.probes is not None
        assert labels.hvp is not None
        assert torch.equal(labels.probes, expected)
        for i, name in enumerate(ids):
            rows_of = labels.atom_slice(i)
            if bool(stored.mask("hessian")[i]):
                exact = ORACLE.exact(data.structures[index[name]]).hessian
                product = np.einsum("iajb,kjb->kia", exact, expected[:, rows_of].numpy())
                np.testing.assert_allclose(labels.hvp[:, rows_of], product, atol=1e-10)
            assert labels.mask("hvp")[:, i].tolist() == [bool(stored.mask("hessian")[i])] * 2


def test_fresh_probes_require_hessians(tmp_path: Path) -> None:
    data = labeled(ORACLE, molecules([3, 4]), probes=2)
    with pytest.raises(MissingLabelError, match="'hessian'"):
        train(data, None, config(probe={"source": "fresh"}), output=tmp_path, quiet=True)
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_full_hessians_are_computed_before_the_first_and_after_the_last_step_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validations select the best model by the curvature error too: an estimate from four probes per structure."""
    requests: list[Request] = []
    original = validation.evaluate

    def watched(potential: Any, batch: Batch, request: Request) -> Properties:
        requests.append(request)
        return original(potential, batch, request)

    monkeypatch.setattr(validation, "evaluate", watched)
    data = validation_data()
    bare = Dataset(data.structures, data.labels.replace(probes=None, hvp=None, hvp_mask=None))
    weights = {"energy": 0, "forces": 0, "hvp": 0.5, "hessian": 0.25}
    train(
        training_data(), bare, config(steps=6, validate_every=2, probe={"source": "fresh"}, weights=weights),
        output=tmp_path, quiet=True,
    )  # fmt: skip
    assert [request.hessian for request in requests] == [True, False, False, False, True]
    assert [None if r.probes is None else len(r.probes) for r in requests] == [None, 4, 4, 4, None]
    before, after = rows(tmp_path, "hessian")
    assert (before["step"], after["step"]) == (0, 6)
    assert after["hessian"] < before["hessian"]
    batch = collate(bare.structures, 4.0)
    model = load_model(tmp_path / "last.hesse")
    predicted = evaluate(model, batch, Request(hessian=True))
    _, terms = weighted_loss(predicted, bare.labels, {"hessian": 1.0})
    assert after["hessian"] == pytest.approx(terms["hessian"].item(), rel=1e-9)
    assert after["structures"] == len(bare)
    assert predicted.hessian is not None
    assert bare.labels.hessian is not None
    rmse = float((predicted.hessian - bare.labels.hessian).square().mean().sqrt())
    assert after["hessian_rmse"] == pytest.approx(rmse, rel=1e-9)
    score = rows(tmp_path, "validation")[-1]
    labels = with_validation_probes(batch, bare.labels, 4, seed=0)
    _, terms = weighted_loss(evaluate(model, batch, Request(probes=labels.probes)), labels, {"hvp": 1.0})
    assert score["loss"] == pytest.approx(0.75 * terms["hvp"].item(), rel=1e-9)


def test_the_errors_of_full_hessians_can_be_turned_off(tmp_path: Path) -> None:
    run(tmp_path, steps=2, validate_hessians=False, validation_probes=2)
    assert rows(tmp_path, "hessian") == []
    assert rows(tmp_path, "validation")[0]["hvp_rmse"] > 0


def test_weight_ramps_change_the_loss(tmp_path: Path) -> None:
    run(
        tmp_path,
        steps=5,
        weights={"energy": 1, "forces": 0, "hvp": 1},
        weight_ramps={"energy": {"end": 1.0, "shape": "linear"}},
    )
    for k, row in enumerate(rows(tmp_path)):
        expected = k / 4 * row.get("energy", 0.0) + row.get("hvp", 0.0)
        assert row["loss"] == pytest.approx(expected, rel=1e-10)


# --- stopping, scores, records ---------------------------------------------------------------------------------------


def test_early_stopping_counts_validations_without_a_new_best(tmp_path: Path) -> None:
    result = run(
        tmp_path, steps=200, validate_every=1, early_stopping=3, optimizer={"learning_rate": 0.5, "ema_decay": None}
    )
    losses = [row["loss"] for row in rows(tmp_path, "validation")]
    best = int(np.argmin(losses)) + 1
    assert result.steps < 200
    assert result.best_step == best == result.steps - 3
    assert read_model_header(tmp_path / "model.hesse")["provenance"]["step"] == best
    assert read_model_header(tmp_path / "last.hesse")["provenance"]["step"] == result.steps
    environments = read_training_environments(tmp_path / "model.hesse")
    assert environments is not None
    assert environments.n_structures == len(training_data())


def test_the_best_model_is_saved_not_the_last(tmp_path: Path) -> None:
    run(tmp_path, steps=30, validate_every=1, checkpoint_every=30, optimizer={"learning_rate": 0.1, "ema_decay": None})
    losses = [row["loss"] for row in rows(tmp_path, "validation")]
    bests = [k for k, loss in enumerate(losses) if loss == min(losses[: k + 1])]
    assert 2 < len(bests) < len(losses) - 5, "the validation loss should go up and down for this test to mean anything"
    origin = read_model_header(tmp_path / "model.hesse")["provenance"]
    assert (origin["step"], origin["metrics"]["loss"]) == (bests[-1] + 1, min(losses))


def test_plateau_lowers_the_rate_and_ends_the_run(tmp_path: Path) -> None:
    schedule = {"kind": "plateau", "patience": 0, "factor": 0.1, "stop_below": 1e-2, "warmup": 0}
    result = run(
        tmp_path, steps=300, validate_every=1, schedule=schedule, optimizer={"learning_rate": 0.5, "ema_decay": None}
    )
    rates = [row["lr"] for row in rows(tmp_path)]
    assert result.steps < 300
    assert set(np.round(rates, 9)) == {0.5, 0.05}
    assert sorted(rates, reverse=True) == rates


def test_scores_do_not_depend_on_the_batches(tmp_path: Path) -> None:
    result = run(tmp_path, steps=4, weights={"hessian": 0.2})
    data = validation_data()
    weights = config(weights={"hessian": 0.2}).weights
    scores = [
        validate(result.potential, data, weights.loss(), dtype=torch.float64, device="cpu", max_atoms=limit)
        for limit in (1, 8, 1000)
    ]
    batch = collate(data.structures, 4.0)
    labels = with_validation_probes(batch, data.labels, 4, seed=0)
    predicted = evaluate(result.potential, batch, Request(forces=True, probes=labels.probes))
    # All structures have Hessians: both curvature terms are estimated from the same probes.
    total, _ = weighted_loss(predicted, labels, {**weights.by_name(), "hvp": weights.hvp + weights.hessian})
    for score in scores:
        assert score.loss == pytest.approx(total.item(), rel=1e-10)
        assert score.rmse == pytest.approx(scores[0].rmse, rel=1e-10)
    assert predicted.energy is not None
    error = (predicted.energy - data.labels.energy).numpy()  # type: ignore[operator]
    sizes = data.labels.n_atoms.numpy()
    assert scores[0].rmse["energy"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-10)
    assert scores[0].rmse["energy_per_atom"] == pytest.approx(np.sqrt(np.mean((error / sizes) ** 2)), rel=1e-10)
    assert scores[0].rmse["hvp"] == pytest.approx(
        float((predicted.hvp - labels.hvp).square().mean().sqrt()),
        rel=1e-10,  # type: ignore[operator]
    )


def test_scores_of_mixed_data_are_means_over_labeled_structures(tmp_path: Path) -> None:
    """Half of these structures have no curvature: the loss is that of training with all of them in one batch."""
    data, weights = training_data(), config(weights={"hessian": 0.2}).weights
    model = run(tmp_path, steps=2).potential
    batch = collate(data.structures, 4.0)
    labels = with_validation_probes(batch, data.labels, 4, seed=0)
    assert labels.probes is not None
    predicted = evaluate(model, batch, Request(forces=True, probes=torch.nan_to_num(labels.probes)))
    total, _ = weighted_loss(predicted, labels, {**weights.by_name(), "hvp": weights.hvp + weights.hessian})
    assert predicted.hvp is not None
    assert labels.hvp is not None
    present = ~torch.isnan(labels.hvp)
    error = float((predicted.hvp - labels.hvp)[present].square().mean().sqrt())
    for limit in (5, 1000):
        score = validate(model, data, weights.loss(), dtype=torch.float64, device="cpu", max_atoms=limit)
        assert score.loss == pytest.approx(total.item(), rel=1e-10)
        assert score.rmse["hvp"] == pytest.approx(error, rel=1e-10)


def test_the_record_and_the_provenance_of_models(tmp_path: Path) -> None:
    run(tmp_path, steps=4)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["kind"], row["step"]) for row in lines] == [
        ("note", 0),  # the terms of the loss
        ("note", 0),  # what is held out
        ("hessian", 0),
        ("note", 0),  # eager or compiled, and why
        *[("train", k) for k in (1, 2, 3, 4)],
        ("validation", 4),
        ("hessian", 4),
    ]
    assert all(min(row["seconds"], row["processor_seconds"]) > 0 for row in lines if row["kind"] == "train")
    origin = read_model_header(tmp_path / "model.hesse")["provenance"]
    assert origin["data_hash"] == training_data().content_hash()
    assert origin["level"] == "closed form"
    assert origin["structures"] == 10
    assert origin["config"] == config(steps=4).model_dump(mode="json")
    assert origin["metrics"]["loss"] == lines[-2]["loss"]


def test_the_same_seed_gives_the_same_run_and_another_does_not(tmp_path: Path) -> None:
    torch.manual_seed(99)
    run(tmp_path / "a")
    torch.rand(5)
    np.random.default_rng(3)
    run(tmp_path / "b")
    assert_same_run(tmp_path / "a", tmp_path / "b")
    run(tmp_path / "c", seed=1)
    assert record(tmp_path / "c") != record(tmp_path / "a")


def test_training_does_not_change_the_random_state_of_the_caller(tmp_path: Path) -> None:
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    run(tmp_path, steps=2)
    assert torch.equal(torch.rand(3), expected)


def test_tensorboard_has_the_numbers_of_the_record(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, steps=4, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = [e.value for e in events.Scalars("train/loss")]
    assert losses == pytest.approx([row["loss"] for row in rows(tmp_path)], rel=1e-6)
    assert [e.step for e in events.Scalars("validation/loss")] == [4]


# --- refusals and failures -------------------------------------------------------------------------------------------


def with_invalid_label(name: str, victim: int = 3) -> Dataset:
    data = training_data()
    labels = data.labels
    value = getattr(labels, name).clone()
    rows_of = labels.atom_slice(victim)
    if name == "energy":
        value[victim] = torch.nan
    elif name == "forces":
        value[rows_of.start, 1] = torch.inf
    else:
        value[:, labels.atom_slice(7)] = torch.nan
    return Dataset(data.structures, labels.replace(**{name: value}))


@pytest.mark.parametrize(("name", "victim"), [("forces", 3), ("hvp", 7)])
def test_a_non_finite_loss_names_the_structure(tmp_path: Path, name: str, victim: int) -> None:
    data = with_invalid_label(name)
    settings = config(batch={"structures": 5}, checkpoint_every=1)
    culprit = data.structures[victim].id
    with pytest.raises(NonFiniteLossError, match=rf'not a finite number for 1 of 5 structures: "{culprit}"') as caught:
        train(data, None, settings, output=tmp_path, quiet=True)
    done = [row for row in read_log(tmp_path / "metrics.jsonl") if row["kind"] == "train"]
    if done:  # the last valid state exists
        assert "The last good state is in" in str(caught.value)
        assert all(torch.isfinite(v).all() for v in parameters(tmp_path).values())
    else:
        assert "No state was saved yet" in str(caught.value)
    with pytest.raises(NonFiniteLossError, match=culprit):  # and again when continued
        train(data, None, settings, output=tmp_path, quiet=True)


def test_a_non_finite_validation_loss_stops_the_run(tmp_path: Path) -> None:
    settings = config(validate_every=1, allow_shared_structures=True)
    with pytest.raises(NonFiniteLossError, match="step 1: the validation loss is not a finite number"):
        train(training_data(), with_invalid_label("energy"), settings, output=tmp_path, quiet=True)


def test_a_non_finite_gradient_names_the_structure_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The square root of zero has a value and no derivative."""
    original, culprit = LossAndGradient._eager_means, training_data().structures[4].id

    def kinked(self: LossAndGradient, batch: Batch, *rest: Any, **options: Any) -> Any:
        means = original(self, batch, *rest, **options)
        if culprit in batch.ids:
            name = next(iter(means))
            means[name] = means[name] + (0.0 * next(self.potential.parameters()).sum()).sqrt()
        return means

    monkeypatch.setattr(LossAndGradient, "_eager_means", kinked)
    with pytest.raises(NonFiniteLossError, match=f'for 1 of 3 structures: "{culprit}"'):
        run(tmp_path)


def test_the_last_good_checkpoint_survives_a_divergence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, count = LossAndGradient.__call__, [0]

    def diverging(self: LossAndGradient, *arguments: Any) -> Any:
        count[0] += len(arguments) == 2  # a step, and not a single structure or a check before the first step
        total, terms = original(self, *arguments)
        return (total * math.inf if count[0] == 8 and len(arguments) == 2 else total), terms

    with monkeypatch.context() as patch:
        patch.setattr(LossAndGradient, "__call__", diverging)
        with pytest.raises(NonFiniteLossError, match=r"step 8: the loss of the whole batch .* lower optimizer"):
            run(tmp_path / "interrupted")
    run(tmp_path / "interrupted")
    run(tmp_path / "uninterrupted")
    assert_same_run(tmp_path / "uninterrupted", tmp_path / "interrupted")


def test_batches_without_any_weighted_label(tmp_path: Path) -> None:
    """Half of the structures have no curvature, and nothing else is weighted."""
    result = run(tmp_path, steps=12, weights={"energy": 0, "forces": 0, "hvp": 1}, batch={"structures": 1})
    losses = [row["loss"] for row in rows(tmp_path)]
    assert sum(loss == 0.0 for loss in losses) >= 4
    assert all(math.isfinite(loss) for loss in losses)
    assert result.steps == 12


@pytest.mark.parametrize(
    ("weights", "missing"),
    [({"hessian": 1.0}, "hessian"), ({"stress": 1.0}, "stress"), ({"hvp": 1.0}, "hvp")],
    ids=str,
)
def test_missing_labels_are_reported(tmp_path: Path, weights: dict[str, float], missing: str) -> None:
    data = labeled(ORACLE, molecules([3, 4]), probes=0)
    with pytest.raises(MissingLabelError, match=rf"no structure holds the label '{missing}' \(found: energy, forces\)"):
        train(data, None, config(weights={"hvp": 0.0, **weights}), output=tmp_path, quiet=True)
    only = config(weights={"energy": 0, "forces": 0, "hvp": 1})
    with pytest.raises(MissingLabelError, match="validation structures hold none of the weighted labels"):
        train(training_data(), data, only, output=tmp_path, quiet=True)


def test_invalid_runs_are_refused(tmp_path: Path) -> None:
    data = training_data()
    zero = {"energy": 0, "forces": 0, "hvp": 0}
    with pytest.raises(ConfigError, match="all loss weights are zero"):
        train(data, None, config(weights=zero), output=tmp_path / "a", quiet=True)
    with pytest.raises(ConfigError, match="weight_ramps are given for hessian, whose weight is zero"):
        train(data, None, config(weight_ramps={"hessian": {}}), output=tmp_path / "b", quiet=True)
    foreign = labeled(ORACLE, [molecule(3, seed=1, elements=(9,), name="fluorine")], probes=0)
    with pytest.raises(UnknownElementError, match=r'structure "fluorine" holds .*9'):
        train(data, foreign, config(), output=tmp_path / "c", quiet=True)
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(WriteError, match="cannot create the run folder"):
        train(data, None, config(), output=blocked, quiet=True)


def test_progress_goes_to_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(training_data(), validation_data(), config(steps=4), output=tmp_path, quiet=False)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "training: 4/4" in shown.err
    assert "loss" in shown.err
