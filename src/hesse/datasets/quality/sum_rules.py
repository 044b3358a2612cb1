"""Sum rules: exact relations between labels that follow from symmetry, and how far the labels violate them.

Translating or rotating a molecule as a whole does not change its energy. With the gradient g = −forces, for every
translation t and every rotation e × r about an axis e:

    t · g = 0        (e × r) · g = 0          forces
    t · Hv = 0       (e × r) · Hv = v · (e × g)   Hessian-vector products
    H t = 0          H (e × r) = e × g        Hessians, besides H = Hᵀ

The difference of the two sides measures the noise of the labels along directions whose exact value is known. Rotations
are taken about the principal axes through the centroid, and every motion is scaled to unit length over the 3n
coordinates: white noise of variance σ² per component of the label then gives violations of variance σ², so that those
of different labels, sizes and rules can be compared. Rotation is not a symmetry of periodic structures: there only the
translational rules apply.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Properties, Structure, segment_indices, segment_offsets
from hesse.structures.hessian_blocks import stacked_blocks
from hesse.structures.rigid_body import RigidBodyModes, rigid_body_modes

__all__ = ["SumRuleErrors", "hessian_blocks", "principal_rigid_body_modes", "sum_rule_errors"]

_LINEAR_TOLERANCE = 10**-1.5
"""See `rigid_body_modes`. It is generous: the rule of a rotation with a short lever arm mostly measures the noise of
the forces."""


@dataclass(frozen=True, eq=False, repr=False)
class SumRuleErrors(ShortRepr):
    """Root-mean-square violation of each sum rule by each structure; NaN where it does not apply or a label is absent.

    Each is an estimate of the noise per component of the label: forces in eV/Å, `hvp_*` and `hessian_*` in eV/Å². The
    rotational ones of products and Hessians contain the (usually smaller) noise of the forces too. For Hessians without
    forces they are the part that no forces explain; linear molecules have none then.
    """

    forces_translation: Float[Tensor, "structures"]
    forces_rotation: Float[Tensor, "structures"]
    hvp_translation: Float[Tensor, "probes structures"]
    hvp_rotation: Float[Tensor, "probes structures"]
    hessian_translation: Float[Tensor, "structures"]
    hessian_rotation: Float[Tensor, "structures"]
    hessian_asymmetry: Float[Tensor, "structures"]

    def noise(self, label: str) -> Float[Tensor, "structures"]:
        """Estimate the noise of a label from all its sum rules.

        Args:
            label: "forces", "hvp" or "hessian".

        Returns:
            Root mean square over translation, rotation and probes, for each structure, per component of the label
            (eV/Å or eV/Å²); NaN where no rule applies.
        """
        errors = [getattr(self, f"{label}_translation"), getattr(self, f"{label}_rotation")]
        stacked = torch.cat([p if p.ndim == 2 else p[None] for p in errors])
        return stacked.square().nanmean(0).sqrt()

    def noise_floor(self, label: str) -> float:
        """Estimate the noise of a label over all structures; errors of a model below it cannot be measured.

        Args:
            label: "forces", "hvp" or "hessian".

        Returns:
            Root mean square of `noise(label)` (eV/Å or eV/Å²); NaN if no structure has the label.
        """
        return float(self.noise(label).square().nanmean().sqrt())


def principal_rigid_body_modes(structures: Sequence[Structure]) -> RigidBodyModes:
    """Construct the rigid-body motions of each structure, with rotations about the principal axes.

    Args:
        structures: the geometries.

    Returns:
        Motions over the atoms of all structures, end to end.
    """
    return rigid_body_modes(
        torch.from_numpy(np.concatenate([s.positions for s in structures])),
        torch.tensor([len(s) for s in structures]),
        torch.tensor([s.periodic for s in structures]),
        linear_tolerance=_LINEAR_TOLERANCE,
    )


def hessian_blocks(labels: Properties) -> Iterator[tuple[Int[Tensor, "some"], Float[Tensor, "some 3n 3n"]]]:
    """Iterate over the stored Hessians in stacks of equal size and bounded memory.

    Args:
        labels: labels of many structures.

    Yields:
        The indices of some structures of n atoms, and their Hessians `[structures, 3n, 3n]` in eV/Å². Structures
        without a Hessian do not occur.
    """
    if labels.hessian is None:
        return
    for members, _, matrices in stacked_blocks(labels.hessian, labels.n_atoms, labels.mask("hessian")):
        yield members, matrices


def sum_rule_errors(structures: Sequence[Structure], labels: Properties) -> SumRuleErrors:
    """Compute the violation of all sum rules that apply.

    Args:
        structures: the geometries.
        labels: their labels, in the same order; each may be absent.

    Returns:
        The violations, by label and rule.
    """
    basis = principal_rigid_body_modes(structures)
    count, probes = len(structures), 0 if labels.probes is None else labels.probes.shape[0]
    nan = torch.full((count,), torch.nan, dtype=torch.float64)
    errors = {f"{label}_{kind}": nan.clone() for label in ("forces", "hessian") for kind in ("translation", "rotation")}
    errors["hessian_asymmetry"] = nan.clone()
    errors |= {f"hvp_{kind}": nan.expand(probes, count).clone() for kind in ("translation", "rotation")}
    rotated = torch.full_like(basis.motions[3:], torch.nan)
    if labels.forces is not None:
        forces = _mask(labels.forces.double(), labels.mask("forces"), basis.structure_index)
        rotated = basis.rotated_gradient(-forces)
        projected = _sum_over_structures(basis, (basis.motions * forces).sum(-1), count)
        errors["forces_translation"], errors["forces_rotation"] = _split_rms(projected, basis)
    if labels.hvp is not None and labels.probes is not None:
        for k in range(probes):
            has_hvp = labels.mask("hvp")[k]
            hvp = _mask(labels.hvp[k].double(), has_hvp, basis.structure_index)
            probe = _mask(labels.probes[k].double(), has_hvp, basis.structure_index)
            response = _sum_over_structures(basis, (basis.motions * hvp).sum(-1), count)
            expected = _sum_over_structures(basis, (rotated * probe).sum(-1), count)
            violation = torch.cat([response[:3], response[3:] - expected])
            errors["hvp_translation"][k], errors["hvp_rotation"][k] = _split_rms(violation, basis)
    starts = segment_offsets(labels.n_atoms)
    for members, matrices in hessian_blocks(labels):
        size = matrices.shape[-1] // 3
        atoms = segment_indices(starts[members], torch.full_like(members, size))
        matrices = matrices.double()
        motions = basis.motions[:, atoms].reshape(6, len(members), 3 * size)
        violation = torch.einsum("bij,mbj->mbi", matrices, motions)
        expected = rotated[:, atoms].reshape(3, len(members), 3 * size)
        unknown = expected.isnan() & basis.present[3:, members].all(0)[:, None]
        implied = _implied_rotated_gradient(violation[3:], basis.axes[members], basis.lever_arms[:, members])
        # A third of the noise of the nine components of an atom is taken for a gradient.
        scale = torch.where(unknown, 1.5**0.5, 1.0)
        violation[3:] = scale * (violation[3:] - torch.where(unknown, implied, expected))
        mean = violation.square().mean(-1)
        present = basis.present[:, members]
        errors["hessian_translation"][members] = mean[:3].mean(0).sqrt()
        errors["hessian_rotation"][members] = _masked_mean(mean[3:], present[3:]).sqrt()
        # The difference of two independent elements has the variance 2σ².
        asymmetry = (matrices - matrices.transpose(1, 2)).square().sum((1, 2)) / 2.0
        errors["hessian_asymmetry"][members] = (asymmetry / (3 * size * (3 * size - 1))).sqrt()
    return SumRuleErrors(**errors)


def _implied_rotated_gradient(
    response: Float[Tensor, "3 some 3n"], axes: Float[Tensor, "some 3 3"], lever_arms: Float[Tensor, "3 some"]
) -> Float[Tensor, "3 some 3n"]:
    """Change of the gradient under each rotation for the gradient that fits best, where forces are not known.

    Every gradient g turns into e × g, and Σ e × (e × g) = -2 g over three orthogonal axes. What a Hessian gives beyond
    that belongs to no gradient.
    """
    e = axes.transpose(0, 1)[:, :, None]  # [3, some, 1, 3]
    turned = (lever_arms[..., None] * response).unflatten(-1, (-1, 3))
    gradient = -0.5 * torch.linalg.cross(e, turned).sum(0)
    return torch.linalg.cross(e, gradient.expand_as(turned)).flatten(-2) / lever_arms[..., None]


def _mask(
    values: Float[Tensor, "atoms 3"], mask: Bool[Tensor, "structures"], structure_index: Int[Tensor, "atoms"]
) -> Float[Tensor, "atoms 3"]:
    return torch.where(mask[structure_index, None], values, torch.nan)


def _sum_over_structures(
    basis: RigidBodyModes, values: Float[Tensor, "motions atoms"], count: int
) -> Float[Tensor, "motions structures"]:
    return values.new_zeros(len(values), count).index_add(1, basis.structure_index, values)


def _masked_mean(
    squared: Float[Tensor, "motions some"], present: Bool[Tensor, "motions some"]
) -> Float[Tensor, "some"]:
    """Mean over the motions that are present; NaN if there are none."""
    return torch.where(present, squared, 0.0).sum(0) / present.sum(0)


def _split_rms(
    violation: Float[Tensor, "6 structures"], basis: RigidBodyModes
) -> tuple[Float[Tensor, "structures"], Float[Tensor, "structures"]]:
    squared = violation.square()
    return squared[:3].mean(0).sqrt(), _masked_mean(squared[3:], basis.present[3:]).sqrt()
