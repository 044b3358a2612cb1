"""Geometries where careless formulas divide by zero."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from ase.data import covalent_radii

from hesse.checks.periodic import sees_lattices
from hesse.checks.result import Finding
from hesse.checks.samples import built, grown_molecule, line, lone_atom
from hesse.checks.subject import Subject, directions
from hesse.curvature import evaluate
from hesse.structures import Request, Structure

__all__ = ["awkward_structures", "check_traps"]


def awkward_structures(subject: Subject) -> dict[str, list[Structure]]:
    """Batches that make careless formulas fail, by what is awkward about them."""
    elements, cutoff = subject.elements, subject.potential.cutoff
    crowd = grown_molecule(elements, 12, seed=51)
    pair = line(elements, 2, (0.4, 0.7, -0.2))
    far = [[0.0, 0.0, 0.0], [cutoff + 20.0, 0.0, 0.0]]
    first, second = elements[0], elements[-1]
    bond = float(covalent_radii[first] + covalent_radii[second])
    cross = bond * np.array([[0.0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    batches = {
        "a pair beside a crowd (unused places of the neighbour matrix)": [pair, crowd],
        "a lone atom": [lone_atom(elements[0])],
        "a lone atom beside a crowd": [lone_atom(elements[0]), crowd],
        "a lone atom of each element": [lone_atom(z) for z in elements],
        "two atoms out of each other's reach": [built([first, second], far, "two far apart")],
        "a line along an axis": [line(elements, 3, (0.0, 0.0, 1.0)), line(elements, 4, (1.0, 0.0, 0.0))],
        "a line askew": [line(elements, 3, (1.0, 2.0, -0.5))],
        "a planar cross (angles of 90° and 180°)": [built([first] + [second] * 4, cross, "planar cross")],
    }
    if cutoff > 0:
        at = [np.nextafter(cutoff, 0.0), cutoff]
        batches["a pair exactly at the cutoff"] = [
            built([first, second], [[0.0, 0, 0], [d, 0, 0]], f"pair at {d}") for d in at
        ]
    if sees_lattices(subject):
        one = built([first], [[0.1, 0.2, 0.3]], "one atom", cell=1.3 * bond * np.eye(3))
        sparse = built([first], [[0.0, 0, 0]], "sparse", cell=(2.2 * cutoff + 20) * np.eye(3))
        batches["one atom and its own images"] = [one]
        batches["a crystal without neighbours"] = [sparse]
        batches["a crystal beside a molecule"] = [subject.crystals[0], crowd, pair]
    return batches


def check_traps(subject: Subject) -> Finding:
    """Energies, forces, `H v` and the gradient of an `H v` loss are finite for awkward geometries."""
    caught = []
    batches = awkward_structures(subject)
    for name, structures in batches.items():
        first = next(_not_finite(subject, structures), None)
        if first:
            caught.append(f"{first} of {name}")
    detail = f"not finite: {'; '.join(caught)}" if caught else f"finite for all {len(batches)} of them"
    return Finding("fail" if caught else "pass", float(len(caught)), 0.0, detail)


def _not_finite(subject: Subject, structures: Sequence[Structure]) -> Iterator[str]:
    """What is not finite, lowest derivative first."""
    batch = subject.batch(structures)
    first = evaluate(subject.potential, batch, Request(forces=True))
    for name, value in (("energy", first.energy), ("forces", first.forces)):
        if value is None or not bool(torch.isfinite(value).all()):
            yield name
    probes = torch.from_numpy(np.concatenate(directions(structures, seed=52)))[None].to(batch.positions)
    product = evaluate(subject.potential, batch, Request(probes=probes), create_graph=True).hvp
    if product is None or not bool(torch.isfinite(product).all()):
        yield "H v"
    elif product.requires_grad:
        parameters = [p for p in subject.potential.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(product.square().sum(), parameters, allow_unused=True) if parameters else ()
        if not all(bool(torch.isfinite(g).all()) for g in gradients if g is not None):
            yield "the parameter gradient"
