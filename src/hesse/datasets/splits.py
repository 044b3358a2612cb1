"""Splits of data sets, stored as the ids of the structures, so that they stay valid when the file is reordered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hesse.datasets.io import DatasetSource
from hesse.datasets.opening import as_dataset_like
from hesse.datasets.streaming import DatasetLike
from hesse.errors import FileFormatError, RequestError
from hesse.runtime.filesystem import atomic_write_text

__all__ = ["Split"]

_FORMAT: Final = "hesse-split"
_VERSION: Final = 1


@dataclass(frozen=True)
class Split:
    """Named parts of one data set ("train", "validation", "test"), as ids.

    Attributes:
        parts: the ids of each part.
        content_hash: `Dataset.content_hash()` of the data that were split; empty if unknown.

    Raises:
        RequestError: an id occurs in two parts, or twice in one part.
    """

    parts: Mapping[str, tuple[str, ...]]
    content_hash: str = ""

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for part, ids in self.parts.items():
            for name in ids:
                if name in seen:
                    raise RequestError(f'split: "{name}" is in {seen[name]} and in {part}; parts must not overlap')
                seen[name] = part

    @classmethod
    def from_dataset(
        cls, dataset: DatasetLike | DatasetSource, **fractions_or_sets: float | DatasetLike | DatasetSource
    ) -> Split:
        """Split a data set at random, or record a split that was made otherwise.

        Args:
            dataset: the data.
            **fractions_or_sets: names of the parts, with fractions of the structures (`train=0.8, test=0.2`; groups
                stay together) or with data sets that are parts of `dataset`.

        Returns:
            The split.

        Raises:
            RequestError: fractions together with data sets, invalid fractions, or parts that overlap.
        """
        names = list(fractions_or_sets)
        fractions: list[float] = []
        sets: list[DatasetLike] = []
        for value in fractions_or_sets.values():
            if isinstance(value, int | float):
                fractions.append(value)
            else:
                sets.append(as_dataset_like(value))
        dataset = as_dataset_like(dataset)
        if fractions and sets:
            raise RequestError("a split is made of fractions or of data sets, not of both")
        parts = sets or dataset.split(*fractions)
        ids = {name: part.ids for name, part in zip(names, parts, strict=True)}
        return cls(ids, dataset.content_hash())

    def apply(self, dataset: DatasetLike | DatasetSource, *, same_data: bool = True) -> dict[str, DatasetLike]:
        """Split a data set as recorded.

        Args:
            dataset: the data that were split.
            same_data: require that geometries and labels are the same as those that were split; otherwise it is enough
                that all ids are present.

        Returns:
            The parts by name.

        Raises:
            RequestError: other data, or ids that are not present.
        """
        dataset = as_dataset_like(dataset)
        if same_data and self.content_hash and dataset.content_hash() != self.content_hash:
            raise RequestError(
                f"{dataset.source}: these are not the data that were split (their hashes differ). Use that file, make "
                "a new split, or pass same_data=False if only labels were added."
            )
        return {name: dataset.with_ids(ids) for name, ids in self.parts.items()}

    def write(self, path: str | Path) -> None:
        """Write to a JSON file.

        Args:
            path: the new file; an existing one is replaced in one step.

        Raises:
            WriteError: the file cannot be written.
        """
        record = {
            "format": _FORMAT,
            "version": _VERSION,
            "data_hash": self.content_hash,
            "parts": {name: list(ids) for name, ids in self.parts.items()},
        }
        atomic_write_text(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: str | Path) -> Split:
        """Read a split from a file.

        Args:
            path: a file that `write` wrote.

        Returns:
            The split.

        Raises:
            FileFormatError: not such a file, of a newer version, or damaged.
            RequestError: an id occurs in two parts, or twice in one part.
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
        valid = isinstance(parts, dict) and all(
            isinstance(ids, list) and all(isinstance(i, str) for i in ids) for ids in parts.values()
        )
        if not valid or not isinstance(record.get("data_hash"), str):
            raise FileFormatError(f'{path}: expected "parts" with lists of ids, and a "data_hash"')
        assert isinstance(parts, dict)
        return cls({name: tuple(ids) for name, ids in parts.items()}, record["data_hash"])
