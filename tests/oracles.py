"""Potentials with known answers: each has a PyTorch energy, and the energy, gradient, Hessian and stress of a structure
in closed form, in numpy. Both are independent code, so that each one tests the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hesse.datasets import Dataset
from hesse.potential import Potential
from hesse.structures import Batch, Properties, Structure

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Exact:
    """eV; `[n, 3]` eV/Å; `(n, 3, n, 3)` eV/Å²; derivative of the energy by strain, eV (over the volume: the stress)."""

    energy: float
    gradient: Array
    hessian: Array
    strain_slope: Array | None = None


class Oracle(Potential):
    """A potential with derivatives in closed form."""

    cutoff = 6.0

    def exact(self, structure: Structure) -> Exact:
        raise NotImplementedError


class Harmonic(Oracle):
    """`½ (x − x0)ᵀ K (x − x0)` with a random symmetric K for each structure, neither definite nor invariant."""

    def __init__(self, structures: Sequence[Structure], seed: int = 0) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.wells: dict[str, tuple[Array, Array]] = {}
        for s in structures:
            k = rng.normal(size=(3 * len(s), 3 * len(s)))
            self.wells[s.id] = (s.positions + 0.1 * rng.normal(size=(len(s), 3)), k + k.T)

    def forward(self, batch: Batch) -> Tensor:
        shares = []
        for positions, name in zip(batch.positions.split(batch.n_atoms.tolist()), batch.ids, strict=True):
            center, k = (torch.from_numpy(value).to(positions) for value in self.wells[name])
            moved = (positions - center).reshape(-1)
            shares.append((0.5 * moved * (k @ moved)).reshape(-1, 3).sum(-1))
        return torch.cat(shares)

    def exact(self, structure: Structure) -> Exact:
        n = len(structure)
        center, k = self.wells[structure.id]
        moved = (structure.positions - center).ravel()
        return Exact(0.5 * moved @ k @ moved, (k @ moved).reshape(n, 3), k.reshape(n, 3, n, 3))


class Polynomial(Oracle):
    """`Σ_m c_m (a_m · x)^p_m` with powers 1 to 5 and random directions `a_m` in all 3N coordinates."""

    def __init__(self, largest: int = 12, terms: int = 10, seed: int = 0) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.directions: Array = rng.normal(size=(terms, 3 * largest)) / np.sqrt(3 * largest)
        self.powers = rng.integers(1, 6, size=terms)
        self.strengths: Array = rng.normal(size=terms)

    def forward(self, batch: Batch) -> Tensor:
        shares = []
        for positions in batch.positions.split(batch.n_atoms.tolist()):
            x = positions.reshape(-1)
            energy = x.new_zeros(())
            for a, p, c in zip(self.directions, self.powers, self.strengths, strict=True):
                amount = torch.dot(torch.from_numpy(a[: len(x)]).to(x), x)
                energy = energy + float(c) * amount ** int(p)
            shares.append((energy / len(positions)).expand(len(positions)))
        return torch.cat(shares)

    def exact(self, structure: Structure) -> Exact:
        n = len(structure)
        x = structure.positions.ravel()
        a, p, c = self.directions[:, : 3 * n], self.powers.astype(float), self.strengths
        amount = a @ x
        first = c * p * amount ** (p - 1)
        second = np.where(p > 1, c * p * (p - 1) * amount ** np.maximum(p - 2, 0), 0.0)
        hessian = np.einsum("m,mi,mj->ij", second, a, a)
        return Exact(float(np.sum(c * amount**p)), (first @ a).reshape(n, 3), hessian.reshape(n, 3, n, 3))


class PairPotential(Oracle):
    """`½ Σ_ij φ(r_ij)` over the neighbor matrix; the closed form runs over pairs and images in plain loops."""

    def phi(self, r: Tensor) -> Tensor:
        raise NotImplementedError

    def phi_exact(self, r: float) -> tuple[float, float, float]:
        """φ, φ', φ''."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Tensor:
        vectors, mask = batch.neighbor_vectors(), batch.neighbor_mask
        squared = torch.where(mask, vectors.square().sum(-1), 1.0)
        mask = mask & (squared < self.cutoff**2)
        r = torch.where(mask, squared, 1.0).sqrt()
        return 0.5 * torch.where(mask, self.phi(r), 0.0).sum(-1)

    def exact(self, structure: Structure) -> Exact:
        n = len(structure)
        energy, gradient, hessian, slope = 0.0, np.zeros((n, 3)), np.zeros((n, 3, n, 3)), np.zeros((3, 3))
        for i, j, vector in image_pairs(structure, self.cutoff):
            r = float(np.linalg.norm(vector))
            unit = vector / r
            value, first, second = self.phi_exact(r)
            energy += 0.5 * value
            # d r / d x_j = unit, d r / d x_i = -unit: an atom and its own image leave no force.
            gradient[j] += 0.5 * first * unit
            gradient[i] -= 0.5 * first * unit
            along = np.outer(unit, unit)
            block = 0.5 * (second * along + first / r * (np.eye(3) - along))
            hessian[i, :, i] += block
            hessian[j, :, j] += block
            hessian[i, :, j] -= block
            hessian[j, :, i] -= block
            slope += 0.5 * first * r * along
        return Exact(energy, gradient, hessian, slope)


class LennardJones(PairPotential):
    """`4ε((σ/r)¹² − (σ/r)⁶)`, cut sharply."""

    def __init__(self, epsilon: float = 0.3, sigma: float = 1.1, cutoff: float = 6.0) -> None:
        super().__init__()
        self.epsilon, self.sigma, self.cutoff = epsilon, sigma, cutoff

    def phi(self, r: Tensor) -> Tensor:
        sixth = (self.sigma / r) ** 6
        return 4 * self.epsilon * (sixth * sixth - sixth)

    def phi_exact(self, r: float) -> tuple[float, float, float]:
        e, six = self.epsilon, (self.sigma / r) ** 6
        twelve = six**2
        return (
            4 * e * (twelve - six),
            4 * e * (-12 * twelve + 6 * six) / r,
            4 * e * (156 * twelve - 42 * six) / r**2,
        )


class Morse(PairPotential):
    """`D (1 − e^{−a(r − r0)})²`."""

    def __init__(self, depth: float = 4.0, width: float = 1.9, r0: float = 1.1, cutoff: float = 6.0) -> None:
        super().__init__()
        self.depth, self.width, self.r0, self.cutoff = depth, width, r0, cutoff

    def phi(self, r: Tensor) -> Tensor:
        return self.depth * (1 - torch.exp(-self.width * (r - self.r0))) ** 2

    def phi_exact(self, r: float) -> tuple[float, float, float]:
        d, a = self.depth, self.width
        e = float(np.exp(-a * (r - self.r0)))
        return d * (1 - e) ** 2, 2 * d * a * e * (1 - e), 2 * d * a * a * e * (2 * e - 1)


class LearnableLine(Oracle):
    """`θ Σ_i b · x_i`: linear in positions, so its curvature is zero although its gradient has a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))

    def forward(self, batch: Batch) -> Tensor:
        return self.theta * (batch.positions @ batch.positions.new_tensor([1.0, -2.0, 0.5]))

    def exact(self, structure: Structure) -> Exact:
        n, b = len(structure), np.array([1.0, -2.0, 0.5])
        return Exact(1.5 * float((structure.positions @ b).sum()), np.tile(1.5 * b, (n, 1)), np.zeros((n, 3, n, 3)))


class Constant(Oracle):
    """An energy that does not depend on positions at all."""

    def forward(self, batch: Batch) -> Tensor:
        return 0.25 * batch.numbers.to(torch.float64)

    def exact(self, structure: Structure) -> Exact:
        n = len(structure)
        return Exact(0.25 * float(structure.numbers.sum()), np.zeros((n, 3)), np.zeros((n, 3, n, 3)))


def image_pairs(structure: Structure, cutoff: float) -> list[tuple[int, int, Array]]:
    """All directed pairs and images below the cutoff, by brute force."""
    reach = [0, 0, 0]
    if structure.periodic:
        # Distance between lattice planes bounds how many images can matter; positions may lie outside the cell.
        widths = 1.0 / np.linalg.norm(np.linalg.inv(structure.cell), axis=0)
        spread = np.ptp(structure.positions, axis=0).max()
        reach = [
            int(np.ceil((cutoff + spread) / w)) + 1 if p else 0 for w, p in zip(widths, structure.pbc, strict=True)
        ]
    pairs = []
    for a in range(-reach[0], reach[0] + 1):
        for b in range(-reach[1], reach[1] + 1):
            for c in range(-reach[2], reach[2] + 1):
                shift = np.array([a, b, c]) @ structure.cell
                gaps = structure.positions[None] + shift - structure.positions[:, None]
                near = np.linalg.norm(gaps, axis=-1) < cutoff
                if a == b == c == 0:
                    np.fill_diagonal(near, False)
                pairs += [(int(i), int(j), gaps[i, j]) for i, j in np.argwhere(near)]
    return pairs


# --- structures ------------------------------------------------------------------------------------------------------


def molecule(n: int, seed: int, *, elements: Sequence[int] = (1, 6, 8), name: str = "", group: str = "") -> Structure:
    """A chain of `n` atoms that folds at random: neighbors 1.0 to 1.4 Å apart, all others at least 1.0 Å."""
    rng = np.random.default_rng(seed)
    points = [rng.normal(size=3)]
    while len(points) < n:
        step = rng.normal(size=3)
        place = points[rng.integers(len(points))] + step / np.linalg.norm(step) * rng.uniform(1.0, 1.4)
        if min(np.linalg.norm(place - p) for p in points) >= 1.0 - 1e-9:
            points.append(place)
    return Structure(rng.choice(elements, n), np.array(points), id=name or f"molecule-{n}-{seed}", group=group)


def molecules(sizes: Sequence[int], seed: int = 0, **options: Any) -> list[Structure]:
    return [molecule(n, 1000 * seed + k, **options) for k, n in enumerate(sizes)]


def linear(n: int = 3, *, elements: Sequence[int] = (8, 6, 8), axis: Sequence[float] = (1.0, 2.0, -0.5)) -> Structure:
    direction = np.array(axis) / np.linalg.norm(axis)
    return Structure(
        [elements[k % len(elements)] for k in range(n)], 1.16 * np.outer(np.arange(n), direction), id="line"
    )


def atom(z: int = 1) -> Structure:
    return Structure([z], [[0.3, -0.2, 0.7]], id=f"atom-{z}")


def crystal(seed: int = 0, *, size: float = 4.0, atoms: int = 3, elements: Sequence[int] = (1, 6, 8)) -> Structure:
    """A skewed cell, smaller than the usual cutoffs, with atoms inside and outside of it."""
    rng = np.random.default_rng(seed)
    cell = size * np.eye(3) + 0.3 * rng.normal(size=(3, 3))
    grid = np.array([[0.05, 0.1, 0.0], [0.5, 0.45, 0.1], [0.1, 0.55, 0.6], [0.6, 0.0, 0.5]])[:atoms]
    fractional = grid + 0.03 * rng.normal(size=(atoms, 3)) + rng.integers(-1, 2, size=(atoms, 3))
    numbers = [elements[k % len(elements)] for k in range(atoms)]
    return Structure(numbers, fractional @ cell, id=f"crystal-{seed}", cell=cell, pbc=(True, True, True))


def rotation(seed: int) -> Array:
    """A random proper rotation."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q


# --- labels ----------------------------------------------------------------------------------------------------------


def labeled(
    oracle: Oracle,
    structures: Sequence[Structure],
    *,
    probes: int = 1,
    hessian: bool = False,
    forces: bool = True,
    seed: int = 0,
) -> Dataset:
    """A data set of closed-form labels. Probes are Gaussian, drawn by numpy."""
    rng = np.random.default_rng(seed)
    rows = []
    for s in structures:
        exact, n = oracle.exact(s), len(s)
        directions = rng.normal(size=(probes, n, 3))
        rows.append(
            (
                s,
                Properties.single(
                    n,
                    energy=exact.energy,
                    forces=-exact.gradient if forces else None,
                    probes=directions if probes else None,
                    hvp=np.einsum("iajb,kjb->kia", exact.hessian, directions) if probes else None,
                    hessian=exact.hessian if hessian else None,
                    structure_id=s.id,
                ),
            )
        )
    return Dataset.from_pairs(rows, level="closed form")


RHOMBUS = np.array([[0.6, 0, 0], [-0.6, 0, 0], [0, 0.85, 0], [0, -0.85, 0]])
"""Near the only transition state of four atoms that attract each other (Morse), between two tetrahedra."""


def rhombus(seed: int = 0, jitter: float = 0.03, numbers: Sequence[int] = (6, 6, 6, 6)) -> Structure:
    """A guess of that transition state."""
    shift = jitter * np.random.default_rng(seed).normal(size=(4, 3))
    return Structure(numbers, RHOMBUS + shift, id="rhombus", tag="guess", group="g")
