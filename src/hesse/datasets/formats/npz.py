"""NumPy archives (`.npz`): a container without units and without a fixed layout. Three common layouts are read:

- one set of arrays per structure (HORM): `ids`, and for each id iii `z_iii`, `pos_iii`, optionally `forces_iii`,
  `hessian_iii`; `energy` and `formula` (which becomes the group) for all structures;
- many geometries of one molecule (rMD17): `nuclear_charges`, `coords`, `energies`, `forces`;
- all structures end to end, the simplest layout for another program to write: `natoms` `[S]`, `z` `[A]`, `pos`
  `[A, 3]`, optionally `energy` `[S]`, `forces` `[A, 3]`, `hessian` (9n² elements of each structure), `ids` and `group`
  `[S]`. A collated batch of HORM's records has this layout.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy import ndarray as Array

from hesse.datasets.dataset import Dataset
from hesse.datasets.transforms import convert_units
from hesse.errors import FileFormatError, HesseError, LabelShapeError, UnitError
from hesse.runtime.filesystem import check_input_file
from hesse.structures import Properties, Structure, is_charge_key, read_charge_state

__all__ = ["read_npz"]

_NUMBERS: Final = ("z", "charges", "numbers", "atomic_numbers")
_NUMBERED: Final = re.compile(r"(.+)_\d+$")
_POSITIONS: Final = ("pos", "positions", "coordinates")
_ARCHIVE_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
)


def read_npz(
    path: str | Path, *, energy_unit: str | None = None, length_unit: str | None = None, limit: int | None = None
) -> Dataset:
    """Read an archive. The units are required, because such files never state them.

    Args:
        path: the file.
        energy_unit: unit of energies.
        length_unit: unit of lengths; forces are in energy/length, Hessians in energy/length².
        limit: largest number of structures to read, from the first; None for all.

    Returns:
        Structures and labels in eV and Å; structures without ids are named `FILE-iii`.

    Raises:
        UnitError: a unit is missing or unknown.
        FileFormatError: another layout, a damaged file, or arrays that do not fit each other.
        LabelShapeError: a label that does not fit its structure.
    """
    path = Path(path)
    if energy_unit is None or length_unit is None:
        raise UnitError(
            f"{path}: .npz files state no units. Give both, for example `--energy-unit eV --length-unit angstrom` "
            "(forces are taken as energy/length, Hessians as energy/length²)"
        )
    check_input_file(path)
    try:
        # numpy does not close a file that it cannot read.
        with open(path, "rb") as handle:
            archive = np.load(handle, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise FileFormatError(f"{path}: a single array, expected an archive of several (.npz)")
            with archive:
                recorded = _Recorded(path, archive)
                items = _with_charges(path, _read_layout(path, recorded, limit), recorded)
                not_read = _not_read(archive.files, recorded.used, len(items))
    except HesseError:
        raise
    except _ARCHIVE_ERRORS as error:
        if "allow_pickle" in str(error):
            raise FileFormatError(
                f"{path}: holds arrays of objects, which are pickles; loading them runs any program that they hold, so "
                "they are not read. Save plain arrays: natoms, z, pos, energy, forces, hessian, structures end to end."
            ) from error
        raise FileFormatError(f"{path}: truncated, damaged, or not a NumPy archive ({error})") from error
    if not items:
        raise FileFormatError(f"{path}: the archive describes no structures")
    labels = Properties.concatenate([label for _, label in items])
    structures, labels = convert_units([s for s, _ in items], labels, energy=energy_unit, length=length_unit)
    return Dataset(structures, labels, source=str(path), not_read=not_read)


def _not_read(names: list[str], used: set[str], n_structures: int) -> dict[str, int]:
    """Arrays that were not asked for; those of single structures (`dipole_000`) are counted together."""
    known = {_NUMBERED.sub(r"\1", name) for name in used if _NUMBERED.match(name)}
    numbered: Counter[str] = Counter()
    single: dict[str, int] = {}
    for name in names:
        stem = _NUMBERED.sub(r"\1", name)
        if name in used or (stem != name and stem in known):  # of structures that were not selected
            continue
        if stem == name:
            single[f"array {name}"] = n_structures
        else:
            numbered[f"arrays {stem}_…"] += 1
    return {**single, **numbered}


class _Recorded(Mapping[str, Array]):
    """An archive that remembers which arrays were asked for; those that hold neither numbers nor text are refused."""

    def __init__(self, path: Path, archive: np.lib.npyio.NpzFile) -> None:
        self.path, self.archive, self.files = path, archive, archive.files
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> Array:
        if name not in self.files:
            raise KeyError(name)
        self.used.add(name)
        values = np.asarray(self.archive[name])
        if values.dtype.kind not in "biufSU":
            raise FileFormatError(f"{self.path}: {name} holds {values.dtype}, expected numbers or text")
        return values

    def __contains__(self, name: object) -> bool:
        return name in self.files

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


def _with_charges(
    path: Path, items: list[tuple[Structure, Properties]], archive: Mapping[str, Array]
) -> list[tuple[Structure, Properties]]:
    """Structures with the charges and multiplicities that arrays of one value, or of one for each structure, state."""
    states = {name: archive[name].reshape(-1) for name in archive if is_charge_key(name)}
    states = {name: values for name, values in states.items() if values.size and values.dtype.kind in "iuf"}
    if not states:
        return items
    result = []
    for i, (structure, labels) in enumerate(items):
        info = {}
        for name, values in states.items():
            if values.size != 1 and values.size < len(items):
                raise FileFormatError(f"{path}: {name} has {values.size} values for {len(items)} structures")
            info[name] = values[0 if values.size == 1 else i].item()
        try:
            state = read_charge_state(info, structure.numbers)
        except HesseError as error:
            raise type(error)(f'{path}: structure "{structure.id}": {error}') from None
        result.append((replace(structure, charge=state.charge, multiplicity=state.multiplicity), labels))
    return result


def _read_layout(path: Path, archive: _Recorded, limit: int | None) -> list[tuple[Structure, Properties]]:
    if "ids" in archive and not _is_packed(archive):
        return _read_horm(path, archive, limit)
    if "nuclear_charges" in archive and "coords" in archive:
        return _read_rmd17(path, archive, limit)
    if _is_packed(archive):
        return _read_packed(path, archive, limit)
    raise FileFormatError(
        f"{path}: expected the arrays ids, z_000, pos_000, … or nuclear_charges, coords, … or natoms, z, pos, …; found "
        f"{', '.join(list(archive)[:6]) or 'none'}"
    )


def _read_horm(path: Path, archive: Mapping[str, np.ndarray], limit: int | None) -> list[tuple[Structure, Properties]]:
    ids = np.atleast_1d(archive["ids"])
    energies = archive.get("energy")
    groups = archive.get("formula")
    for name, values in (("energy", energies), ("formula", groups)):
        if values is not None and values.shape != ids.shape:
            raise FileFormatError(f"{path}: {name} has shape {values.shape}, expected one for each id, {ids.shape}")
    suffixes = {key.removeprefix("pos_") for key in archive if key.startswith("pos_")}
    items = []
    for i, number in enumerate(map(str, ids.tolist()[:limit])):
        suffix = next((s for s in (number, f"{number:0>3}") if s in suffixes), None)
        if suffix is None or f"z_{suffix}" not in archive:
            raise FileFormatError(f"{path}: id {number} is listed, but z_{number:0>3} or pos_{number:0>3} is missing")
        name = f"{path.stem}-{suffix}"
        structure = _make_structure(
            path, archive[f"z_{suffix}"], archive[f"pos_{suffix}"], name, "" if groups is None else str(groups[i])
        )
        n = len(structure)
        hessian = archive.get(f"hessian_{suffix}")
        if hessian is not None:
            if hessian.size != 9 * n * n:
                raise LabelShapeError(
                    f'{path}: structure "{name}": hessian of shape {hessian.shape}, expected ({3 * n}, {3 * n})'
                )
            hessian = hessian.reshape(n, 3, n, 3)
        labels = _make_labels(
            path,
            n,
            name,
            energy=None if energies is None else energies[i],
            forces=archive.get(f"forces_{suffix}"),
            hessian=hessian,
        )
        items.append((structure, labels))
    return items


def _read_rmd17(path: Path, archive: Mapping[str, np.ndarray], limit: int | None) -> list[tuple[Structure, Properties]]:
    numbers, coordinates = archive["nuclear_charges"], archive["coords"]
    energies, forces = archive.get("energies"), archive.get("forces")
    if coordinates.ndim != 3:
        raise FileFormatError(f"{path}: coords has shape {coordinates.shape}, expected (geometries, atoms, 3)")
    for name, values in (("energies", energies), ("forces", forces)):
        if values is not None and values.shape[:1] != coordinates.shape[:1]:
            raise FileFormatError(f"{path}: {name} has shape {values.shape} for {len(coordinates)} geometries")
    items = []
    for i in range(len(coordinates))[:limit]:
        structure = _make_structure(path, numbers, coordinates[i], f"{path.stem}-{i:06d}", path.stem)
        labels = _make_labels(
            path,
            len(structure),
            structure.id,
            energy=None if energies is None else energies[i],
            forces=None if forces is None else forces[i],
        )
        items.append((structure, labels))
    return items


def _make_structure(path: Path, numbers: np.ndarray, positions: np.ndarray, name: str, group: str) -> Structure:
    try:
        return Structure(numbers, positions, id=name, group=group)
    except HesseError as error:
        raise type(error)(f"{path}: {error}") from None


def _make_labels(
    path: Path,
    n: int,
    name: str,
    *,
    energy: np.ndarray | None = None,
    forces: np.ndarray | None = None,
    hessian: np.ndarray | None = None,
) -> Properties:
    value = None
    if energy is not None:
        single = np.asarray(energy, dtype=np.float64)
        if single.size != 1:
            raise LabelShapeError(f'{path}: structure "{name}": energy must be one number, got {single.size}')
        value = float(single.item())
    try:
        return Properties.single(n, energy=value, forces=forces, hessian=hessian, structure_id=name)
    except HesseError as error:
        raise type(error)(f"{path}: {error}") from None


def _is_packed(names: Mapping[str, Array]) -> bool:
    """True for an archive with all structures end to end."""
    return "natoms" in names


def _read_packed(path: Path, archive: Mapping[str, Array], limit: int | None) -> list[tuple[Structure, Properties]]:
    """Structures and labels of an archive with all structures end to end, in the units of the file."""
    sizes = np.asarray(archive["natoms"])
    if sizes.ndim != 1 or sizes.dtype.kind not in "iu" or (sizes < 1).any():
        raise FileFormatError(f"{path}: natoms must be a list of whole numbers from 1, got {sizes.dtype}{sizes.shape}")
    sizes = sizes.astype(np.int64)
    numbers, positions = (_first_present(path, archive, names) for names in (_NUMBERS, _POSITIONS))
    atoms, elements, count = int(sizes.sum()), int((9 * sizes**2).sum()), len(sizes)
    expected_sizes = {"energy": count, "forces": 3 * atoms, "hessian": elements, "ids": count, "group": count}
    if numbers.size != atoms or positions.size != 3 * atoms:
        raise FileFormatError(
            f"{path}: natoms sums to {atoms}, but there are {numbers.size} atomic numbers and positions of shape "
            f"{positions.shape}"
        )
    arrays = {name: archive[name] for name in expected_sizes if name in archive}
    for name, values in arrays.items():
        if values.size != expected_sizes[name]:
            raise LabelShapeError(f"{path}: {name} holds {values.size} elements, expected {expected_sizes[name]}")
    ends, blocks = np.cumsum(sizes), np.cumsum(9 * sizes**2)
    flat = {name: values.reshape(-1) for name, values in arrays.items()}
    items = []
    for i in range(count)[:limit]:
        n, end, block = int(sizes[i]), int(ends[i]), int(blocks[i])
        name = str(flat["ids"][i]) if "ids" in flat else f"{path.stem}-{i:06d}"
        try:
            structure = Structure(
                numbers.reshape(-1)[end - n : end],
                positions.reshape(-1, 3)[end - n : end],
                id=name,
                group=str(flat["group"][i]) if "group" in flat else "",
            )
            labels = Properties.single(
                n,
                energy=float(flat["energy"][i]) if "energy" in flat else None,
                forces=flat["forces"][3 * (end - n) : 3 * end].reshape(n, 3) if "forces" in flat else None,
                hessian=flat["hessian"][block - 9 * n * n : block].reshape(n, 3, n, 3) if "hessian" in flat else None,
                structure_id=name,
            )
        except HesseError as error:
            raise type(error)(f"{path}: {error}") from None
        items.append((structure, labels))
    return items


def _first_present(path: Path, archive: Mapping[str, Array], names: tuple[str, ...]) -> Array:
    name = next((n for n in names if n in archive), None)
    if name is None:
        raise FileFormatError(f"{path}: natoms is present, but none of {', '.join(names)}")
    return archive[name]
