"""Data for training: one file or several, in memory or streamed from the file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from hesse.datasets.dataset import Dataset
from hesse.datasets.file_index import FileIndex
from hesse.datasets.formats.hdf5 import ChunkedReader
from hesse.datasets.formats.hdf5.schema import FORMAT, NATIVE_UNITS
from hesse.datasets.formats.table import find_format
from hesse.datasets.io import DatasetSource, as_dataset, as_path, check_dataset, read_dataset
from hesse.datasets.streaming import BLOCKS_PER_BUFFER, BUFFERS, DatasetLike, StreamingDataset, memory_bytes
from hesse.datasets.transforms import join_datasets
from hesse.errors import FileFormatError, RequestError, UnitError

__all__ = ["TrainingSource", "as_dataset_like", "names_of_files", "open_dataset", "open_datasets", "read_elements"]

_MIB: Final = 2**20
TrainingSource: TypeAlias = "DatasetLike | DatasetSource | Iterable[str | Path]"
"""Data that a model can be trained on: a data set, anything that `as_dataset` takes, or a list of files."""


def as_dataset_like(data: TrainingSource) -> DatasetLike:
    """Convert to a data set, but leave one that stays in its file there.

    Args:
        data: a `StreamingDataset`, a list of files, or anything that `as_dataset` takes.

    Returns:
        The same object for a `StreamingDataset`, else a data set in memory.

    Raises:
        HesseError: see `as_dataset` and `open_datasets`.
    """
    if isinstance(data, StreamingDataset):
        return data
    if isinstance(data, list | tuple) and data and all(isinstance(item, str | Path) for item in data):
        return open_datasets(data)
    return as_dataset(data)  # type: ignore[arg-type]


def names_of_files(paths: Sequence[Path]) -> list[str]:
    """Short names of files.

    Args:
        paths: the files.

    Returns:
        The stem of each path; the full path if several have the same stem.
    """
    stems = Counter(path.stem for path in paths)
    return [path.stem if stems[path.stem] == 1 else str(path) for path in paths]


def open_datasets(paths: Sequence[str | Path], *, memory_mib: float | None = None, check: bool = True) -> DatasetLike:
    """Open one file or several as one data set.

    Structures of several files whose ids repeat get the name of their file in front, `NAME/ID`.

    Args:
        paths: the files.
        memory_mib: largest memory of loaded structures, MiB; None for no limit. Several files must fit into it: only a
            single file is streamed.
        check: check geometries and labels, see `check_dataset`.

    Returns:
        All structures in the order of the files.

    Raises:
        RequestError: no file, a file that is given twice, or several files that need more memory than the limit.
        HesseError: see `open_dataset`.
    """
    files = [as_path(path) for path in paths]
    if not files:
        raise RequestError("expected one or more files of data, got an empty list")
    seen: set[Path] = set()
    for file in files:
        if file.resolve() in seen:
            raise RequestError(f"{file} is given twice: its structures would count twice. Leave one out.")
        seen.add(file.resolve())
    if len(files) == 1:
        return open_dataset(files[0], memory_mib=memory_mib, check=check)
    parts = []
    for file in files:
        part = open_dataset(file, memory_mib=memory_mib, check=check)
        if not isinstance(part, Dataset):
            raise _too_large(files, memory_mib)
        parts.append(part)
    if memory_mib is not None and sum(_native_bytes(file) for file in files) > memory_mib * _MIB:
        raise _too_large(files, memory_mib)
    return join_datasets(parts, names_of_files(files))[0]


def _native_bytes(file: Path) -> int:
    return memory_bytes(FileIndex.from_reader(ChunkedReader(file)).bytes_per_structure)


def _too_large(files: Sequence[Path], memory_mib: float | None) -> RequestError:
    names = " ".join(file.name for file in files)
    return RequestError(
        f"{', '.join(map(str, files))}: together they need more than the memory limit of {memory_mib:g} MiB, and only "
        f"a single file can be streamed. Join them (`hesse convert {names} all.h5`) and train on all.h5, or raise the "
        "limit."
    )


def open_dataset(path: str | Path, *, memory_mib: float | None = None, check: bool = True) -> DatasetLike:
    """Open a data set for training: in memory if it fits into `memory_mib`, else streamed from its file.

    A file that is streamed is read once at the start, block by block, for its checksum and the checks of
    `read_dataset`.

    Args:
        path: a file of any format that `read_dataset` knows; with a limit it must be Hesse's own HDF5.
        memory_mib: largest memory of loaded structures, MiB; None for no limit.
        check: check geometries and labels, see `check_dataset`.

    Returns:
        A `Dataset` or a `StreamingDataset`.

    Raises:
        FileFormatError: with a limit, a file that is not Hesse's own HDF5; and all that `read_dataset` raises.
        UnitError: a file to stream that is not in eV and Å.
        RequestError: a limit that is too small for the largest structure.
    """
    path = as_path(path)
    if memory_mib is None:
        return read_dataset(path, check=check)
    if find_format(path).name != FORMAT:
        raise FileFormatError(
            f"{path}: only Hesse's own HDF5 can be read in parts, as a memory limit ({memory_mib:g} MiB) may need. "
            f"Convert the file first (`hesse convert {path.name} {path.stem}.h5`), or leave out the limit."
        )
    reader = ChunkedReader(path)
    index = FileIndex.from_reader(reader)
    if memory_bytes(index.bytes_per_structure) <= memory_mib * _MIB:
        return read_dataset(path, check=check)
    _check_native_units(reader)
    blocks_in_memory, largest = BUFFERS * BLOCKS_PER_BUFFER, int(index.bytes_per_structure.max())
    if blocks_in_memory * largest > memory_mib * _MIB:
        raise RequestError(
            f"{path}: a memory limit of {memory_mib:g} MiB is too small: its largest structure takes "
            f"{largest / _MIB:.2g} MiB, and some {blocks_in_memory} blocks of structures must fit at once. "
            f"Raise the limit to {math.ceil(blocks_in_memory * largest / _MIB)} MiB or more."
        )
    reader.verify_checksum()
    dataset = StreamingDataset(reader, index, np.arange(len(reader)), memory_mib)
    for _, part in dataset.iter_in_memory():
        if check:
            check_dataset(part)
    return dataset


def _check_native_units(reader: ChunkedReader) -> None:
    for key, unit in NATIVE_UNITS.items():
        if reader.units.get(key) != unit:
            problem = f"is in {reader.units[key]}" if key in reader.units else f"does not state its {key}"
            raise UnitError(
                f"{reader.path}: {problem}, but only files in eV and Å can be streamed. Convert it first: "
                f"`hesse convert {reader.path.name} OUT.h5 --{key.replace('_', '-')} …`"
            )


def read_elements(path: str | Path) -> frozenset[int]:
    """Read which elements a data set holds. Of Hesse's own HDF5, nothing else is read.

    Args:
        path: a file of any format that `read_dataset` knows.

    Returns:
        Atomic numbers, and numbers of bead types.

    Raises:
        HesseError: see `read_dataset`.
    """
    path = as_path(path)
    if find_format(path).name == FORMAT:
        numbers = ChunkedReader(path).read_array("structures/numbers")
    else:
        numbers = read_dataset(path, check=False).numbers.numpy()
    return frozenset(np.unique(numbers).tolist())
