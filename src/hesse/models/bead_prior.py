"""Prior of beads: short-range repulsion of pairs, and harmonic bonds and angles within molecules.

Mapped trajectories hold no beads on top of each other and no broken bonds, so a network extrapolates there. The prior
keeps dynamics out of such regions; a network is trained on what is left of the forces (`baseline` of a run).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray as Array
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from hesse.errors import RequestError
from hesse.potential import Potential
from hesse.runtime.settings import Settings
from hesse.smooth import masked_norm, norm, smooth_cutoff
from hesse.structures import Batch, bead_number, species_names

__all__ = ["BeadAngle", "BeadBond", "BeadMolecule", "BeadPrior", "BeadPriorConfig", "PairRepulsion", "molecule_starts"]


def _checked_types(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        bead_number(name)
    return names


class PairRepulsion(Settings):
    """`u(r) = (s p / a) exp(−a (r − r_t))` with `a = ln(1/p)/d`: the force is s p at r_t, and s nearer by d."""

    types: tuple[str, str] = Field(description="the two bead types")
    taper: float = Field(gt=0, description="r_t, Å: from there on beads are seen in the data")
    strength: float = Field(gt=0, description="s, eV/Å")
    width: float = Field(0.15, gt=0, description="d, Å")
    fraction: float = Field(0.05, gt=0, lt=1, description="p")

    _types = field_validator("types")(_checked_types)

    @property
    def steepness(self) -> float:
        """a, 1/Å."""
        return math.log(1.0 / self.fraction) / self.width

    @property
    def reach(self) -> float:
        """Å; the repulsion goes smoothly to zero between r_t and here."""
        return self.taper + 4.0 * self.width


class BeadBond(Settings):
    """`½ k (r − r0)²`."""

    beads: tuple[int, int] = Field(description="within the molecule, from 0")
    length: float = Field(gt=0, description="r0, Å")
    stiffness: float = Field(ge=0, description="k, eV/Å²")


class BeadAngle(Settings):
    """`½ k (cos θ − cos θ0)²`, which is smooth for straight angles too."""

    beads: tuple[int, int, int] = Field(description="within the molecule, the middle one second")
    cosine: float = Field(ge=-1, le=1, description="cos θ0")
    stiffness: float = Field(ge=0, description="k, eV")


class BeadMolecule(Settings):
    """A molecule of several beads, recognized by the sequence of their types."""

    types: tuple[str, ...] = Field(min_length=2)
    bonds: tuple[BeadBond, ...] = ()
    angles: tuple[BeadAngle, ...] = ()

    _types = field_validator("types")(_checked_types)

    @model_validator(mode="after")
    def _check_beads(self) -> BeadMolecule:
        terms: list[BeadBond | BeadAngle] = [*self.bonds, *self.angles]
        for beads in (term.beads for term in terms):
            if len(set(beads)) < len(beads) or not all(0 <= i < len(self.types) for i in beads):
                raise ValueError(f"expected different beads from 0 to {len(self.types) - 1}, got {beads}")
        return self


class BeadPriorConfig(Settings):
    """All terms of a prior."""

    kind: str = Field("bead-prior", pattern="^bead-prior$")
    pairs: tuple[PairRepulsion, ...] = ()
    molecules: tuple[BeadMolecule, ...] = ()


class _Tables(NamedTuple):
    """Index tables of the terms within molecules.

    Attributes:
        bonds, angles: atoms of each term.
        bond_kind, angle_kind: which term of the configuration it is.
        bond_shifts, angle_shifts: lattice translations to the nearest images: of the second atom of a bond; of both
            ends of an angle.
        excluded: pairs of the neighbor matrix without repulsion: beads that share a bond or an angle.
    """

    bonds: Int[Tensor, "b 2"]
    bond_kind: Int[Tensor, "b"]
    bond_shifts: Float[Tensor, "b 3"]
    angles: Int[Tensor, "a 3"]
    angle_kind: Int[Tensor, "a"]
    angle_shifts: Float[Tensor, "a 2 3"]
    excluded: Bool[Tensor, "atoms k"]


class BeadPrior(Potential):
    """Repulsion of pairs, and bonds and angles of molecules. It has no trainable parameters.

    Beads of a molecule follow each other in a structure, in the order of the configuration. A bond or angle is computed
    between nearest images, so that molecules may be cut by the boundaries of the cell.

    Args:
        config: the terms.
        elements: numbers of the bead types it supports.
    """

    _pair_parameters: Float[Tensor, "types types four"]
    _numbers: Int[Tensor, "types"]
    _bond_parameters: Float[Tensor, "bonds two"]
    _angle_parameters: Float[Tensor, "angles two"]

    def __init__(self, config: BeadPriorConfig, elements: tuple[int, ...]) -> None:
        super().__init__()
        self.config, self.elements = config, tuple(sorted(elements))
        self.cutoff = max((pair.reach for pair in config.pairs), default=0.0)
        index, double = {z: k for k, z in enumerate(self.elements)}, torch.float64
        parameters = torch.zeros(len(index), len(index), 4, dtype=torch.float64)
        parameters[..., 2:] = 1.0
        for pair in config.pairs:
            known = [index[z] for z in map(bead_number, pair.types) if z in index]
            if len(known) == 2:
                values = [pair.strength * pair.fraction / pair.steepness, pair.taper, pair.steepness, 4.0 * pair.width]
                parameters[known[0], known[1]] = parameters[known[1], known[0]] = torch.tensor(values, dtype=double)
        bonds = [[bond.length, bond.stiffness] for m in config.molecules for bond in m.bonds]
        angles = [[angle.cosine, angle.stiffness] for m in config.molecules for angle in m.angles]
        self.register_buffer("_pair_parameters", parameters, persistent=False)
        self.register_buffer("_numbers", torch.tensor(self.elements, dtype=torch.int64), persistent=False)
        self.register_buffer("_bond_parameters", torch.tensor(bonds, dtype=double).reshape(-1, 2), persistent=False)
        self.register_buffer("_angle_parameters", torch.tensor(angles, dtype=double).reshape(-1, 2), persistent=False)

    def precompute(self, batch: Batch) -> Batch:
        """See `Potential.precompute`: bonds and angles of all molecules."""
        return replace(batch, precomputed=self._tables(batch))

    @torch.no_grad()
    def _tables(self, batch: Batch) -> _Tables:
        if batch.precomputed is not None:
            tables: _Tables = batch.precomputed
            return tables
        bonds, bond_kind, angles, angle_kind = self._terms(batch)
        excluded = torch.zeros_like(batch.neighbor_mask)
        for pairs in (bonds, angles[:, [0, 2]]):
            for first, second in (pairs.T, pairs.flip(1).T):
                # Each atom has few partners: one at a time.
                for k in range(_most_repeated(first)):
                    partner = torch.full_like(batch.numbers, -1)
                    chosen = _occurrence(first) == k
                    partner[first[chosen]] = second[chosen]
                    excluded |= batch.neighbors == partner[:, None]
        return _Tables(
            bonds,
            bond_kind,
            _shifts(batch, bonds[:, 0], bonds[:, 1]),
            angles,
            angle_kind,
            torch.stack([_shifts(batch, angles[:, 1], angles[:, end]) for end in (0, 2)], dim=1),
            excluded,
        )

    def _terms(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Atoms and kinds of all bonds and angles."""
        numbers, sizes = batch.numbers.cpu().numpy(), batch.n_atoms.cpu().numpy()
        starts = molecule_starts(self.config.molecules, numbers, sizes, batch.ids)
        terms: dict[str, tuple[list[Array], list[Array]]] = {"bonds": ([], []), "angles": ([], [])}
        for name, (atoms, kinds) in terms.items():
            offset = 0
            for molecule, first in zip(self.config.molecules, starts, strict=True):
                for k, term in enumerate(getattr(molecule, name)):
                    atoms.append(first[:, None] + np.array(term.beads))
                    kinds.append(np.full(len(first), offset + k))
                offset += len(getattr(molecule, name))
        tensors = []
        for name, width in (("bonds", 2), ("angles", 3)):
            atoms, kinds = terms[name]
            tensors.append(np.concatenate([np.zeros((0, width), dtype=np.int64), *atoms]))
            tensors.append(np.concatenate([np.zeros(0, dtype=np.int64), *kinds]))
        bonds, bond_kind, angles, angle_kind = (torch.from_numpy(t).to(batch.numbers.device) for t in tensors)
        return bonds, bond_kind, angles, angle_kind

    def forward(self, batch: Batch) -> Float[Tensor, "atoms"]:
        """Energies of the beads: half of that of each pair, all of that of a bond (its first bead) or angle (the
        middle one).

        Args:
            batch: neighbors up to the cutoff.

        Returns:
            eV, in the dtype of the positions.
        """
        tables = self._tables(batch)
        energies = 0.5 * self._pair_energies(batch, tables.excluded).sum(-1)
        cells = batch.cell.index_select(0, batch.structure_index)
        first, second = tables.bonds.unbind(1)
        length, stiffness = self._bond_parameters.to(energies.dtype).index_select(0, tables.bond_kind).unbind(1)
        bonds = _vectors(batch, cells, first, second, tables.bond_shifts)
        energies = energies.index_add(0, first, 0.5 * stiffness * (norm(bonds) - length).square())
        end, middle, other = tables.angles.unbind(1)
        cosine, stiffness = self._angle_parameters.to(energies.dtype).index_select(0, tables.angle_kind).unbind(1)
        one = _vectors(batch, cells, middle, end, tables.angle_shifts[:, 0])
        two = _vectors(batch, cells, middle, other, tables.angle_shifts[:, 1])
        present = (one * two).sum(-1) / (norm(one) * norm(two))
        return energies.index_add(0, middle, 0.5 * stiffness * (present - cosine).square())

    def _pair_energies(self, batch: Batch, excluded: Bool[Tensor, "atoms k"]) -> Float[Tensor, "atoms k"]:
        types = (batch.numbers[:, None] == self._numbers).to(torch.int64).argmax(1)
        neighbor_types = types.index_select(0, batch.neighbors.reshape(-1)).reshape(batch.neighbors.shape)
        table = self._pair_parameters.to(batch.positions.dtype).flatten(0, 1)
        kind = types[:, None] * len(self._numbers) + neighbor_types
        scale, taper, steepness, span = table.index_select(0, kind.reshape(-1)).reshape(*kind.shape, 4).unbind(-1)
        used = batch.neighbor_mask & ~excluded
        beyond = masked_norm(batch.neighbor_vectors(), used, fill=max(self.cutoff, 1.0)) - taper
        # The exponent is bounded: a bead on another one has a large energy, not an infinite one.
        repulsion = scale * torch.exp((-steepness * beyond).clamp(max=60.0))
        return repulsion * smooth_cutoff(beyond.clamp(min=0.0) / span, 1.0) * used


def molecule_starts(
    molecules: tuple[BeadMolecule, ...],
    numbers: Int[Array, "atoms"],
    sizes: Int[Array, "structures"],
    ids: tuple[str, ...],
) -> list[Int[Array, "m"]]:
    """Find molecules by the sequence of their bead types.

    Args:
        molecules: kinds of molecules; where several fit, the longest is taken.
        numbers: bead types of all structures, end to end.
        sizes: number of beads of each structure.
        ids: ids of the structures; those without one need not consist of these molecules.

    Returns:
        For each kind the indices of the first beads of its molecules.

    Raises:
        RequestError: a bead of a type that only occurs in these molecules, and that is in none.
    """
    patterns = [np.array([bead_number(name) for name in molecule.types]) for molecule in molecules]
    starts: list[list[int]] = [[] for _ in patterns]
    if not patterns:
        return []
    inside = {int(z) for pattern in patterns for z in pattern}
    order = sorted(range(len(patterns)), key=lambda k: -len(patterns[k]))
    fits = np.zeros((len(patterns), len(numbers)), dtype=bool)
    for k, pattern in enumerate(patterns):
        n = len(numbers) - len(pattern) + 1
        if n > 0:
            fits[k, :n] = np.all([numbers[i : i + n] == z for i, z in enumerate(pattern)], axis=0)
    ends = np.cumsum(sizes)
    for s, end in enumerate(ends.tolist()):
        i = end - int(sizes[s])
        while i < end:
            kind = next((k for k in order if fits[k, i] and i + len(patterns[k]) <= end), None)
            if kind is not None:
                starts[kind].append(i)
                i += len(patterns[kind])
                continue
            if int(numbers[i]) in inside and ids[s]:
                raise RequestError(
                    f'structure "{ids[s]}": bead {i - (end - int(sizes[s]))} ({species_names(numbers[i : i + 1])[0]}) '
                    "is "
                    "not part of a molecule that the prior knows: "
                    f"{', '.join('-'.join(m.types) for m in molecules)}. Beads of a molecule follow each other in this "
                    "order"
                )
            i += 1
    return [np.array(indices, dtype=np.int64) for indices in starts]


def _most_repeated(indices: Int[Tensor, "n"]) -> int:
    return int(torch.bincount(indices).max()) if len(indices) else 0


def _occurrence(indices: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
    """How often each value occurred before."""
    order = indices.argsort(stable=True)
    ordered = indices[order]
    first = torch.searchsorted(ordered, ordered)
    result = torch.empty_like(indices)
    result[order] = torch.arange(len(indices), device=indices.device) - first
    return result


def _shifts(batch: Batch, first: Int[Tensor, "n"], second: Int[Tensor, "n"]) -> Float[Tensor, "n 3"]:
    """Lattice translations that bring the second atoms nearest to the first."""
    structure = batch.structure_index[first]
    pbc = batch.pbc[structure]
    eye = torch.eye(3, dtype=batch.cell.dtype, device=batch.cell.device)
    cell = torch.where(pbc[..., None], batch.cell[structure], eye)
    vectors = (batch.positions[second] - batch.positions[first]).detach()
    fractional = torch.linalg.solve(cell.transpose(1, 2), vectors[..., None])[..., 0] if len(first) else vectors
    return -torch.round(fractional) * pbc


def _vectors(
    batch: Batch, cells: Float[Tensor, "atoms 3 3"], first: Tensor, second: Tensor, shifts: Float[Tensor, "n 3"]
) -> Float[Tensor, "n 3"]:
    """Vectors to nearest images, differentiable in positions and cell."""
    vectors = batch.positions.index_select(0, second) - batch.positions.index_select(0, first)
    return vectors + (shifts[:, None] @ cells.index_select(0, first))[:, 0]
