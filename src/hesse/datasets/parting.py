"""Which structures go where, and which there are: random parts that keep groups together, structures found by their
ids, those that hold a label, those that are not suspect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Int
from torch import Tensor

from hesse.errors import MissingLabelError, RequestError

__all__ = ["dealt", "places_of", "require_different", "require_labels", "sound"]


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


def require_labels(
    mask: Callable[[str], Bool[Tensor, "*structures"]], names: Sequence[str], source: str, unread: Sequence[str] = ()
) -> None:
    """Raise MissingLabelError unless at least one structure holds each of the labels `names`.

    Args:
        mask: which structures hold a label.
        unread: columns of the file that were not understood: one of them may be the label under another name.
    """
    for name in names:
        if not bool(mask(name).any()):
            held = [n for n in ("energy", "forces", "hvp", "hessian", "stress") if bool(mask(n).any())]
            other = next((key for key in unread if name in key.lower()), None)
            hint = "" if other is None else f" If {other} is what you mean: `hesse convert --rename {other}={name}`."
            raise MissingLabelError(
                f"{source}: no structure holds the label {name!r} (found: {', '.join(held) or 'none'}). "
                "Label the structures with `hesse label`, or change the loss weights." + hint
            )


def sound(suspects: Bool[Tensor, "structures"], source: str) -> Int[Tensor, "some"] | None:
    """Which structures are not flagged suspect; None when all are sound.

    Raises:
        MissingLabelError: none is.
    """
    if not bool(suspects.any()):
        return None
    if bool(suspects.all()):
        raise MissingLabelError(
            f"{source}: the labels of all {len(suspects)} structures are flagged suspect; `hesse info` says why. "
            "Label them again with other settings, or ask for suspect labels to be included."
        )
    return (~suspects).nonzero()[:, 0]
