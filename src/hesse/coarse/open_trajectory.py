"""All-atom trajectories of any kind, opened by one function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from hesse.coarse.atom_frames import Trajectory
from hesse.coarse.dataset_trajectory import DatasetTrajectory
from hesse.coarse.lammps_dump import LammpsTrajectory, is_lammps_dump
from hesse.coarse.mdanalysis_trajectory import UniverseTrajectory, open_universe
from hesse.datasets import Dataset, as_dataset, read_dataset
from hesse.errors import FileFormatError, RequestError

__all__ = ["open_trajectory"]

_DATASETS = (".h5", ".hdf5", ".extxyz", ".xyz", ".traj")
"""Files of Hesse and ASE. A .h5 file with a topology is one of MDAnalysis (H5MD)."""


def open_trajectory(
    source: Any,
    *,
    topology: str | Path | None = None,
    molecules: Literal["residue", "fragment"] = "residue",
    molecule_size: int | None = None,
    lammps_units: str | None = None,
    timestep: float | None = None,
    names: Mapping[str, str] | None = None,
) -> Trajectory:
    """Open an all-atom trajectory.

    Args:
        source: a file (or several that follow each other, with a topology); a data set, ASE atoms or a list of them; a
            universe of MDAnalysis; or a `Trajectory`.
        topology: file with atoms and residues for formats that hold positions only; MDAnalysis reads both.
        molecules: with a topology, whether residues or bonded fragments are the molecules.
        molecule_size: of frames without a topology: number of consecutive atoms of every molecule; None to find
            molecules by their bonds.
        lammps_units: units of a LAMMPS dump, "real" or "metal".
        timestep: fs, of a LAMMPS dump.
        names: names of molecules, by formula (frames without a topology) or types of atoms (LAMMPS dumps).

    Returns:
        The trajectory.

    Raises:
        FileFormatError: a file that cannot be read, or of a format that needs a topology.
        MissingExtraError: MDAnalysis is needed and not installed.
        RequestError: options that do not fit the source.
        UnitError: a LAMMPS dump without `lammps_units`.
    """
    if isinstance(source, Trajectory):
        return source
    if hasattr(source, "trajectory") and hasattr(source, "atoms"):
        return UniverseTrajectory(source, molecules=molecules)
    renamed = dict(names or {})
    if topology is not None:
        return UniverseTrajectory(open_universe(topology, source), molecules=molecules, source=_shown(source))
    if isinstance(source, str | Path):
        path = Path(source)
        if is_lammps_dump(path):
            return LammpsTrajectory(path, units=lammps_units, names=renamed, timestep=timestep)
        if path.exists() and path.suffix.lower() not in _DATASETS:
            raise FileFormatError(
                f"{path}: a trajectory of this kind holds no atoms and molecules; give the topology that belongs to it "
                "(--topology: .gro, .tpr, .pdb, .psf, .data). Without one, LAMMPS dumps, extended XYZ and Hesse's .h5 "
                "files are read"
            )
        return DatasetTrajectory(read_dataset(path), molecule_size=molecule_size, names=renamed)
    if isinstance(source, Sequence) and source and all(isinstance(file, str | Path) for file in source):
        raise RequestError("several files need a topology; map others one by one, and join the results")
    dataset = source if isinstance(source, Dataset) else as_dataset(source)
    return DatasetTrajectory(dataset, molecule_size=molecule_size, names=renamed)


def _shown(source: Any) -> str:
    files = [source] if isinstance(source, str | Path) else list(source)
    return ", ".join(str(file) for file in files)
