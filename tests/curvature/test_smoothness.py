"""Derivatives are finite at singular geometries and continuous where an atom crosses the cutoff."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from hesse.curvature import evaluate
from hesse.losses import LossWeights, weighted_loss
from hesse.models import Hipnn, HipnnConfig
from hesse.structures import Request, Structure, collate
from oracles import atom, crystal, linear, molecules

CUTOFF = 3.0
every_order = pytest.mark.parametrize("l_max", [0, 1, 2])


def hipnn(l_max: int, **options: object) -> Hipnn:
    torch.manual_seed(1)
    small = {"features": 5, "sensitivities": 5, "blocks": 2, "onsite_layers": 1, "cutoff": CUTOFF, "longest": CUTOFF}
    model = Hipnn(HipnnConfig(l_max=l_max, **{**small, **options}), (1, 6, 8)).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def dimer(r: float, axis: Sequence[float] = (1.0, 0.0, 0.0)) -> Structure:
    return Structure([1, 8], [[0.0, 0.0, 0.0], list(r * np.array(axis))])


AWKWARD = {
    "isolated atoms": [atom(1), atom(8)],
    "linear along an axis": [linear(4, axis=(0.0, 0.0, 1.0)), dimer(1.0)],
    "linear askew": [linear(3)],
    "padded beside a crowd": [atom(6), *molecules([12, 2])],
    "pair at the cutoff": [dimer(CUTOFF), dimer(np.nextafter(CUTOFF, 0)), dimer(CUTOFF - 1e-9), dimer(CUTOFF + 1e-9)],
    "far apart": [Structure([1, 1], [[0.0, 0, 0], [50.0, 0, 0]])],
    "a crystal beside a molecule": [crystal(0), *molecules([3]), atom(1)],
    "a crystal too wide for neighbors": [Structure([1], [[0.0, 0, 0]], cell=9 * np.eye(3), pbc=(True, True, True))],
    "square planar": [Structure([6, 1, 1, 1, 1], [[0.0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])],
    "nearly on top": [dimer(0.05)],
}


@every_order
@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize("cutoff_function", ["smooth", "cosine"])
def test_second_and_third_derivatives_are_finite(l_max: int, name: str, cutoff_function: str) -> None:
    model = hipnn(l_max, cutoff_function=cutoff_function)
    batch = collate(AWKWARD[name], CUTOFF)
    probes = torch.randn(2, len(batch.numbers), 3, dtype=torch.float64)
    labels = evaluate(model, batch, Request(forces=True, probes=probes, hessian=True), create_graph=True)
    values = {n: getattr(labels, n) for n in ("energy", "forces", "hvp", "hessian", "regularizer")}
    for what, value in values.items():
        assert torch.isfinite(value).all(), what
    zeros = labels.map_tensors(torch.zeros_like).detach()
    weights = LossWeights(energy=1, forces=1, hvp=1, hessian=1, regularizer=1)
    weighted_loss(labels, zeros, weights)[0].backward()
    for what, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert torch.isfinite(parameter.grad).all(), what


@every_order
def test_padding_changes_nothing(l_max: int) -> None:
    """A pair batched with a large molecule has many unused entries in its neighbor matrix; alone it has none."""
    model = hipnn(l_max)
    structures = [dimer(1.3, (0.6, 0.8, 0.0)), *molecules([12])]
    request = Request(forces=True, hessian=True)
    together = evaluate(model, collate(structures, CUTOFF), request)
    alone = evaluate(model, collate(structures[:1], CUTOFF), request)
    assert together.forces is not None
    torch.testing.assert_close(together.forces[:2], alone.forces, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(together.hessian_of(0), alone.hessian_of(0), rtol=1e-12, atol=1e-12)


@every_order
def test_a_batch_listing_more_neighbors_than_needed_gives_the_same(l_max: int) -> None:
    model, structures = hipnn(l_max), [*molecules([9, 5]), crystal(0)]
    request = Request(forces=True, hessian=True, stress=True)
    exact = evaluate(model, collate(structures, CUTOFF), request)
    for wider in (CUTOFF + 0.3, CUTOFF + 3.0):
        other = evaluate(model, collate(structures, wider), request)
        for name in ("energy", "forces", "hessian"):
            torch.testing.assert_close(getattr(other, name), getattr(exact, name), rtol=1e-11, atol=1e-11)
        assert other.stress is not None
        assert exact.stress is not None
        torch.testing.assert_close(other.stress[2], exact.stress[2], rtol=1e-11, atol=1e-12)


def jumps(model: Hipnn, gap: float) -> list[float]:
    """Differences of energy, forces and Hessian between an atom just inside the cutoff and one just outside, without
    interactions."""
    frames = []
    for side in (-1, 1):
        structure = Structure([6, 1, 8], [[0, 0, 0], [0.9, 0.5, 0], [0.0, 0.0, CUTOFF + side * gap]])
        batch = collate([structure], CUTOFF)
        labels = evaluate(model, batch, Request(forces=True, hessian=True))
        frames.append([labels.energy, labels.forces, labels.hessian])
    return [float((a - b).abs().max()) for a, b in zip(*frames, strict=True)]


@every_order
def test_energy_forces_and_hessian_are_continuous_across_the_cutoff(l_max: int) -> None:
    """The jump over ±d falls like a power of d for the smooth cutoff: its first three derivatives vanish there, so what
    remains is d⁴ in the energy, d³ in forces, d² in the Hessian. The published cosine keeps a jump in the Hessian."""
    gaps = np.array([0.01, 0.005, 0.0025])
    model = hipnn(l_max)
    table = np.array([jumps(model, gap) for gap in gaps])
    for column, order in zip(table.T, (4, 3, 2), strict=True):
        derivative, _ = np.polyfit(np.log(gaps), np.log(column), 1)
        assert derivative == pytest.approx(order, abs=0.4)
    cosine = hipnn(l_max, cutoff_function="cosine")
    published = np.array([jumps(cosine, gap) for gap in gaps])
    assert published[-1, 2] > 0.3 * published[0, 2]
    assert published[-1, 2] > 1e-4
