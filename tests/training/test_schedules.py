"""Learning rates and ramps, compared with their formulas."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hesse.losses import Loss, LossTerm, LossWeights
from hesse.training import RampConfig, ScheduleConfig
from hesse.training.schedules import Plateau, learning_rate, loss_weights_at


@given(step=st.integers(0, 99), warmup=st.integers(0, 40), final=st.floats(0.001, 1.0))
def test_cosine(step: int, warmup: int, final: float) -> None:
    schedule = ScheduleConfig(kind="cosine", warmup=warmup, final=final)
    rate = learning_rate(2e-3, step, 100, schedule, Plateau())
    rise = 1.0 if step + 1 >= warmup else (step + 1) / warmup
    expected = 2e-3 * rise * (final + (1 - final) * math.cos(math.pi * step / 198) ** 2)
    assert rate == pytest.approx(expected, rel=1e-12)


def test_cosine_ends_at_the_final_rate() -> None:
    schedule = ScheduleConfig(kind="cosine", warmup=0, final=0.05)
    assert learning_rate(1.0, 0, 10, schedule, Plateau()) == 1.0
    assert learning_rate(1.0, 9, 10, schedule, Plateau()) == pytest.approx(0.05)
    assert learning_rate(1.0, 0, 1, schedule, Plateau()) == 1.0  # a run of one step


def test_constant_rate_with_warmup() -> None:
    schedule = ScheduleConfig(kind="constant", warmup=4)
    assert [learning_rate(1.0, k, 9, schedule, Plateau(factor=0.5)) for k in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


def test_plateau_reduces_the_rate_after_patience() -> None:
    schedule = ScheduleConfig(kind="plateau", warmup=0, factor=0.5, patience=2)
    plateau, factors = Plateau(), []
    for loss in [5, 4, 4, 4.5, 4, 3, 9, 9, 9, 9, 9, 9, 2]:
        plateau.update(loss, schedule)
        factors.append(plateau.factor)
    # The third validation without a new best loss exceeds a patience of two.
    assert factors == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125]
    assert plateau.best == 2
    assert learning_rate(8.0, 3, 10, schedule, plateau) == 1.0


def test_a_validation_loss_of_nan_is_no_improvement() -> None:
    schedule, plateau = ScheduleConfig(kind="plateau", patience=0), Plateau()
    plateau.update(3.0, schedule)
    plateau.update(math.nan, schedule)
    assert plateau.best == 3.0
    assert plateau.factor == 0.5


def parts(weights: LossWeights) -> tuple[Loss, dict[str, float]]:
    return weights.loss(), weights.loss().weights()


@given(time=st.integers(0, 100), start=st.floats(0, 0.5), width=st.floats(0.05, 0.5))
def test_ramps(time: int, start: float, width: float) -> None:
    x = min(max((time / 100 - start) / width, 0.0), 1.0)
    for shape, expected in (("linear", x), ("cosine", math.sin(math.pi * x / 2) ** 2)):
        ramp = RampConfig(start=start, end=start + width, shape=shape)  # type: ignore[arg-type]
        values = loss_weights_at(*parts(LossWeights(energy=3.0, hvp=0.5)), {"hvp": ramp}, time, 101)
        assert values["hvp"] == pytest.approx(0.5 * expected, abs=1e-9)
        assert values["energy"] == 3.0


def test_ramps_at_their_ends() -> None:
    ramp = RampConfig(start=0.0, end=1.0, shape="linear")
    assert [loss_weights_at(*parts(LossWeights(hvp=1.0)), {"hvp": ramp}, k, 5)["hvp"] for k in range(5)] == [
        0,
        0.25,
        0.5,
        0.75,
        1,
    ]
    step = RampConfig(start=0.5, end=0.5)
    assert [loss_weights_at(*parts(LossWeights(hvp=1.0)), {"hvp": step}, k, 5)["hvp"] for k in range(5)] == [
        0,
        0,
        1,
        1,
        1,
    ]


def test_ramps_of_terms_and_of_the_run() -> None:
    """Those of the run come first."""
    rising = RampConfig(start=0.0, end=1.0, shape="linear")
    loss = Loss([LossTerm(quantity="energy", ramp=rising), LossTerm(quantity="forces", ramp=rising)])
    ramps = {"forces": RampConfig(start=0.0, end=0.5, shape="linear")}
    weights = loss_weights_at(loss, {"energy": 2.0, "forces": 4.0}, ramps, step=25, steps=101)
    assert weights == pytest.approx({"energy": 0.5, "forces": 2.0})
