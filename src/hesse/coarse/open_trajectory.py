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
    molecules: Literal["residue", "fragment"] | None = None,
    molecule_size: int | None = None,
    lammps_units: str | None = None,
    timestep: float | None = None,
    frame_time: float | None = None,
    names: Mapping[str, str] | None = None,
) -> Trajectory:
    """Open an all-atom trajectory.

    Args:
        source: a file (or several that follow each other, with a topology); a data set, ASE atoms or a list of them; a
            universe of MDAnalysis; or a `Trajectory`.
        topology: file with atoms and residues for formats that hold positions only; MDAnalysis reads both.
        molecules: with a topology, whether residues (the default) or bonded fragments are the molecules.
        molecule_size: of frames without a topology: number of consecutive atoms of every molecule; None to find
            molecules by their bonds.
        lammps_units: units of a LAMMPS dump, "real" or "metal".
        timestep: fs, of a LAMMPS dump.
        frame_time: ps between frames that do not state their time (extended XYZ, Hesse's .h5).
        names: names of molecules, by formula (frames without a topology) or types of atoms (LAMMPS dumps).

    Returns:
        The trajectory.

    Raises:
        FileFormatError: a file that cannot be read, or of a format that needs a topology.
        MissingExtraError: MDAnalysis is needed and not installed.
        RequestError: options that do not fit the source.
        UnitError: a LAMMPS dump without `lammps_units`.
    """
    given = {
        "molecules": molecules,
        "molecule_size": molecule_size,
        "lammps_units": lammps_units,
        "timestep": timestep,
        "frame_time": frame_time,
        "names": names or None,
    }
    for name in ("timestep", "frame_time"):
        value = given[name]
        if value is not None and not (isinstance(value, int | float) and 0 < value < float("inf")):
            raise RequestError(f"{name} (--{name.replace('_', '-')}): expected a number above 0, got {value!r}")
    if isinstance(source, Trajectory):
        _refuse(given, "a trajectory that is open already")
        return source
    if hasattr(source, "trajectory") and hasattr(source, "atoms"):
        _refuse(given, "a universe of MDAnalysis", "molecules")
        return UniverseTrajectory(source, molecules=molecules or "residue")
    renamed = dict(names or {})
    if topology is not None:
        _refuse(given, "a trajectory with a topology", "molecules")
        return UniverseTrajectory(
            open_universe(topology, source), molecules=molecules or "residue", source=_shown(source)
        )
    if isinstance(source, str | Path):
        path = Path(source)
        if is_lammps_dump(path):
            _refuse(given, "a LAMMPS dump, which has molecules of its own", "lammps_units", "timestep", "names")
            return LammpsTrajectory(path, units=lammps_units, names=renamed, timestep=timestep)
        if path.exists() and path.suffix.lower() not in _DATASETS:
            raise FileFormatError(
                f"{path}: a trajectory of this kind holds no atoms and molecules; give the topology that belongs to it "
                "(--topology: .gro, .tpr, .pdb, .psf, .data). Without one, LAMMPS dumps, extended XYZ and Hesse's .h5 "
                "files are read"
            )
    elif isinstance(source, Sequence) and source and all(isinstance(file, str | Path) for file in source):
        raise RequestError("several files need a topology; map others one by one, and join the results")
    where = str(source) if isinstance(source, str | Path) else "a data set"
    _refuse(given, f"{where}, which is no LAMMPS dump and has no topology", "molecule_size", "frame_time", "names")
    if isinstance(source, str | Path):
        dataset = read_dataset(Path(source))
    else:
        dataset = source if isinstance(source, Dataset) else as_dataset(source)
    return DatasetTrajectory(dataset, molecule_size=molecule_size, names=renamed, frame_time=frame_time)


def _refuse(given: Mapping[str, object], source: str, *allowed: str) -> None:
    """Refuse options that have no effect on a source. Raises RequestError."""
    wrong = [name for name, value in given.items() if value is not None and name not in allowed]
    if wrong:
        shown = " and ".join(f"{name} (--{name.replace('_', '-')})" for name in wrong)
        raise RequestError(f"{shown}: has no effect on {source}; leave it out")


def _shown(source: Any) -> str:
    files = [source] if isinstance(source, str | Path) else list(source)
    return ", ".join(str(file) for file in files)
