"""Check that curvature labels agree with forces.

Rotating a molecule rotates its gradient, so the product of a Hessian with a rotation is known from the forces alone
(see `hesse.datasets.quality.sum_rules`). A wrong sign, a wrong unit, another layout of the matrix or another geometry
violate this rule. A regression of the actual on the expected products gives the factor between them, and the factor
usually shows what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from hesse.datasets.dataset import Dataset, check_is_dataset
from hesse.datasets.quality.sum_rules import (
    SumRuleErrors,
    hessian_blocks,
    principal_rigid_body_modes,
    sum_rule_errors,
)
from hesse.errors import InconsistentLabelsError
from hesse.structures import segment_indices
from hesse.structures.batch import segment_offsets
from hesse.structures.rigid_body import RigidBodyModes
from hesse.units import ENERGY_UNITS, LENGTH_UNITS

__all__ = ["ConsistencyReport", "check_consistency", "diagnose_consistency"]

# All limits but the last two are fractions of the root mean square of the label's elements. Correct labels measured so
# far violate the sum rules by at most 0.02.
_MIN_RESPONSE: Final = 1e-3
"""Structures with a smaller response to rotation are not used in the regression."""
_MAX_MEDIAN_TRANSLATION: Final = 0.1
"""A larger median violation of the translational rule shows that the labels do not belong to these structures."""
_MAX_VIOLATION: Final = 0.3
"""A single structure with a larger violation of any rule is an outlier."""
_MIN_ROTATION: Final = 2e-3
"""Smaller violations of the rotational rule are never reported for a single structure."""
_MIN_LABEL_SIZE: Final = 1e-3
"""eV/Å²; a smaller label (the product with a probe that happens to be a translation) consists of noise only."""
_FACTOR_TOLERANCE: Final = 0.2
"""Largest deviation of a well determined factor from one."""
_MILLIDYNE_PER_ANGSTROM: Final = 6.241509
"""eV/Å²."""


@dataclass(frozen=True)
class ConsistencyReport:
    """Agreement of one curvature label of a data set with the forces.

    Attributes:
        label: "hessian" or "hvp".
        status: "consistent", "undetermined" (too little signal, as for relaxed or periodic structures) or "broken".
        factor: the factor by which the label must be multiplied to agree with the forces; NaN if undetermined.
        factor_error: standard error of `factor`.
        correlation: correlation of the label's response to rotations with the response expected from the forces.
        structures: number of structures in the regression.
        worst: id of the structure with the largest violation relative to the size of its label.
        message: one sentence for the user; for "broken" the probable cause and the remedy.
        outliers: ids of the structures that are broken while all others are consistent; empty otherwise.
    """

    label: str
    status: str
    factor: float
    factor_error: float
    correlation: float
    structures: int
    worst: str
    message: str
    outliers: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _RegressionSums:
    """Sums over all components of the response `h` (from the label) and its expected value `q` (from the forces)."""

    qq: Float[Tensor, "structures"]
    qh: Float[Tensor, "structures"]
    hh: Float[Tensor, "structures"]
    components: Float[Tensor, "structures"]
    scale: Float[Tensor, "structures"]
    """Root mean square of `h` along an arbitrary direction."""
    translation: Float[Tensor, "structures"]
    """Noise of `h` per component, from the translational rule; NaN where the label is absent."""
    force_noise: Float[Tensor, "structures"]
    """Noise of `q` per component."""
    trace: Float[Tensor, "structures"]
    """Trace of the Hessian, or its estimate `v · Hv`."""

    def as_tuple(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.qq, self.qh, self.hh, self.components

    def residual(self) -> Float[Tensor, "structures"]:
        squared = (self.hh - 2.0 * self.qh + self.qq).clamp(min=0.0)
        return (squared / self.components.clamp(min=1.0)).sqrt()

    def is_informative(self) -> Tensor:
        """Structures whose response to rotation is larger than all known noise."""
        m = self.components.clamp(min=1.0)
        h, q = (self.hh / m).sqrt(), (self.qq / m).sqrt()
        responds = h > torch.maximum(_MIN_RESPONSE * self.scale, 3.0 * self.translation)
        should_respond = q > torch.maximum(10.0 * _MIN_RESPONSE * self.scale, 5.0 * self.force_noise)
        return (responds | should_respond) & (self.components > 0)


def diagnose_consistency(dataset: Dataset) -> list[ConsistencyReport]:
    """Compare the Hessians and Hessian-vector products of a data set with its geometries and forces.

    Args:
        dataset: the data. Without forces only the translational rule can be checked; likewise if the curvature is of
            another level than the forces (metadata `curvature_level`).

    Returns:
        One report for each curvature label that is present.
    """
    check_is_dataset(dataset)
    labels = dataset.labels
    present = [name for name in ("hessian", "hvp") if bool(labels.mask(name).any())]
    if not present:
        return []
    if dataset.metadata.get("curvature_level"):
        labels = labels.pick(present)
        dataset = replace(dataset, labels=labels)
    modes = principal_rigid_body_modes(dataset.structures)
    violations = sum_rule_errors(dataset.structures, labels)
    regression = {"hessian": _hessian_sums, "hvp": _hvp_sums}
    return [_assess(dataset, name, regression[name](dataset, modes, violations)) for name in present]


def check_consistency(dataset: Dataset) -> list[ConsistencyReport]:
    """Check that Hessians and Hessian-vector products agree with geometries and forces.

    Args:
        dataset: the data.

    Returns:
        One report for each curvature label that is present.

    Raises:
        InconsistentLabelsError: a label contradicts the forces; the message names file, structure and remedy.
    """
    reports = diagnose_consistency(dataset)
    for report in reports:
        if report.status == "broken":
            raise InconsistentLabelsError(report.message)
    return reports


# --- regression sums -----------------------------------------------------------------------------------------------


def _rotated_gradient(dataset: Dataset, modes: RigidBodyModes) -> Float[Tensor, "3 atoms 3"] | None:
    labels = dataset.labels
    if labels.forces is None:
        return None
    has_forces = labels.mask("forces")[modes.structure_index, None]
    return modes.rotated_gradient(-torch.where(has_forces, labels.forces.double(), torch.nan))


def _force_noise(modes: RigidBodyModes, violations: SumRuleErrors) -> Float[Tensor, "structures"]:
    # e × δg keeps two of three components of white noise δg; it is divided by the lever arm, the shortest being worst.
    lever_arms = torch.where(modes.present[3:], modes.lever_arms, torch.inf).min(0).values
    noise: Tensor = violations.noise("forces") * math.sqrt(2.0 / 3.0) / lever_arms
    return noise.nan_to_num(0.0)


def _hessian_sums(dataset: Dataset, modes: RigidBodyModes, violations: SumRuleErrors) -> _RegressionSums:
    labels, rotated = dataset.labels, _rotated_gradient(dataset, modes)
    zero = torch.zeros(len(dataset), dtype=torch.float64)
    sums = {name: zero.clone() for name in ("qq", "qh", "hh", "components", "scale", "trace")}
    starts = segment_offsets(labels.n_atoms)
    for members, matrices in hessian_blocks(labels):
        matrices = matrices.double()
        n = matrices.shape[-1] // 3
        sums["scale"][members] = matrices.square().mean((1, 2)).sqrt()
        sums["trace"][members] = matrices.diagonal(dim1=1, dim2=2).sum(-1)
        if rotated is None:
            continue
        atoms = segment_indices(starts[members], torch.full_like(members, n))
        q = rotated[:, atoms].reshape(3, len(members), 3 * n)
        h = torch.einsum("bij,mbj->mbi", matrices, modes.motions[3:, atoms].reshape(3, len(members), 3 * n))
        valid = modes.present[3:, members] & q.isfinite().all(-1)
        q, h = (torch.where(valid[..., None], x, 0.0) for x in (q, h))
        sums["qq"][members], sums["qh"][members], sums["hh"][members] = (
            (x * y).sum((0, 2)) for x, y in ((q, q), (q, h), (h, h))
        )
        sums["components"][members] = (3 * n * valid.sum(0)).double()
    return _RegressionSums(
        **sums, translation=violations.hessian_translation, force_noise=_force_noise(modes, violations)
    )


def _hvp_sums(dataset: Dataset, modes: RigidBodyModes, violations: SumRuleErrors) -> _RegressionSums:
    labels, rotated = dataset.labels, _rotated_gradient(dataset, modes)
    assert labels.hvp is not None
    assert labels.probes is not None
    count = len(dataset)
    zero = torch.zeros(count, dtype=torch.float64)
    sums = {name: zero.clone() for name in ("qq", "qh", "hh", "components", "scale", "trace")}

    def sum_over_structures(values: Float[Tensor, "axes atoms"]) -> Float[Tensor, "axes structures"]:
        return values.new_zeros(len(values), count).index_add(1, modes.structure_index, values)

    for k, has_hvp in enumerate(labels.mask("hvp")):
        on_atoms = has_hvp[modes.structure_index, None]
        hvp = torch.where(on_atoms, labels.hvp[k].double(), 0.0)
        probe = torch.where(on_atoms, labels.probes[k].double(), 0.0)
        sums["scale"] += sum_over_structures(hvp.square().sum(-1)[None])[0]
        sums["trace"] += sum_over_structures((probe * hvp).sum(-1)[None])[0]
        if rotated is None:
            continue
        h = sum_over_structures((modes.motions[3:] * hvp).sum(-1))
        q = sum_over_structures((rotated * probe).sum(-1))
        valid = modes.present[3:] & has_hvp & q.isfinite()
        q, h = (torch.where(valid, x, 0.0) for x in (q, h))
        for name, value in (("qq", q * q), ("qh", q * h), ("hh", h * h), ("components", valid.double())):
            sums[name] += value.sum(0)
    size = 3.0 * labels.n_atoms
    probes = labels.mask("hvp").sum(0).clamp(min=1)
    sums["scale"] = (sums["scale"] / (size * probes)).sqrt()
    return _RegressionSums(
        **sums,
        translation=violations.hvp_translation.square().nanmean(0).sqrt(),
        # v · (e × δg) is a sum over all coordinates.
        force_noise=_force_noise(modes, violations) * size.sqrt(),
    )


# --- assessment ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fit:
    """Least squares h = slope · q. Curvature labels are noisier than forces, so q is the independent variable."""

    slope: float
    standard_error: float
    correlation: float

    @classmethod
    def from_sums(cls, qq: float, qh: float, hh: float, components: float) -> _Fit:
        # The components of one structure are not independent: a third of them is counted.
        freedom = max(components / 3.0 - 1.0, 0.0)
        if qq <= 0.0 or freedom == 0.0:
            return cls(math.nan, math.inf, math.nan)
        slope = qh / qq
        error = math.sqrt(max(hh - slope * qh, 0.0) / qq / freedom)
        return cls(slope, error, qh / math.sqrt(qq * hh) if hh > 0 else 0.0)

    @property
    def significant(self) -> bool:
        """True if the slope is known well enough to be compared with one."""
        return self.standard_error < 0.1 * max(1.0, abs(self.slope))

    @property
    def deviates(self) -> bool:
        return self.significant and abs(self.slope - 1.0) > max(_FACTOR_TOLERANCE, 3.0 * self.standard_error)


def _assess(dataset: Dataset, label: str, regression: _RegressionSums) -> ConsistencyReport:
    name = {"hessian": "Hessians", "hvp": "Hessian-vector products"}[label]
    has_label = dataset.labels.mask(label)
    has_label = has_label.any(0) if has_label.ndim == 2 else has_label
    size = regression.scale.clamp(min=_MIN_LABEL_SIZE)
    translation = (regression.translation / size).nan_to_num(0.0)
    rotation = torch.where(regression.components > 0, regression.residual() / size, 0.0)
    informative = regression.is_informative()
    fit = _Fit.from_sums(*(float(x[informative].sum()) for x in regression.as_tuple()))
    outliers = torch.maximum(translation, rotation) > _MAX_VIOLATION
    candidates = (informative & (rotation > _MIN_ROTATION)).nonzero()[:, 0]
    candidate_sums = torch.stack(regression.as_tuple(), dim=1)[candidates].tolist()
    outliers[candidates] |= torch.tensor([_Fit.from_sums(*sums).deviates for sums in candidate_sums], dtype=torch.bool)
    others = informative & ~outliers
    fit_without_outliers = _Fit.from_sums(*(float(x[others].sum()) for x in regression.as_tuple()))
    violation = torch.where(has_label, torch.maximum(translation, rotation), -1.0)

    def report(status: str, message: str, outlier_ids: tuple[str, ...] = ()) -> ConsistencyReport:
        determined = fit.significant and abs(fit.slope) > 3.0 * fit.standard_error
        worst = dataset.structures[int(violation.argmax())].id
        if status == "broken":
            message = f'{dataset.source}: the {name} {message} (worst: structure "{worst}")'
        return ConsistencyReport(
            label=label,
            status=status,
            factor=1.0 / fit.slope if determined else math.nan,
            factor_error=fit.standard_error / fit.slope**2 if determined else math.nan,
            correlation=fit.correlation,
            structures=int(informative.sum()),
            worst=worst,
            message=message,
            outliers=outlier_ids,
        )

    if float(translation[has_label].median()) > _MAX_MEDIAN_TRANSLATION:
        violation = torch.where(has_label, translation, -1.0)
        return report(
            "broken",
            f"change when a structure is moved as a whole, by {float(violation.max()):.2g} of their size: they may be "
            "mass-weighted, in another order of atoms or coordinates, or of frozen atoms. Expected eV/Å², coordinates "
            "ordered x1 y1 z1 x2 …, not mass-weighted.",
        )
    if bool(outliers.any()) and fit_without_outliers.significant and not fit_without_outliers.deviates:
        violation = torch.where(outliers, violation, -1.0)
        return report(
            "broken",
            f"of {int(outliers.sum())} of {int(has_label.sum())} structures contradict their own geometry and forces, "
            "while the others agree: these records are wrong, or were paired with another geometry. Remove them, label "
            "them again, or keep them out of use with `hesse convert --flag-suspect`.",
            tuple(dataset.structures[i].id for i in outliers.nonzero()[:, 0].tolist()),
        )
    if fit.deviates or bool(outliers.any()):
        return report("broken", _diagnosis(fit, float(regression.trace[informative].sum())))
    if not fit.significant:
        hint = ""
        if label == "hessian" and bool((regression.trace[has_label] < 0.0).all()):
            # The trace of a Hessian is positive except for far-stretched structures.
            hint = ". All have a negative trace: probably they are the derivative of the forces (`--negate-curvature`)"
        return report(
            "undetermined",
            f"{name}: the rotational sum rule cannot be checked (no forces, periodic, or too near to stationary points)"
            f"{hint}",
        )
    return report(
        "consistent",
        f"{name} agree with the forces: factor {1.0 / fit.slope:.3f} ± {fit.standard_error / fit.slope**2:.3f}, "
        f"correlation {fit.correlation:.3f} over {int(informative.sum())} structures",
    )


def _diagnosis(fit: _Fit, trace: float) -> str:
    """The probable cause when most structures contradict their forces."""
    if not fit.deviates or abs(fit.correlation) < 0.8:
        no_response = abs(fit.slope) < 0.05 and fit.significant
        guess = (
            "rotations may have been projected out of them, or they belong"
            if no_response
            else "their layout may be another one, or they belong"
        )
        return (
            f"do not respond to rotations as the forces demand (correlation {fit.correlation:.2f}): {guess} to another "
            "geometry or order of atoms. Give the labels of exactly these structures, unprojected, in eV/Å²."
        )
    lead = f"contradict the forces: they would agree if multiplied by {1.0 / fit.slope:.4g}"
    # The trace of a Hessian is positive except for far-stretched structures.
    sign = (
        "the forces hold gradients: read them with `hesse convert --negate-forces`"
        if trace > 0
        else "the curvature is the derivative of the forces: read it with `hesse convert --negate-curvature`"
    )
    if abs(fit.slope + 1.0) <= max(_FACTOR_TOLERANCE, 3.0 * fit.standard_error):
        return f"{lead}. The sign is wrong: {sign}."
    tail = "" if fit.slope > 0 else f". Their sign is wrong too: {sign}"
    spread = max(0.05, 3.0 * fit.standard_error / abs(fit.slope))
    distances = {mistake: abs(math.log(abs(fit.slope) / value)) for mistake, value in _UNIT_MISTAKES.items()}
    candidates = sorted((mistake for mistake in distances if distances[mistake] < spread), key=distances.__getitem__)
    if not candidates:
        return f"{lead}, which is the ratio of no usual units. Check the units and the origin of both{tail}."
    return f"{lead}. Probably {' or '.join(candidates[:2])}: convert to eV and Å before use{tail}."


def _unit_mistakes() -> Mapping[str, float]:
    """Ratio of stored to expected response for common mistakes of units."""
    ratios: dict[str, float] = {}
    energies = {"eV": "ev", "Hartree": "hartree", "kcal/mol": "kcal/mol", "kJ/mol": "kj/mol", "Rydberg": "rydberg"}
    lengths = {"Å": "angstrom", "Bohr": "bohr"}
    for energy, energy_key in energies.items():
        for length, length_key in lengths.items():
            e, a = ENERGY_UNITS[energy_key], LENGTH_UNITS[length_key]
            if (energy, length) != ("eV", "Å"):
                ratios[f"the curvature is in {energy}/{length}²"] = a * a / e
                ratios[f"the forces are in {energy}/{length}"] = e / a
    ratios["the positions are in Bohr"] = 1.0 / LENGTH_UNITS["bohr"]
    ratios["forces and curvature are per Bohr and per Bohr² (--forces-unit, --curvature-unit)"] = LENGTH_UNITS["bohr"]
    ratios["the positions are in nm"] = 1.0 / LENGTH_UNITS["nm"]
    ratios["the curvature is in mdyn/Å"] = 1.0 / _MILLIDYNE_PER_ANGSTROM
    return MappingProxyType(ratios)


_UNIT_MISTAKES: Final = _unit_mistakes()
