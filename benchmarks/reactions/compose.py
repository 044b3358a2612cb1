"""Data sets from the results of the workers: critical points, their split by reaction, points along paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from geometries import Reaction
from tasks import bonds, same_bonds

from hesse.sampling import unique_structures
from hesse.structures import Structure

__all__ = ["PARTS", "centers", "critical_points", "path_points", "split_reactions"]

PARTS = ("train", "validation", "test")
HELD_OUT = 0.1
"""Fraction of the reactions for validation, and for test."""
TWIN = 0.05
"""Structures whose sorted interatomic distances differ by less than this (Å) are the same."""

Answers = Mapping[str, Mapping[str, Any]]


def split_reactions(reactions: Sequence[Reaction], paths: Answers, seed: int) -> dict[str, str]:
    """The part (train, validation or test) of every reaction. Reactions with a complete path, with a transition state
    only, and without either are split separately, so that each part contains all three."""
    kinds: dict[str, list[str]] = {"path": [], "saddle": [], "ends": []}
    for reaction in reactions:
        answer = paths.get(reaction.name, {})
        kind = "path" if _complete(answer) else "saddle" if "saddle" in answer else "ends"
        kinds[kind].append(reaction.name)
    rng = np.random.default_rng(seed)
    parts: dict[str, str] = {}
    for names in kinds.values():
        shuffled = rng.permutation(sorted(names)).tolist()
        held_out = max(round(HELD_OUT * len(shuffled)), 1) if len(shuffled) > 2 else 0
        for k, name in enumerate(shuffled):
            parts[name] = "test" if k < held_out else "validation" if k < 2 * held_out else "train"
    return parts


def _complete(answer: Mapping[str, Any]) -> bool:
    """Whether both ends of the path are minima with different bonds."""
    return answer.get("kind") in ("as published", "other ends")


def critical_points(
    reactions: Sequence[Reaction], paths: Answers, minima: Answers, parts: Mapping[str, str]
) -> tuple[list[Structure], Counter[str]]:
    """Transition states and minima (tags "ts", "reactant", "product"; the group is the reaction), every geometry once,
    and the number of structures left out, by reason.

    A geometry that belongs to several reactions is assigned to one in the test part if there is one, else in the
    validation part, so that no geometry of these parts is in the training part.
    """
    structures: list[Structure] = []
    for reaction in reactions:
        answer = paths.get(reaction.name, {})
        if "saddle" in answer:
            structures.append(_named(answer["numbers"], answer["saddle"], reaction.name, "ts"))
        ends = {tag: minima.get(f"{reaction.name}/{tag}", {}) for tag in ("reactant", "product")}
        if "ends" in answer:
            ends = dict(zip(("reactant", "product"), _in_order(reaction, answer), strict=True))
        structures += [
            _named(end["numbers"], end["positions"], reaction.name, tag)
            for tag, end in ends.items()
            if "positions" in end
        ]
    structures.sort(key=lambda s: -PARTS.index(parts[s.group]))
    selected = unique_structures(structures, TWIN)
    left_out = Counter({"the geometry of another reaction again": len(structures) - len(selected)})
    return [structures[k] for k in selected], left_out


def _in_order(reaction: Reaction, answer: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The two ends of a path; the published reactant first, if it is one of them."""
    first, second = answer["ends"]
    if "positions" in second and same_bonds(_graph(second), bonds(reaction.reactant)):
        return second, first
    return first, second


def _graph(end: Mapping[str, Any]) -> Any:
    return bonds(Structure(end["numbers"], end["positions"]))


def path_points(paths: Answers, parts: Mapping[str, str], count: int) -> list[Structure]:
    """At least `count` points (if there are as many) along the complete paths of test reactions, evenly distributed
    over each path, without the transition states, which are critical points already."""
    complete = {
        name: answer for name, answer in sorted(paths.items()) if parts.get(name) == "test" and _complete(answer)
    }
    points = {name: [p for p in answer["path"] if p["arc"] != 0.0] for name, answer in complete.items()}
    share = _share([len(p) for p in points.values()], count)
    return [
        _named(complete[name]["numbers"], point["positions"], name, "irc", f"{name}/irc/{point['arc']:+.2f}")
        for name, all_points in points.items()
        for point in _even(all_points, share)
    ]


def centers(points: Sequence[Structure], per_reaction: int) -> list[str]:
    """Ids of `per_reaction` points of every path, evenly distributed."""
    groups: dict[str, list[str]] = {}
    for structure in points:
        groups.setdefault(structure.group, []).append(structure.id)
    return [name for names in groups.values() for name in _even(names, per_reaction)]


def _share(available: Sequence[int], total: int) -> int:
    """The smallest number per path that gives `total` points in all."""
    for share in range(1, max(available, default=0) + 1):
        if sum(min(n, share) for n in available) >= total:
            return share
    return max(available, default=0)


def _even(items: Sequence[Any], count: int) -> list[Any]:
    if len(items) <= count:
        return list(items)
    return [items[k] for k in np.round((np.arange(count) + 0.5) * len(items) / count - 0.5).astype(int)]


def _named(numbers: Any, positions: Any, reaction: str, tag: str, name: str = "") -> Structure:
    return Structure(numbers, positions, id=name or f"{reaction}/{tag}", tag=tag, group=reaction)
