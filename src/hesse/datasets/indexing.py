"""Indices of structures, for data sets in memory and in files: by position, id, flag, and random splits by group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from torch import Tensor

from hesse.errors import MissingLabelError, RequestError, did_you_mean
from hesse.structures import label_names

__all__ = [
    "check_has_labels",
    "check_label_name",
    "check_unique_ids",
    "group_split",
    "index_of_ids",
    "joined_metadata",
    "structure_indices",
    "unflagged",
]


def check_label_name(name: str) -> None:
    """Check the name of a label.

    Args:
        name: as given by the caller.

    Raises:
        RequestError: there is no such label.
    """
    if name not in label_names():
        raise RequestError(f"no label {name!r}. {did_you_mean(str(name), label_names())}")


def check_unique_ids(ids: Sequence[str], source: str) -> None:
    """Check that all ids are different.

    Args:
        ids: the ids of all structures.
        source: the file that they came from, for the message.

    Raises:
        RequestError: an id occurs twice.
    """
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        duplicate = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise RequestError(f'{source}: the id "{duplicate}" occurs twice; every structure needs its own id')


def structure_indices(index: Any, count: int) -> int | list[int]:
    """Convert an index `data[index]` to the indices of structures.

    Args:
        index: an integer (negative ones count from the end), a slice, integers, or booleans, one for each structure.
        count: number of structures.

    Returns:
        One index for an integer, else a list of indices, all from 0 to `count - 1`.

    Raises:
        RequestError: an index out of range, a mask of another length, or anything else.
    """
    if isinstance(index, slice):
        return list(range(count))[index]
    array = np.asarray(index)
    if array.ndim == 1 and array.dtype == np.bool_:
        if len(array) != count:
            raise RequestError(f"a mask of {len(array)} booleans cannot select from {count} structures")
        return [int(i) for i in np.flatnonzero(array)]
    if array.ndim > 1 or (array.dtype.kind not in "iu" and array.size > 0):
        raise RequestError(
            "a data set is indexed by integers, slices, lists of integers or masks of booleans, got "
            f"{type(index).__name__}; structures are found by their ids with data.with_ids([...])"
        )
    outside = array[(array < -count) | (array >= count)] if array.size else array
    if outside.size:
        raise RequestError(f"index {int(outside.reshape(-1)[0])} is out of range: there are {count} structures")
    if array.ndim == 0:
        return int(array) % count
    return [int(i) % count for i in array]


def joined_metadata(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, str]:
    """Metadata of two data sets that become one.

    Args:
        first: metadata of the first data set.
        second: metadata of the second data set.

    Returns:
        The entries that both have; where the values differ, both, separated by a semicolon.
    """
    return {
        key: value if value == second[key] else "; ".join(sorted({value, second[key]}))
        for key, value in first.items()
        if key in second
    }


def index_of_ids(requested: Iterable[str], ids: Sequence[str], source: str) -> list[int]:
    """Find structures by their ids.

    Args:
        requested: the ids to find.
        ids: the ids of all structures.
        source: the file that they came from, for the message.

    Returns:
        The index in `ids` of each requested id.

    Raises:
        RequestError: an id that is not among `ids`, or something other than a list of ids.
    """
    if isinstance(requested, str) or not isinstance(requested, Iterable):
        raise RequestError(f"expected a list of ids, got {type(requested).__name__} {requested!r}")
    requested, index = list(requested), {name: i for i, name in enumerate(ids)}
    missing = [name for name in requested if name not in index]
    if missing:
        raise RequestError(
            f'{source}: no structure "{missing[0]}" ({len(missing)} of {len(requested)} ids are not here)'
        )
    return [index[name] for name in requested]


def group_split(ids: Sequence[str], groups: Sequence[str], fractions: Sequence[float], seed: int) -> list[list[int]]:
    """Split structures at random; structures of one group stay together.

    Args:
        ids: the ids of all structures.
        groups: the group of each structure; those without a group ("") form groups of one.
        fractions: fractions of the structures, one for each part; they may sum to less than one.
        seed: seed of the random choice.

    Returns:
        The indices of the structures of each part, ascending.

    Raises:
        RequestError: fractions that are not positive or sum to more than one, or a part that would be empty.
    """
    valid = bool(fractions) and all(isinstance(f, int | float | np.number) for f in fractions)
    if not valid or min(fractions) <= 0 or sum(fractions) > 1 + 1e-9:
        raise RequestError(f"split fractions must be positive and sum to at most 1, got {fractions}")
    names = [group or f"id:{name}" for name, group in zip(ids, groups, strict=True)]
    unique_groups = sorted(set(names))
    order = np.random.default_rng(seed).permutation(len(unique_groups))
    sizes = dict.fromkeys(unique_groups, 0)
    for name in names:
        sizes[name] += 1
    ends = np.cumsum(fractions) * len(names)
    part_of: dict[str, int] = {}
    n_assigned = 0
    for k in order:
        # A group belongs to the part in which its middle lies.
        middle = n_assigned + sizes[unique_groups[k]] / 2
        part_of[unique_groups[k]] = int(np.searchsorted(ends, middle))
        n_assigned += sizes[unique_groups[k]]
    parts = [[i for i, name in enumerate(names) if part_of[name] == p] for p in range(len(fractions))]
    if not all(parts):
        raise RequestError(
            f"splitting {len(names)} structures in {len(unique_groups)} groups by {tuple(fractions)} leaves a part "
            "empty; use more data, other fractions, or by_group=False (data: {by_group: false} in a YAML file)"
        )
    return parts


def check_has_labels(
    mask: Callable[[str], Bool[Tensor, "*structures"]],
    names: Sequence[str],
    source: str,
    unknown_keys: Sequence[str] = (),
) -> None:
    """Check that each of several labels is present in at least one structure.

    Args:
        mask: returns which structures have the label of a name.
        names: the labels that are needed.
        source: the file that the data came from, for the message.
        unknown_keys: columns of that file that were not read; one of them may be the label under another name.

    Raises:
        MissingLabelError: no structure has one of the labels.
    """
    for name in names:
        if not bool(mask(name).any()):
            present = [n for n in label_names() if bool(mask(n).any())]
            candidate = next((key for key in unknown_keys if name in key.lower()), None)
            hint = (
                ""
                if candidate is None
                else f" To read it from {candidate}: `hesse convert --rename {candidate}={name}`."
            )
            raise MissingLabelError(
                f"{source}: no structure holds the label {name!r} (found: {', '.join(present) or 'none'}). "
                "Label the structures with `hesse label`, or change the loss weights." + hint
            )


def unflagged(suspect_mask: Bool[Tensor, "structures"], source: str) -> Int[Tensor, "some"] | None:
    """Find the structures that are not flagged suspect.

    Args:
        suspect_mask: True for the flagged structures.
        source: the file that the data came from, for the message.

    Returns:
        Their indices, or None if no structure is flagged.

    Raises:
        MissingLabelError: all structures are flagged.
    """
    if not bool(suspect_mask.any()):
        return None
    if bool(suspect_mask.all()):
        raise MissingLabelError(
            f"{source}: the labels of all {len(suspect_mask)} structures are flagged suspect; `hesse info` shows why. "
            "Label them again with other settings, or include suspect labels."
        )
    return (~suspect_mask).nonzero()[:, 0]
