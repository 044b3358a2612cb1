"""Errors of an evaluation by group (molecule, reaction) and by structure: where a potential fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hesse.datasets import Dataset
from hesse.errors import RequestError, did_you_mean
from hesse.evaluation.parity import ErrorSums, property_unit

__all__ = [
    "GroupErrors",
    "GroupRow",
    "StructureErrors",
    "StructureRow",
    "errors_by_group",
    "errors_by_structure",
    "group_rows",
    "ranking_property",
    "structure_rows",
]

_RANKING = ("forces", "energy_per_atom")
"""Errors by which groups and structures are sorted, if nothing else is requested: the first one that there is."""


def _described(errors: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g} {property_unit(name)}" for name, value in errors.items())


@dataclass(frozen=True, repr=False)
class GroupErrors:
    """Errors of one group of structures: a molecule, a reaction.

    Attributes:
        group: name of the group; the id of a structure without one.
        n_structures: number of its structures.
        rmse: root-mean-square error of each property that is labeled, in its unit (`property_unit`).
        mae: mean absolute errors.
        n: numbers of values that are averaged.
    """

    group: str
    n_structures: int
    rmse: Mapping[str, float]
    mae: Mapping[str, float]
    n: Mapping[str, int]

    def __repr__(self) -> str:
        return f"GroupErrors({self.group!r}, {self.n_structures} structures, rmse: {_described(self.rmse)})"


@dataclass(frozen=True, repr=False)
class StructureErrors:
    """Errors of one structure.

    Attributes:
        index: its index in the data set of the evaluation.
        id: its id.
        group, tag: its group and tag, "" for none.
        n_atoms: number of its atoms.
        rmse: root-mean-square error of each property that is labeled (of an energy, the absolute error), in its unit.
        mae: mean absolute errors.
        n: numbers of values that are averaged.
    """

    index: int
    id: str
    group: str
    tag: str
    n_atoms: int
    rmse: Mapping[str, float]
    mae: Mapping[str, float]
    n: Mapping[str, int]

    def __repr__(self) -> str:
        return f"StructureErrors({self.id!r}, rmse: {_described(self.rmse)})"


@dataclass(frozen=True)
class GroupRow:
    """One number of a group; the fields are the stable contract of `hesse evaluate --groups`.

    Attributes:
        dataset: name of the data set.
        group: name of the group; the id of a structure without one.
        property: energy, energy_per_atom, forces, hvp, hessian, ...
        metric: rmse or mae.
        value: in `unit`.
        unit: eV, eV/atom, eV/Å, eV/Å², ...
        n: number of label values averaged.
        structures: number of structures of the group.
    """

    dataset: str
    group: str
    property: str
    metric: str
    value: float
    unit: str
    n: int
    structures: int


@dataclass(frozen=True)
class StructureRow:
    """One number of a structure; the fields are the stable contract of `hesse evaluate --structures`.

    Attributes:
        dataset: name of the data set.
        id: id of the structure.
        group, tag: its group and tag, "" for none.
        property: energy, energy_per_atom, forces, hvp, hessian, ...
        metric: rmse or mae.
        value: in `unit`.
        unit: eV, eV/atom, eV/Å, eV/Å², ...
        n: number of label values averaged.
    """

    dataset: str
    id: str
    group: str
    tag: str
    property: str
    metric: str
    value: float
    unit: str
    n: int


def ranking_property(sums: Mapping[str, ErrorSums], rank_by: str | None = None) -> str:
    """Choose the property by which groups and structures are sorted.

    Args:
        sums: errors of each property.
        rank_by: the property, if it was requested.

    Returns:
        That property, otherwise forces, energies per atom, or the first one that there is.

    Raises:
        RequestError: there is no error of the requested property.
    """
    available = [name for name, values in sums.items() if values.n_values()]
    if rank_by is None:
        return next(name for name in (*_RANKING, *available) if name in available)
    if rank_by not in available:
        raise RequestError(f'rank_by: no errors of "{rank_by}" here. {did_you_mean(str(rank_by), available)}')
    return rank_by


def errors_by_group(
    dataset: Dataset, sums: Mapping[str, ErrorSums], rank_by: str | None = None
) -> tuple[GroupErrors, ...]:
    """Errors of each group, the worst first. A structure without a group counts alone, under its id.

    Args:
        dataset: the structures.
        sums: errors of each property.
        rank_by: property whose root-mean-square error sorts the groups; by default that of `ranking_property`.

    Returns:
        The groups; those without a value of `rank_by` last.

    Raises:
        RequestError: there is no error of `rank_by`.
    """
    key = ranking_property(sums, rank_by)
    members: dict[tuple[bool, str], list[int]] = {}
    for i, structure in enumerate(dataset.structures):
        members.setdefault((bool(structure.group), structure.group or structure.id), []).append(i)
    groups = [GroupErrors(name, len(rows), *_averages(sums, rows)) for (_, name), rows in members.items()]
    return tuple(sorted(groups, key=lambda g: (-g.rmse.get(key, -1.0), g.group)))


def errors_by_structure(
    dataset: Dataset, sums: Mapping[str, ErrorSums], rank_by: str | None = None
) -> tuple[StructureErrors, ...]:
    """Errors of each structure, the worst first.

    Args:
        dataset: the structures.
        sums: errors of each property.
        rank_by: property whose root-mean-square error sorts the structures; by default that of `ranking_property`.

    Returns:
        The structures; those without a value of `rank_by` last.

    Raises:
        RequestError: there is no error of `rank_by`.
    """
    key = ranking_property(sums, rank_by)
    rmse = {name: values.rms_per_structure() for name, values in sums.items()}
    mae = {name: values.absolute / np.maximum(values.counts, 1) for name, values in sums.items()}
    order = np.argsort(-np.nan_to_num(rmse[key], nan=-1.0), kind="stable")
    result = []
    for i in order.tolist():
        structure = dataset.structures[i]
        present = [name for name, values in sums.items() if values.counts[i]]
        result.append(
            StructureErrors(
                index=i,
                id=structure.id,
                group=structure.group,
                tag=structure.tag,
                n_atoms=len(structure),
                rmse={name: float(rmse[name][i]) for name in present},
                mae={name: float(mae[name][i]) for name in present},
                n={name: int(sums[name].counts[i]) for name in present},
            )
        )
    return tuple(result)


def _averages(
    sums: Mapping[str, ErrorSums], rows: Sequence[int]
) -> tuple[dict[str, float], dict[str, float], dict[str, int]]:
    """Root mean squares, mean absolute values and numbers of values of some structures."""
    subsets = {name: values.select(np.array(rows)) for name, values in sums.items()}
    present = {name: subset for name, subset in subsets.items() if subset.n_values()}
    return (
        {name: subset.rms() for name, subset in present.items()},
        {name: subset.mean_absolute() for name, subset in present.items()},
        {name: subset.n_values() for name, subset in present.items()},
    )


def group_rows(name: str, groups: Sequence[GroupErrors]) -> list[GroupRow]:
    """Rows for a file.

    Args:
        name: name of the data set.
        groups: errors of groups.

    Returns:
        One row per group, property and metric.
    """
    return [
        GroupRow(name, g.group, prop, metric, values[prop], property_unit(prop), g.n[prop], g.n_structures)
        for g in groups
        for prop in g.n
        for metric, values in (("rmse", g.rmse), ("mae", g.mae))
    ]


def structure_rows(name: str, structures: Sequence[StructureErrors]) -> list[StructureRow]:
    """Rows for a file.

    Args:
        name: name of the data set.
        structures: errors of structures.

    Returns:
        One row per structure, property and metric.
    """
    return [
        StructureRow(name, s.id, s.group, s.tag, prop, metric, values[prop], property_unit(prop), s.n[prop])
        for s in structures
        for prop in s.n
        for metric, values in (("rmse", s.rmse), ("mae", s.mae))
    ]
