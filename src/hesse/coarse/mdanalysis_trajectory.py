"""Trajectories that MDAnalysis reads: GROMACS, AMBER, NAMD, H5MD and many more, with its language of selections."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from jaxtyping import Int
from numpy import ndarray as Array

from hesse.coarse.atom_frames import AtomFrame, AtomTopology, Trajectory, split_by_molecule
from hesse.coarse.bead_mapping import BeadMapping, Center, map_atoms
from hesse.errors import FileFormatError, RequestError, first_line
from hesse.runtime.imports import import_optional
from hesse.units import ENERGY_UNITS

__all__ = ["UniverseTrajectory", "map_selections", "open_universe"]

_FORCE: Final = ENERGY_UNITS["kj/mol"]
"""eV/Å of MDAnalysis' unit of forces, kJ/(mol Å)."""


def open_universe(topology: str | Path, trajectory: str | Path | Sequence[str | Path]) -> Any:
    """Open files by MDAnalysis.

    Args:
        topology: atoms and residues: .gro, .tpr, .pdb, .psf, .data, ...
        trajectory: one file or several that follow each other: .trr, .h5md, .dcd, ...

    Returns:
        The universe.

    Raises:
        MissingExtraError: MDAnalysis is not installed.
        FileFormatError: it cannot read them.
    """
    module = import_optional("MDAnalysis", extra="coarse", purpose=f"reading {topology} and a trajectory")
    files = [str(trajectory)] if isinstance(trajectory, str | Path) else [str(file) for file in trajectory]
    for file in (str(topology), *files):
        if not Path(file).exists():
            raise FileFormatError(f"{file}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return module.Universe(str(topology), *files, to_guess=())
    except Exception as error:  # its readers raise errors of many types
        raise FileFormatError(
            f"MDAnalysis cannot read {topology} with {', '.join(files)}: {first_line(error)}"
        ) from error


class UniverseTrajectory(Trajectory):
    """The frames of a universe of MDAnalysis, which converts all units to its own (Å, ps, kJ/(mol Å)).

    Args:
        universe: the universe.
        molecules: "residue", or "fragment" for all atoms that bonds of the topology connect.
        source: name of the data.

    Raises:
        RequestError: no masses, or no bonds where fragments are asked for.
    """

    def __init__(
        self, universe: Any, *, molecules: Literal["residue", "fragment"] = "residue", source: str | None = None
    ) -> None:
        self.universe = universe
        self.source = source or str(getattr(universe.trajectory, "filename", "the universe"))
        atoms = universe.atoms
        if molecules == "fragment":
            if not hasattr(universe, "bonds") or not len(universe.bonds):
                raise RequestError(
                    f"{self.source}: the topology has no bonds, from which fragments follow; use residues, or a "
                    "topology with bonds (.tpr, .psf, .data)"
                )
            index = np.asarray(atoms.fragindices)
            names = [str(atoms[int(members[0])].resname) for members in split_by_molecule(index)]
        else:
            index = np.asarray(atoms.resindices)
            names = [str(name) for name in universe.residues.resnames]
        self.topology = AtomTopology(
            names=tuple(str(name) for name in _atom_names(universe)),
            masses=_masses(universe, self.source),
            molecules=index.astype(np.int64),
            molecule_names=tuple(names),
            charges=np.asarray(atoms.charges) if hasattr(atoms, "charges") else None,
        )

    def __len__(self) -> int:
        return len(self.universe.trajectory)

    def frames(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[AtomFrame]:
        """See `Trajectory.frames`."""
        from MDAnalysis.lib.mdamath import triclinic_vectors

        for i in range(len(self))[start:stop:step]:
            try:
                now = self.universe.trajectory[i]
            except Exception as error:  # of many types
                raise FileFormatError(f"{self.source}: frame {i} cannot be read: {first_line(error)}") from error
            has_cell = now.dimensions is not None and bool(np.all(now.dimensions[:3] > 0))
            yield AtomFrame(
                positions=now.positions.astype(np.float64),
                cell=triclinic_vectors(now.dimensions).astype(np.float64) if has_cell else np.zeros((3, 3)),
                pbc=(has_cell,) * 3,
                forces=now.forces.astype(np.float64) * _FORCE if now.has_forces else None,
                time=float(now.time),
            )


def map_selections(
    trajectory: UniverseTrajectory,
    selections: Sequence[tuple[str, str]],
    *,
    center: Center = "mass",
    allow_lost_atoms: bool = False,
) -> BeadMapping:
    """Beads of the atoms that selections of MDAnalysis choose, one in each molecule.

    Args:
        trajectory: its topology is selected from.
        selections: bead type and selection of each: `("CH3", "resname ETH and name C1 H11 H12 H13")`.
        center: see `hesse.coarse.Center`.
        allow_lost_atoms: also if atoms are in no selection.

    Returns:
        The mapping; beads are ordered as the molecules, and within one as the selections.

    Raises:
        RequestError: a selection that MDAnalysis does not understand or that is empty, or atoms in none.
    """
    topology = trajectory.topology
    beads: list[tuple[int, int, str, Int[Array, "n"]]] = []
    for k, (bead_type, text) in enumerate(selections):
        try:
            chosen = np.asarray(trajectory.universe.select_atoms(text).indices)
        except Exception as error:  # SelectionError and others
            raise RequestError(f"selection {text!r} of bead {bead_type!r}: {first_line(error)}") from error
        if not len(chosen):
            raise RequestError(f"selection {text!r} of bead {bead_type!r} chooses no atoms")
        owners = topology.molecules[chosen]
        beads += [(int(m), k, bead_type, np.sort(chosen[owners == m])) for m in np.unique(owners)]
    beads.sort(key=lambda bead: bead[:2])
    mapping = map_atoms(
        topology,
        [atoms for *_, atoms in beads],
        [bead_type for _, _, bead_type, _ in beads],
        center=center,
        molecules=[m for m, *_ in beads],
        description="; ".join(f"{bead_type}: {text}" for bead_type, text in selections),
    )
    lost = mapping.lost_atoms()
    if len(lost) and not allow_lost_atoms:
        i = int(lost[0])
        raise RequestError(
            f"{len(lost)} of {len(topology)} atoms are in no selection, such as {topology.names[i]} of "
            f"{topology.molecule_names[topology.molecules[i]]} (atom {i}): their forces would be lost. Select them, or "
            "allow it (allow_lost_atoms, --allow-lost-atoms)"
        )
    return mapping


def _atom_names(universe: Any) -> Sequence[str]:
    for attribute in ("names", "types"):
        if hasattr(universe.atoms, attribute):
            return [str(name) for name in getattr(universe.atoms, attribute)]
    return ["X"] * len(universe.atoms)


def _masses(universe: Any, source: str) -> Any:
    if not hasattr(universe.atoms, "masses"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            universe.guess_TopologyAttrs(to_guess=("types", "masses"))
    masses = np.asarray(universe.atoms.masses, dtype=np.float64)
    if not (np.isfinite(masses).all() and (masses > 0).all()):
        wrong = int(np.flatnonzero(~(masses > 0))[0])
        raise RequestError(
            f"{source}: atom {wrong} ({universe.atoms[wrong].name}) has no mass, which centers of mass need; use a "
            "topology with masses (.tpr, .psf, .data), or remove virtual sites"
        )
    return masses
