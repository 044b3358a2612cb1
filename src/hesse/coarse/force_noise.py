"""How much of the forces on beads a model explains, and how much any model could.

The force on a bead at a moment is the mean force at these positions of the beads plus a part that depends on the atoms
inside. Force matching learns the mean; the rest is noise that no model of beads can explain. Its variance follows from
several all-atom frames with the same positions of the beads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.coarse.state_points import check_state_points
from hesse.curvature import evaluate_structures
from hesse.datasets import Dataset
from hesse.engines import PotentialLike, as_potential
from hesse.errors import MissingLabelError, RequestError
from hesse.structures import Request, species_name

__all__ = ["ExplainedForces", "explained_forces", "force_noise"]

_CHUNK: Final = 8
"""Frames that are computed together."""
_SAME_PLACE: Final = 1e-3
"""Å; beads that differ by less are at the same positions."""


@dataclass(frozen=True)
class ExplainedForces:
    """Forces of the beads of one type at one state point.

    Attributes:
        tag: state point.
        bead: bead type; "all" for all beads of the state point.
        n: number of beads, over all frames.
        rms: root mean square of a component of the forces, eV/Å.
        residual: root mean square of what the model leaves, eV/Å.
        explained: `1 - residual² / rms²`.
        standard_error: of `explained`, from the groups of frames; None with fewer than three groups.
        limit: the largest value that any model of beads can reach; None if the noise is not known.
    """

    tag: str
    bead: str
    n: int
    rms: float
    residual: float
    explained: float
    standard_error: float | None
    limit: float | None = None


def explained_forces(
    potential: PotentialLike, dataset: Dataset, *, noise: Mapping[tuple[str, str], float] | None = None
) -> list[ExplainedForces]:
    """Compare the forces of a model with those of mapped data.

    Args:
        potential: the model, or its file.
        dataset: beads with forces that the model was not trained on.
        noise: variance of a component of the force at fixed beads, (eV/Å)², by state point and bead type
            (`force_noise`). Other state points have no limit: noise depends on the temperature and the density.

    Returns:
        A row for each state point and bead type, and one for all beads of a state point where there are several.

    Raises:
        MissingLabelError: data without forces.
        RequestError: a mixture of state points without tags, or noise of none of the state points.
    """
    check_state_points(dataset.structures, dataset.source or "the data")
    found = list(dict.fromkeys(s.tag for s in dataset.structures))
    if any(not isinstance(key, tuple) or len(key) != 2 for key in noise or ()):
        raise RequestError("noise: expected variances by (state point, bead type), as of force_noise")
    if noise and not any(tag in found for tag, _ in noise):
        of, have = (", ".join(map(repr, dict.fromkeys(tags))) for tags in ([tag for tag, _ in noise], found))
        raise RequestError(f"the noise is that of {of}, the frames are of {have}: noise of the same state points")
    model = as_potential(potential)
    forces = _labeled_forces(dataset)
    predicted = []
    for start in range(0, len(dataset), _CHUNK):
        part = evaluate_structures(model, dataset.structures[start : start + _CHUNK], Request(forces=True)).forces
        assert part is not None
        predicted.append(part.detach().cpu().numpy())
    squares = ((np.concatenate(predicted) - forces) ** 2).mean(1)
    totals = (forces**2).mean(1)
    sizes = [len(s) for s in dataset.structures]
    tags = np.repeat([s.tag for s in dataset.structures], sizes)
    groups = np.repeat([s.group or s.id for s in dataset.structures], sizes)
    numbers = dataset.numbers.numpy()
    rows = []
    for tag in found:
        types = np.unique(numbers[tags == tag]).tolist()
        for number in [*types, *([None] if len(types) > 1 else [])]:
            chosen = (tags == tag) & (True if number is None else numbers == number)
            name = _bead_name(number)
            own = (noise or {}).get((tag, name))
            rows.append(_row(tag, name, totals[chosen], squares[chosen], groups[chosen], own))
    return rows


def _row(
    tag: str, name: str, totals: Float[Array, "n"], squares: Float[Array, "n"], groups: Any, noise: float | None
) -> ExplainedForces:
    total, left = float(totals.mean()), float(squares.mean())
    _, index, counts = np.unique(groups, return_inverse=True, return_counts=True)
    error = None
    if len(counts) >= 3:
        # Jackknife over groups of frames.
        t, r = (np.bincount(index, values) for values in (totals, squares))
        leave_one_out = 1.0 - (r.sum() - r) / (t.sum() - t)
        error = float(np.sqrt((len(counts) - 1) * leave_one_out.var()))
    return ExplainedForces(
        tag=tag,
        bead=name,
        n=len(totals),
        rms=total**0.5,
        residual=left**0.5,
        explained=1.0 - left / total,
        standard_error=error,
        limit=None if noise is None else 1.0 - noise / total,
    )


def force_noise(dataset: Dataset) -> dict[tuple[str, str], float]:
    """Variance of the force at fixed positions of the beads.

    Args:
        dataset: beads with forces, in sets of frames with the same positions of the beads and other positions of the
            atoms; the frames of a set have the same group.

    Returns:
        Variance of a component of the force, (eV/Å)², by state point (the tag of the frames) and bead type: the mean
        over all sets. Where there are several bead types, also that of all beads ("all").

    Raises:
        MissingLabelError: data without forces.
        RequestError: frames of one group whose beads are at different positions, or no group with two frames.
    """
    forces = _labeled_forces(dataset)
    members: dict[str, list[int]] = {}
    for i, structure in enumerate(dataset.structures):
        members.setdefault(structure.group, []).append(i)
    starts = np.cumsum([0, *map(len, dataset.structures)])
    sums: dict[tuple[str, str], list[float]] = {}
    for group, frames in members.items():
        if len(frames) < 2:
            continue
        first = dataset.structures[frames[0]]
        for i in frames[1:]:
            other = dataset.structures[i]
            if other.tag != first.tag:
                raise RequestError(
                    f'the frames "{first.id}" and "{other.id}" of group {group!r} are of different state points '
                    f"({first.tag}, {other.tag}): give each set of frames a group of its own"
                )
            if len(other) != len(first) or np.abs(other.positions - first.positions).max() > _SAME_PLACE:
                raise RequestError(
                    f'the frames "{first.id}" and "{other.id}" of group {group!r} have beads at different positions: '
                    "the noise of the forces is that at fixed beads. Constrain the beads, and give each set of frames "
                    "a group"
                )
        values = np.stack([forces[starts[i] : starts[i + 1]] for i in frames])
        variances = values.var(axis=0, ddof=1).mean(1)
        types = np.unique(first.numbers).tolist()
        for number in [*types, *([None] if len(types) > 1 else [])]:
            chosen = np.full(len(first), True) if number is None else first.numbers == number
            entry = sums.setdefault((first.tag, _bead_name(number)), [0.0, 0.0])
            entry[0] += float(variances[chosen].sum())
            entry[1] += float(chosen.sum())
    if not sums:
        raise RequestError(
            "the noise of the forces needs several frames with the same positions of the beads (a group)"
        )
    return {key: total / count for key, (total, count) in sums.items()}


def _bead_name(number: int | None) -> str:
    """Name of a bead type; None: of all."""
    return "all" if number is None else species_name(number)


def _labeled_forces(dataset: Dataset) -> Float[Array, "beads 3"]:
    if dataset.labels.forces is None or not bool(dataset.labels.has("forces").all()):
        raise MissingLabelError(f"{dataset.source or 'the data'}: frames without forces")
    return np.asarray(dataset.labels.forces.numpy(), dtype=np.float64)
