"""Whether structures without a group can be taken for independent ones, as intervals do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hesse.structures import Structure

__all__ = ["groups_are_known", "independence_note"]


def groups_are_known(structures: Sequence[Structure]) -> bool:
    """Whether data have groups (molecules, reactions).

    Args:
        structures: the structures.

    Returns:
        False if no structure has a group but itself.
    """
    return any(structure.group and structure.group != structure.id for structure in structures)


def independence_note(structures: Sequence[Structure]) -> str | None:
    """A note for tables in which structures that are probably alike count as independent ones.

    Several geometries of one molecule have similar errors. With groups they count as one molecule; without, every
    structure does, and intervals are too narrow.

    Args:
        structures: the structures of a data set.

    Returns:
        A note if several structures without a group have the same composition; otherwise None.
    """
    alone = [s for s in structures if not s.group or s.group == s.id]
    compositions = Counter(tuple(sorted(s.numbers.tolist())) for s in alone)
    if len(compositions) == len(alone):
        return None
    if len(alone) == len(structures):
        what = "no groups in the data: intervals treat every structure as independent, though there are only "
        what += f"{len(compositions)} compositions" if len(compositions) > 1 else "structures of one composition"
    else:
        what = (
            f"{len(alone)} of {len(structures)} structures have no group: intervals treat each of them as independent, "
            f"though there are only {len(compositions)} compositions among them"
        )
    return (
        f"{what}. Geometries of one molecule have similar errors, so that the intervals are probably too narrow: give "
        "the structures of one molecule the same group"
    )
