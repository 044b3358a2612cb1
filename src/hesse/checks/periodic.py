"""Crystals: supercells, images, strain."""

from __future__ import annotations

import numpy as np
import torch
from numpy import ndarray as Array

from hesse.checks.differences import slope_error
from hesse.checks.result import Finding, judged, skipped
from hesse.checks.subject import Answers, Subject, directions, relative_error, worst
from hesse.curvature import evaluate
from hesse.errors import GeometryError, RequestError
from hesse.structures import Request, Structure

__all__ = ["check_periodic", "check_stress", "sees_lattices"]

NO_LATTICES = "it refuses periodic structures"


def sees_lattices(subject: Subject) -> bool:
    """Whether the potential takes a periodic structure; one that does not says so with a RequestError."""
    try:
        evaluate(subject.potential, subject.batch(subject.crystals[:1]), Request())
    except (RequestError, GeometryError, NotImplementedError):
        return False
    return True


def check_periodic(subject: Subject) -> Finding:
    """A doubled cell, a shifted crystal with atoms moved by lattice vectors, `H t = 0`, and a molecule in a large empty
    box."""
    if not sees_lattices(subject):
        return skipped(NO_LATTICES)
    crystals = subject.crystals
    along = directions(crystals, seed=31)
    plain = subject.ask(crystals, along)
    doubled = [_doubled(s) for s in crystals]
    twice = Answers(
        2 * plain.energy, [np.tile(f, (2, 1)) for f in plain.forces], [np.tile(p, (2, 1)) for p in plain.hvp]
    )
    rng = np.random.default_rng(32)
    shift = np.array([0.4, -1.3, 2.2])
    moved = [s.moved(s.positions + shift + rng.integers(-2, 3, size=(len(s), 3)) @ s.cell) for s in crystals]
    drift = np.concatenate(subject.ask(crystals, [np.tile(shift, (len(s), 1)) for s in crystals]).hvp)
    curvature = float(np.abs(np.concatenate(plain.hvp)).max())
    molecules = subject.molecules
    free = directions(molecules, seed=33)
    boxed = [_boxed(s, subject.potential.cutoff) for s in molecules]
    found = [
        (*worst(subject, subject.ask(doubled, [np.tile(v, (2, 1)) for v in along]), twice), "a doubled cell"),
        (*worst(subject, subject.ask(moved, along), plain), "a shifted crystal, atoms moved by lattice vectors"),
        (relative_error(drift, np.zeros_like(drift), curvature), "H t", "a crystal"),
        (*worst(subject, subject.ask(boxed, free), subject.ask(molecules, free)), "a molecule in an empty box"),
    ]
    error, name, where = max(found, key=lambda f: np.inf if np.isnan(f[0]) else f[0])
    return judged(error, subject.limit(1e-6, 1e-3), f"{name} of {where}, relative")


def check_stress(subject: Subject) -> Finding:
    """Stress against differences of the energy of strained crystals."""
    if not sees_lattices(subject):
        return skipped(NO_LATTICES)
    if subject.dtype != torch.float64:
        return skipped("finite differences need float64")
    rng = np.random.default_rng(34)
    errors = []
    for crystal in subject.crystals:
        stress = evaluate(subject.potential, subject.batch([crystal]), Request(stress=True)).stress
        assert stress is not None
        tensor = stress[0].detach().to("cpu", torch.float64).numpy()
        half = rng.normal(size=(3, 3))
        strain = (half + half.T) / np.abs(half + half.T).max()
        volume = abs(np.linalg.det(crystal.cell))

        def difference(h: float, crystal: Structure = crystal, strain: Array = strain, volume: float = volume) -> Array:
            plus, minus = subject.ask([_strained(crystal, sign * h * strain) for sign in (1, -1)]).energy
            return np.array((plus - minus) / (2 * h * volume))

        size = float(np.linalg.norm(tensor) * np.linalg.norm(strain))
        errors.append(slope_error(difference, np.array(np.sum(tensor * strain)), size=size, fine=1e-4)[0])
    return judged(float(np.max(errors)), 1e-5, "stress against differences of the energy under strain, relative")


def _doubled(crystal: Structure) -> Structure:
    cell = crystal.cell * np.array([[2.0], [1.0], [1.0]])
    positions = np.concatenate([crystal.positions, crystal.positions + crystal.cell[0]])
    return Structure(np.tile(crystal.numbers, 2), positions, cell=cell, pbc=crystal.pbc)


def _boxed(molecule: Structure, cutoff: float) -> Structure:
    side = float(np.ptp(molecule.positions, axis=0).max()) + 5.0 * cutoff + 10.0
    return Structure(molecule.numbers, molecule.positions, cell=side * np.eye(3), pbc=(True, True, True))


def _strained(crystal: Structure, strain: Array) -> Structure:
    deformation = np.eye(3) + strain
    return Structure(crystal.numbers, crystal.positions @ deformation, cell=crystal.cell @ deformation, pbc=crystal.pbc)
