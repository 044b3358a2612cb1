"""Potentials recorded as TorchScript: the same energies and derivatives at other sizes, or a refusal with the place."""

from __future__ import annotations

import pytest
import torch

from hesse import ReferenceEnergies, collate, from_ase
from hesse.curvature import evaluate
from hesse.deploy.metatomic_export import interaction_range
from hesse.deploy.traced import batch_tensors, trace_potential
from hesse.errors import RequestError
from hesse.structures import Request
from moving_atoms import ethanol, network, silicon
from oracles import Morse

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hessenet", "hipnn", "ani"])
def test_energies_and_forces_of_other_sizes(kind: str) -> None:
    potential = network(kind)
    traced = trace_potential(potential)
    for structures in ([ethanol()], [silicon(), ethanol(), silicon(cubic=False)]):
        batch = collate([from_ase(atoms) for atoms in structures], potential.cutoff)
        labels = evaluate(potential, batch, Request(forces=True))
        positions = batch.positions.clone().requires_grad_(True)
        energies = traced(*batch_tensors(batch.with_positions(positions=positions)))
        (gradient,) = torch.autograd.grad(energies.sum(), positions)
        torch.testing.assert_close(energies.sum(), labels.energy.sum(), rtol=1e-12, atol=1e-12)  # type: ignore[union-attr]
        torch.testing.assert_close(-gradient, labels.forces, rtol=1e-9, atol=1e-12)


def test_potentials_without_interactions() -> None:
    """Energies that depend on nothing but the elements have no gradient, which is right."""
    trace_potential(ReferenceEnergies((1, 6), torch.tensor([1.0, 2.0], dtype=torch.float64)))


def test_a_value_taken_as_a_constant_is_noticed() -> None:
    """The mean number of neighbors becomes a number of the example: recorded without an error, and wrong elsewhere."""

    class Scaled(Morse):
        def forward(self, batch):  # type: ignore[no-untyped-def]
            return super().forward(batch) * int(batch.neighbor_mask.sum())

    with pytest.raises(
        RequestError, match=r"Scaled cannot be exported .* differ by .*int\(batch.neighbor_mask.sum\(\)\)"
    ):
        trace_potential(Scaled())


def test_how_far_atoms_see() -> None:
    """Programs that divide space copy the atoms within this range."""
    assert interaction_range(network("hessenet")) == 9.0
    assert interaction_range(network("hipnn")) == 10.0
    assert interaction_range(network("ani")) == pytest.approx(5.2)
    assert interaction_range(Morse()) == float("inf")
