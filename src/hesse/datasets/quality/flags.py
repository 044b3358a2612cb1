"""Detection of structures with wrong labels. They are flagged `suspect` and stay in the file, but training and
evaluation leave them out unless they are requested.

`find_issues` checks each structure alone, by the sum rules of `hesse.datasets.quality.sum_rules` and by the error
estimates of the labels; the results of engines are checked in this way. `flag_suspect` checks a whole data set, in
which a few structures may contradict all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from hesse.datasets.dataset import Dataset, check_is_dataset
from hesse.datasets.quality.consistency import diagnose_consistency
from hesse.datasets.quality.outliers import find_outliers
from hesse.datasets.quality.sum_rules import hessian_blocks, sum_rule_errors
from hesse.errors import GeometryError
from hesse.structures import Properties, Structure, check_cell, segment_ids

__all__ = ["LabelIssue", "find_issues", "find_non_finite", "flag_suspect"]

RELATIVE_LIMIT: Final = 0.1
"""A label is suspect if its violation of a sum rule or its estimated error exceeds this fraction of its root mean
square. Reliable engines stay below 0.02."""

ABSOLUTE_LIMIT: Final = {"forces": 0.05, "hvp": 0.1, "hessian": 0.1}
"""eV/Å and eV/Å²; smaller violations and errors are always accepted, however small the label is. Density functionals on
a grid cause violations of 0.02 to 0.1 eV/Å²."""

_PHRASES: Final = {
    "forces": ("forces violate", "forces have", "eV/Å"),
    "hvp": ("a Hessian-vector product violates", "a Hessian-vector product has", "eV/Å²"),
    "hessian": ("the Hessian violates", "the Hessian has", "eV/Å²"),
}


@dataclass(frozen=True)
class LabelIssue:
    """A wrong label of one structure.

    Attributes:
        label: "forces", "hvp" or "hessian".
        probe: index of the Hessian-vector product; 0 for the other labels.
        reason: the rule that is violated, a colon, the size of the violation and the limit.
    """

    label: str
    probe: int
    reason: str


def find_issues(structures: Sequence[Structure], labels: Properties) -> dict[int, tuple[LabelIssue, ...]]:
    """Check the labels of each structure alone.

    A label is wrong if its violation of the translational or the rotational sum rule, or its estimated error, exceeds
    both `RELATIVE_LIMIT` of its root mean square and `ABSOLUTE_LIMIT`; a Hessian also if its asymmetry does.

    Args:
        structures: the geometries.
        labels: their labels, in the same order.

    Returns:
        The issues of each structure that has any, by its index.
    """
    violations = sum_rule_errors(structures, labels)
    issues: dict[int, list[LabelIssue]] = {}
    for name, size in _label_rms(labels).items():
        violates, has, unit = _PHRASES[name]
        limit = (RELATIVE_LIMIT * size).clamp(min=ABSOLUTE_LIMIT[name])
        checks = [
            (getattr(violations, f"{name}_{kind}"), f"{violates} the {kind}al sum rule")
            for kind in ("translation", "rotation")
        ]
        if name == "hessian":
            checks.append((violations.hessian_asymmetry, "the Hessian is not symmetric"))
        error = getattr(labels, f"{name}_error")
        if error is not None:
            checks.append((error, f"{has} a large estimated error"))
        reported = torch.zeros_like(limit, dtype=torch.bool)
        for violation, sentence in checks:
            value = violation.double().reshape(limit.shape).nan_to_num(0.0)
            for probe, i in ((value > limit) & ~reported).nonzero().tolist():
                numbers = f"{float(value[probe, i]):.2g} {unit} (limit {float(limit[probe, i]):.2g})"
                reason = f"{sentence}: {numbers}"
                issues.setdefault(i, []).append(LabelIssue(name, probe, reason))
            reported |= value > limit
    return {i: tuple(items) for i, items in sorted(issues.items())}


def _label_rms(labels: Properties) -> dict[str, Float[Tensor, "probes structures"]]:
    """Root mean square of each label of each structure (one row per probe for products); NaN where it is absent."""
    structure_index, count = segment_ids(labels.n_atoms), len(labels)

    def rms_over_structures(values: Float[Tensor, "rows atoms 3"]) -> Float[Tensor, "rows structures"]:
        sums = values.new_zeros(len(values), count).index_add(1, structure_index, values.square().sum(-1))
        return (sums / (3.0 * labels.n_atoms)).sqrt()

    sizes: dict[str, Tensor] = {}
    if labels.forces is not None:
        sizes["forces"] = rms_over_structures(labels.forces.double()[None])
    if labels.hvp is not None:
        sizes["hvp"] = rms_over_structures(labels.hvp.double())
    if labels.hessian is not None:
        sizes["hessian"] = torch.full((1, count), torch.nan, dtype=torch.float64)
        for members, matrices in hessian_blocks(labels):
            sizes["hessian"][0, members] = matrices.double().square().mean((1, 2)).sqrt()
    return sizes


def flag_suspect(dataset: Dataset) -> tuple[Dataset, Mapping[str, str]]:
    """Flag the structures because of which `check_dataset` would refuse a data set.

    These are structures with labels that are not finite, with overlapping atoms, or with curvature that contradicts
    the forces while that of the other structures agrees; and those with labels that no structure of atoms can have,
    which `hesse train` refuses (`find_outliers`). A mistake in all structures (units, signs, layout) flags none; it
    should be corrected instead.

    Args:
        dataset: the data; flags that are set already are kept.

    Returns:
        The data set with flags, and the reason for each newly flagged structure, by id.
    """
    check_is_dataset(dataset)
    reasons: dict[str, str] = {}
    for i, label in find_non_finite(dataset).items():
        reasons.setdefault(dataset.structures[i].id, f"{label} holds NaN or infinity")
    for structure in dataset.structures:
        try:
            check_cell(structure)
        except GeometryError as error:
            reasons.setdefault(structure.id, str(error))
        try:
            structure.check_no_overlap()
        except GeometryError:
            distance, first, second = structure.closest_pair()
            reasons.setdefault(structure.id, f"atoms {first} and {second} are {distance:.3f} Å apart")
    flagged = _with_flags(dataset, reasons)
    if not bool(flagged.labels.suspect_mask().all()):
        impossible = [outlier for outlier in find_outliers(flagged.without_suspects()) if outlier.impossible]
        if 2 * len({outlier.id for outlier in impossible}) < len(dataset):
            for outlier in impossible:
                value = f"{outlier.label} = {outlier.value:.3g} {outlier.unit}"
                reasons.setdefault(outlier.id, f"{value}, which no structure of atoms can have")
            flagged = _with_flags(dataset, reasons)
    if not bool(flagged.labels.suspect_mask().all()):
        for report in diagnose_consistency(flagged.without_suspects()):
            for name in report.outliers:
                reasons.setdefault(name, f"its {report.label} contradicts its geometry and forces")
    return _with_flags(dataset, reasons), reasons


def _with_flags(dataset: Dataset, reasons: Mapping[str, str]) -> Dataset:
    flags = torch.tensor([s.id in reasons for s in dataset.structures]) | dataset.labels.suspect_mask()
    return replace(dataset, labels=dataset.labels.replace(suspect=flags if bool(flags.any()) else None))


def find_non_finite(dataset: Dataset) -> dict[int, str]:
    """Find labels that are NaN or infinite.

    Args:
        dataset: the data; masked labels are not checked.

    Returns:
        The first such label of each structure that has one, by the index of the structure.
    """
    labels = dataset.labels
    rows = {
        "structure": torch.arange(len(dataset)),
        "atom": segment_ids(labels.n_atoms),
        "element": segment_ids(labels.hessian_lengths()),
    }
    result: dict[int, str] = {}
    for column, value in labels.items():
        if column.kind != "value" or not value.is_floating_point():
            continue
        structure_index = rows[column.rows]
        finite = (
            value.isfinite().flatten(2 if column.probe_axis else 1).all(-1) if value.dim() > 1 else value.isfinite()
        )
        invalid = ~finite
        if column.probe_axis:
            invalid = (invalid & labels.mask("hvp")[:, structure_index]).any(0)
        elif column.axes != "element" and column.quantity.role == "label":
            invalid = invalid & labels.mask(column.name)[structure_index]
        for i in structure_index[invalid].unique().tolist():
            result.setdefault(i, column.name)
    return result
