"""Energy, force and curvature loss for training loops of other packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hesse.curvature.hvp import energy_and_gradient, hessian_vector_products
from hesse.errors import LabelShapeError, MissingLabelError, RequestError
from hesse.losses import Loss, LossWeights, weighted_loss
from hesse.structures import Properties

__all__ = ["ProjectedHessianLoss"]


class ProjectedHessianLoss(nn.Module):
    """Loss of energies, forces and Hessian-vector products of any function `positions -> energy`.

    Per structure of N atoms with K probes v_k (arXiv 2603.04523):

        λ_E ΔE²/√N + λ_F |ΔF|²/3N + λ_H (1/K) Σ_k |ΔH v_k|²/9N²

    Each term is a mean over the structures with the label. Energies may be in any unit, the same for all labels; the
    default weights are for lengths in Å.

    The function must be differentiable three times (`hesse check`, `hesse.testing`), and its structures must not depend
    on each other. Forces are computed here as its gradient; it should not compute forces itself. Call
    `backward(inputs=parameters)` on the loss: `backward()` without `inputs` also computes its derivatives in positions,
    which takes up to 1.5 times as long.

    Args:
        weights: weights of squared errors, None for `LossWeights()`; or a `hesse.Loss` whose terms have other forms.
            Terms other than energy, forces and hvp are not possible.
        supports_vmap: whether products with several probes are computed in one vectorized pass, which is faster. Set it
            to False for functions with operations that torch.vmap does not support.

    Raises:
        RequestError: another term has a weight; weights that are measured in a run; mass-weighted terms.
    """

    def __init__(self, weights: LossWeights | Loss | None = None, *, supports_vmap: bool = True) -> None:
        super().__init__()
        weights = weights or LossWeights()
        if not isinstance(weights, Loss) and weights.balance:
            raise RequestError("weights: balance is measured by hesse.train; give numbers here")
        self.loss = weights if isinstance(weights, Loss) else weights.loss()
        other = {term.quantity for term in self.loss} - {"energy", "forces", "hvp"}
        if other:
            raise RequestError(f"this loss has energy, forces and hvp terms, not {', '.join(sorted(other))}")
        if any(term.mass_weighted for term in self.loss):
            raise RequestError("mass-weighted terms need the elements, which this loss does not know")
        self.supports_vmap = supports_vmap

    def forward(
        self,
        energy: Callable[[Tensor], Tensor],
        positions: Float[Tensor, "*atoms 3"],
        *,
        n_atoms: Int[Tensor, "structures"] | None = None,
        mask: Bool[Tensor, "structures longest"] | None = None,
        energies: Float[Tensor, "structures"] | None = None,
        forces: Float[Tensor, "*atoms 3"] | None = None,
        probes: Float[Tensor, "*probes_atoms 3"] | None = None,
        hvp: Float[Tensor, "*probes_atoms 3"] | None = None,
    ) -> tuple[Float[Tensor, ""], Mapping[str, Float[Tensor, ""]]]:
        """Compute the loss.

        Positions have one of three layouts: one structure `[n, 3]`; structures end to end `[atoms, 3]` with `n_atoms`;
        or padded `[structures, longest, 3]` with `mask`. Forces, probes and products have the same layout; probes and
        products may have another dimension in front for several pairs per structure. Absent labels are NaN.

        Args:
            energy: function of positions in this layout; returns energies `[structures]`, or a scalar.
            positions: positions at which to compute derivatives, Å.
            n_atoms: number of atoms of each structure (end to end).
            mask: True where there is an atom (padded).
            energies: reference energies.
            forces: reference forces.
            probes: directions v.
            hvp: reference products H v.

        Returns:
            The loss, differentiable in the parameters of the function, and its unweighted terms by name, detached.

        Raises:
            LabelShapeError: shapes that do not match, or a mask that is not boolean.
            RequestError: the energies do not depend on the argument of the function.
            MissingLabelError: no label, or only one of probes and products.
        """
        if (probes is None) != (hvp is None):
            raise MissingLabelError("Hessian-vector products come in pairs: give both probes and hvp, or neither")
        if mask is not None:
            if mask.dtype != torch.bool:
                raise LabelShapeError(f"mask of {mask.dtype}, expected torch.bool: True where there is an atom")
            n_atoms = mask.sum(-1)
        elif n_atoms is None:
            n_atoms = torch.tensor([len(positions)], device=positions.device)
        self._check(positions, n_atoms, mask)
        _check_shapes(positions, forces, probes, hvp)
        stacked = (
            (None, None)
            if probes is None or hvp is None
            else (_with_probe_axis(probes, positions), _with_probe_axis(hvp, positions))
        )
        references = _masked_labels(n_atoms, mask, energies, forces, *stacked)
        predictions = self._predict(energy, positions, n_atoms, mask, references, stacked[0])
        total, terms = weighted_loss(predictions, references, self.loss)
        return total, {name: value.detach() for name, value in terms.items()}

    def _predict(
        self,
        energy: Callable[[Tensor], Tensor],
        positions: Tensor,
        n_atoms: Tensor,
        mask: Tensor | None,
        references: Properties,
        probes: Tensor | None,
    ) -> Properties:
        """Predictions of the function for all references with a weight."""
        with torch.enable_grad():
            leaf = positions.detach().requires_grad_(True)

            def checked_energies(x: Tensor) -> Tensor:
                values = energy(x)
                if not isinstance(values, Tensor):
                    raise LabelShapeError(
                        f"the function returned a {type(values).__name__}, expected a tensor of energies"
                    )
                if values.numel() != len(n_atoms):
                    raise LabelShapeError(
                        f"the function returned energies of shape {tuple(values.shape)}, expected one for each of "
                        f"{len(n_atoms)} structures"
                    )
                return values

            gradient = hvp = None
            quantities = self.loss.quantities()
            needs_hvp = "hvp" in quantities and probes is not None
            if needs_hvp or ("forces" in quantities and references.forces is not None):
                energies, (gradient,) = energy_and_gradient(checked_energies, [leaf])
                if gradient.grad_fn is None and not bool(gradient.any()) and int(n_atoms.max()) > 1:
                    raise RequestError(
                        "the energies do not depend on the positions that the function was given, so that all forces "
                        "would be zero: compute them from its argument, with nothing detached on the way"
                    )
            else:
                energies = checked_energies(leaf)
            if needs_hvp:
                assert gradient is not None
                assert probes is not None
                directions = torch.nan_to_num(probes)
                if mask is not None:
                    directions = directions * mask[..., None]
                hvp = hessian_vector_products(
                    gradient, leaf, directions, True, retain_graph=True, supports_vmap=self.supports_vmap
                )
        return Properties(
            n_atoms=n_atoms,
            energy=energies.reshape(-1),
            forces=None if gradient is None else -_flatten(gradient, mask),
            probes=references.probes,
            hvp=None if hvp is None else _flatten(hvp, mask),
        )

    @staticmethod
    def _check(positions: Tensor, n_atoms: Tensor, mask: Tensor | None) -> None:
        """Raise LabelShapeError unless positions have one of the three layouts."""
        if mask is not None and tuple(positions.shape) != (*mask.shape, 3):
            raise LabelShapeError(f"mask of shape {tuple(mask.shape)} for positions {tuple(positions.shape)}")
        if mask is None and (positions.dim() != 2 or int(n_atoms.sum()) != len(positions)):
            raise LabelShapeError(
                f"positions of shape {tuple(positions.shape)}: expected [atoms, 3] with n_atoms that add up to atoms, "
                "or [structures, longest, 3] with a mask"
            )


def _check_shapes(positions: Tensor, forces: Tensor | None, probes: Tensor | None, hvp: Tensor | None) -> None:
    """Raise LabelShapeError unless labels have the layout of the positions; pairs may have a dimension in front."""
    shape = tuple(positions.shape)
    for name, values in (("forces", forces), ("probes", probes), ("hvp", hvp)):
        is_stacked = name != "forces" and values is not None and values.dim() == len(shape) + 1
        if values is not None and tuple(values.shape[1:] if is_stacked else values.shape) != shape:
            raise LabelShapeError(f"{name} has shape {tuple(values.shape)}, expected that of the positions, {shape}")
    if probes is not None and hvp is not None and probes.shape != hvp.shape:
        raise LabelShapeError(f"probes of shape {tuple(probes.shape)}, hvp of shape {tuple(hvp.shape)}: expected pairs")


def _with_probe_axis(values: Tensor | None, positions: Tensor) -> Tensor | None:
    """Values with a dimension of probes in front."""
    return values[None] if values is not None and values.dim() == positions.dim() else values


def _flatten(values: Tensor, mask: Tensor | None) -> Tensor:
    """Per-atom values end to end; leading dimensions do not change."""
    return values if mask is None else values[..., mask, :]


def _masked_labels(
    n_atoms: Tensor,
    mask: Tensor | None,
    energies: Tensor | None,
    forces: Tensor | None,
    probes: Tensor | None,
    hvp: Tensor | None,
) -> Properties:
    """The labels, with masks for those that are NaN."""
    forces = None if forces is None else _flatten(forces, mask)
    probes = None if probes is None else _flatten(probes, mask)
    hvp = None if hvp is None else _flatten(hvp, mask)
    if energies is None and forces is None and hvp is None:
        raise MissingLabelError("no label was given: energies, forces, or probes with hvp")
    unmasked = Properties(n_atoms=n_atoms, energy=None if energies is None else energies.reshape(-1), forces=forces)
    structure_index = torch.repeat_interleave(torch.arange(len(n_atoms), device=n_atoms.device), n_atoms)

    def present(values: Tensor) -> Tensor:
        """[..., atoms, 3] -> [..., structures]: True if no number of the structure is NaN."""
        missing = torch.isnan(values).any(-1).to(torch.int64)
        n_missing = missing.new_zeros(*missing.shape[:-1], len(n_atoms)).index_add(-1, structure_index, missing)
        return n_missing == 0

    return Properties(
        n_atoms=n_atoms,
        energy=unmasked.energy,
        forces=forces,
        probes=probes,
        hvp=hvp,
        energy_mask=None if unmasked.energy is None else ~torch.isnan(unmasked.energy),
        forces_mask=None if forces is None else present(forces),
        hvp_mask=None if hvp is None or probes is None else present(hvp) & present(probes),
    )
