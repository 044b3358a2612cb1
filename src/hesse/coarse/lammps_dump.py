"""Text dumps of LAMMPS, with molecules and forces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, TextIO

import numpy as np
from ase.data import atomic_masses, atomic_numbers
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.coarse.atom_frames import AtomFrame, AtomTopology, Trajectory, split_by_molecule
from hesse.errors import FileFormatError, RequestError, UnitError, did_you_mean
from hesse.units import ENERGY_UNITS

__all__ = ["LammpsTrajectory", "is_lammps_dump"]

_UNITS: Final[Mapping[str, tuple[float, float, float]]] = {
    "real": (1.0, ENERGY_UNITS["kcal/mol"], 1e-3),
    "metal": (1.0, 1.0, 1.0),
}
"""Å, eV and ps of the units of length, energy and time."""
_POSITIONS: Final = (("xu", "yu", "zu"), ("x", "y", "z"), ("xs", "ys", "zs"), ("xsu", "ysu", "zsu"))


def is_lammps_dump(path: Path) -> bool:
    """Recognize a text dump.

    Args:
        path: any file.

    Returns:
        True if its first line is that of a dump.
    """
    try:
        with open(path, "rb") as handle:
            return handle.read(14) == b"ITEM: TIMESTEP"
    except OSError:
        return False


class LammpsTrajectory(Trajectory):
    """A text dump with the columns `id`, `mol`, positions and forces (`dump ... custom ... id mol type mass x y z fx fy
    fz`). Atoms may be in any order.

    Args:
        path: the file.
        units: "real" or "metal", as in the LAMMPS input: the file does not say.
        names: names of molecules by the types of their atoms ("1 2 2"); by default "M1", "M2", ... in the order in
            which the kinds occur.
        timestep: fs; None if it is not known.

    Raises:
        UnitError: other units.
        FileFormatError: columns that are missing, or a damaged file.
    """

    def __init__(
        self, path: Path, *, units: str | None, names: Mapping[str, str] | None = None, timestep: float | None = None
    ) -> None:
        if units is None or units not in _UNITS:
            given = "" if units is None else f", got {units!r}. {did_you_mean(units, _UNITS)}"
            raise UnitError(
                f"{path}: a LAMMPS dump does not state its units: give them as in the LAMMPS input (--lammps-units "
                f"real or metal){given}"
            )
        self.source, self._path, self._timestep = str(path), path, timestep
        self._length, self._energy, self._time = _UNITS[units]
        self._offsets = _frame_offsets(path)
        self.topology = _topology(self._read(0), path, dict(names or {}))

    def __len__(self) -> int:
        return len(self._offsets)

    def frames(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[AtomFrame]:
        """See `Trajectory.frames`."""
        for i in range(len(self))[start:stop:step]:
            frame = self._read(i)
            if len(frame.table) != len(self.topology):
                raise FileFormatError(
                    f"{self.source}: frame {i} has {len(frame.table)} atoms, the first one {len(self.topology)}: a "
                    "trajectory is of one system"
                )
            forces = frame.vectors(("fx", "fy", "fz"))
            time = None if self._timestep is None else frame.step * self._timestep * 1e-3
            yield AtomFrame(
                positions=frame.positions() * self._length,
                cell=frame.cell * self._length,
                pbc=frame.pbc,
                forces=None if forces is None else forces * (self._energy / self._length),
                time=time,
            )

    def _read(self, index: int) -> _DumpFrame:
        with open(self._path, encoding="utf-8", errors="replace") as handle:
            handle.seek(self._offsets[index])
            try:
                return _DumpFrame(handle)
            except (ValueError, IndexError) as error:
                raise FileFormatError(f"{self.source}: frame {index} is damaged or cut off ({error})") from None


class _DumpFrame:
    """One frame, sorted by id."""

    def __init__(self, handle: TextIO) -> None:
        handle.readline()
        self.step = int(handle.readline())
        handle.readline()
        count = int(handle.readline())
        header = handle.readline().split()
        bounds = np.array([handle.readline().split() for _ in range(3)], dtype=np.float64)
        flags = [word for word in header[3:] if len(word) == 2]
        x, y, z = [word == "pp" for word in flags] if len(flags) == 3 else (True, True, True)
        self.pbc = (x, y, z)
        self.origin, self.cell = _cell(bounds)
        self.columns = handle.readline().split()[2:]
        rows = [handle.readline().split() for _ in range(count)]
        if any(len(row) != len(self.columns) for row in rows):
            raise ValueError(
                f"expected {len(self.columns)} columns ({' '.join(self.columns)}) for each of {count} atoms"
            )
        ids = self.column(rows, "id")
        order = range(count) if ids is None else np.argsort([int(i) for i in ids], kind="stable")
        self.table = [rows[i] for i in order]

    def column(self, rows: list[list[str]], name: str) -> list[str] | None:
        """Texts of a column, or None."""
        if name not in self.columns:
            return None
        k = self.columns.index(name)
        return [row[k] for row in rows]

    def vectors(self, names: tuple[str, str, str]) -> Float[Array, "atoms 3"] | None:
        """Numbers of three columns, or None."""
        if not set(names) <= set(self.columns):
            return None
        return np.array([self.column(self.table, name) for name in names], dtype=np.float64).T

    def positions(self) -> Float[Array, "atoms 3"]:
        """Positions, whichever columns give them. Raises ValueError if none do."""
        for names in _POSITIONS:
            values = self.vectors(names)
            if values is not None:
                return values if "s" not in names[0] else self.origin + values @ self.cell
        raise ValueError("no columns with positions (x y z, xu yu zu, xs ys zs)")


def _cell(bounds: Float[Array, "3 k"]) -> tuple[Float[Array, "3"], Float[Array, "3 3"]]:
    """Origin and lattice vectors: of tilted boxes, the bounds are those of the box around them."""
    low, high = bounds[:, 0].copy(), bounds[:, 1].copy()
    xy, xz, yz = bounds[:, 2] if bounds.shape[1] == 3 else (0.0, 0.0, 0.0)
    low[0] -= min(0.0, xy, xz, xy + xz)
    high[0] -= max(0.0, xy, xz, xy + xz)
    low[1] -= min(0.0, yz)
    high[1] -= max(0.0, yz)
    size = high - low
    return low, np.array([[size[0], 0.0, 0.0], [xy, size[1], 0.0], [xz, yz, size[2]]])


def _frame_offsets(path: Path) -> list[int]:
    offsets, position = [], 0
    with open(path, "rb") as handle:
        for line in handle:
            if line.startswith(b"ITEM: TIMESTEP"):
                offsets.append(position)
            position += len(line)
    return offsets


def _topology(frame: _DumpFrame, path: Path, names: dict[str, str]) -> AtomTopology:
    rows = frame.table
    molecule_ids = frame.column(rows, "mol")
    if molecule_ids is None:
        raise FileFormatError(
            f"{path}: the dump has no column mol ({' '.join(frame.columns)}), so that molecules are not known: dump it "
            "(dump ... custom ... id mol type mass x y z fx fy fz), or give a topology (--topology)"
        )
    labels = frame.column(rows, "element") or frame.column(rows, "type")
    masses = frame.column(rows, "mass")
    if labels is None:
        raise FileFormatError(f"{path}: the dump has no column type or element")
    if masses is None and all(label in atomic_numbers for label in labels):
        masses = [str(atomic_masses[atomic_numbers[label]]) for label in labels]
    if masses is None:
        raise FileFormatError(
            f"{path}: the dump has no column mass ({' '.join(frame.columns)}), which centers of mass need: dump it, or "
            "the column element"
        )
    _, molecules = np.unique(np.array(molecule_ids, dtype=np.int64), return_inverse=True)
    kinds: Counter[tuple[str, ...]] = Counter()
    molecule_names = []
    for atoms in split_by_molecule(molecules):
        kind = tuple(labels[i] for i in atoms)
        kinds[kind] += 1
        molecule_names.append(names.get(" ".join(kind), f"M{list(kinds).index(kind) + 1}"))
    unknown = set(names) - {" ".join(kind) for kind in kinds}
    if unknown:
        raise RequestError(
            f'{path}: no molecule has the atoms "{min(unknown)}". '
            f"{did_you_mean(min(unknown), [' '.join(k) for k in kinds])}"
        )
    return AtomTopology(tuple(labels), np.array(masses, dtype=np.float64), molecules, tuple(molecule_names))
