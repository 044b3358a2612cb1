"""Splits, kept as the ids of the structures: they survive another order of the file, and name what belongs where."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hesse.datasets.dataset import Dataset
from hesse.datasets.streamed import StreamedDataset, TrainingData
from hesse.errors import FileFormatError, RequestError
from hesse.files import write_text

__all__ = ["Split"]

_FORMAT: Final = "hesse-split"
_VERSION: Final = 1


@dataclass(frozen=True)
class Split:
    """Named parts of one data set ("train", "validation", "test"), as ids.

    Attributes:
        parts: ids of each part; no id stands in two.
        data_hash: `Dataset.data_hash()` of the data that were split; empty when unknown.

    Raises:
        RequestError: an id stands twice.
    """

    parts: Mapping[str, tuple[str, ...]]
    data_hash: str = ""

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for part, ids in self.parts.items():
            for name in ids:
                if name in seen:
                    raise RequestError(f'split: "{name}" stands in {seen[name]} and in {part}; parts must not overlap')
                seen[name] = part

    @classmethod
    def of(cls, dataset: TrainingData, **fractions_or_sets: float | TrainingData) -> Split:
        """Parts by fractions (`train=0.8, test=0.2`, groups kept together), or the given subsets of `dataset`."""
        names = list(fractions_or_sets)
        given = list(fractions_or_sets.values())
        numbers = [x for x in given if not isinstance(x, Dataset | StreamedDataset)]
        sets = [x for x in given if isinstance(x, Dataset | StreamedDataset)]
        if numbers and sets:
            raise RequestError("a split is made of fractions or of data sets, not of both")
        parts = sets or dataset.split(*numbers)
        ids = {name: part.ids for name, part in zip(names, parts, strict=True)}
        return cls(ids, dataset.data_hash())

    def apply(self, dataset: TrainingData, *, same_data: bool = True) -> dict[str, TrainingData]:
        """The parts of `dataset`.

        Args:
            same_data: insist that these are the very data that were split; otherwise the ids only must be there.

        Raises:
            RequestError: other data, or ids that are not there.
        """
        if same_data and self.data_hash and dataset.data_hash() != self.data_hash:
            raise RequestError(
                f"{dataset.source}: these are not the data that were split (their hashes differ). Use that file, make "
                "a new split, or pass same_data=False if only labels were added."
            )
        return {name: dataset.with_ids(ids) for name, ids in self.parts.items()}

    def write(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all. Raises WriteError."""
        record = {
            "format": _FORMAT,
            "version": _VERSION,
            "data_hash": self.data_hash,
            "parts": {name: list(ids) for name, ids in self.parts.items()},
        }
        write_text(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: str | Path) -> Split:
        """Read what `write` wrote.

        Raises:
            FileFormatError: not such a file, of a newer version, or damaged.
            RequestError: an id stands twice.
        """
        try:
            record = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FileFormatError(f"{path}: there is no such file") from None
        except (OSError, ValueError, RecursionError) as error:
            raise FileFormatError(f"{path}: cannot be read as a split ({error})") from error
        if not isinstance(record, dict) or record.get("format") != _FORMAT:
            raise FileFormatError(f'{path}: not a split: expected JSON with "format": "{_FORMAT}"')
        version = record.get("version")
        if not isinstance(version, int) or version > _VERSION:
            raise FileFormatError(f"{path}: version {version!r} of the format; this Hesse reads up to {_VERSION}")
        parts = record.get("parts")
        sound = isinstance(parts, dict) and all(
            isinstance(ids, list) and all(isinstance(i, str) for i in ids) for ids in parts.values()
        )
        if not sound or not isinstance(record.get("data_hash"), str):
            raise FileFormatError(f'{path}: expected "parts" with lists of ids, and a "data_hash"')
        assert isinstance(parts, dict)
        return cls({name: tuple(ids) for name, ids in parts.items()}, record["data_hash"])
