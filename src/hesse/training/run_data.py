"""The data of a run: read and split before it, recorded in its folder, and found again after it.

`split.json` holds the ids of the structures that were held out of the training files, `data.json` the files and the
hashes of their structures. With them `hesse evaluate RUN --split validation` judges the very structures that the run
held out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from hesse.datasets import Dataset, DatasetLike, Split, open_datasets
from hesse.errors import FileFormatError, RequestError, did_you_mean
from hesse.models import is_run_folder
from hesse.runtime.filesystem import atomic_write_text
from hesse.training.config import DataConfig
from hesse.training.distributed import Communicator
from hesse.training.run_identity import changed_run_error

__all__ = ["RunData", "load_run_data", "run_data"]

_FORMAT: Final = "hesse-run-data"
_VERSION: Final = 1
_SYNONYMS: Final = {"training": "train", "valid": "validation", "val": "validation"}


@dataclass(frozen=True)
class RunData:
    """The data of a run.

    Attributes:
        training: training data.
        validation: validation data, if any.
        record: writes files, hashes and split into the folder of the run; the first process calls it when the data
            have been checked. A continued run keeps the record of its start.
    """

    training: DatasetLike
    validation: DatasetLike | None
    record: Callable[[], None]


def load_run_data(data: DataConfig, output: Path, seed: int, communicator: Communicator, *, resuming: bool) -> RunData:
    """Training and validation data of a run: separate files, or files that are split (again as recorded, for a
    continued run), or training data only.

    Args:
        data: files and split.
        output: folder of the run, where files and split are recorded.
        seed: seed of the split.
        communicator: the processes that train together.
        resuming: whether the folder contains a run to continue.

    Returns:
        The data, which are not recorded yet.

    Raises:
        RequestError: training and validation have a file in common, or a split that does not fit.
        FileFormatError: a damaged record.
        HesseError: data that cannot be read.
    """
    _check_different_files(data)
    dataset = open_datasets(data.train_files, memory_mib=data.memory_mib)
    path = output / "split.json"
    held_out = data.validation is None and data.validation_fraction > 0
    if not held_out:
        validation = open_datasets(data.validation_files, memory_mib=data.memory_mib) if data.validation_files else None

        def record() -> None:
            path.unlink(missing_ok=True)  # of a run that was here before
            _record_files(data, output, dataset, validation, resuming=resuming)

        return RunData(dataset, validation, record)
    if communicator.run_on_rank_zero(lambda: resuming and path.exists()):
        split = Split.read(path)
        if split.content_hash and dataset.content_hash() != split.content_hash:
            n_before = sum(map(len, split.parts.values()))
            raise changed_run_error(output, [f"data.train ({n_before} structures before, {len(dataset)} now)"])
        splits = split.apply(dataset)
        if not {"train", "validation"} <= splits.keys():
            raise FileFormatError(f'{path}: damaged: expected the parts "train" and "validation"')
        return RunData(splits["train"], splits["validation"], lambda: None)
    training, validation = dataset.split(
        1 - data.validation_fraction, data.validation_fraction, seed=seed, by_group=data.by_group
    )

    def record_split() -> None:
        Split.from_dataset(dataset, train=training, validation=validation).write(path)
        _record_files(data, output, dataset, None, resuming=resuming)

    return RunData(training, validation, record_split)


def _check_different_files(data: DataConfig) -> None:
    training = {file.resolve() for file in data.train_files}
    for file in data.validation_files:
        if file.resolve() in training:
            raise RequestError(
                f"{file} is in data.train and in data.validation: errors on structures that the model was fitted to "
                "say nothing about others. Leave out data.validation to hold out a part of the training file "
                "(data.validation_fraction), or give another file."
            )


def _record_files(
    data: DataConfig,
    output: Path,
    training: DatasetLike,
    validation: DatasetLike | None,
    *,
    resuming: bool,
) -> None:
    """Write the files of a run and the hashes of their structures; a continued run keeps the record of its start."""
    path = output / "data.json"
    if resuming and path.exists():
        return
    parts = {"train": (data.train_files, training), "validation": (data.validation_files, validation)}
    record = {
        name: {
            "files": [str(file.resolve()) for file in files],
            "structures": len(dataset),
            "data_hash": dataset.content_hash(),
            **({} if data.memory_mib is None else {"memory_mib": data.memory_mib}),
        }
        for name, (files, dataset) in parts.items()
        if dataset is not None
    }
    content = {"format": _FORMAT, "version": _VERSION, "parts": record}
    atomic_write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def run_data(folder: str | Path, part: str = "validation", files: Sequence[str | Path] | None = None) -> Dataset:
    """Read a part of the data that a run was started with, for example the structures that it held out.

    Args:
        folder: folder of a run of `hesse train`.
        part: "validation" or "train" (or "training"), or another part in its `split.json`.
        files: where the files are now, if they were moved; by default those that the run recorded.

    Returns:
        The structures with their labels. Those that are flagged as suspect are among them.

    Raises:
        FileFormatError: a folder without the record of a run, or a damaged one; files that are missing.
        RequestError: a part that the run does not have, or data that are no longer those of the run.
    """
    folder = Path(folder)
    record = _read_record(folder)
    name = _SYNONYMS.get(part, part)
    split_file = folder / "split.json"
    split = Split.read(split_file) if split_file.exists() else None
    available = list(split.parts if split is not None else record)
    if name not in available:
        none = " It was trained without validation data." if available == ["train"] else ""
        raise RequestError(f'{folder}: this run has no part "{part}".{none} {did_you_mean(name, available)}')
    entry = record["train" if split is not None else name]
    paths = [Path(file) for file in files] if files else [Path(file) for file in entry["files"]]
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise FileFormatError(
            f"{missing[0]}: there is no such file; this run was started with it. If it was moved, give it: "
            f"`hesse evaluate {folder} FILE --split {part}`."
        )
    dataset = open_datasets(paths, memory_mib=entry.get("memory_mib"))
    if dataset.content_hash() != entry["data_hash"]:
        several = f" The run had {', '.join(entry['files'])}, in this order." if len(entry["files"]) > 1 else ""
        raise RequestError(
            f"{', '.join(map(str, paths))}: not the data that {folder} was started with: {len(dataset)} structures "
            f"now, {entry['structures']} when the run started; geometries, labels or ids differ.{several} Give the "
            f"data as they were, or evaluate the model on these without --split: `hesse evaluate {folder} {paths[0]}`."
        )
    return _in_memory(dataset if split is None else dataset.with_ids(split.parts[name]))


def _in_memory(data: DatasetLike) -> Dataset:
    """Read all structures of a part that is streamed; only the part must fit into memory."""
    if isinstance(data, Dataset):
        return data
    whole = Dataset.from_pairs(pair for _, part in data.iter_in_memory() for pair in part)
    return replace(whole, metadata=data.metadata, source=data.source)


def _read_record(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    path = folder / "data.json"
    if not path.exists():
        what = "a run that was started from Python, which has no files of data" if is_run_folder(folder) else "no run"
        raise FileFormatError(
            f"{folder}: {what}: expected a folder of `hesse train` with data.json. Without it, evaluate a model on a "
            "file: `hesse evaluate MODEL FILE`."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT or content["version"] > _VERSION:
            raise ValueError(f"format {content['format']!r}, version {content['version']!r}")
        parts: dict[str, Any] = content["parts"]
        for entry in (parts["train"], *parts.values()):
            valid = isinstance(entry["data_hash"], str) and isinstance(entry["structures"], int) and entry["files"]
            valid = valid and isinstance(entry.get("memory_mib", 1.0), int | float)
            if not valid or not all(isinstance(file, str) for file in entry["files"]):
                raise ValueError("expected files, structures and data_hash of each part")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileFormatError(f"{path}: cannot be read as the record of a run ({error})") from error
    return parts
