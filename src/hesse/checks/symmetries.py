"""What physics demands of energies, forces and curvature, whatever the potential."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.checks.result import Finding, judged
from hesse.checks.subject import Answers, Subject, directions, relative_error, worst
from hesse.structures import Structure

__all__ = [
    "check_batch",
    "check_extensive",
    "check_mirror",
    "check_neighbour_list",
    "check_permutation",
    "check_rotation",
    "check_rotation_rule",
    "check_sum_rule",
    "check_translation",
]


def check_translation(subject: Subject) -> Finding:
    """Energies, forces and `H v` of shifted molecules."""
    structures = subject.molecules
    along = directions(structures, seed=11)
    shift = np.array([1.3, -2.1, 3.7])
    return _compare(
        subject,
        subject.ask([s.moved(s.positions + shift) for s in structures], along),
        subject.ask(structures, along),
        "of shifted molecules",
    )


def check_rotation(subject: Subject) -> Finding:
    """Energies, forces and `H v` of molecules turned about a random axis, turned back."""
    return _transformed(subject, _rotation(seed=12), "of turned molecules")


def check_mirror(subject: Subject) -> Finding:
    """The same of mirror images."""
    return _transformed(subject, _rotation(seed=13) @ np.diag([1.0, 1.0, -1.0]), "of mirror images")


def check_permutation(subject: Subject) -> Finding:
    """The same with the atoms in another order."""
    rng = np.random.default_rng(14)
    structures = subject.molecules
    along = directions(structures, seed=15)
    orders = [rng.permutation(len(s)) for s in structures]
    shuffled = [Structure(s.numbers[o], s.positions[o]) for s, o in zip(structures, orders, strict=True)]
    found = subject.ask(shuffled, [v[o] for v, o in zip(along, orders, strict=True)])
    back = [np.argsort(o) for o in orders]
    ordered = Answers(
        found.energy,
        [f[b] for f, b in zip(found.forces, back, strict=True)],
        [p[b] for p, b in zip(found.hvp, back, strict=True)],
    )
    return _compare(subject, ordered, subject.ask(structures, along), "with the atoms in another order")


def check_sum_rule(subject: Subject) -> Finding:
    """`H t = 0` for a shift of all atoms."""
    structures = subject.molecules
    shifts = [np.tile([0.5, -1.0, 0.7], (len(s), 1)) for s in structures]
    drift = subject.ask(structures, shifts).hvp
    return _relative_to_curvature(subject, structures, drift, "|H t| of a translation t, relative to |H v|")


def check_rotation_rule(subject: Subject) -> Finding:
    """`H (e × r) = e × ∇E` for a turn about e."""
    structures, axis = subject.molecules, np.array([0.6, -0.3, 0.8])
    turns = [np.cross(axis, s.positions) for s in structures]
    answers = subject.ask(structures, turns)
    gaps = [p - np.cross(axis, -f) for p, f in zip(answers.hvp, answers.forces, strict=True)]
    return _relative_to_curvature(subject, structures, gaps, "H(e×r) against e×∇E, relative to |H v|")


def check_batch(subject: Subject) -> Finding:
    """Structures in one batch, in two orders, against each alone."""
    structures = subject.molecules
    along = directions(structures, seed=16)
    alone = subject.ask(structures, along)
    finding = _compare(subject, subject.ask(structures, along, together=True), alone, "in a batch against alone")
    backwards = subject.ask(structures[::-1], along[::-1], together=True)
    reverse = Answers(backwards.energy[::-1], backwards.forces[::-1], backwards.hvp[::-1])
    other = _compare(subject, reverse, alone, "in a batch of another order against alone")
    return other if finding.status == "pass" else finding


def check_neighbour_list(subject: Subject) -> Finding:
    """A neighbour list that reaches further than the cutoff changes nothing."""
    along = directions(subject.molecules, seed=17)
    found = subject.ask(subject.molecules, along, cutoff=subject.potential.cutoff + 2.5)
    wanted = subject.ask(subject.molecules, along)
    return _compare(subject, found, wanted, "with neighbours listed 2.5 Å further")


def check_extensive(subject: Subject) -> Finding:
    """Two copies far apart have twice the energy, and each the forces and curvature it had alone."""
    far = np.array([10.0 * subject.potential.cutoff + 30.0, 0.0, 0.0])
    structures = subject.molecules
    along = directions(structures, seed=18)
    pairs = [
        Structure(np.tile(s.numbers, 2), np.concatenate([s.positions, s.positions + far]), id=f"two of {s.id}")
        for s in structures
    ]
    found = subject.ask(pairs, [np.tile(v, (2, 1)) for v in along])
    alone = subject.ask(structures, along)
    twice = Answers(
        2 * alone.energy, [np.tile(f, (2, 1)) for f in alone.forces], [np.tile(p, (2, 1)) for p in alone.hvp]
    )
    return _compare(subject, found, twice, f"of two copies {far[0]:.0f} Å apart against twice one")


def _transformed(subject: Subject, matrix: Float[Array, "3 3"], what: str) -> Finding:
    structures = subject.molecules
    along = directions(structures, seed=19)
    found = subject.ask([s.moved(s.positions @ matrix.T) for s in structures], [v @ matrix.T for v in along])
    back = Answers(found.energy, [f @ matrix for f in found.forces], [p @ matrix for p in found.hvp])
    return _compare(subject, back, subject.ask(structures, along), what)


def _compare(subject: Subject, found: Answers, wanted: Answers, what: str) -> Finding:
    error, name = worst(subject, found, wanted)
    return judged(error, subject.limit(1e-6, 1e-3), f"{name} {what}, relative")


def _relative_to_curvature(
    subject: Subject, structures: Sequence[Structure], gaps: Sequence[Float[Array, "n 3"]], what: str
) -> Finding:
    products = subject.ask(structures, directions(structures, seed=20)).hvp
    size = float(np.abs(np.concatenate(products)).max())
    gap = np.concatenate(list(gaps))
    return judged(relative_error(gap, np.zeros_like(gap), size), subject.limit(1e-6, 1e-3), what)


def _rotation(seed: int) -> Float[Array, "3 3"]:
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return np.asarray(q if np.linalg.det(q) > 0 else -q)
