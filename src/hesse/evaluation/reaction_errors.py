"""Errors of barriers and reaction energies, and statistics of the transition states that a potential has.

A reaction is a group of structures of which one has the tag "ts", one "reactant" and one "product"; what is missing is
left out. Barriers are differences of energies, so that errors common to all geometries of a molecule cancel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from hesse.datasets import Dataset
from hesse.evaluation.averages import Average, MetricRow, average_row
from hesse.evaluation.noise_floor import noise_estimates
from hesse.structures import Properties

__all__ = ["REACTION_TAGS", "ReactionMembers", "find_reactions", "reaction_metrics", "saddle_metrics"]

REACTION_TAGS: Final[Mapping[str, str]] = {
    "reactant": "reactant",
    "product": "product",
    "ts": "saddle",
    "transition_state": "saddle",
    "saddle": "saddle",
}
"""Tags of structures, and what they are in a reaction."""

_DIFFERENCES: Final = (
    ("barrier", "saddle", "reactant"),
    ("reverse_barrier", "saddle", "product"),
    ("reaction_energy", "product", "reactant"),
)
"""Energy differences: name, and the structures of which the second is subtracted from the first."""


@dataclass(frozen=True)
class ReactionMembers:
    """The structures of one reaction.

    Attributes:
        name: the group.
        reactant, saddle, product: indices of its structures in the data set; None where there is none.
    """

    name: str
    reactant: int | None = None
    saddle: int | None = None
    product: int | None = None


def find_reactions(dataset: Dataset) -> tuple[list[ReactionMembers], list[str]]:
    """Find the reactions of a data set by groups and tags.

    Args:
        dataset: the structures.

    Returns:
        The reactions, in the order of their first structure, without groups that have one structure of a reaction
        alone, unless it is a transition state; and notes about groups that were left out because they have several
        structures of one kind.
    """
    members: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, structure in enumerate(dataset.structures):
        role = REACTION_TAGS.get(structure.tag)
        if role is not None and structure.group:
            members[structure.group][role].append(index)
    reactions, ambiguous = [], []
    for name, by_role in members.items():
        if any(len(indices) > 1 for indices in by_role.values()):
            ambiguous.append(name)
        elif len(by_role) > 1 or "saddle" in by_role:
            reactions.append(ReactionMembers(name, **{role: indices[0] for role, indices in by_role.items()}))
    notes = []
    if ambiguous:
        more = f" and {len(ambiguous) - 3} others" if len(ambiguous) > 3 else ""
        notes.append(
            f"{len(ambiguous)} groups are no single reactions, because several of their structures are reactant, "
            f"product or ts: {', '.join(ambiguous[:3])}{more}"
        )
    return reactions, notes


def reaction_metrics(
    dataset: Dataset, predictions: Properties, *, name: str | None = None, intervals: bool = True
) -> list[MetricRow]:
    """Errors of barriers, reverse barriers and reaction energies at the geometries of the reference.

    Args:
        dataset: structures and reference labels.
        predictions: predictions for the same structures in the same order.
        name: name of the data set in the rows; by default the stem of the file it came from.
        intervals: with 95 % intervals under another choice of reactions.

    Returns:
        Rows with the properties barrier, reverse_barrier and reaction_energy, metrics mae, rmse, bias (predicted less
        reference) and noise_floor, in eV; `n` is the number of reactions.
    """
    labels = dataset.labels
    if labels.energy is None or predictions.energy is None:
        return []
    known = (labels.mask("energy") & predictions.mask("energy")).numpy()
    errors = np.where(known, predictions.energy.double().numpy() - labels.energy.double().numpy(), np.nan)
    noise = np.full(len(dataset), np.nan)
    for estimate in noise_estimates(dataset)["energy"]:
        noise = np.fmax(noise, estimate.rms_per_structure())
    reactions, _ = find_reactions(dataset)
    averages: list[Average] = []
    for prop, upper, lower in _DIFFERENCES:
        pairs = [(getattr(r, upper), getattr(r, lower)) for r in reactions]
        pairs = [pair for pair in pairs if None not in pair and known[list(pair)].all()]
        first, second = (np.array([pair[k] for pair in pairs], dtype=np.int64) for k in (0, 1))
        averages += _error_averages(prop, "eV", errors[first] - errors[second])
        both = np.hypot(noise[first], noise[second])
        averages += _error_averages(prop, "eV", both[np.isfinite(both)], ("noise_floor",))
    return _rows(averages, Path(dataset.source).stem if name is None else name, intervals)


def saddle_metrics(records: Sequence[Mapping[str, Any]], name: str, *, intervals: bool = True) -> list[MetricRow]:
    """Statistics of searches for transition states.

    Args:
        records: results of `hesse.evaluation.judge_saddle`, one for each reaction.
        name: name of the data set in the rows.
        intervals: with 95 % intervals under another choice of reactions.

    Returns:
        Rows with these properties and metrics; `n` is the number of reactions.

        - transition_states: fraction_found, of all searches; rmsd (mean, Å), of those found;
        - imaginary_frequency: mae, bias (cm⁻¹, predicted less reference), of those found;
        - relaxed_barrier: mae, bias (eV), of those found: the saddle point and the minimum of the potential itself;
        - irc_ends: fraction_right, of those found whose reactant and product are in the data.
    """
    converged = [row for row in records if row["found"]]
    averages = [
        *_error_averages("transition_states", "1", _column(records, "found"), ("fraction_found",), fraction=True),
        *_error_averages("transition_states", "Å", _column(converged, "rmsd"), ("rmsd",)),
        *_error_averages(
            "imaginary_frequency", "cm⁻¹", _differences(converged, "imaginary_frequency"), ("mae", "bias")
        ),
        *_error_averages("relaxed_barrier", "eV", _differences(converged, "barrier"), ("mae", "bias")),
        *_error_averages("irc_ends", "1", _column(converged, "ends_right"), ("fraction_right",), fraction=True),
    ]
    return _rows(averages, name, intervals)


def _column(records: Sequence[Mapping[str, Any]], name: str) -> Float[ndarray, "n"]:
    return np.array([float(row[name]) for row in records if row[name] is not None])


def _differences(records: Sequence[Mapping[str, Any]], name: str) -> Float[ndarray, "n"]:
    pairs = [(row[name], row[f"reference_{name}"]) for row in records]
    return np.array([float(a - b) for a, b in pairs if a is not None and b is not None])


def _error_averages(
    prop: str,
    unit: str,
    values: Float[ndarray, "n"],
    metrics: Sequence[str] = ("mae", "rmse", "bias"),
    *,
    fraction: bool = False,
) -> Iterator[Average]:
    """Averages over reactions, one value for each."""
    ones = np.ones(len(values))
    for metric in metrics:
        root = metric in ("rmse", "noise_floor")
        numbers = np.square(values) if root else np.abs(values) if metric == "mae" else values
        yield Average(prop, metric, unit, numbers, ones, ones.astype(np.int64), root, fraction)


def _rows(averages: Sequence[Average], name: str, intervals: bool) -> list[MetricRow]:
    rows = []
    for average in averages:
        n = len(average.counts)
        rows.append(average_row(average, name, "", np.ones(n, dtype=bool), np.arange(n) if intervals else None))
    return [row for row in rows if row is not None]
