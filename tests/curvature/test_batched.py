"""Evaluation of many structures equals evaluation one by one, in any order and with any memory limit."""

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
    """Molecules and crystals of many sizes in random order, including a single atom."""
    result = [
        *oracles.molecules([9, 3, 14, 3, 6], seed),
        oracles.crystal(seed),
        oracles.atom(6),
        oracles.crystal(seed + 1),
    ]
    return [result[i] for i in np.random.default_rng(seed).permutation(len(result))]


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
    result = evaluate_structures(potential, structures, request, memory_mib=memory)
    for i, (structure, probe) in enumerate(zip(structures, directions, strict=True)):
        alone = evaluate(
            potential,
            collate([structure], potential.cutoff),
            Request(forces=True, probes=probe if probes else None, hessian=True, stress=all(structure.pbc)),
        )
        atoms = result.atom_slice(i)
        torch.testing.assert_close(result.energy[i], alone.energy[0])
        torch.testing.assert_close(result.forces[atoms], alone.forces)
        torch.testing.assert_close(result.atomic_energies[atoms].sum(), alone.energy[0])
        torch.testing.assert_close(result.hessian_of(i), alone.hessian_of(0))
        if probes:
            torch.testing.assert_close(result.hvp[:, atoms], alone.hvp)
        assert bool(result.mask("stress")[i]) == all(structure.pbc)
        if all(structure.pbc):
            torch.testing.assert_close(result.stress[i], alone.stress[0])


@pytest.mark.parametrize("hessian", [False, True])
def test_only_requested_properties_are_computed(hessian: bool) -> None:
    result = evaluate_structures(network(), mixed(), Request(energy=False, hessian=hessian))
    assert result.energy is None
    assert result.forces is None
    assert result.hvp is None
    assert (result.hessian is not None) == hessian


def test_batches_contain_all_structures_once_and_respect_the_limit() -> None:
    potential, structures = network(), oracles.molecules([4, 5, 6, 7, 8, 9, 10, 11, 12] * 6)
    few, many = (list(_batches(potential, structures, bound)) for bound in (3e5, 3e6))
    for batches in (few, many):
        assert sorted(i for batch in batches for i in batch) == list(range(len(structures)))
        sizes = [len(structures[i]) for batch in batches for i in batch]
        assert sizes == sorted(sizes)
    assert len(few) > 2 * len(many)
    assert len(list(_batches(potential, structures, 1.0))) == len(structures)


def test_the_memory_of_batches_is_within_the_limit() -> None:
    """The memory estimated from one structure is correct for batches within 20 %."""
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


def test_computed_in_the_type_of_the_potential_and_returned_in_float64() -> None:
    structures = mixed()
    wide = evaluate_structures(network(), structures, Request(forces=True, hessian=True))
    narrow = evaluate_structures(network().float(), structures, Request(forces=True, hessian=True))
    assert narrow.forces.dtype == narrow.hessian.dtype == torch.float64
    torch.testing.assert_close(narrow.hessian, wide.hessian, atol=1e-4, rtol=1e-4)
    assert not torch.equal(narrow.hessian, wide.hessian)


def test_one_structure_and_ase_atoms_are_taken_as_they_are() -> None:
    potential, structure = network(), mixed()[0]
    expected = evaluate_structures(potential, [structure], Request()).energy
    assert expected is not None
    for form in (structure, to_ase(structure), [to_ase(structure)]):
        assert torch.equal(evaluate_structures(potential, form, Request()).energy, expected)  # type: ignore[arg-type]


def test_evaluation_mode_is_temporary() -> None:
    potential = network().train()
    evaluate_structures(potential, mixed(), Request())
    assert potential.training


def test_invalid_requests_raise() -> None:
    potential, structures = network(), mixed()
    with pytest.raises(RequestError, match="no structures"):
        evaluate_structures(potential, [], Request())
    with pytest.raises(RequestError, match="Structure or ASE Atoms, got int"):
        evaluate_structures(potential, [3], Request())  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="memory_mib"):
        evaluate_structures(potential, structures, Request(), memory_mib=0.0)
    with pytest.raises(LabelShapeError, match="end to end"):
        evaluate_structures(potential, structures, Request(probes=torch.ones(1, 9, 3)))
    with pytest.raises(GeometryError, match="stress"):
        evaluate_structures(potential, oracles.molecules([3, 4]), Request(stress=True))
    strange = Structure([26, 26], [[0, 0, 0], [0, 0, 2.0]], id="iron")
    with pytest.raises(UnknownElementError, match='"iron" holds Fe'):
        evaluate_structures(potential, [*structures, strange], Request())


def test_non_finite_predictions_are_named() -> None:
    potential = network()
    broken = Structure([1, 1, 1], [[0, 0, 0], [0, 0, 0], [0, 0, 1]], id="broken")
    with pytest.raises(EngineError, match="'broken'"):
        evaluate_structures(potential, [*mixed(), broken], Request(forces=True))
