"""Which structures go where, and which there are: random parts that keep groups together, structures found by their
ids, those that hold a label, those that are not suspect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Int
from torch import Tensor

from hesse.errors import MissingLabelError, RequestError

__all__ = ["check_has_labels", "check_unique_ids", "group_split", "index_of_ids", "unflagged"]


def check_unique_ids(ids: Sequence[str], source: str) -> None:
    """Raise RequestError when an id stands twice."""
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        duplicate = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise RequestError(f'{source}: the id "{duplicate}" stands twice; ids name structures and must differ')


def index_of_ids(requested: Iterable[str], ids: Sequence[str], source: str) -> list[int]:
    """Where the ids `wanted` stand among `ids`. Raises RequestError for one that does not."""
    requested, index = list(requested), {name: i for i, name in enumerate(ids)}
    missing = [name for name in requested if name not in index]
    if missing:
        raise RequestError(
            f'{source}: no structure "{missing[0]}" ({len(missing)} of {len(requested)} ids are not here)'
        )
    return [index[name] for name in requested]


def group_split(ids: Sequence[str], groups: Sequence[str], fractions: Sequence[float], seed: int) -> list[list[int]]:
    """Places of structures in random parts of the given fractions (they may sum to less than one).

    Structures of one group stay together; those without a group ("") are groups of their own.

    Raises:
        RequestError: fractions that are none, or a part that stays empty.
    """
    if not fractions or min(fractions) <= 0 or sum(fractions) > 1 + 1e-9:
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
        # A group goes where its middle falls.
        middle = n_assigned + sizes[unique_groups[k]] / 2
        part_of[unique_groups[k]] = int(np.searchsorted(ends, middle))
        n_assigned += sizes[unique_groups[k]]
    parts = [[i for i, name in enumerate(names) if part_of[name] == p] for p in range(len(fractions))]
    if not all(parts):
        raise RequestError(
            f"splitting {len(names)} structures in {len(unique_groups)} groups by {tuple(fractions)} leaves a part empty; "
            "use more data, other fractions, or by_group=False"
        )
    return parts


def check_has_labels(
    mask: Callable[[str], Bool[Tensor, "*structures"]],
    names: Sequence[str],
    source: str,
    unknown_keys: Sequence[str] = (),
) -> None:
    """Raise MissingLabelError unless at least one structure holds each of the labels `names`.

    Args:
        mask: which structures hold a label.
        unread: columns of the file that were not understood: one of them may be the label under another name.
    """
    for name in names:
        if not bool(mask(name).any()):
            present = [n for n in ("energy", "forces", "hvp", "hessian", "stress") if bool(mask(n).any())]
            candidate = next((key for key in unknown_keys if name in key.lower()), None)
            hint = (
                ""
                if candidate is None
                else f" If {candidate} is what you mean: `hesse convert --rename {candidate}={name}`."
            )
            raise MissingLabelError(
                f"{source}: no structure holds the label {name!r} (found: {', '.join(present) or 'none'}). "
                "Label the structures with `hesse label`, or change the loss weights." + hint
            )


def unflagged(suspect_mask: Bool[Tensor, "structures"], source: str) -> Int[Tensor, "some"] | None:
    """Which structures are not flagged suspect; None when all are sound.

    Raises:
        MissingLabelError: none is.
    """
    if not bool(suspect_mask.any()):
        return None
    if bool(suspect_mask.all()):
        raise MissingLabelError(
            f"{source}: the labels of all {len(suspect_mask)} structures are flagged suspect; `hesse info` says why. "
            "Label them again with other settings, or ask for suspect labels to be included."
        )
    return (~suspect_mask).nonzero()[:, 0]
