"""Potentials with one planted fault each, and the healthy one that they are derived from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hesse.potential import Potential
from hesse.smooth import cosine_cutoff, masked_norm, smooth_cutoff
from hesse.structures import Batch

CUTOFF = 4.0


class Healthy(Potential):
    """A small network on smooth pair sums, without a fault. Faulty classes override one step each."""

    cutoff = CUTOFF
    elements = (1, 6, 8)

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.centers = nn.Parameter(torch.linspace(0.8, 3.2, 6))
        self.first = nn.Parameter(0.6 * torch.randn(6, 12, generator=generator))
        self.bias = nn.Parameter(0.3 * torch.randn(12, generator=generator))
        self.last = nn.Parameter(torch.randn(12, generator=generator))

    def distances(self, batch: Batch) -> Tensor:
        return masked_norm(batch.neighbor_vectors(), batch.neighbor_mask, fill=self.cutoff)

    def envelope(self, distances: Tensor) -> Tensor:
        return smooth_cutoff(distances, self.cutoff)

    def activation(self, x: Tensor) -> Tensor:
        return nn.functional.silu(x)

    def features(self, batch: Batch) -> Tensor:
        r = self.distances(batch)
        charges = batch.numbers.to(r.dtype).sqrt()
        weight = charges[batch.neighbors] * batch.neighbor_mask * self.envelope(r)
        bells = torch.exp(-2.0 * (r[..., None] - self.centers).square())
        return (bells * weight[..., None]).sum(1)

    def forward(self, batch: Batch) -> Tensor:
        hidden = self.activation(self.features(batch) @ self.first + self.bias)
        return hidden @ self.last


class HardCutoff(Healthy):
    def envelope(self, distances: Tensor) -> Tensor:
        return (distances < self.cutoff).to(distances.dtype)


class KinkCutoff(Healthy):
    """Continuous energies, jumping forces."""

    def envelope(self, distances: Tensor) -> Tensor:
        return (1.0 - distances / self.cutoff).clamp(min=0.0)


class CosineCutoff(Healthy):
    def envelope(self, distances: Tensor) -> Tensor:
        return cosine_cutoff(distances, self.cutoff)


class CubicCutoff(Healthy):
    """`(1 − x)³`: C², which is enough for curvature to be continuous."""

    def envelope(self, distances: Tensor) -> Tensor:
        return (1.0 - distances / self.cutoff).clamp(min=0.0) ** 3


class HiddenCutoff(Healthy):
    """A second, shorter cutoff below that of the potential."""

    def envelope(self, distances: Tensor) -> Tensor:
        return smooth_cutoff(distances, self.cutoff) + cosine_cutoff(distances, 3.1)


class BareNorm(Healthy):
    def distances(self, batch: Batch) -> Tensor:
        r = batch.neighbor_vectors().square().sum(-1).sqrt()
        return torch.where(batch.neighbor_mask, r, self.cutoff)


class Relu(Healthy):
    def activation(self, x: Tensor) -> Tensor:
        return torch.relu(x)


class Celu(Healthy):
    """The activation of the published ANI networks: its second derivative jumps from 1/α to 0."""

    def activation(self, x: Tensor) -> Tensor:
        return nn.functional.celu(x, 0.1)


class Absolute(Healthy):
    def activation(self, x: Tensor) -> Tensor:
        return x.abs()


class Detached(Healthy):
    """A factor of the energy is cut out of the graph: the forces are not a gradient."""

    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch) * (1.0 + 0.2 * self.features(batch).detach()[:, 0])


class _WrongBackward(torch.autograd.Function):
    """`x²` whose backward has a wrong term that depends on x."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.square()

    @staticmethod
    def setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, upstream: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return upstream * (2.0 * x + 0.3 * x.square())


class WrongBackward(Healthy):
    def activation(self, x: Tensor) -> Tensor:
        return _WrongBackward.apply(x)


class _Stopped(torch.autograd.Function):
    """A correct first derivative, whose own derivative is cut off."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, upstream: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return 2.0 * x * upstream


class OnceDifferentiable(Healthy):
    def activation(self, x: Tensor) -> Tensor:
        return _Stopped.apply(x)


class _Old(torch.autograd.Function):
    """The old style of custom functions: correct to every order, without rules for vmap and forward mode."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, upstream: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return _OldSlope.apply(x, upstream)


class _OldSlope(torch.autograd.Function):
    """Its backward branches on values, which is impossible under vmap."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, upstream: Tensor) -> Tensor:
        ctx.save_for_backward(x, upstream)
        return 2.0 * x * upstream

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, above: Tensor) -> tuple[Tensor, Tensor]:
        x, upstream = ctx.saved_tensors  # type: ignore[attr-defined]
        if not bool((above != 0).any()):
            return torch.zeros_like(x), torch.zeros_like(upstream)
        return 2.0 * upstream * above, 2.0 * x * above


class OldStyle(Healthy):
    def activation(self, x: Tensor) -> Tensor:
        return _Old.apply(x)


class OldStyleDeclared(OldStyle):
    """The same, declared: not a fault."""

    supports_vmap = False


class _Refusing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, upstream: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return _NoBackward.apply(x, upstream)


class _NoBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, upstream: Tensor) -> Tensor:
        return 2.0 * x * upstream

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, above: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("the derivative of this kernel's backward is not implemented")


class NoDoubleBackward(Healthy):
    """Forces, but no curvature, as with many fused kernels."""

    def activation(self, x: Tensor) -> Tensor:
        return _Refusing.apply(x)


class DroppedSecond(Healthy):
    """Correct forces, whose own derivative lacks a term: a common mistake in double backwards of kernels."""

    def activation(self, x: Tensor) -> Tensor:
        return _Dropped.apply(x)


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, upstream: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return 2.0 * x.detach() * upstream


class _Lopsided(torch.autograd.Function):
    """`a·b`; the derivative in b is cut off from a."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, upstream: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors  # type: ignore[attr-defined]
        return b * upstream, a.detach() * upstream


class LopsidedSecond(Healthy):
    """Correct forces, and a curvature that is not symmetric."""

    def activation(self, x: Tensor) -> Tensor:
        return _Lopsided.apply(x, x.roll(1, -1))


class DroppedParameter(Healthy):
    """Energies, forces and curvature are correct; the gradient of one parameter is not."""

    def forward(self, batch: Batch) -> Tensor:
        hidden = self.activation(self.features(batch) @ self.first + self.bias)
        return hidden @ (0.5 * self.last + 0.5 * self.last.detach())


class Anchored(Healthy):
    """A weak harmonic potential around the origin."""

    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch) + 0.05 * batch.positions.square().sum(-1)


class Field(Healthy):
    """Distances along z are stretched: invariant to shifts, not to rotations."""

    def distances(self, batch: Batch) -> Tensor:
        stretch = batch.positions.new_tensor([1.0, 1.0, 1.05])
        return masked_norm(batch.neighbor_vectors() * stretch, batch.neighbor_mask, fill=self.cutoff)


class Handed(Healthy):
    """A sum of triple products: a molecule and its mirror image differ."""

    def forward(self, batch: Batch) -> Tensor:
        r = self.distances(batch)
        weights = torch.exp(-2.0 * (r[..., None] - self.centers[:3]).square()) * self.envelope(r)[..., None]
        a, b, c = (
            ((weights * batch.neighbor_mask[..., None])[..., None] * batch.neighbor_vectors()[:, :, None])
            .sum(1)
            .unbind(1)
        )
        return super().forward(batch) + (a * torch.linalg.cross(b, c)).sum(-1)


class Ordered(Healthy):
    """The first atom of each structure counts twice."""

    def forward(self, batch: Batch) -> Tensor:
        starts = torch.cat([batch.n_atoms.new_zeros(1), batch.n_atoms.cumsum(0)[:-1]])
        weight = torch.ones_like(batch.positions[:, 0]).index_fill(0, starts, 2.0)
        return super().forward(batch) * weight


class Mixing(Healthy):
    """Features are measured from their mean over the batch."""

    def features(self, batch: Batch) -> Tensor:
        found = super().features(batch)
        return found - found.mean(0, keepdim=True)


class Averaging(Healthy):
    """The mean over atoms instead of the sum."""

    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch) / batch.n_atoms[batch.structure_index]


class TrustsList(Healthy):
    """Uses all listed neighbors, whatever their distance."""

    def forward(self, batch: Batch) -> Tensor:
        r = masked_norm(batch.neighbor_vectors(), batch.neighbor_mask, fill=self.cutoff)
        beyond = (torch.exp(-0.3 * r) * batch.neighbor_mask * smooth_cutoff(r, 50.0)).sum(1)
        return super().forward(batch) + beyond


class NoLattice(Healthy):
    """Ignores the lattice translations of its neighbors."""

    def distances(self, batch: Batch) -> Tensor:
        there = batch.positions[batch.neighbors]
        vectors = there - batch.positions[:, None]
        own = (vectors == 0).all(-1)
        return masked_norm(vectors, batch.neighbor_mask & ~own, fill=self.cutoff)


class FrozenCell(Healthy):
    """The lattice is cut out of the graph: correct forces, wrong stress."""

    def distances(self, batch: Batch) -> Tensor:
        fixed = batch.with_positions(positions=batch.positions, cell=batch.cell.detach())
        return masked_norm(fixed.neighbor_vectors(), batch.neighbor_mask, fill=self.cutoff)


class Dropout(Healthy):
    def activation(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(nn.functional.silu(x), 0.1, self.training)


class Random(Healthy):
    def activation(self, x: Tensor) -> Tensor:
        return nn.functional.silu(x + 0.01 * torch.randn_like(x))


class Remembering(Healthy):
    """Keeps state of the last structure."""

    def forward(self, batch: Batch) -> Tensor:
        last = getattr(self, "kept", 0.0)
        self.kept = 1e-3 * float(batch.positions.detach().abs().sum())
        return super().forward(batch) * (1.0 + last)


class Single(Healthy):
    """Always computes in float32."""

    def features(self, batch: Batch) -> Tensor:
        return super().features(batch).float().double()


class SingleEnergies(Healthy):
    """Rounds only its result to float32."""

    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch).float()


class Canceling(Healthy):
    """A small difference of large numbers: fine in float64, noise in float32."""

    def features(self, batch: Batch) -> Tensor:
        found = super().features(batch)
        return (found + 1e5) - 1e5


class Branching(Healthy):
    """Branches on values: not a fault, but it cannot be compiled as one graph."""

    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch) * (1.0 if float(batch.positions.detach().sum()) < 1e9 else 2.0)


class Constant(Healthy):
    def forward(self, batch: Batch) -> Tensor:
        return self.last.sum() + 0.0 * batch.positions.sum(-1)


class Spoilt(Healthy):
    """NaN for some molecules."""

    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch) + (self.features(batch)[:, 0] - 1e6).sqrt()


class Raising(Healthy):
    def forward(self, batch: Batch) -> Tensor:
        raise ValueError("this model is not finished")
