"""The doors: from a file to a data set that can be believed, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from ase.io import read as read_with_ase

from hesse.datasets.arrays import read_arrays
from hesse.datasets.consistency import Consistency, require_consistency
from hesse.datasets.dataset import Dataset
from hesse.datasets.extxyz import read_extxyz, write_extxyz
from hesse.datasets.hdf5 import read_hdf5, write_hdf5
from hesse.datasets.suspicion import find_non_finite
from hesse.errors import FileFormatError, GeometryError, HesseError, LabelValueError, RequestError
from hesse.files import require_file
from hesse.structures import Labels, from_ase

__all__ = ["check_dataset", "read_dataset", "require_writable_suffix", "write_dataset"]

_HDF5: Final = frozenset({".h5", ".hdf5"})
_XYZ: Final = frozenset({".xyz", ".extxyz"})
_GEOMETRIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        ".poscar": "vasp",
        ".vasp": "vasp",
        ".cif": "cif",
        ".pdb": "proteindatabank",
        ".sdf": "sdf",
        ".mol": "mol",
        ".gen": "gen",
        ".xsf": "xsf",
    }
)
"""Formats of other owners, read by ASE for their geometry. None of these readers runs code from the file."""


def read_dataset(
    path: str | Path,
    *,
    check: bool = True,
    energy_unit: str | None = None,
    length_unit: str | None = None,
    rename: Mapping[str, str] | None = None,
) -> Dataset:
    """Read a data set: `.h5`/`.hdf5`, `.extxyz`/`.xyz` (eV, Å unless told otherwise), `.npz` (units must be told), or a
    geometry without labels (`POSCAR`, `.cif`, `.pdb`, `.sdf`, …).

    Args:
        check: judge what was read, see `check_dataset`.
        energy_unit, length_unit: units of a file that does not state them.
        rename: extended XYZ only: keys and columns under names of the file's own, `{"REF_energy": "energy"}`.

    Raises:
        FileFormatError: an unknown kind of file, or one that is truncated or damaged.
        UnitError: the file states no units and none were given, or unknown ones.
        LabelShapeError, LabelValueError, GeometryError, IdentityError, RequestError: see the readers and
            `check_dataset`.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if rename and suffix not in _XYZ:
        raise RequestError(f"{path}: only keys and columns of extended XYZ can be renamed, not those of {suffix}")
    if suffix in _HDF5:
        dataset = read_hdf5(path, energy_unit=energy_unit, length_unit=length_unit)
    elif suffix in _XYZ:
        dataset = read_extxyz(
            path, energy_unit=energy_unit or "eV", length_unit=length_unit or "angstrom", rename=rename
        )
    elif suffix == ".npz":
        dataset = read_arrays(path, energy_unit=energy_unit, length_unit=length_unit)
    elif suffix in _GEOMETRIES or path.name.upper().startswith(("POSCAR", "CONTCAR")):
        dataset = _read_geometries(path, _GEOMETRIES.get(suffix, "vasp"))
    else:
        raise FileFormatError(f"{path}: no reader for {suffix or 'a file without a suffix'}. {_known()}")
    if check:
        check_dataset(dataset)
    return dataset


def write_dataset(path: str | Path, dataset: Dataset) -> None:
    """Write a data set as HDF5 (`.h5`, `.hdf5`) or extended XYZ (`.extxyz`, `.xyz`), whole or not at all.

    Raises:
        FileFormatError: another suffix.
        WriteError: the disk is full, the folder is missing or not writable; what was there before is unharmed.
    """
    require_writable_suffix(path)
    if Path(path).suffix.lower() in _HDF5:
        write_hdf5(path, dataset)
    else:
        write_extxyz(path, dataset)


def require_writable_suffix(path: str | Path) -> None:
    """Raise FileFormatError unless `write_dataset` can write `path`: to be asked before long work."""
    suffix = Path(path).suffix.lower()
    if suffix not in _HDF5 | _XYZ:
        raise FileFormatError(f"{path}: data sets are written as .h5 or .extxyz, not as {suffix or 'a bare name'}")


def check_dataset(dataset: Dataset) -> list[Consistency]:
    """Judge geometry and labels: finite numbers, atoms apart, curvature that fits the forces. Returns what was found
    out about each curvature label. Structures flagged suspect are not looked at: whoever uses them has asked for them.

    Raises:
        LabelValueError: a label that is not a finite number.
        GeometryError: two atoms on top of each other.
        IdentityError: Hessians or HVPs that contradict geometry and forces.
    """
    if bool(dataset.labels.suspects().all()):
        return []
    dataset = dataset.without_suspects()
    _require_finite(dataset)
    for structure in dataset.structures:
        try:
            structure.require_separated_atoms()
        except GeometryError as error:
            raise GeometryError(f"{dataset.source}: {error}") from None
    return require_consistency(dataset)


def _require_finite(dataset: Dataset) -> None:
    found = find_non_finite(dataset)
    if found:
        first, name = next(iter(sorted(found.items())))
        raise LabelValueError(
            f'{dataset.source}: structure "{dataset.structures[first].id}": {name} holds NaN or infinity '
            f"({len(found)} of {len(dataset)} structures). Leave out a label that is not known, remove the structure, "
            "or keep it out of use with `hesse convert --flag-suspect`."
        )


def _read_geometries(path: Path, kind: str) -> Dataset:
    require_file(path)
    try:
        frames = read_with_ase(path, index=":", format=kind)
    except Exception as error:  # each reader raises what it likes
        raise FileFormatError(f"{path}: cannot be read as {kind}: {type(error).__name__}: {error}") from error
    if not frames:
        raise FileFormatError(f"{path}: holds no structure")
    names = [path.stem] if len(frames) == 1 else [f"{path.stem}-{i}" for i in range(len(frames))]
    try:
        structures = [from_ase(atoms, id=name) for atoms, name in zip(frames, names, strict=True)]
    except HesseError as error:
        raise type(error)(f"{path}: {error}") from None
    return Dataset(tuple(structures), Labels.concatenate([Labels.of(len(s)) for s in structures]), source=str(path))


def _known() -> str:
    others = ", ".join(sorted(_GEOMETRIES))
    return f"Known: .h5, .hdf5, .extxyz, .xyz, .npz, and for geometries without labels POSCAR, {others}."
