"""Compiled steps have the numbers of eager ones, for all batches with one compilation; differences are reported."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import config, record, training_data, validation_data
from torch import Tensor, nn

from hesse.curvature import evaluate
from hesse.curvature.compiled_batches import min_dimension
from hesse.datasets import Dataset
from hesse.errors import CompilationError
from hesse.losses import Loss, default_loss, weighted_loss
from hesse.models import (
    Ani,
    AniConfig,
    HesseNet,
    HesseNetConfig,
    Hipnn,
    HipnnConfig,
    SumPotential,
    Zbl,
    ZblConfig,
)
from hesse.potential import Potential
from hesse.structures import Batch, Properties, Request, collate
from hesse.training import compile_policy, train
from hesse.training.checkpoint import TrainState
from hesse.training.compile_policy import CompilePolicy, choose_mode, max_relative_difference, tolerance
from hesse.training.compiled_step import CompiledLossAndGradient, append_zeros, pad_with_dummy
from hesse.training.distributed import Communicator
from hesse.training.step import LossAndGradient, MicroBatch, sum_counts
from hesse.training.trainer import Trainer
from oracles import Morse, crystal, labeled, molecules

pytestmark = pytest.mark.slow

ELEMENTS = (1, 6, 8)
WEIGHTS = {
    "energy": 1.0,
    "forces": 0.3,
    "hvp": 0.1,
    "hessian": 0.0,
    "stress": 0.0,
    "atomic_energies": 0.0,
    "regularizer": 0.0,
}
SMALL: dict[str, Any] = {"features": 6, "sensitivities": 5, "onsite_layers": 0}


@pytest.fixture(autouse=True)
def _reset_compiler() -> Any:
    """Compiled code of one test is not used by the next one."""
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def network(kind: str) -> Potential:
    torch.manual_seed(0)
    made: dict[str, Any] = {
        "hipnn, blocks": lambda: Hipnn(HipnnConfig(l_max=1, **(SMALL | {"features": 20})), ELEMENTS),
        "hipnn, matrix": lambda: Hipnn(HipnnConfig(l_max=0, **SMALL, blocks=1), ELEMENTS),
        "ani": lambda: Ani(AniConfig(hidden=(8,)), ELEMENTS),
        "hessenet": lambda: HesseNet(HesseNetConfig(features=6, channels=3, radial=4), ELEMENTS),
        "sum": lambda: SumPotential(
            [Zbl(ZblConfig(), ELEMENTS), Hipnn(HipnnConfig(l_max=1, **SMALL, blocks=1), ELEMENTS)]
        ),
    }
    return made[kind]().to(torch.float64)


def part(potential: Potential, sizes: list[int], seed: int = 0, *, probes: int = 1) -> MicroBatch:
    """Structures with labels, some of them absent."""
    data = labeled(Morse(), molecules(sizes, seed=seed, elements=ELEMENTS), probes=probes)
    batch, labels = data.batch(range(len(data)), potential.cutoff)
    lacking = torch.arange(len(sizes)) % 3 != 1
    changes: dict[str, Any] = {"forces_mask": lacking, "forces": labels.forces.clone()}  # type: ignore[union-attr]
    changes["forces"][~lacking[batch.structure_index]] = torch.nan
    return batch, Properties(**{**vars(labels), **changes})


def gradient(
    step: LossAndGradient, microbatch: MicroBatch, weights: dict[str, float] = WEIGHTS
) -> tuple[float, dict[str, Tensor]]:
    step.potential.zero_grad(set_to_none=True)
    loss, _ = step([microbatch], weights)
    slopes = {name: p.grad for name, p in step.potential.named_parameters()}
    return float(loss), {name: slope.clone() for name, slope in slopes.items() if slope is not None}


LONG = [pytest.param(kind, marks=pytest.mark.long) for kind in ("hipnn, blocks", "hessenet", "sum")]


@pytest.mark.parametrize("kind", ["ani", *LONG])
def test_traced_steps_have_the_loss_and_gradient_of_eager_ones(kind: str) -> None:
    """One trace serves batches with other numbers and sizes of molecules. Dimensions of 0 and 1 (structures, neighbors,
    triplets) would be constants; a dummy molecule avoids them."""
    potential = network(kind)
    eager = LossAndGradient(potential)
    traced = LossAndGradient(potential, compiled=CompiledLossAndGradient(potential, backend="aot_eager"))
    weights = {**WEIGHTS, "regularizer": 0.2, "atomic_energies": 0.3}
    batches = [[5, 4, 6, 3], [7, 3, 4], [9], [4, 4, 5, 3, 6, 2], [2, 2], [1], [1, 1, 1]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed, sizes in enumerate(batches):
            batch, labels = part(potential, sizes, seed)
            atomic = torch.linspace(-1, 1, sum(sizes), dtype=torch.float64)
            microbatch = batch, Properties(**{**vars(labels), "atomic_energies": atomic})
            loss, slopes = gradient(traced, microbatch, weights)
            expected_loss, expected = gradient(eager, microbatch, weights)
            assert loss == pytest.approx(expected_loss, rel=1e-12), sizes
            for name, slope in expected.items():
                torch.testing.assert_close(slopes[name], slope, rtol=1e-8, atol=1e-10 * float(slope.abs().max() + 1))
    if kind in ("ani", "sum"):  # the others have two layouts, for small and for large molecules
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_compiled_steps_have_the_loss_and_gradient_of_eager_ones() -> None:
    """With generated code; sizes 2 to 7 with one compilation."""
    potential = network("hipnn, matrix")
    eager, step = LossAndGradient(potential), LossAndGradient(potential, compiled=CompiledLossAndGradient(potential))
    for seed, sizes in enumerate([[5, 4, 6], [7, 3, 4, 2]]):
        microbatch = part(potential, sizes, seed)
        loss, slopes = gradient(step, microbatch)
        expected_loss, expected = gradient(eager, microbatch)
        assert loss == pytest.approx(expected_loss, rel=1e-11)
        for name, slope in expected.items():
            torch.testing.assert_close(slopes[name], slope, rtol=1e-8, atol=1e-9 * float(slope.abs().max() + 1))


def test_stress_is_compiled_too() -> None:
    """One structure and several with one compilation; cells and molecules in one batch, some without the label."""
    potential = network("hipnn, matrix")
    eager = LossAndGradient(potential)
    traced = LossAndGradient(potential, compiled=CompiledLossAndGradient(potential, backend="aot_eager"))
    weights = {**WEIGHTS, "stress": 2.0}
    for sizes in ((3,), (3, 2, 4)):
        cells = [crystal(seed, atoms=atoms) for seed, atoms in enumerate(sizes)]
        data = labeled(Morse(), [*cells, *(molecules([4]) if len(sizes) > 1 else [])])
        batch, labels = data.batch(range(len(data)), potential.cutoff)
        stress = torch.full((len(data), 3, 3), torch.nan, dtype=torch.float64)
        stress[: len(cells)] = 0.1 * torch.randn(len(cells), 3, 3, dtype=torch.float64)
        held = torch.arange(len(data)) < max(1, len(cells) - 1)
        microbatch = batch, Properties(**{**vars(labels), "stress": stress, "stress_mask": held})
        loss, slopes = gradient(traced, microbatch, weights)
        expected_loss, expected = gradient(eager, microbatch, weights)
        assert loss == pytest.approx(expected_loss, rel=1e-12), sizes
        without, _ = gradient(eager, microbatch)
        assert abs(loss - without) > 1e-3  # the stress contributes
        for name, slope in expected.items():
            torch.testing.assert_close(slopes[name], slope, rtol=1e-8, atol=1e-10 * float(slope.abs().max() + 1))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_batches_without_a_weighted_label_are_compiled() -> None:
    """Products and stress have weights; a batch of mixed data may have neither and is still compiled."""
    potential = network("hipnn, matrix")
    batch, labels = part(potential, [4, 3, 5])
    absent: dict[str, Any] = {
        "probes": torch.full_like(labels.probes, torch.nan),  # type: ignore[arg-type]
        "hvp": torch.full_like(labels.hvp, torch.nan),  # type: ignore[arg-type]
        "hvp_mask": torch.zeros(1, 3, dtype=torch.bool),
        "stress": torch.full((3, 3, 3), torch.nan, dtype=torch.float64),
        "stress_mask": torch.zeros(3, dtype=torch.bool),
    }
    microbatch, weights = (batch, Properties(**{**vars(labels), **absent})), {**WEIGHTS, "stress": 1.0}
    compiled = CompiledLossAndGradient(potential, backend="aot_eager")
    loss, slopes = gradient(LossAndGradient(potential, compiled=compiled), microbatch, weights)
    expected_loss, expected = gradient(LossAndGradient(potential), microbatch, weights)
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    for name, slope in expected.items():
        torch.testing.assert_close(slopes[name], slope, rtol=1e-8, atol=1e-10 * float(slope.abs().max() + 1))


def test_a_dummy_molecule_does_not_change_other_predictions() -> None:
    potential = network("hessenet")
    cell = crystal(1)
    for structures in ([molecules([1])[0]], [cell], [cell, *molecules([5, 2])]):
        batch = collate(structures, potential.cutoff)
        more = pad_with_dummy(batch)
        assert min_dimension(more) >= 2
        assert min_dimension(potential.precompute(more)) >= 2
        request = Request(forces=True, probes=torch.randn(2, len(batch.numbers), 3, dtype=torch.float64))
        expected = evaluate(potential, batch, request)
        padded = evaluate(potential, more, request.replace(probes=append_zeros(request.probes, 3, dim=1)))
        torch.testing.assert_close(padded.energy[:-1], expected.energy)  # type: ignore[index]
        torch.testing.assert_close(padded.forces[:-3], expected.forces)  # type: ignore[index]
        torch.testing.assert_close(padded.hvp[:, :-3], expected.hvp)  # type: ignore[index]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["hipnn, blocks", "ani", "hessenet", "sum"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_network_compiled(kind: str, dtype: torch.dtype) -> None:
    potential = network(kind).to(dtype)
    eager, step = LossAndGradient(potential), LossAndGradient(potential, compiled=CompiledLossAndGradient(potential))
    limit = 1e-8 if dtype == torch.float64 else 2e-3
    for seed, sizes in enumerate([[5, 4, 6, 3], [7, 3, 4], [9], [2, 2], [3, 4], [9, 8, 9, 7, 8, 9]]):
        batch, labels = part(potential, sizes, seed)
        microbatch = batch.to(dtype=dtype), labels.to(dtype=dtype)
        loss, slopes = gradient(step, microbatch)
        expected_loss, expected = gradient(eager, microbatch)
        assert loss == pytest.approx(expected_loss, rel=limit)
        for name, slope in expected.items():
            assert float((slopes[name] - slope).norm()) <= limit * float(slope.norm()) + 1e-3 * limit, name


def test_factors_give_the_loss_as_a_sum_of_squares() -> None:
    potential = network("hipnn, matrix")
    batch, labels = part(potential, [4, 3, 5, 2], probes=2)
    stress = torch.randn(4, 3, 3, dtype=torch.float64)
    labels = Properties(**{**vars(labels), "stress": stress, "stress_mask": torch.tensor([True, False, True, True])})
    weights = {**WEIGHTS, "atomic_energies": 0.7, "stress": 0.4}
    guess = labels.map_tensors(lambda x: torch.nan_to_num(x) + 0.3)
    loss = default_loss()
    counts = loss.counts(labels, weights)
    expected, _ = weighted_loss(guess, labels, weights, counts, batch=batch)
    by = loss.factors(labels, weights, counts, batch)
    total = sum(
        weights[name] * (by[name] * (getattr(guess, name) - target).square()).sum()
        for name, target in loss.targets(labels, weights).items()
    )
    assert float(total) == pytest.approx(float(expected), rel=1e-12)


# --- the decision ----------------------------------------------------------------------------------------------------


class DifferentWhenCompiled(Potential):
    """A potential whose energy differs in compiled code."""

    cutoff = 4.0

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, batch: Batch) -> Tensor:
        wrong = 1.5 if torch.compiler.is_compiling() else 1.0
        return (wrong * self.scale * batch.neighbor_vectors().square().sum(-1) * batch.neighbor_mask).sum(-1)


class Traced(CompiledLossAndGradient):
    """Traced without generating code."""

    def __init__(self, potential: Potential, loss: Loss | None = None) -> None:
        super().__init__(potential, loss, backend="aot_eager")


def test_a_short_run_stays_eager_and_gives_the_reason() -> None:
    potential = network("hipnn, matrix")
    step = LossAndGradient(potential)
    choice = choose_mode("auto", step, [part(potential, [3, 4, 5])], WEIGHTS, steps=20, native=True)
    assert (choice.mode, step.compiled) == ("eager", None)
    assert "too short a run" in choice.reason
    assert choose_mode("never", step, [], WEIGHTS, steps=10**9, native=True).mode == "eager"
    assert "hesse check" in choose_mode("auto", step, [], WEIGHTS, steps=10**9, native=False).reason


def test_the_measurement_changes_no_state() -> None:
    potential = network("hipnn, matrix")
    step, microbatch = LossAndGradient(potential), part(potential, [3, 4, 5])
    gradient(step, microbatch)
    before = {name: p.grad.clone() for name, p in potential.named_parameters() if p.grad is not None}
    state = torch.random.get_rng_state()
    choose_mode("auto", step, [microbatch], WEIGHTS, steps=20, native=True)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, p in potential.named_parameters():
        assert (p.grad is None) == (name not in before)
        if p.grad is not None:
            assert torch.equal(p.grad, before[name])


def test_wrong_compiled_gradients_are_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_policy, "CompiledLossAndGradient", Traced)
    potential = DifferentWhenCompiled()
    microbatch = part(potential, [3, 4, 5])
    step = LossAndGradient(potential, compiled=CompiledLossAndGradient(potential, backend="aot_eager"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert max_relative_difference(step, [microbatch], WEIGHTS) > 0.3 > tolerance(torch.float64)
        with pytest.raises(
            CompilationError, match=r"compile: always, but compiled gradients differ .* Use compile: auto"
        ):
            choose_mode("always", LossAndGradient(potential), [microbatch], WEIGHTS, steps=10, native=False)


def test_full_hessians_and_random_numbers_are_refused() -> None:
    potential = network("hipnn, matrix")
    with pytest.raises(CompilationError, match="full Hessians are not compiled"):
        choose_mode("always", LossAndGradient(potential), [], {**WEIGHTS, "hessian": 1.0}, steps=10, native=True)
    potential.noise = nn.Dropout(0.1)
    with pytest.raises(CompilationError, match=r"it draws random numbers \(Dropout\)"):
        CompiledLossAndGradient(potential)


def test_a_step_without_compiled_part_is_not_called_compiled() -> None:
    """A comparison of eager with eager steps is no evidence."""
    potential = network("hipnn, matrix")
    with pytest.raises(CompilationError, match=r"^compile: always, but there is no batch to compare with"):
        choose_mode("always", LossAndGradient(potential), [], WEIGHTS, steps=10, native=True)


def test_unmasked_nan_labels_give_nan_in_compiled_losses() -> None:
    potential = network("hipnn, matrix")
    _, labels = part(potential, [4, 3, 5])
    assert all(
        bool(torch.isfinite(value).all()) for value in default_loss().targets(labels, WEIGHTS).values()
    )  # absent: zero
    for name in ("energy", "forces", "hvp"):
        spoilt = getattr(labels, name).clone()
        spoilt[..., 0] = torch.nan
        targets = default_loss().targets(labels.replace(**{name: spoilt}), WEIGHTS)[name]
        assert bool(torch.isnan(targets).any()), name


def test_a_step_that_fails_to_compile_is_repeated_eagerly_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    potential = network("hipnn, matrix")

    def broken(*_: object) -> None:
        raise RuntimeError("no compiler here\nand more")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    compiled = CompiledLossAndGradient(potential)
    microbatch, messages = part(potential, [3, 4, 5]), []
    step = LossAndGradient(potential, compiled=compiled, on_compile_failure=messages.append)
    assert gradient(step, microbatch)[0] == gradient(LossAndGradient(potential), microbatch)[0]
    assert messages == ["RuntimeError: no compiler here"]
    assert step.compiled is None
    with pytest.raises(CompilationError, match="no compiler here"):
        gradient(LossAndGradient(potential, compiled=compiled), microbatch)


# --- in a run --------------------------------------------------------------------------------------------------------


SIMPLE: dict[str, Any] = {"model": {"l_max": 0, "onsite_layers": 0}, "weights": {"hvp": 0.0}}
"""Traced in a fraction of the time: what is tested here is the run, not its step."""


def notes(folder: Path) -> list[str]:
    """Notes about the mode of the steps, without those about loss terms and data."""
    texts = [row["text"] for row in record(folder) if row["kind"] == "note"]
    return [text for text in texts if not text.startswith(("loss terms", "validation", "warning"))]


@pytest.mark.filterwarnings("ignore::Warning:torch")
def test_a_compiled_run_is_continued_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_policy, "CompiledLossAndGradient", Traced)
    data: Dataset = training_data()
    settings = config(compile="always", steps=8, checkpoint_every=4, **SIMPLE)
    whole = train(data, validation_data(), settings, output=tmp_path / "whole", quiet=True)
    assert notes(tmp_path / "whole")[0].startswith("compiled: ")
    plain = train(data, validation_data(), config(steps=8, **SIMPLE), output=tmp_path / "plain", quiet=True)
    assert whole.scores["loss"] == pytest.approx(plain.scores["loss"], rel=1e-8)

    original = Trainer._step

    def stopped(self: Trainer) -> Any:
        if self.state.step == 4:
            raise KeyboardInterrupt
        return original(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(data, validation_data(), settings, output=tmp_path / "halves", quiet=True)
    real, count = compile_policy.max_relative_difference, [0]

    def counted(*arguments: Any) -> float:
        count[0] += 1
        return real(*arguments)

    monkeypatch.setattr(compile_policy, "max_relative_difference", counted)
    other = config(compile="auto", steps=8, checkpoint_every=4, **SIMPLE)  # the decision does not change
    again = train(data, validation_data(), other, output=tmp_path / "halves", quiet=True)
    assert again.scores == whole.scores
    assert count[0] == 1  # compiled again and compared at once


@pytest.mark.filterwarnings("ignore::Warning:torch")
def test_a_run_with_wrong_compiled_gradients_continues_eagerly_and_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_policy, "CompiledLossAndGradient", Traced)
    monkeypatch.setattr(compile_policy, "CHECK_EVERY", 2)
    real, count = compile_policy.max_relative_difference, [0]

    def third_differs(*arguments: Any) -> float:
        count[0] += 1
        return 0.5 if count[0] == 3 else real(*arguments)

    monkeypatch.setattr(compile_policy, "max_relative_difference", third_differs)
    settings = config(compile="always", steps=6, **SIMPLE)
    with pytest.warns(RuntimeWarning, match="step 3: from here on eager: compiled gradients differ"):
        done = train(training_data(), validation_data(), settings, output=tmp_path / "a", quiet=True)
    assert count[0] == 3  # before the first step, at it, and two steps on
    assert "from here on eager" in notes(tmp_path / "a")[1]
    plain = train(training_data(), validation_data(), config(steps=6, **SIMPLE), output=tmp_path / "b", quiet=True)
    assert done.scores["loss"] == pytest.approx(plain.scores["loss"], rel=1e-8)


@pytest.mark.parametrize("trouble", ["no compiler here", 0.5, float("nan")])
def test_a_failed_comparison_ends_compiling_and_not_the_run(
    trouble: str | float, monkeypatch: pytest.MonkeyPatch
) -> None:
    potential = network("hipnn, matrix")
    microbatch = part(potential, [3, 4, 5])

    def compared(*_: object) -> float:
        if isinstance(trouble, str):
            raise CompilationError(trouble)
        return trouble

    monkeypatch.setattr(compile_policy, "max_relative_difference", compared)
    step = LossAndGradient(potential, compiled=Traced(potential))
    mode = CompilePolicy(step, TrainState(step=6, compiled=True), Communicator())
    reason = trouble if isinstance(trouble, str) else "compiled gradients differ from eager ones by"
    with pytest.warns(RuntimeWarning, match=f"step 7: from here on eager: {reason}"):
        mode.verify([microbatch], WEIGHTS)
    assert step.compiled is None
    assert mode.state.compiled is False
    assert len(mode.pop_messages()) == 1
    assert gradient(step, microbatch)[0] == gradient(LossAndGradient(potential), microbatch)[0]


def test_counts_are_summed_over_microbatches() -> None:
    potential = network("hipnn, matrix")
    parts = [part(potential, [3, 4, 5]), part(potential, [4, 3], 1)]
    counts = sum_counts(default_loss(), parts, WEIGHTS)
    assert {name: int(count) for name, count in counts.items()} == {"energy": 5, "forces": 3, "hvp": 5}
