"""DeePMD folders: `type.raw`, `type_map.raw`, and in each `set.*` the arrays `coord`, `box`, `energy`, `force`,
`hessian`, `virial` (`.npy`, a row per frame). A folder may contain several systems, at any depth. Units are eV and Å by
definition of the format; forces should be minus the gradient, virials are minus the derivative with respect to strain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy import ndarray as Array

from hesse.datasets.dataset import Dataset
from hesse.datasets.formats.file_units import FileUnits, check_file_units
from hesse.datasets.formats.subset import ALL, SubsetLike, as_subset
from hesse.errors import FileFormatError, GeometryError, HesseError, LabelShapeError
from hesse.structures import Properties, Structure, own_masses, parse_elements

__all__ = ["find_deepmd_systems", "read_deepmd"]

_KNOWN_ARRAYS: Final = ("coord", "box", "energy", "force", "hessian", "virial", "real_atom_types")
_MIN_VACUUM: Final = 20.0
"""Å between a molecule and its periodic images on every side; with more, the box counts as a container."""
_MAX_TEXT_BYTES: Final = 1 << 20
"""Largest size of a text file that lists types."""


@dataclass(frozen=True)
class _DeepmdSet:
    """One `set.*` of a system: memory-mapped arrays, of which only the needed rows are read."""

    folder: Path
    system: str
    arrays: Mapping[str, Array]
    numbers: tuple[int, ...]
    type_map: tuple[int, ...]
    types: tuple[int, ...]
    type_masses: tuple[float, ...] | None
    periodic: bool

    @property
    def n_frames(self) -> int:
        return len(self.arrays["coord"])

    def id(self, frame: int) -> str:
        return f"{self.system}/{self.folder.name}/{frame:06d}"


def find_deepmd_systems(folder: Path) -> list[Path]:
    """Find all DeePMD systems at or below a folder.

    Args:
        folder: where the search begins.

    Returns:
        Folders with `type.raw` and at least one `set.*/coord.npy`, sorted.
    """
    folders = sorted(p.parent for p in folder.rglob("type.raw"))
    return [p for p in folders if any(p.glob("set.*/coord.npy"))]


def read_deepmd(folder: str | Path, *, units: FileUnits | None = None, subset: SubsetLike = ALL) -> Dataset:
    """Read the frames of all DeePMD systems at or below a folder. Structure ids are `system/set/frame`.

    A system without the file `nopbc` is periodic, unless its box leaves 20 Å of vacuum on every side: such a box holds
    a molecule (older versions of the format had no other way to store one), which is read without the box.

    Args:
        folder: folder of one system, or of several.
        units: units of the arrays; by default eV and Å.
        subset: the part of the frames to read.

    Returns:
        Structures in Å and labels in eV, eV/Å and eV/Å². `group` of a structure is its system.

    Raises:
        FileFormatError: the folder holds no system, or files are missing or damaged.
        LabelShapeError: arrays that do not fit each other.
        RequestError: no frame matches the subset.
    """
    folder, subset = Path(folder), as_subset(subset)
    check_file_units(units)
    systems = find_deepmd_systems(folder)
    if not systems:
        raise FileFormatError(f"{folder}: no DeePMD system in it (a folder with type.raw and set.*/coord.npy)")
    sets: list[_DeepmdSet] = []
    unknown_files: Counter[str] = Counter()
    for system in systems:
        sets += _iter_sets(folder, system, unknown_files)
    matching = [(s, f) for s in sets for f in range(s.n_frames) if subset.matches(s.id(f))]
    if not matching:
        raise subset.no_match_error(folder, [s.id(0) for s in sets[:3]])
    pairs, n_vacuum_boxes = [], 0
    for k in subset.indices(len(matching)):
        structure, labels = _read_frame(*matching[k])
        n_vacuum_boxes += matching[k][0].periodic and not structure.periodic
        pairs.append((structure, labels))
    units = units or FileUnits()
    structures, labels = units.to_internal([s for s, _ in pairs], Properties.concatenate([label for _, label in pairs]))
    metadata = {"source_units": str(units)}
    if n_vacuum_boxes:
        metadata["source_note"] = (
            f"{n_vacuum_boxes} of {len(pairs)} frames in boxes with at least {_MIN_VACUUM:g} Å of vacuum on every side "
            "were read as molecules, not as crystals"
        )
    not_read = dict(sorted(unknown_files.items()))
    return Dataset(structures, labels, metadata=metadata, source=str(folder), not_read=not_read)


def _iter_sets(root: Path, system: Path, unknown_files: Counter[str]) -> Iterator[_DeepmdSet]:
    """Sets of one system; names of files that are not read are counted in `unknown_files`."""
    types = [_integer(word, system / "type.raw") for word in _read_words(system / "type.raw")]
    if not (system / "type_map.raw").is_file():
        raise FileFormatError(
            f"{system}: type_map.raw is missing, so that the elements are unknown. Write one symbol for each type."
        )
    symbols = _read_words(system / "type_map.raw")
    try:
        type_numbers, type_masses = parse_elements(symbols)
    except GeometryError as error:
        raise GeometryError(f"{system / 'type_map.raw'}: {str(error).replace('atom', 'type', 1)}") from None
    type_map = tuple(type_numbers.tolist())
    if not types or min(types) < 0 or max(types) >= len(symbols):
        raise FileFormatError(f"{system}: type.raw holds types {sorted(set(types))} for {len(symbols)} symbols")
    name = system.name if system == root else system.relative_to(root).as_posix()
    for folder in sorted(system.glob("set.*")):
        arrays = {f.stem: _memmap(f) for f in sorted(folder.glob("*.npy")) if f.stem in _KNOWN_ARRAYS}
        unknown_files.update(f.name for f in folder.iterdir() if f.suffix != ".npy" or f.stem not in _KNOWN_ARRAYS)
        if "coord" not in arrays:
            raise FileFormatError(f"{folder}: coord.npy is missing")
        if arrays["coord"].ndim == 0:
            raise FileFormatError(f"{folder}: coord.npy is a single number, expected {3 * len(types)} for each frame")
        arrays = _as_frames(arrays, len(types))
        if (system / "nopbc").exists() and "virial" in arrays:
            unknown_files["virial.npy (not periodic)"] += 1
        deepmd_set = _DeepmdSet(
            folder=folder,
            system=name,
            arrays=arrays,
            types=tuple(types),
            numbers=tuple(type_map[t] for t in types),
            type_map=type_map,
            type_masses=None if type_masses is None else tuple(type_masses.tolist()),
            periodic=not (system / "nopbc").exists(),
        )
        _check_shapes(deepmd_set)
        yield deepmd_set


def _as_frames(arrays: Mapping[str, Array], n: int) -> dict[str, Array]:
    """The arrays of a single frame, which some programs write without the axis of frames, with this axis."""
    if arrays["coord"].shape != (3 * n,):
        return dict(arrays)
    sizes = {"energy": 1, "box": 9, "virial": 9, "force": 3 * n, "hessian": 9 * n * n, "real_atom_types": n}
    return {
        name: array.reshape(1, -1) if array.size == sizes.get(name, 3 * n) else array for name, array in arrays.items()
    }


def _check_shapes(deepmd_set: _DeepmdSet) -> None:
    n, n_frames = len(deepmd_set.numbers), deepmd_set.n_frames
    sizes = {"coord": 3 * n, "box": 9, "energy": 1, "force": 3 * n, "hessian": 9 * n * n, "virial": 9}
    sizes["real_atom_types"] = n
    for name, array in deepmd_set.arrays.items():
        if array.ndim == 0 or len(array) != n_frames or array.size != n_frames * sizes[name]:
            raise LabelShapeError(
                f"{deepmd_set.folder / name}.npy has shape {array.shape}, expected ({n_frames}, {sizes[name]}) for "
                f"{n_frames} frames of {n} atoms"
            )
    if deepmd_set.periodic and "box" not in deepmd_set.arrays:
        raise FileFormatError(
            f"{deepmd_set.folder}: box.npy is missing. If these are molecules, put an empty file nopbc beside type.raw."
        )


def _read_frame(deepmd_set: _DeepmdSet, frame: int) -> tuple[Structure, Properties]:
    n = len(deepmd_set.numbers)
    name = deepmd_set.id(frame)

    def row(key: str, *shape: int) -> Array | None:
        array = deepmd_set.arrays.get(key)
        return None if array is None else np.array(array[frame], dtype=np.float64).reshape(shape)

    numbers, types = np.array(deepmd_set.numbers), np.array(deepmd_set.types)
    if "real_atom_types" in deepmd_set.arrays:
        types = np.asarray(deepmd_set.arrays["real_atom_types"][frame], dtype=np.int64)
        if types.max() >= len(deepmd_set.type_map):
            raise FileFormatError(f"{deepmd_set.folder}/real_atom_types.npy: type {types.max()} has no symbol")
        numbers = np.where(types >= 0, np.array(deepmd_set.type_map)[types], 0)
    is_real = numbers > 0  # systems of mixed sizes are padded with atoms of type -1
    masses = None if deepmd_set.type_masses is None else np.array(deepmd_set.type_masses)[types][is_real]
    positions, cell, virial = row("coord", n, 3), row("box", 3, 3), row("virial", 3, 3)
    forces, hessian = row("force", n, 3), row("hessian", n, 3, n, 3)
    assert positions is not None
    energy = row("energy", 1)
    periodic = deepmd_set.periodic and cell is not None and not _is_vacuum_box(cell, positions[is_real])
    try:
        structure = Structure(
            numbers[is_real],
            positions[is_real],
            id=name,
            cell=np.zeros((3, 3)) if cell is None else cell,
            pbc=(periodic,) * 3,
            group=deepmd_set.system,
            masses=own_masses(numbers[is_real], masses),
        )
        volume = abs(np.linalg.det(structure.cell))
        labels = Properties.single(
            len(structure),
            energy=None if energy is None else float(energy[0]),
            forces=None if forces is None else forces[is_real],
            hessian=None if hessian is None else hessian[is_real][:, :, is_real],
            stress=-virial / volume if virial is not None and periodic else None,
            structure_id=name,
        )
    except HesseError as error:
        raise type(error)(f"{deepmd_set.folder}: {error}") from None
    return structure, labels


def _is_vacuum_box(cell: Array, positions: Array) -> bool:
    """True if all atoms are farther than `_MIN_VACUUM` from all periodic images."""
    volume = abs(np.linalg.det(cell))
    if not (np.isfinite(cell).all() and np.isfinite(positions).all() and volume > 0):
        return False
    normals = np.cross(cell[[1, 2, 0]], cell[[2, 0, 1]])
    normals /= np.linalg.norm(normals, axis=1)[:, None]
    heights = np.abs((cell * normals).sum(1))
    extents = np.ptp(positions @ normals.T, axis=0)
    return bool((heights - extents > _MIN_VACUUM).all())


def _memmap(file: Path) -> Array:
    """Memory-map an array of numbers. Arrays of objects are pickles and raise FileFormatError."""
    try:
        # With mmap a damaged header cannot allocate more memory than the file has bytes.
        array: Any = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # the header is parsed as Python: damage can raise any error
        raise FileFormatError(f"{file}: truncated, damaged, or not an array of numbers ({error})") from error
    if array.dtype.kind not in "fiu":
        raise FileFormatError(f"{file}: holds {array.dtype}, expected numbers")
    return array


def _read_words(file: Path) -> list[str]:
    try:
        with open(file, encoding="utf-8") as handle:
            return handle.read(_MAX_TEXT_BYTES).split()
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{file}: cannot be read as text ({error})") from error


def _integer(word: str, file: Path) -> int:
    try:
        return int(word)
    except ValueError:
        raise FileFormatError(f'{file}: expected whole numbers, got "{word[:20]}"') from None
