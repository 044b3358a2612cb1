"""Which structures of a large file are wanted: known to the readers, so that the others are never read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from jaxtyping import Int
from numpy import ndarray as Array

from hesse.datasets.dataset import Dataset
from hesse.errors import RequestError

__all__ = ["ALL", "Subset"]


@dataclass(frozen=True, kw_only=True)
class Subset:
    """A part of a file: those whose id matches, of these a random sample, of that the first ones.

    Attributes:
        match: a shell pattern for ids, `"C2H6O/*"`.
        sample: how many to draw at random (all, where there are fewer); they stay in the order of the file.
        seed: of that draw.
        limit: how many at most, from the first on.

    Raises:
        RequestError: a sample or a limit below one.
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
        """Whether nothing is left out."""
        return self.match is None and self.sample is None and self.limit is None

    def matches(self, id: str) -> bool:
        """Whether a structure of that id may be among the chosen."""
        return self.match is None or fnmatchcase(id, self.match)

    def indices(self, count: int) -> Int[Array, "chosen"]:
        """Which of `count` structures that match are taken: indices, ascending."""
        if self.sample is not None and self.sample < count:
            selected = np.sort(np.random.default_rng(self.seed).choice(count, self.sample, replace=False))
        else:
            selected = np.arange(count)
        return selected[: self.limit]

    def no_match_error(self, source: object, example_ids: Sequence[str]) -> RequestError:
        """The reply to a pattern that matches no structure of `source`, whose first ids are `example`."""
        return RequestError(f'{source}: no structure matches "{self.match}"; ids here: {", ".join(example_ids)}, …')

    def apply(self, dataset: Dataset) -> Dataset:
        """The chosen part of a data set that was read as a whole.

        Raises:
            RequestError: nothing matches.
        """
        if self.is_all:
            return dataset
        matching = [i for i, s in enumerate(dataset.structures) if self.matches(s.id)]
        if not matching:
            raise self.no_match_error(dataset.source, [s.id for s in dataset.structures[:3]])
        return dataset.select([matching[i] for i in self.indices(len(matching))])


ALL = Subset()
