"""Which structures go where: random parts that keep groups together, and structures found by their ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from hesse.errors import RequestError

__all__ = ["dealt", "places_of", "require_different"]


def require_different(ids: Sequence[str], source: str) -> None:
    """Raise RequestError when an id stands twice."""
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise RequestError(f'{source}: the id "{twice}" stands twice; ids name structures and must differ')


def places_of(wanted: Iterable[str], ids: Sequence[str], source: str) -> list[int]:
    """Where the ids `wanted` stand among `ids`. Raises RequestError for one that does not."""
    wanted, index = list(wanted), {name: i for i, name in enumerate(ids)}
    missing = [name for name in wanted if name not in index]
    if missing:
        raise RequestError(f'{source}: no structure "{missing[0]}" ({len(missing)} of {len(wanted)} ids are not here)')
    return [index[name] for name in wanted]


def dealt(ids: Sequence[str], groups: Sequence[str], fractions: Sequence[float], seed: int) -> list[list[int]]:
    """Places of structures in random parts of the given fractions (they may sum to less than one).

    Structures of one group stay together; those without a group ("") are groups of their own.

    Raises:
        RequestError: fractions that are none, or a part that stays empty.
    """
    if not fractions or min(fractions) <= 0 or sum(fractions) > 1 + 1e-9:
        raise RequestError(f"split fractions must be positive and sum to at most 1, got {fractions}")
    names = [group or f"id:{name}" for name, group in zip(ids, groups, strict=True)]
    different = sorted(set(names))
    order = np.random.default_rng(seed).permutation(len(different))
    sizes = dict.fromkeys(different, 0)
    for name in names:
        sizes[name] += 1
    ends = np.cumsum(fractions) * len(names)
    part_of: dict[str, int] = {}
    done = 0
    for k in order:
        # A group goes where its middle falls.
        middle = done + sizes[different[k]] / 2
        part_of[different[k]] = int(np.searchsorted(ends, middle))
        done += sizes[different[k]]
    parts = [[i for i, name in enumerate(names) if part_of[name] == p] for p in range(len(fractions))]
    if not all(parts):
        raise RequestError(
            f"splitting {len(names)} structures in {len(different)} groups by {tuple(fractions)} leaves a part empty; "
            "use more data, other fractions, or by_group=False"
        )
    return parts
