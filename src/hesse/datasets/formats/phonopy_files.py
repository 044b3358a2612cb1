"""Files of phonopy: their YAML text without tags, force constants as text and HDF5, and phonopy's record of them.

phonopy's own YAML loader builds any Python object that a tag names, which can run programs. Files are therefore parsed
with PyYAML's safe loader first, and phonopy receives only what that returned: mappings, lists, texts and numbers.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import re
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import h5py
import numpy as np
import yaml
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.datasets.formats.safety import has_plausible_size, is_self_contained, open_hdf5
from hesse.errors import FileFormatError, LabelShapeError
from hesse.runtime.filesystem import check_input_file
from hesse.runtime.yaml_text import parse_yaml

__all__ = [
    "FORCE_CONSTANTS_FILES",
    "YAML_NAME",
    "ForceConstants",
    "find_yaml",
    "full_force_constants",
    "load_record",
    "plain_yaml",
    "read_force_constants",
]

YAML_NAME: Final = re.compile(r"phonopy.*\.ya?ml(\.xz|\.gz|\.bz2)?$", re.IGNORECASE)
FORCE_CONSTANTS_FILES: Final = ("force_constants.hdf5", "FORCE_CONSTANTS")
_MAX_TEXT_BYTES: Final = 1 << 30
"""Largest size of the decompressed text; a small archive could otherwise fill the memory."""
_DECOMPRESSORS: Final[Mapping[str, Callable[..., Any]]] = MappingProxyType(
    {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}
)
_MAX_SUPERCELL: Final = 50_000
"""Largest number of atoms of a supercell; the force constants of so many would fill 180 GB."""

ForceConstants = Float[Array, "rows atoms 3 3"]


def read_force_constants(file: Path) -> ForceConstants:
    """Read force constants from `FORCE_CONSTANTS` or `force_constants.hdf5`.

    Args:
        file: the file.

    Returns:
        In the units of the file, `[rows, atoms, 3, 3]`.

    Raises:
        FileFormatError: damaged, or another format.
    """
    check_input_file(file)
    return _read_force_constants_hdf5(file) if file.suffix == ".hdf5" else _read_force_constants_text(file)


def _read_force_constants_text(file: Path) -> ForceConstants:
    """Read the text format: `rows columns`, then for each pair of atoms their two numbers and nine values."""
    try:
        with open(file, encoding="ascii") as handle:
            sizes = [int(w) for w in handle.readline().split()]
            rows, columns = sizes if len(sizes) == 2 else (sizes[0], sizes[0])
            if not 0 < rows * columns * 11 <= file.stat().st_size:
                raise ValueError(f"{rows} x {columns} atoms announced, more than the file can hold")
            values = np.array(handle.read().split(), dtype=np.float64)
        table = values.reshape(rows, columns, 11)
        if not (table[..., 1] == np.arange(1, columns + 1)).all():
            raise ValueError("the pairs of atoms are not in order")
        return np.ascontiguousarray(table[..., 2:]).reshape(rows, columns, 3, 3)
    except (ValueError, IndexError, OSError, UnicodeDecodeError, MemoryError) as error:
        raise FileFormatError(
            f"{file}: truncated, damaged, or not a FORCE_CONSTANTS file of phonopy ({error})"
        ) from error


def _read_force_constants_hdf5(file: Path) -> ForceConstants:
    with open_hdf5(file) as handle:
        data = handle.get("force_constants")
        if not isinstance(data, h5py.Dataset) or len(data.shape) != 4 or data.shape[2:] != (3, 3):
            raise FileFormatError(f"{file}: no array force_constants (atoms, atoms, 3, 3)")
        plain = is_self_contained(data) and has_plausible_size(data, file.stat().st_size) and data.dtype.kind == "f"
        if not plain:
            raise FileFormatError(f"{file}: force_constants is not stored plainly, or damaged")
        return np.asarray(data[()], dtype=np.float64)


def find_yaml(folder: Path) -> Path | None:
    """Find the YAML file of phonopy with the most content.

    Args:
        folder: the folder.

    Returns:
        The file; None if there is none.

    Raises:
        FileFormatError: several of unusual names.
    """
    candidates = sorted(p for p in folder.iterdir() if YAML_NAME.fullmatch(p.name))
    for prefix in ("phonopy_params.yaml", "phonopy_disp.yaml", "phonopy.yaml"):
        matches = [p for p in candidates if p.name.startswith(prefix)]
        if matches:
            return matches[0]
    if len(candidates) > 1:
        raise FileFormatError(
            f"{folder}: several YAML files of phonopy ({', '.join(p.name for p in candidates)}): name one of them"
        )
    return candidates[0] if candidates else None


def _read_text(file: Path) -> str:
    check_input_file(file)
    opener = _DECOMPRESSORS.get(file.suffix.lower(), open)
    try:
        with opener(file, "rt", encoding="utf-8") as handle:
            text: str = handle.read(_MAX_TEXT_BYTES + 1)
    except (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError, MemoryError) as error:
        raise FileFormatError(f"{file}: truncated or damaged ({error})") from error
    if len(text) > _MAX_TEXT_BYTES:
        raise FileFormatError(f"{file}: more than {_MAX_TEXT_BYTES >> 20} MiB of text")
    return text


def plain_yaml(file: Path) -> str:
    """Read a YAML file as text without tags: read with the safe loader and written anew.

    Args:
        file: the file, also packed.

    Returns:
        The text.

    Raises:
        FileFormatError: damaged, not YAML, or with values other than mappings, lists, texts and numbers (tags such as
            `!!python/object/apply`).
    """
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    content = parse_yaml(_read_text(file), str(file))
    _check_supercell(content, file)
    return yaml.dump(content, Dumper=dumper, sort_keys=False)


def _check_supercell(content: Any, file: Path) -> None:
    """Refuse a supercell matrix of another size than the supercell of the same file, and enormous ones.

    phonopy would build that supercell, which takes minutes and much memory. What else is wrong, phonopy says.
    """
    try:
        matrix = np.asarray(content["supercell_matrix"], dtype=np.float64)
        n_unit = len(content["unit_cell"]["points"])
        cell = content.get("supercell")
        stated = len(cell["points"]) if cell else None
    except (KeyError, TypeError, ValueError, OverflowError):
        return
    if matrix.shape not in ((3,), (3, 3)):
        return
    multiple = float(abs(np.linalg.det(np.diag(matrix) if matrix.ndim == 1 else matrix)))
    expected = multiple * n_unit
    if not expected <= _MAX_SUPERCELL or (stated is not None and abs(expected - stated) > 0.5):
        counted = "" if stated is None else f", but its supercell lists {stated}"
        raise FileFormatError(
            f"{file}: supercell_matrix makes {expected:.6g} atoms of {n_unit}{counted} (at most {_MAX_SUPERCELL} are "
            "read): damaged"
        )


def load_record(phonopy: Any, text: str, force_sets: Path | None, *, born: bool = False) -> Any:
    """Make phonopy's record of the text of a YAML file, and of FORCE_SETS if given.

    Args:
        phonopy: the module.
        text: of `plain_yaml`.
        force_sets: the file.
        born: whether to read Born charges in the text.

    Returns:
        `phonopy.Phonopy`.
    """
    # phonopy completes a record with FORCE_SETS, FORCE_CONSTANTS and force_constants.hdf5 of the working folder, which
    # belong to any calculation: it works in an empty one.
    with tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty):
        return phonopy.load(
            io.StringIO(text),
            force_sets_filename=None if force_sets is None else str(force_sets),
            produce_fc=False,
            is_nac=born,
            symmetrize_fc=False,
            is_compact_fc=False,
            log_level=0,
        )


def full_force_constants(constants: ForceConstants, record: Any, n: int) -> Float[Array, "n n 3 3"]:
    """Expand force constants to all rows, if only those of the primitive cell were stored.

    Args:
        constants: force constants, compact or full.
        record: phonopy's record of the cells.
        n: number of atoms of the supercell.

    Returns:
        All rows.

    Raises:
        LabelShapeError: neither of the two shapes.
    """
    if constants.shape[:2] == (n, n):
        return constants
    if constants.shape[:2] == (len(record.primitive), n):
        from phonopy.harmonic.force_constants import compact_fc_to_full_fc

        return np.asarray(compact_fc_to_full_fc(record.primitive, np.ascontiguousarray(constants)))
    raise LabelShapeError(
        f"force constants between {constants.shape[0]} and {constants.shape[1]} atoms for a supercell of {n}"
    )
