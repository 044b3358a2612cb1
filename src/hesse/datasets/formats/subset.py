"""The part of a file to read. Readers of large files get it too, so that the rest of the file is never read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias

import numpy as np
from jaxtyping import Int
from numpy import ndarray as Array

from hesse.datasets.dataset import Dataset
from hesse.errors import RequestError

__all__ = ["ALL", "Subset", "SubsetLike", "as_subset"]


@dataclass(frozen=True, kw_only=True)
class Subset:
    """A part of a file. The three conditions are applied in this order: `match`, `sample`, `limit`.

    Attributes:
        match: shell pattern for structure ids, `"C2H6O/*"`; None for all.
        sample: number of structures to draw at random (all, if there are fewer); they stay in the order of the file.
        seed: random seed of that draw.
        limit: largest number of structures, counted from the first.

    Raises:
        RequestError: `sample` or `limit` is below one.
    """

    match: str | None = None
    sample: int | None = None
    seed: int = 0
    limit: int | None = None

    def __post_init__(self) -> None:
        for name in ("sample", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RequestError(f"{name}: expected a number of structures from 1, got {value}")

    @property
    def is_all(self) -> bool:
        """True if the subset is the complete file."""
        return self.match is None and self.sample is None and self.limit is None

    def matches(self, id: str) -> bool:
        """Compare one id with the pattern.

        Args:
            id: id of a structure.

        Returns:
            True if the id matches the pattern, or if there is no pattern.
        """
        return self.match is None or fnmatchcase(id, self.match)

    def indices(self, count: int) -> Int[Array, "selected"]:
        """Apply `sample` and `limit` to the structures that match.

        Args:
            count: number of structures whose id matches.

        Returns:
            Ascending indices into these structures.
        """
        if self.sample is not None and self.sample < count:
            selected = np.sort(np.random.default_rng(self.seed).choice(count, self.sample, replace=False))
        else:
            selected = np.arange(count)
        return selected[: self.limit]

    def no_match_error(self, source: object, example_ids: Sequence[str]) -> RequestError:
        """Make the error for a pattern that matches no structure.

        Args:
            source: file or folder, named in the message.
            example_ids: some ids that the source holds.

        Returns:
            The error, to be raised by the caller.
        """
        return RequestError(f'{source}: no structure matches "{self.match}"; ids here: {", ".join(example_ids)}, …')

    def apply(self, dataset: Dataset) -> Dataset:
        """Select from a data set that was read completely.

        Args:
            dataset: all structures of the file.

        Returns:
            The selected structures, in the order of the file.

        Raises:
            RequestError: no id matches.
        """
        if self.is_all:
            return dataset
        matching = [i for i, s in enumerate(dataset.structures) if self.matches(s.id)]
        if not matching:
            raise self.no_match_error(dataset.source, [s.id for s in dataset.structures[:3]])
        return dataset.select([matching[i] for i in self.indices(len(matching))])


ALL = Subset()
"""The complete file."""

SubsetLike: TypeAlias = "Subset | str | None"
"""A Subset, a shell pattern for ids, or None for the complete file."""


def as_subset(subset: SubsetLike) -> Subset:
    """Convert to a `Subset`.

    Args:
        subset: a Subset, a shell pattern for structure ids, or None for the complete file.

    Returns:
        The Subset.

    Raises:
        RequestError: the argument is of another type.
    """
    if subset is None:
        return ALL
    if isinstance(subset, str):
        return Subset(match=subset)
    if not isinstance(subset, Subset):
        raise RequestError(
            'subset: expected a Subset, such as Subset(match="H2O/*", limit=100), or a pattern for ids, got '
            f"{type(subset).__name__}"
        )
    return subset
