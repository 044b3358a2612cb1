"""Many structures against one at a time, in any order and any memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import oracles
from hesse.curvature import evaluate, evaluate_structures
from hesse.curvature.batched import _batches
from hesse.errors import (
    ConfigError,
    EngineError,
    GeometryError,
    LabelShapeError,
    RequestError,
    UnknownElementError,
)
from hesse.models import Hipnn, HipnnConfig
from hesse.structures import Request, Structure, collate, to_ase

SMALL = HipnnConfig(features=8, sensitivities=5, blocks=1, onsite_layers=1, cutoff=4.5, longest=4.0)


def network() -> Hipnn:
    torch.manual_seed(0)
    return Hipnn(SMALL, (1, 6, 8)).double()


def mixed(seed: int = 0) -> list[Structure]:
    """Molecules and crystals of many sizes, out of order, an atom among them."""
    found = [
        *oracles.molecules([9, 3, 14, 3, 6], seed),
        oracles.crystal(seed),
        oracles.atom(6),
        oracles.crystal(seed + 1),
    ]
    return [found[i] for i in np.random.default_rng(seed).permutation(len(found))]


@pytest.mark.parametrize(("seed", "memory", "probes"), [(0, 1e-3, 2), (1, 0.3, 0), (2, None, 1)])
def test_all_labels_come_in_the_order_of_the_structures(seed: int, memory: float | None, probes: int) -> None:
    potential, structures = network(), mixed(seed)
    directions = [torch.randn(probes, len(s), 3, dtype=torch.float64) for s in structures]
    request = Request(
        forces=True,
        probes=torch.cat(directions, dim=1) if probes else None,
        hessian=True,
        stress=True,
        atomic_energies=True,
    )
    found = evaluate_structures(potential, structures, request, memory_mib=memory)
    for i, (structure, own) in enumerate(zip(structures, directions, strict=True)):
        alone = evaluate(
            potential,
            collate([structure], potential.cutoff),
            Request(forces=True, probes=own if probes else None, hessian=True, stress=all(structure.pbc)),
        )
        atoms = found.atom_slice(i)
        torch.testing.assert_close(found.energy[i], alone.energy[0])
        torch.testing.assert_close(found.forces[atoms], alone.forces)
        torch.testing.assert_close(found.atomic_energies[atoms].sum(), alone.energy[0])
        torch.testing.assert_close(found.hessian_of(i), alone.hessian_of(0))
        if probes:
            torch.testing.assert_close(found.hvp[:, atoms], alone.hvp)
        assert bool(found.mask("stress")[i]) == all(structure.pbc)
        if all(structure.pbc):
            torch.testing.assert_close(found.stress[i], alone.stress[0])


@pytest.mark.parametrize("hessian", [False, True])
def test_nothing_is_computed_that_was_not_asked(hessian: bool) -> None:
    found = evaluate_structures(network(), mixed(), Request(energy=False, hessian=hessian))
    assert found.energy is None
    assert found.forces is None
    assert found.hvp is None
    assert (found.hessian is not None) == hessian


def test_batches_hold_all_structures_once_and_no_more_than_fits() -> None:
    potential, structures = network(), oracles.molecules([4, 5, 6, 7, 8, 9, 10, 11, 12] * 6)
    few, many = (list(_batches(potential, structures, bound)) for bound in (3e5, 3e6))
    for batches in (few, many):
        assert sorted(i for batch in batches for i in batch) == list(range(len(structures)))
        sizes = [len(structures[i]) for batch in batches for i in batch]
        assert sizes == sorted(sizes)
    assert len(few) > 2 * len(many)
    assert len(list(_batches(potential, structures, 1.0))) == len(structures)


def test_the_memory_of_batches_is_what_was_allowed() -> None:
    """The estimate from one structure holds for the graph of whole batches, within a fifth."""
    from hesse.curvature.hvp import gradients
    from hesse.curvature.memory import saved_tensor_bytes

    potential, structures = network(), oracles.molecules([5, 8, 11, 14, 17, 20] * 8)
    bound = 4e6
    for indices in list(_batches(potential, structures, bound)):
        batch = collate([structures[i] for i in indices], potential.cutoff)
        positions = batch.positions.requires_grad_(True)
        with saved_tensor_bytes() as saved:
            gradients(potential(batch.with_positions(positions=positions)).sum(), [positions], create_graph=True)
        assert saved[0] < 1.2 * bound


def test_the_type_is_the_potentials_and_the_answer_float64() -> None:
    structures = mixed()
    wide = evaluate_structures(network(), structures, Request(forces=True, hessian=True))
    narrow = evaluate_structures(network().float(), structures, Request(forces=True, hessian=True))
    assert narrow.forces.dtype == narrow.hessian.dtype == torch.float64
    torch.testing.assert_close(narrow.hessian, wide.hessian, atol=1e-4, rtol=1e-4)
    assert not torch.equal(narrow.hessian, wide.hessian)


def test_a_potential_in_training_is_judged_and_goes_on_training() -> None:
    potential = network().train()
    evaluate_structures(potential, mixed(), Request())
    assert potential.training


def test_wrong_questions() -> None:
    potential, structures = network(), mixed()
    with pytest.raises(RequestError, match="no structures"):
        evaluate_structures(potential, [], Request())
    for wrong in (structures[0], [to_ase(structures[0])]):
        with pytest.raises(RequestError, match="from_ase"):
            evaluate_structures(potential, wrong, Request())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="memory_mib"):
        evaluate_structures(potential, structures, Request(), memory_mib=0.0)
    with pytest.raises(LabelShapeError, match="end to end"):
        evaluate_structures(potential, structures, Request(probes=torch.ones(1, 9, 3)))
    with pytest.raises(GeometryError, match="stress"):
        evaluate_structures(potential, oracles.molecules([3, 4]), Request(stress=True))
    strange = Structure([26, 26], [[0, 0, 0], [0, 0, 2.0]], id="iron")
    with pytest.raises(UnknownElementError, match='"iron" holds Fe'):
        evaluate_structures(potential, [*structures, strange], Request())


def test_answers_that_are_no_numbers_are_named() -> None:
    potential = network()
    broken = Structure([1, 1, 1], [[0, 0, 0], [0, 0, 0], [0, 0, 1]], id="broken")
    with pytest.raises(EngineError, match="'broken'"):
        evaluate_structures(potential, [*mixed(), broken], Request(forces=True))
