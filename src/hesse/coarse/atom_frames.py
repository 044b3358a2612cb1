"""Input of a mapping: frames of an all-atom trajectory, and the molecules that its atoms form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray as Array

from hesse.errors import RequestError
from hesse.runtime.short_repr import ShortRepr

__all__ = ["AtomFrame", "AtomTopology", "Trajectory", "split_by_molecule"]


@dataclass(frozen=True, eq=False, repr=False)
class AtomTopology(ShortRepr):
    """Atoms and the molecules they form; the same in all frames.

    Attributes:
        names: name of each atom, or its element: "OW", "C".
        masses: u, `[atoms]`.
        molecules: index of the molecule of each atom, from 0, `[atoms]`.
        molecule_names: name of each molecule, such as "MEOH".
        charges: e, `[atoms]`; None if they are not known.
    """

    names: tuple[str, ...]
    masses: Float[Array, "atoms"]
    molecules: Int[Array, "atoms"]
    molecule_names: tuple[str, ...]
    charges: Float[Array, "atoms"] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def atoms_of_molecules(self) -> list[Int[Array, "n"]]:
        """Indices of the atoms of each molecule, ascending.

        Returns:
            One array for each molecule.
        """
        return split_by_molecule(self.molecules)

    def kinds(self) -> dict[str, tuple[int, tuple[str, ...]]]:
        """The kinds of molecules.

        Returns:
            By name: the number of molecules and the names of the atoms of each.

        Raises:
            RequestError: molecules of different atoms under one name.
        """
        counts: dict[str, Counter[tuple[str, ...]]] = {}
        masses: dict[tuple[str, tuple[str, ...]], Float[Array, "n"]] = {}
        for name, atoms in zip(self.molecule_names, self.atoms_of_molecules(), strict=True):
            kind = tuple(self.names[i] for i in atoms)
            counts.setdefault(name, Counter())[kind] += 1
            known = masses.setdefault((name, kind), self.masses[atoms])
            if not np.allclose(known, self.masses[atoms], atol=1e-3):
                raise RequestError(
                    f"molecules of two kinds are called {name!r}: their atoms {_listed(kind)} have different masses. "
                    "Give them different names in the topology"
                )
        for name, kinds in counts.items():
            if len(kinds) > 1:
                (first, n), (second, m) = kinds.most_common(2)
                raise RequestError(
                    f"molecules of two kinds are called {name!r}: {n} of the atoms {_listed(first)} and {m} of the "
                    f"atoms {_listed(second)}. Give them different names in the topology, or in names={{...}} of "
                    "hesse.coarse"
                )
        return {name: (kinds.total(), next(iter(kinds))) for name, kinds in counts.items()}


def split_by_molecule(molecules: Int[Array, "atoms"]) -> list[Int[Array, "n"]]:
    """Indices of the atoms of each molecule.

    Args:
        molecules: index of the molecule of each atom, from 0, without gaps.

    Returns:
        One array for each molecule, ascending.
    """
    order = np.argsort(molecules, kind="stable")
    return np.split(order, np.cumsum(np.bincount(molecules))[:-1])


def _listed(names: tuple[str, ...]) -> str:
    return " ".join(names[:8]) + (f" ... ({len(names)})" if len(names) > 8 else "")


@dataclass(frozen=True, eq=False, repr=False)
class AtomFrame(ShortRepr):
    """One frame of a trajectory.

    Attributes:
        positions: Å, `[atoms, 3]`; molecules may be cut by the boundaries of the cell.
        cell: lattice vectors as rows, Å; zeros without a lattice vector.
        pbc: periodic directions.
        forces: eV/Å, `[atoms, 3]`; None if the frame has none.
        time: ps; None if it is not known.
        id: name of the frame, if the file gives one.
        probes: directions of Hessian-vector products, `[probes, atoms, 3]`; None without.
        hvps: the products, eV/Å² times the unit of the direction.
    """

    positions: Float[Array, "atoms 3"]
    cell: Float[Array, "3 3"]
    pbc: tuple[bool, bool, bool]
    forces: Float[Array, "atoms 3"] | None = None
    time: float | None = None
    id: str = ""
    probes: Float[Array, "probes atoms 3"] | None = None
    hvps: Float[Array, "probes atoms 3"] | None = None


class Trajectory(ABC):
    """Frames of the same atoms.

    Attributes:
        source: where they come from, for messages and metadata.
        topology: atoms and molecules.
    """

    source: str
    topology: AtomTopology

    @abstractmethod
    def __len__(self) -> int:
        """Number of frames."""

    @abstractmethod
    def frames(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[AtomFrame]:
        """Read frames one by one.

        Args:
            start: index of the first frame.
            stop: end of the range, exclusive; None for the last frame.
            step: 2 for every second frame.

        Returns:
            The frames, in Å and eV.

        Raises:
            HesseError: a frame that cannot be read; the message names it.
        """
