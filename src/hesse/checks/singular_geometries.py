"""Geometries in which careless formulas divide by zero.

Signature of all checks: see `hesse.checks.catalog.Check`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from hesse.checks.builtin_structures import grow_molecule, linear_molecule, make_structure, single_atom
from hesse.checks.check_result import Outcome
from hesse.checks.context import CheckContext, random_directions
from hesse.checks.periodic import supports_periodic
from hesse.curvature import evaluate
from hesse.structures import Request, Structure, species_radii


def singular_structures(context: CheckContext) -> dict[str, list[Structure]]:
    """Batches in which careless formulas fail, by description."""
    elements, cutoff = context.elements, context.potential.cutoff
    large_molecule = grow_molecule(elements, 12, seed=51)
    pair = linear_molecule(elements, 2, (0.4, 0.7, -0.2))
    far = [[0.0, 0.0, 0.0], [cutoff + 20.0, 0.0, 0.0]]
    first, second = elements[0], elements[-1]
    bond = float(species_radii([first, second]).sum())
    cross = bond * np.array([[0.0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    batches = {
        "a pair in a batch with a large molecule (unused slots of the neighbor matrix)": [pair, large_molecule],
        "an isolated atom": [single_atom(elements[0])],
        "an isolated atom in a batch with a large molecule": [single_atom(elements[0]), large_molecule],
        "an isolated atom of each element": [single_atom(z) for z in elements],
        "two atoms beyond each other's cutoff": [make_structure([first, second], far, "two far apart")],
        "a line along an axis": [
            linear_molecule(elements, 3, (0.0, 0.0, 1.0)),
            linear_molecule(elements, 4, (1.0, 0.0, 0.0)),
        ],
        "a line in a general direction": [linear_molecule(elements, 3, (1.0, 2.0, -0.5))],
        "a planar cross (angles of 90° and 180°)": [make_structure([first] + [second] * 4, cross, "planar cross")],
    }
    if cutoff > 0:
        distances = [np.nextafter(cutoff, 0.0), cutoff]
        batches["a pair exactly at the cutoff"] = [
            make_structure([first, second], [[0.0, 0, 0], [d, 0, 0]], f"pair at {d}") for d in distances
        ]
    if supports_periodic(context):
        primitive = make_structure([first], [[0.1, 0.2, 0.3]], "one atom", cell=1.3 * bond * np.eye(3))
        sparse = make_structure([first], [[0.0, 0, 0]], "sparse", cell=(2.2 * cutoff + 20) * np.eye(3))
        batches["one atom and its own images"] = [primitive]
        batches["a crystal without neighbors"] = [sparse]
        batches["a crystal in a batch with a molecule"] = [context.crystals[0], large_molecule, pair]
    return batches


def check_singular_geometries(context: CheckContext) -> Outcome:
    """Energies, forces, `H v` and the gradient of an `H v` loss are finite for singular geometries."""
    failures = []
    batches = singular_structures(context)
    for name, structures in batches.items():
        first = next(_non_finite_quantities(context, structures), None)
        if first:
            failures.append(f"{first} of {name}")
    detail = f"not finite: {'; '.join(failures)}" if failures else f"finite for all {len(batches)} of them"
    return Outcome("fail" if failures else "pass", float(len(failures)), 0.0, detail)


def _non_finite_quantities(context: CheckContext, structures: Sequence[Structure]) -> Iterator[str]:
    """Quantities that are not finite, lowest derivative first."""
    batch = context.batch(structures)
    predictions = evaluate(context.potential, batch, Request(forces=True))
    for name, value in (("energy", predictions.energy), ("forces", predictions.forces)):
        if value is None or not bool(torch.isfinite(value).all()):
            yield name
    probes = torch.from_numpy(np.concatenate(random_directions(structures, seed=52)))[None].to(batch.positions)
    product = evaluate(context.potential, batch, Request(probes=probes), create_graph=True).hvp
    if product is None or not bool(torch.isfinite(product).all()):
        yield "H v"
    elif product.requires_grad:
        parameters = [p for p in context.potential.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(product.square().sum(), parameters, allow_unused=True) if parameters else ()
        if not all(bool(torch.isfinite(g).all()) for g in gradients if g is not None):
            yield "the parameter gradient"
