"""What symmetry says about labels. Moving or turning an open molecule as a whole changes no energy, so that with
gradient g = −forces, for every translation t and every rotation e × r about an axis e:

    t · g = 0        (e × r) · g = 0          forces
    t · Hv = 0       (e × r) · Hv = v · (e × g)   Hessian-vector products
    H t = 0          H (e × r) = e × g        Hessians, besides H = Hᵀ

What is left over measures the noise of the labels along directions whose exact value is known. Rotations are taken
about the principal axes through the centroid, and every motion is scaled to unit length over the 3n coordinates: then
white noise of variance σ² per component of the label gives defects of variance σ², and defects of different labels,
sizes and identities compare. Rotations are no symmetry of periodic structures and are left out there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hesse.structures import Labels, Structure, offsets_of, owners_of, ragged_indices

__all__ = ["IdentityDefects", "RigidBasis", "hessian_blocks", "identity_defects", "rigid_basis"]

_THIN = 1e-3
"""Rotations whose squared length is this small against the molecule's extent (about a line, nearly) are left out."""

_CHUNK = 4_000_000
"""Hessian elements held at once."""


@dataclass(frozen=True, eq=False)
class RigidBasis:
    """Orthonormal rigid motions of each structure: three translations, then rotations about three principal axes.

    Attributes:
        motions: displacements, zero where a motion is absent (rotations of atoms, of crystals, about a line).
        present: which motions each structure has.
        axes: the rotation axes, one per row.
        arms: Å; the length of the vector e × r that was divided out of each rotation.
    """

    motions: Float[Tensor, "6 atoms 3"]
    present: Bool[Tensor, "6 structures"]
    axes: Float[Tensor, "structures 3 3"]
    arms: Float[Tensor, "3 structures"]
    owner: Int[Tensor, "atoms"]

    def turned(self, gradient: Float[Tensor, "atoms 3"]) -> Float[Tensor, "3 atoms 3"]:
        """`e × g` over the rotation's arm, for each axis: what the Hessian makes of that rotation."""
        axes = self.axes[self.owner].transpose(0, 1)
        crossed = torch.linalg.cross(axes, gradient.expand(3, -1, 3))
        return crossed * (self.present[3:] / self.arms)[:, self.owner, None]


@dataclass(frozen=True, eq=False)
class IdentityDefects:
    """Root-mean-square violation of each identity per structure; NaN where it does not apply or labels are absent.

    Each is an estimate of the label's noise per component: forces in eV/Å, `hvp_*` and `hessian_*` in eV/Å². The
    rotational ones of HVPs and Hessians contain the (usually smaller) noise of the forces too.
    """

    forces_translation: Float[Tensor, "structures"]
    forces_rotation: Float[Tensor, "structures"]
    hvp_translation: Float[Tensor, "probes structures"]
    hvp_rotation: Float[Tensor, "probes structures"]
    hessian_translation: Float[Tensor, "structures"]
    hessian_rotation: Float[Tensor, "structures"]
    hessian_asymmetry: Float[Tensor, "structures"]

    def noise(self, label: str) -> Float[Tensor, "structures"]:
        """Noise per component of `label` ("forces", "hvp", "hessian") of each structure: root mean square over its
        translational and rotational identities (and probes); NaN where nothing is known."""
        parts = [getattr(self, f"{label}_translation"), getattr(self, f"{label}_rotation")]
        stacked = torch.cat([p if p.ndim == 2 else p[None] for p in parts])
        return stacked.square().nanmean(0).sqrt()

    def noise_floor(self, label: str) -> float:
        """Root mean square of `noise(label)` over the structures: what no error measured against these labels can
        show itself below. NaN when no structure has the label."""
        return float(self.noise(label).square().nanmean().sqrt())


def rigid_basis(structures: Sequence[Structure]) -> RigidBasis:
    """The rigid motions of each structure, structures laid end to end."""
    n = torch.tensor([len(s) for s in structures])
    owner = owners_of(n)
    positions = torch.from_numpy(np.concatenate([s.positions for s in structures]))
    count = len(structures)

    def sums(values: Tensor) -> Tensor:
        return values.new_zeros(count, *values.shape[1:]).index_add(0, owner, values)

    centred = positions - (sums(positions) / n[:, None])[owner]
    _, vectors = torch.linalg.eigh(sums(centred[:, :, None] * centred[:, None, :]))
    axes = vectors.transpose(1, 2)
    rotations = torch.linalg.cross(axes[owner], centred[:, None].expand(-1, 3, 3)).transpose(0, 1)
    squared = torch.stack([sums(r.square().sum(-1)) for r in rotations])
    extent = sums(centred.square().sum(-1))
    turns = (squared > _THIN * extent.clamp(min=1e-6)) & ~torch.tensor([s.periodic for s in structures])
    arms = torch.where(turns, squared, 1.0).sqrt()
    rotations = rotations * (turns / arms)[:, owner, None]
    translations = torch.eye(3, dtype=positions.dtype)[:, None] / n[owner].sqrt()[None, :, None]
    present = torch.cat([torch.ones(3, count, dtype=torch.bool), turns])
    return RigidBasis(torch.cat([translations, rotations]), present, axes, arms, owner)


def hessian_blocks(labels: Labels) -> Iterator[tuple[Int[Tensor, "some"], Float[Tensor, "some 3n 3n"]]]:
    """Hessians in stacks of equal size, memory bounded: (which structures, their matrices). Structures without a
    Hessian do not appear."""
    if labels.hessian is None:
        return
    starts, holds = offsets_of(labels.hessian_lengths()), labels.mask("hessian")
    for n in labels.n_atoms[holds].unique().tolist():
        elements = 9 * n * n
        members = ((labels.n_atoms == n) & holds).nonzero()[:, 0]
        for some in members.split(max(1, _CHUNK // elements)):
            index = ragged_indices(starts[some], torch.full_like(some, elements))
            yield some, labels.hessian[index].reshape(len(some), 3 * n, 3 * n)


def identity_defects(structures: Sequence[Structure], labels: Labels) -> IdentityDefects:
    """The violation of every identity that applies, for structures and their labels in the same order.

    For a `Dataset`: `identity_defects(data.structures, data.labels)`. A structure may lack any label.
    """
    basis = rigid_basis(structures)
    count, probes = len(structures), 0 if labels.probes is None else labels.probes.shape[0]
    nan = torch.full((count,), torch.nan, dtype=torch.float64)
    found = {f"{label}_{kind}": nan.clone() for label in ("forces", "hessian") for kind in ("translation", "rotation")}
    found["hessian_asymmetry"] = nan.clone()
    found |= {f"hvp_{kind}": nan.expand(probes, count).clone() for kind in ("translation", "rotation")}
    turned = torch.full_like(basis.motions[3:], torch.nan)
    if labels.forces is not None:
        forces = _where_held(labels.forces.double(), labels.mask("forces"), basis.owner)
        turned = basis.turned(-forces)
        projected = _over_structures(basis, (basis.motions * forces).sum(-1), count)
        found["forces_translation"], found["forces_rotation"] = _split_rms(projected, basis)
    if labels.hvp is not None and labels.probes is not None:
        for k in range(probes):
            held = labels.mask("hvp")[k]
            hvp = _where_held(labels.hvp[k].double(), held, basis.owner)
            probe = _where_held(labels.probes[k].double(), held, basis.owner)
            got = _over_structures(basis, (basis.motions * hvp).sum(-1), count)
            want = _over_structures(basis, (turned * probe).sum(-1), count)
            defect = torch.cat([got[:3], got[3:] - want])
            found["hvp_translation"][k], found["hvp_rotation"][k] = _split_rms(defect, basis)
    starts = offsets_of(labels.n_atoms)
    for some, matrices in hessian_blocks(labels):
        size = matrices.shape[-1] // 3
        atoms = ragged_indices(starts[some], torch.full_like(some, size))
        matrices = matrices.double()
        motions = basis.motions[:, atoms].reshape(6, len(some), 3 * size)
        defect = torch.einsum("bij,mbj->mbi", matrices, motions)
        defect[3:] -= turned[:, atoms].reshape(3, len(some), 3 * size)
        mean = defect.square().mean(-1)
        present = basis.present[:, some]
        found["hessian_translation"][some] = mean[:3].mean(0).sqrt()
        found["hessian_rotation"][some] = _masked_mean(mean[3:], present[3:]).sqrt()
        # Two independent elements differ with variance 2σ².
        skew = (matrices - matrices.transpose(1, 2)).square().sum((1, 2)) / 2.0
        found["hessian_asymmetry"][some] = (skew / (3 * size * (3 * size - 1))).sqrt()
    return IdentityDefects(**found)


def _where_held(
    values: Float[Tensor, "atoms 3"], held: Bool[Tensor, "structures"], owner: Int[Tensor, "atoms"]
) -> Float[Tensor, "atoms 3"]:
    return torch.where(held[owner, None], values, torch.nan)


def _over_structures(
    basis: RigidBasis, values: Float[Tensor, "motions atoms"], count: int
) -> Float[Tensor, "motions structures"]:
    return values.new_zeros(len(values), count).index_add(1, basis.owner, values)


def _masked_mean(
    squared: Float[Tensor, "motions some"], present: Bool[Tensor, "motions some"]
) -> Float[Tensor, "some"]:
    """Mean over the motions that are present; NaN when none is."""
    return torch.where(present, squared, 0.0).sum(0) / present.sum(0)


def _split_rms(
    defect: Float[Tensor, "6 structures"], basis: RigidBasis
) -> tuple[Float[Tensor, "structures"], Float[Tensor, "structures"]]:
    squared = defect.square()
    return squared[:3].mean(0).sqrt(), _masked_mean(squared[3:], basis.present[3:]).sqrt()
