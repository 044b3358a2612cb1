"""Curvature labels of crystals: pairs of a probe and its Hessian-vector product, from displaced supercells.

The forces of a supercell that is displaced by u along d are −|u| H d, up to anharmonic terms. The even ones cancel in
the difference of opposite displacements; where only one of them was computed, and a symmetry operation turns one into
the other, the opposite forces are its image. Every operation of the space group turns a pair (v, H v) into another one
(v', H v') that costs nothing. Directions of one atom are scaled to the length √(3N), so that random images of them
have the mean `v vᵀ` = 1 that losses expect.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray as Array

from hesse.datasets import Dataset
from hesse.errors import ConfigError, MissingLabelError, check_whole_numbers
from hesse.lattice.phonons_result import Phonons
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Properties

__all__ = ["CrystalLabels", "crystal_labels"]

_MAX_PAIRS = 10_000


@dataclass(frozen=True, eq=False, repr=False)
class CrystalLabels(ShortRepr):
    """Pairs of probes and products of one supercell, and their checks.

    Attributes:
        dataset: the supercell with its pairs.
        n_measured: number of pairs that were computed; the others are images of them.
        displacements: length of the displacement that each pair came from, Å; zero for exact derivatives.
        sum_rule: largest sum of a product over all atoms, over the largest element of the products: a rigid translation
            costs no energy.
        asymmetry: root mean square difference between products and their images by operations that keep the probe, over
            the root mean square product.
        odd_part: size of the anharmonic forces that cancel in the difference of opposite displacements, over that of
            the products; None where no displacement has an opposite.
        without_opposite: number of displacements that have none, whose products contain those terms.
    """

    dataset: Dataset
    n_measured: int
    displacements: Float[Array, "pairs"]
    sum_rule: float
    asymmetry: float
    odd_part: float | None
    without_opposite: int

    def __str__(self) -> str:
        lines = [
            f"{len(self.displacements)} pairs of a probe and H v: {self.n_measured} measured, "
            f"{len(self.displacements) - self.n_measured} images by the space group",
            f"acoustic sum rule broken by {self.sum_rule:.1e} of the largest product, symmetry by {self.asymmetry:.1e}",
        ]
        if self.odd_part is not None:
            lines.append(f"anharmonic forces that opposite displacements cancel: {self.odd_part:.1e} of the products")
        if self.without_opposite:
            lines.append(
                f"{self.without_opposite} displacements have no opposite: their products contain anharmonic terms"
            )
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class _Pair:
    """A displacement direction (of length √(3N) on average), its product, and the length of the displacement in Å."""

    probe: Float[Array, "n 3"]
    product: Float[Array, "n 3"]
    length: float


class _SpaceGroup:
    """Operations of a supercell on vectors of its atoms."""

    def __init__(self, record: Any) -> None:
        operations = record.symmetry.symmetry_operations
        self.rotations = np.array(operations["rotations"])
        self.translations = np.array(operations["translations"])
        self.lattice = np.array(record.supercell.cell).T
        self.positions = np.array(record.supercell.scaled_positions)

    def __len__(self) -> int:
        return len(self.rotations)

    def keeping(self, atom: int) -> Int[Array, "some"]:
        """Operations that leave an atom in its place."""
        moved = self.rotations @ self.positions[atom] + self.translations - self.positions[atom]
        gaps = (moved - np.rint(moved)) @ self.lattice.T
        return np.flatnonzero(np.linalg.norm(gaps, axis=1) < 1e-3)

    def apply(self, k: int, vectors: Float[Array, "*p n 3"]) -> Float[Array, "*p n 3"]:
        """Images of vectors of all atoms."""
        from scipy.spatial import KDTree

        wrapped = self.positions - np.floor(self.positions)
        wrapped[wrapped >= 1.0] = 0.0
        moved = self.positions @ self.rotations[k].T + self.translations[k]
        moved -= np.floor(moved)
        moved[moved >= 1.0] = 0.0
        _, target = KDTree(wrapped, boxsize=1.0).query(moved)
        turned = vectors @ self.cartesian(k).T
        result = np.empty_like(turned)
        result[..., target, :] = turned
        return result

    def cartesian(self, k: int) -> Float[Array, "3 3"]:
        """The rotation in Cartesian coordinates."""
        return np.asarray(self.lattice @ self.rotations[k] @ np.linalg.inv(self.lattice))


def crystal_labels(phonons: Phonons, *, images: int = 0, seed: int = 0) -> CrystalLabels:
    """Make curvature labels of a supercell from the displacements of its phonons.

    Args:
        phonons: phonons with displaced supercells (of an engine, or from files with forces), or with force constants
            alone, whose columns become pairs.
        images: number of images by the space group for each measured pair.
        seed: of the choice of the images.

    Returns:
        The supercell with its pairs, and how well they obey sum rule and symmetry.

    Raises:
        ConfigError: a number of images that is negative, or too many pairs.
        MissingLabelError: there are no displacements with forces and no force constants.
    """
    check_whole_numbers(images=images, seed=seed)
    if images < 0:
        raise ConfigError(f"images: expected a number that is not negative, got {images}")
    group = _SpaceGroup(phonons.record)
    pairs, odd, without = _measured(phonons, group)
    if not pairs:
        raise MissingLabelError(
            f'"{phonons.structure.id}": no displaced supercells with forces, and no force constants'
        )
    if len(pairs) * (images + 1) > _MAX_PAIRS:
        raise ConfigError(f"images: {len(pairs)} pairs with {images} images each are more than {_MAX_PAIRS} pairs")
    size = float(np.sqrt(np.mean([np.mean(p.product**2) for p in pairs]))) or 1.0
    errors = [_asymmetry(p, group) for p in pairs]
    sums = max(float(np.abs(p.product.sum(axis=0)).max() / (np.abs(p.product).max() or 1.0)) for p in pairs)
    rng = np.random.default_rng(seed)
    everything = [*pairs, *(image for pair in pairs for image in _images(pair, group, images, rng))]
    supercell = phonons.supercell
    labels = Properties.single(
        len(supercell),
        structure_id=supercell.id,
        probes=np.array([p.probe for p in everything]),
        hvp=np.array([p.product for p in everything]),
    )
    lengths = np.array([p.length for p in everything])
    metadata = {
        "hvp_from": phonons.report.method,
        "hvp_displacement": json.dumps([round(float(x), 6) for x in lengths]),
        **({"level": phonons.level} if phonons.level else {}),
    }
    return CrystalLabels(
        Dataset((supercell,), labels, metadata),
        len(pairs),
        lengths,
        sums,
        float(np.sqrt(np.mean(np.square(errors)))) / size,
        None if odd is None else odd / size,
        without,
    )


def _measured(phonons: Phonons, group: _SpaceGroup) -> tuple[list[_Pair], float | None, int]:
    """Pairs, root mean square of the even forces over the displacement, and number without opposite."""
    record, n = phonons.record, len(phonons.supercell)
    data = record.dataset or {}
    from phonopy.physical_units import get_calculator_physical_units

    units = get_calculator_physical_units(record.calculator)
    force, length = float(units.force_to_eVperA), float(units.distance_to_A)
    if data.get("first_atoms") and "forces" in data["first_atoms"][0]:
        exact = phonons.report.method == "products"
        return _from_single_atoms(data["first_atoms"], group, n, force, length, exact)
    if "forces" in data and "displacements" in data:
        pairs = []
        for move, forces in zip(np.array(data["displacements"]), np.array(data["forces"]), strict=True):
            size = float(np.linalg.norm(move)) * length
            scale = np.sqrt(3 * n) / size
            pairs.append(_Pair(move * length * scale, -forces * force * scale, float(np.abs(move).max()) * length))
        return pairs, None, len(pairs)
    if record.force_constants is None:
        return [], None, 0
    constants = phonons.force_constants
    pairs = []
    for row, atom in enumerate(record.primitive.p2s_map):
        for axis in range(3):
            probe = np.zeros((n, 3))
            probe[atom, axis] = np.sqrt(3 * n)
            pairs.append(_Pair(probe, np.sqrt(3 * n) * constants[row, :, axis], 0.0))
    return pairs, None, 0


def _from_single_atoms(
    entries: list[dict[str, Any]], group: _SpaceGroup, n: int, force: float, length: float, exact: bool
) -> tuple[list[_Pair], float | None, int]:
    moves = [(int(e["number"]), np.array(e["displacement"]), np.array(e["forces"])) for e in entries]
    pairs, even, without, used = [], list[float](), 0, set[int]()
    for k, (atom, move, forces) in enumerate(moves):
        if k in used:
            continue
        size = float(np.linalg.norm(move)) * length
        probe = np.zeros((n, 3))
        probe[atom] = np.sqrt(3 * n) * move / np.linalg.norm(move)
        scale = np.sqrt(3 * n) * force / size
        if exact:
            pairs.append(_Pair(probe, -scale * forces, 0.0))
            continue
        opposite = next(
            (j for j in range(k + 1, len(moves)) if moves[j][0] == atom and np.allclose(moves[j][1], -move, atol=1e-6)),
            None,
        )
        reverse = None
        if opposite is not None:
            used.add(opposite)
            reverse = moves[opposite][2]
        else:
            turning = [g for g in group.keeping(atom) if np.allclose(group.cartesian(g) @ move, -move, atol=1e-6)]
            reverse = group.apply(turning[0], forces) if turning else None
        if reverse is None:
            without += 1
            pairs.append(_Pair(probe, -scale * forces, size))
        else:
            even.append(float(np.mean((0.5 * scale * (forces + reverse)) ** 2)))
            pairs.append(_Pair(probe, -0.5 * scale * (forces - reverse), size))
    return pairs, float(np.sqrt(np.mean(even))) if even else None, without


def _asymmetry(pair: _Pair, group: _SpaceGroup) -> float:
    """Root mean square difference between a product and its images by operations that keep the probe."""
    atoms = np.flatnonzero(np.abs(pair.probe).max(axis=1) > 0)
    if len(atoms) != 1:
        return 0.0
    vector = pair.probe[atoms[0]]
    keeping = [
        g
        for g in group.keeping(int(atoms[0]))
        if np.allclose(group.cartesian(g) @ vector, vector, atol=1e-6 * len(pair.probe))
    ]
    squares = [np.mean((group.apply(g, pair.product) - pair.product) ** 2) for g in keeping]
    return float(np.sqrt(max(squares, default=0.0)))


def _images(pair: _Pair, group: _SpaceGroup, count: int, rng: np.random.Generator) -> Iterator[_Pair]:
    """Images with different probes, other than the pair itself and its negative."""
    seen = [pair.probe]
    for k in rng.permutation(len(group)):
        if len(seen) > count:
            return
        probe, product = group.apply(int(k), np.stack([pair.probe, pair.product]))
        if not any(np.allclose(probe, sign * other, atol=1e-6) for other in seen for sign in (1.0, -1.0)):
            seen.append(probe)
            yield _Pair(probe, product, pair.length)
