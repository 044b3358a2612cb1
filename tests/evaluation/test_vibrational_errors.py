"""Errors of harmonic frequencies and zero-point energies."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hesse.datasets import Dataset
from hesse.evaluation import Evaluation, vibrational_errors
from hesse.harmonic.normal_modes import normal_modes
from hesse.structures import Properties
from hesse.units import INVERSE_CM
from oracles import Morse, labeled, molecules


def evaluation_of(data: Dataset, predictions: Properties) -> Evaluation:
    return Evaluation("set", data, predictions, ())


def tagged_data() -> Dataset:
    structures = molecules([3, 4, 5])
    tagged = [replace(s, tag="relaxed" if k else "hot") for k, s in enumerate(structures)]
    return labeled(Morse(), tagged, hessian=True)


def test_a_scaled_hessian_scales_frequencies_and_zero_point_energies() -> None:
    data = tagged_data()
    hessian = data.labels.hessian
    assert hessian is not None
    result = vibrational_errors(evaluation_of(data, data.labels.replace(hessian=1.21 * hessian)))
    assert result is not None
    frequencies = [normal_modes(data.structures[k], data.labels.hessian_of(k).numpy()).frequencies for k in (1, 2)]
    sizes = [abs(f).sum() for f in frequencies]
    assert result.frequency_mae == pytest.approx(0.1 * sum(sizes) / sum(map(len, frequencies)))
    energies = [0.5 * INVERSE_CM * f[f > 0].sum() for f in frequencies]
    assert result.zero_point_mae == pytest.approx(0.1 * sum(energies) / 2)
    assert (result.n_structures, result.n_modes, result.n_imaginary) == (2, 6 + 9, 0)


def test_imaginary_frequencies_are_counted() -> None:
    data = tagged_data()
    hessian = data.labels.hessian
    assert hessian is not None
    result = vibrational_errors(evaluation_of(data, data.labels.replace(hessian=-hessian)))
    assert result is not None
    n_real = sum(
        int((normal_modes(data.structures[k], data.labels.hessian_of(k).numpy()).frequencies > 0).sum()) for k in (1, 2)
    )
    assert 0 < result.n_imaginary <= n_real


def test_there_is_no_result_without_relaxed_structures_or_hessians() -> None:
    data = tagged_data()
    assert vibrational_errors(evaluation_of(data, data.labels), tag="ts") is None
    without = data.labels.replace(hessian=None)
    assert vibrational_errors(evaluation_of(data, without)) is None
    mask = torch.tensor([True, False, False])
    first = data.labels.select(torch.tensor([0])).hessian
    assert vibrational_errors(evaluation_of(data, data.labels.replace(hessian=first, hessian_mask=mask))) is None
