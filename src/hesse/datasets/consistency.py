"""Do curvature labels and forces belong together? Turning a molecule turns its gradient, so the response of a Hessian
(or of a Hessian-vector product) to a rotation is known from the forces alone. A wrong sign, a wrong unit, a foreign
layout or another geometry breaks that, and the factor by which it is broken usually names the mistake.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from hesse.datasets.dataset import Dataset
from hesse.datasets.identities import IdentityDefects, RigidBasis, hessian_blocks, identity_defects, rigid_basis
from hesse.errors import IdentityError
from hesse.structures import ragged_indices
from hesse.structures.ragged import offsets_of
from hesse.units import ENERGY, LENGTH

__all__ = ["Consistency", "diagnose_consistency", "require_consistency"]

# Real labels measured so far break the identities by at most 0.02 of the label's root mean square element.
_MEASURABLE: Final = 1e-3
"""Response to rotation, in units of the label's own root mean square, from which a structure can testify."""
_FOREIGN: Final = 0.1
"""Median violation of the translational identity, in those units, from which labels are not of these structures."""
_GROSS: Final = 0.3
"""The same for one structure, and for its rotational identity."""
_AUDIBLE: Final = 2e-3
"""Rotational violation, in those units, below which a single structure is not accused."""
_SILENT: Final = 1e-3
"""eV/Å²; a label smaller than this (a probe can happen to be a translation) is all noise, and nobody's fault."""
_TOLERANCE: Final = 0.2
"""How far a well determined factor may be from one."""
_MILLIDYNE_PER_ANGSTROM: Final = 6.241509
"""eV/Å²."""


@dataclass(frozen=True)
class Consistency:
    """What the rotational identity says about one curvature label of a data set.

    Attributes:
        label: "hessian" or "hvp".
        verdict: "consistent", "undetermined" (too little signal, as for relaxed or periodic structures) or "broken".
        factor: what the label must be multiplied by to agree with the forces; NaN when undetermined.
        factor_error: its standard error.
        correlation: between the label's response to rotations and that expected from the forces.
        structures: how many structures testified.
        worst: id of the structure that violates its identities most, relative to its label's size.
        message: one sentence for people; for "broken", what is probably wrong and what to do.
        guilty: ids of the structures that are broken while the others are consistent; empty otherwise.
    """

    label: str
    verdict: str
    factor: float
    factor_error: float
    correlation: float
    structures: int
    worst: str
    message: str
    guilty: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Evidence:
    """Sums per structure over all components of response `h` (from the label) and expectation `q` (from forces)."""

    qq: Float[Tensor, "structures"]
    qh: Float[Tensor, "structures"]
    hh: Float[Tensor, "structures"]
    components: Float[Tensor, "structures"]
    scale: Float[Tensor, "structures"]
    """Root mean square of `h` for a direction that is no symmetry."""
    translation: Float[Tensor, "structures"]
    """Noise of `h` per component, from the translational identity; NaN where the label is absent."""
    force_noise: Float[Tensor, "structures"]
    """Noise of `q` per component."""
    trace: Float[Tensor, "structures"]
    """Of the Hessian, or its estimate `v · Hv`."""

    def sums(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.qq, self.qh, self.hh, self.components

    def residual(self) -> Float[Tensor, "structures"]:
        squared = (self.hh - 2.0 * self.qh + self.qq).clamp(min=0.0)
        return (squared / self.components.clamp(min=1.0)).sqrt()

    def testify(self) -> Tensor:
        """Structures whose response to rotation stands out of every known noise."""
        m = self.components.clamp(min=1.0)
        h, q = (self.hh / m).sqrt(), (self.qq / m).sqrt()
        loud = h > torch.maximum(_MEASURABLE * self.scale, 3.0 * self.translation)
        pulled = q > torch.maximum(10.0 * _MEASURABLE * self.scale, 5.0 * self.force_noise)
        return (loud | pulled) & (self.components > 0)


def diagnose_consistency(dataset: Dataset) -> list[Consistency]:
    """Judge the Hessians and the Hessian-vector products of `dataset` against its geometry and forces.

    One entry per curvature label present. Without forces only the translational identity can be judged.
    """
    labels = dataset.labels
    held = [name for name in ("hessian", "hvp") if bool(labels.mask(name).any())]
    if not held:
        return []
    basis = rigid_basis(dataset.structures)
    defects = identity_defects(dataset.structures, labels)
    gather = {"hessian": _hessian_evidence, "hvp": _hvp_evidence}
    return [_judge(dataset, name, gather[name](dataset, basis, defects)) for name in held]


def require_consistency(dataset: Dataset) -> list[Consistency]:
    """`diagnose_consistency`, and raise IdentityError when a label is broken; the message names file, structure and
    remedy."""
    found = diagnose_consistency(dataset)
    for entry in found:
        if entry.verdict == "broken":
            raise IdentityError(entry.message)
    return found


# --- evidence ------------------------------------------------------------------------------------------------------


def _turned(dataset: Dataset, basis: RigidBasis) -> Float[Tensor, "3 atoms 3"] | None:
    labels = dataset.labels
    if labels.forces is None:
        return None
    held = labels.mask("forces")[basis.owner, None]
    return basis.turned(-torch.where(held, labels.forces.double(), torch.nan))


def _noise_of_forces(basis: RigidBasis, defects: IdentityDefects) -> Float[Tensor, "structures"]:
    # e × δg keeps two of three components of white noise δg; the shortest arm divides it least.
    arms = torch.where(basis.present[3:], basis.arms, torch.inf).min(0).values
    noise: Tensor = defects.noise("forces") * math.sqrt(2.0 / 3.0) / arms
    return noise.nan_to_num(0.0)


def _hessian_evidence(dataset: Dataset, basis: RigidBasis, defects: IdentityDefects) -> _Evidence:
    labels, turned = dataset.labels, _turned(dataset, basis)
    zero = torch.zeros(len(dataset), dtype=torch.float64)
    sums = {name: zero.clone() for name in ("qq", "qh", "hh", "components", "scale", "trace")}
    starts = offsets_of(labels.n_atoms)
    for some, matrices in hessian_blocks(labels):
        matrices = matrices.double()
        n = matrices.shape[-1] // 3
        sums["scale"][some] = matrices.square().mean((1, 2)).sqrt()
        sums["trace"][some] = matrices.diagonal(dim1=1, dim2=2).sum(-1)
        if turned is None:
            continue
        atoms = ragged_indices(starts[some], torch.full_like(some, n))
        q = turned[:, atoms].reshape(3, len(some), 3 * n)
        h = torch.einsum("bij,mbj->mbi", matrices, basis.motions[3:, atoms].reshape(3, len(some), 3 * n))
        counted = basis.present[3:, some] & q.isfinite().all(-1)
        q, h = (torch.where(counted[..., None], x, 0.0) for x in (q, h))
        sums["qq"][some], sums["qh"][some], sums["hh"][some] = (
            (x * y).sum((0, 2)) for x, y in ((q, q), (q, h), (h, h))
        )
        sums["components"][some] = (3 * n * counted.sum(0)).double()
    return _Evidence(**sums, translation=defects.hessian_translation, force_noise=_noise_of_forces(basis, defects))


def _hvp_evidence(dataset: Dataset, basis: RigidBasis, defects: IdentityDefects) -> _Evidence:
    labels, turned = dataset.labels, _turned(dataset, basis)
    assert labels.hvp is not None
    assert labels.probes is not None
    count = len(dataset)
    zero = torch.zeros(count, dtype=torch.float64)
    sums = {name: zero.clone() for name in ("qq", "qh", "hh", "components", "scale", "trace")}

    def over_structures(values: Float[Tensor, "axes atoms"]) -> Float[Tensor, "axes structures"]:
        return values.new_zeros(len(values), count).index_add(1, basis.owner, values)

    for k, held in enumerate(labels.mask("hvp")):
        here = held[basis.owner, None]
        hvp = torch.where(here, labels.hvp[k].double(), 0.0)
        probe = torch.where(here, labels.probes[k].double(), 0.0)
        sums["scale"] += over_structures(hvp.square().sum(-1)[None])[0]
        sums["trace"] += over_structures((probe * hvp).sum(-1)[None])[0]
        if turned is None:
            continue
        h = over_structures((basis.motions[3:] * hvp).sum(-1))
        q = over_structures((turned * probe).sum(-1))
        counted = basis.present[3:] & held & q.isfinite()
        q, h = (torch.where(counted, x, 0.0) for x in (q, h))
        for name, value in (("qq", q * q), ("qh", q * h), ("hh", h * h), ("components", counted.double())):
            sums[name] += value.sum(0)
    size = 3.0 * labels.n_atoms
    probes = labels.mask("hvp").sum(0).clamp(min=1)
    sums["scale"] = (sums["scale"] / (size * probes)).sqrt()
    return _Evidence(
        **sums,
        translation=defects.hvp_translation.square().nanmean(0).sqrt(),
        # v · (e × δg) sums over all coordinates.
        force_noise=_noise_of_forces(basis, defects) * size.sqrt(),
    )


# --- judgement -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fit:
    """Least squares h = slope · q. Noise of curvature labels exceeds that of forces, so q is the regressor."""

    slope: float
    error: float
    correlation: float

    @classmethod
    def of(cls, qq: float, qh: float, hh: float, components: float) -> _Fit:
        # Components of one structure are not independent: a third is counted.
        freedom = max(components / 3.0 - 1.0, 0.0)
        if qq <= 0.0 or freedom == 0.0:
            return cls(math.nan, math.inf, math.nan)
        slope = qh / qq
        error = math.sqrt(max(hh - slope * qh, 0.0) / qq / freedom)
        return cls(slope, error, qh / math.sqrt(qq * hh) if hh > 0 else 0.0)

    @property
    def telling(self) -> bool:
        """Whether the slope is known well enough to be compared with one."""
        return self.error < 0.1 * max(1.0, abs(self.slope))

    @property
    def wrong(self) -> bool:
        return self.telling and abs(self.slope - 1.0) > max(_TOLERANCE, 3.0 * self.error)


def _judge(dataset: Dataset, label: str, evidence: _Evidence) -> Consistency:
    name = {"hessian": "Hessians", "hvp": "Hessian-vector products"}[label]
    held = dataset.labels.mask(label)
    held = held.any(0) if held.ndim == 2 else held
    size = evidence.scale.clamp(min=_SILENT)
    foreign = (evidence.translation / size).nan_to_num(0.0)
    off = torch.where(evidence.components > 0, evidence.residual() / size, 0.0)
    witnesses = evidence.testify()
    fit = _Fit.of(*(float(x[witnesses].sum()) for x in evidence.sums()))
    guilty = torch.maximum(foreign, off) > _GROSS
    suspects = (witnesses & (off > _AUDIBLE)).nonzero()[:, 0]
    own = torch.stack(evidence.sums(), dim=1)[suspects].tolist()
    guilty[suspects] |= torch.tensor([_Fit.of(*sums).wrong for sums in own], dtype=torch.bool)
    others = witnesses & ~guilty
    fit_of_others = _Fit.of(*(float(x[others].sum()) for x in evidence.sums()))
    violation = torch.where(held, torch.maximum(foreign, off), -1.0)

    def answer(verdict: str, message: str, guilty: tuple[str, ...] = ()) -> Consistency:
        known = fit.telling and abs(fit.slope) > 3.0 * fit.error
        worst = dataset.structures[int(violation.argmax())].id
        if verdict == "broken":
            message = f'{dataset.source}: the {name} {message} (worst: structure "{worst}")'
        return Consistency(
            label=label,
            verdict=verdict,
            factor=1.0 / fit.slope if known else math.nan,
            factor_error=fit.error / fit.slope**2 if known else math.nan,
            correlation=fit.correlation,
            structures=int(witnesses.sum()),
            worst=worst,
            message=message,
            guilty=guilty,
        )

    if float(foreign[held].median()) > _FOREIGN:
        violation = torch.where(held, foreign, -1.0)
        return answer(
            "broken",
            f"change when a structure is moved as a whole, by {float(violation.max()):.2g} of their size: they may be "
            "mass-weighted, in another order of atoms or coordinates, or of frozen atoms. Expected eV/Å², coordinates "
            "ordered x1 y1 z1 x2 …, not mass-weighted.",
        )
    if bool(guilty.any()) and fit_of_others.telling and not fit_of_others.wrong:
        violation = torch.where(guilty, violation, -1.0)
        return answer(
            "broken",
            f"of {int(guilty.sum())} of {int(held.sum())} structures contradict their own geometry and forces, while "
            "the others agree: these records are wrong, or were paired with another geometry. Remove them, label them "
            "again, or keep them out of use with `hesse convert --flag-suspect`.",
            tuple(dataset.structures[i].id for i in guilty.nonzero()[:, 0].tolist()),
        )
    if fit.wrong or bool(guilty.any()):
        return answer("broken", _explain(fit, float(evidence.trace[witnesses].sum())))
    if not fit.telling:
        doubt = ""
        if label == "hessian" and bool((evidence.trace[held] < 0.0).all()):
            # Nuclei repel and electrons screen: only far-stretched structures have a negative trace.
            doubt = ". All have a negative trace: probably they are the derivative of the forces (`--negate-curvature`)"
        return answer(
            "undetermined",
            f"{name}: the rotational identity cannot be judged (no forces, periodic, or too near to stationary points)"
            f"{doubt}",
        )
    return answer(
        "consistent",
        f"{name} agree with the forces: factor {1.0 / fit.slope:.3f} ± {fit.error / fit.slope**2:.3f}, correlation "
        f"{fit.correlation:.3f} over {int(witnesses.sum())} structures",
    )


def _explain(fit: _Fit, trace: float) -> str:
    """What is probably wrong when most structures contradict their forces."""
    if not fit.wrong or abs(fit.correlation) < 0.8:
        silent = abs(fit.slope) < 0.05 and fit.telling
        guess = (
            "rotations may have been projected out of them, or they belong"
            if silent
            else "their layout may be another one, or they belong"
        )
        return (
            f"do not respond to rotations as the forces demand (correlation {fit.correlation:.2f}): {guess} to another "
            "geometry or order of atoms. Give the labels of exactly these structures, unprojected, in eV/Å²."
        )
    lead = f"contradict the forces: they would agree if multiplied by {1.0 / fit.slope:.4g}"
    # Nuclei repel and electrons screen: the trace of a Hessian is positive.
    sign = (
        "the forces hold gradients: read them with `hesse convert --negate-forces`"
        if trace > 0
        else "the curvature is the derivative of the forces: read it with `hesse convert --negate-curvature`"
    )
    if abs(fit.slope + 1.0) <= max(_TOLERANCE, 3.0 * fit.error):
        return f"{lead}. The sign is wrong: {sign}."
    tail = "" if fit.slope > 0 else f". Their sign is wrong too: {sign}"
    spread = max(0.05, 3.0 * fit.error / abs(fit.slope))
    distances = {mistake: abs(math.log(abs(fit.slope) / value)) for mistake, value in _MISTAKES.items()}
    near = sorted((mistake for mistake in distances if distances[mistake] < spread), key=distances.__getitem__)
    if not near:
        return f"{lead}, which is the ratio of no usual units. Check the units and the origin of both{tail}."
    return f"{lead}. Probably {' or '.join(near[:2])}: convert to eV and Å before use{tail}."


def _mistakes() -> Mapping[str, float]:
    """Ratio of stored to expected response for usual mistakes of units."""
    found: dict[str, float] = {}
    energies = {"eV": "ev", "Hartree": "hartree", "kcal/mol": "kcal/mol", "kJ/mol": "kj/mol", "Rydberg": "rydberg"}
    lengths = {"Å": "angstrom", "Bohr": "bohr"}
    for energy, energy_key in energies.items():
        for length, length_key in lengths.items():
            e, a = ENERGY[energy_key], LENGTH[length_key]
            if (energy, length) != ("eV", "Å"):
                found[f"the curvature is in {energy}/{length}²"] = a * a / e
                found[f"the forces are in {energy}/{length}"] = e / a
    found["the positions are in Bohr"] = 1.0 / LENGTH["bohr"]
    found["forces and curvature are per Bohr and per Bohr² (--forces-unit, --curvature-unit)"] = LENGTH["bohr"]
    found["the positions are in nm"] = 1.0 / LENGTH["nm"]
    found["the curvature is in mdyn/Å"] = 1.0 / _MILLIDYNE_PER_ANGSTROM
    return MappingProxyType(found)


_MISTAKES: Final = _mistakes()
