"""Sums and means of potentials, in every derivative."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hesse.curvature import evaluate
from hesse.errors import ConfigError, RequestError, UnknownElementError
from hesse.models import Ensemble, Hipnn, HipnnConfig, ReferenceEnergies, SumPotential, Zbl, with_reference_energies
from hesse.models.adapters import CallablePotential
from hesse.potential import Potential
from hesse.structures import Properties, Request, collate
from oracles import Harmonic, LennardJones, Morse, molecules

STRUCTURES = molecules([3, 5, 2], seed=2)


def hipnn(seed: int, cutoff: float = 3.0, elements: tuple[int, ...] = (1, 6, 8)) -> Hipnn:
    torch.manual_seed(seed)
    config = HipnnConfig(features=4, sensitivities=4, blocks=2, onsite_layers=1, cutoff=cutoff, longest=2.8)
    return Hipnn(config, elements).double()


def predict(potential: Potential, **requested: Any) -> Properties:
    probes = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 10, 3)))
    return evaluate(potential, collate(STRUCTURES, 6.0), Request(forces=True, probes=probes, hessian=True, **requested))


def test_a_sum_of_closed_forms_is_the_sum_of_their_closed_forms() -> None:
    parts = (LennardJones(), Morse(), Harmonic(STRUCTURES))
    result = predict(SumPotential(parts))
    assert result.energy is not None
    assert result.forces is not None
    start = 0
    for k, structure in enumerate(STRUCTURES):
        exact = [part.exact(structure) for part in parts]
        own = slice(start, start + len(structure))
        start += len(structure)
        assert float(result.energy[k]) == pytest.approx(sum(e.energy for e in exact), rel=1e-12)
        np.testing.assert_allclose(result.forces[own], -sum(e.gradient for e in exact), rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(result.hessian_of(k), sum(e.hessian for e in exact), rtol=1e-9, atol=1e-9)


def test_an_ensemble_is_the_mean_of_its_members() -> None:
    members = [Morse(depth=d) for d in (1.0, 2.0, 6.0)]
    result, each = predict(Ensemble(members)), [predict(m) for m in members]
    for name in ("energy", "forces", "hvp", "hessian"):
        mean = torch.stack([getattr(e, name) for e in each]).mean(0)
        torch.testing.assert_close(getattr(result, name), mean, rtol=1e-12, atol=1e-12)


def test_each_part_uses_its_own_cutoff() -> None:
    """Pairs beyond the cutoff of a part do not change its energy."""
    short, long = hipnn(0, cutoff=3.0), hipnn(1, cutoff=5.0)
    both = SumPotential([short, long])
    assert both.cutoff == 5.0
    own = [evaluate(p, collate(STRUCTURES, p.cutoff), Request(forces=True)) for p in (short, long)]
    result = evaluate(both, collate(STRUCTURES, both.cutoff), Request(forces=True))
    for name in ("energy", "forces"):
        torch.testing.assert_close(getattr(result, name), getattr(own[0], name) + getattr(own[1], name))


def test_regularizers_are_added_and_averaged() -> None:
    a, b = hipnn(0), hipnn(1)
    pa, pb = (predict(m).regularizer for m in (a, b))
    assert pa is not None
    assert pb is not None
    torch.testing.assert_close(predict(SumPotential([a, b, Morse()])).regularizer, pa + pb)
    torch.testing.assert_close(predict(Ensemble([a, b])).regularizer, (pa + pb) / 2)
    assert predict(SumPotential([Morse()])).regularizer is None


def test_elements_are_those_that_all_parts_support() -> None:
    assert SumPotential([hipnn(0, elements=(1, 6, 8)), hipnn(0, elements=(8, 6, 7)), Morse()]).elements == (6, 8)
    assert SumPotential([Morse()]).elements == ()
    with pytest.raises(ConfigError, match="no element is known to all parts"):
        Ensemble([hipnn(0, elements=(1,)), hipnn(0, elements=(6,))])
    with pytest.raises(ConfigError, match="at least one"):
        SumPotential([])
    with pytest.raises(ConfigError, match="expected potentials in a SumPotential, got a Linear"):
        SumPotential([Morse(), torch.nn.Linear(1, 1)])  # type: ignore[list-item]


def test_references_are_added_in_float64() -> None:
    """Total energies of heavy atoms keep their digits beside a float32 network."""
    energies = {1: -13.587222780835477, 6: -1029.4889999755284, 8: -2041.9816003861074}
    model = with_reference_energies(hipnn(0).float(), energies)
    bare = hipnn(0).float()
    for structure in STRUCTURES:
        batch = collate([structure], 6.0, dtype=torch.float32)
        with torch.no_grad():
            extra = model(batch).sum() - bare(batch).sum()
        assert extra.dtype == torch.float64
        assert float(extra) == pytest.approx(sum(energies[int(z)] for z in structure.numbers), abs=1e-9)


def test_shifts_go_to_the_first_part_with_reference_energies() -> None:
    model = SumPotential([Zbl(elements=(1, 6, 8)), hipnn(0), ReferenceEnergies((1, 6, 8))])
    before = predict(model).energy
    model.shift_reference_energies({1: 0.5, 6: -2.0})
    after = predict(model).energy
    assert before is not None
    assert after is not None
    numbers = [s.numbers.tolist() for s in STRUCTURES]
    expected = [0.5 * z.count(1) - 2.0 * z.count(6) for z in numbers]
    assert (after - before).tolist() == pytest.approx(expected, abs=1e-10)
    ensemble = Ensemble([hipnn(0), hipnn(1)])
    before = predict(ensemble).energy
    ensemble.shift_reference_energies({8: 1.0})
    after = predict(ensemble).energy
    assert before is not None
    assert after is not None
    assert (after - before).tolist() == pytest.approx([float(z.count(8)) for z in numbers], abs=1e-10)
    with pytest.raises(RequestError, match="holds no energies per element"):
        SumPotential([Morse()]).shift_reference_energies({1: 1.0})
    references = ReferenceEnergies((6, 1), torch.tensor([1.0, 2.0], dtype=torch.float64))
    assert references.elements == (1, 6)
    assert references.energies.tolist() == [2.0, 1.0]  # energies go with their elements
    with pytest.raises(UnknownElementError, match="holds O; ReferenceEnergies knows H, C only"):
        references.shift_reference_energies({1: 1.0, 8: 1.0})
    assert references.energies.tolist() == [2.0, 1.0]


def test_atomic_energies_need_them_in_every_part() -> None:
    without_atomic_energies = CallablePotential(lambda positions, numbers, cell, pbc: positions.square().sum())
    with pytest.raises(RequestError, match="its atoms have no energies"):
        predict(SumPotential([Morse(), without_atomic_energies]), atomic_energies=True)
    result = predict(SumPotential([Morse(), Morse()]), atomic_energies=True)
    single = predict(Morse(), atomic_energies=True)
    assert single.atomic_energies is not None
    torch.testing.assert_close(result.atomic_energies, 2 * single.atomic_energies)


@pytest.mark.parametrize("elements", [(), (1, 1), (0,), (119,), (-3, 1)], ids=str)
def test_reference_energies_need_valid_elements(elements: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        ReferenceEnergies(elements)


def test_references_that_members_share_are_shifted_once() -> None:
    """The mean is shifted once, also if members share reference energies."""
    shared = ReferenceEnergies((1, 6, 8))
    one, two = (SumPotential([shared, Morse(depth=depth)]) for depth in (1.0, 2.0))
    for ensemble in (
        Ensemble([one, two]),
        Ensemble([one, one]),
        Ensemble([hipnn(0), SumPotential([hipnn(1), shared])]),
    ):
        before = predict(ensemble).energy
        ensemble.shift_reference_energies({1: 0.5})
        after = predict(ensemble).energy
        assert before is not None
        assert after is not None
        expected = [0.5 * s.numbers.tolist().count(1) for s in STRUCTURES]
        assert (after - before).tolist() == pytest.approx(expected, abs=1e-10)


def test_a_shift_that_cannot_reach_every_member_changes_nothing() -> None:
    first = hipnn(0)
    with pytest.raises(RequestError, match="holds no energies per element"):
        Ensemble([first, Morse()]).shift_reference_energies({1: 1.0})
    assert not first.references.energies.any()
