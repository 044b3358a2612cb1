"""Precision, repeatability, modes."""

from __future__ import annotations

import copy

import numpy as np
import torch

from hesse.checks.result import Finding, judged, note, skipped
from hesse.checks.subject import Answers, Subject, directions, relative_error, worst
from hesse.curvature import evaluate
from hesse.structures import Request

__all__ = ["check_determinism", "check_double", "check_energy", "check_float32", "check_training_mode"]

SHORT_STEP, LONG_STEP = 1e-8, 1e-5
"""Å. In float32 the forces do not even change over the short one."""


def check_energy(subject: Subject) -> Finding:
    """One finite energy per atom, and forces that are not zero everywhere."""
    moving = False
    for structure in subject.molecules:
        labels = evaluate(subject.potential, subject.batch([structure]), Request(forces=True))
        assert labels.energy is not None
        assert labels.forces is not None
        if not bool(torch.isfinite(labels.energy).all()):
            return Finding("fail", detail=f"the energy of an ordinary {structure.id} is not a finite number")
        moving = moving or bool((labels.forces != 0).any())
    if not moving:
        return Finding("fail", 0.0, detail="the forces of all molecules are exactly zero")
    return Finding("pass", detail="energies are finite, and forces are not zero")


def check_determinism(subject: Subject) -> Finding:
    """Energies and forces of the same structures: twice, and after other work."""
    structures = subject.molecules
    first = subject.ask(structures)
    again = subject.ask(structures)
    subject.ask(structures[:1])
    subject.ask([s.moved(1.02 * s.positions) for s in structures[::-1]], together=True)
    after = subject.ask(structures)
    # What is not a number is told by other checks; here it counts as the same when it comes again.
    plain = _numbers(first)
    (error, name), when = max(
        (worst(subject, _numbers(again), plain), "asked twice"),
        (worst(subject, _numbers(after), plain), "asked again after other work"),
    )
    detail = "the same to the last bit" if error == 0 else f"{name}, {when}, relative"
    return judged(error, subject.limit(1e-10, 1e-4), detail)


def _numbers(answers: Answers) -> Answers:
    return Answers(np.nan_to_num(answers.energy), [np.nan_to_num(f) for f in answers.forces], [])


def check_training_mode(subject: Subject) -> Finding:
    """`train()` gives the energies, forces and `H v` of `eval()`, and gives them again."""
    structures = subject.molecules
    along = directions(structures, seed=61)
    wanted = subject.ask(structures, along)
    try:
        subject.potential.train()
        found: list[Answers] = [subject.ask(structures, along) for _ in range(2)]
    finally:
        subject.potential.eval()
    repeated, _ = worst(subject, found[1], found[0])
    error, name = worst(subject, found[0], wanted)
    if not repeated <= subject.limit(1e-10, 1e-4):
        return judged(
            repeated, subject.limit(1e-10, 1e-4), "in training mode it answers differently each time (dropout?)"
        )
    return judged(error, subject.limit(1e-8, 1e-3), f"{name} in training mode against evaluation mode, relative")


def check_double(subject: Subject) -> Finding:
    """Whether float64 is calculated throughout: the forces must follow a displacement of 10⁻⁸ Å."""
    if subject.dtype != torch.float64:
        return skipped("the checks run in float32")
    energy = evaluate(subject.potential, subject.batch(subject.molecules[:1]), Request()).energy
    if energy is not None and energy.dtype != torch.float64:
        return Finding("fail", detail=f"energies come in {energy.dtype}")
    errors = []
    for structure, along in zip(subject.molecules, directions(subject.molecules, seed=62), strict=True):
        slopes = []
        for h in (SHORT_STEP, LONG_STEP):
            ends = [subject.ask([structure.moved(structure.positions + s * h * along)]).forces[0] for s in (1, -1)]
            slopes.append((ends[1] - ends[0]) / (2 * h))
        # Against a longer step and not against H v, which may be wrong for reasons of its own.
        errors.append(relative_error(*slopes))
    return judged(float(np.median(errors)), 1e-2, "change of the forces over 10⁻⁸ Å against that over 10⁻⁵ Å, relative")


def check_float32(subject: Subject) -> Finding:
    """How far the curvature of a float32 copy is from that in float64."""
    if subject.dtype != torch.float64:
        return skipped("the checks run in float32")
    try:
        single = copy.deepcopy(subject.potential).float()
    except Exception as reason:  # somebody else's module
        return note(f"has no float32 form ({type(reason).__name__}: {reason})")
    # Positions are rounded first, so that both see the same structure.
    rounded = [s.moved(s.positions.astype(np.float32).astype(np.float64)) for s in subject.molecules]
    along = [v.astype(np.float32).astype(np.float64) for v in directions(rounded, seed=63)]
    other = Subject(single, tuple(rounded), subject.crystals, subject.elements, torch.float32, subject.device)
    found = np.concatenate(other.ask(rounded, along).hvp)
    wanted = np.concatenate(subject.ask(rounded, along).hvp)
    error = float(np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted**2)))
    return judged(error, 1e-3, "H v in float32 against float64, root mean square, relative")
