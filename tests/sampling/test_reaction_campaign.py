"""Many reactions: names of pairs, rows of every outcome, and no search twice."""

from __future__ import annotations

import numpy as np
import pytest

import closed_form_engines
import hesse
from hesse.errors import RequestError
from hesse.sampling import CampaignResult, reaction_pairs, search_reactions
from hesse.structures import Structure

TETRAHEDRON = np.array([[0.55, 0, -0.39], [-0.55, 0, -0.39], [0, 0.55, 0.39], [0, -0.55, 0.39]])


def end(name: str, mirrored: bool = False, numbers: tuple[int, ...] = (6, 6, 6, 6), group: str = "") -> Structure:
    return Structure(numbers, TETRAHEDRON * [1, 1, -1 if mirrored else 1], id=name, group=group)


def test_pairs_come_from_one_file_or_two():
    frames = [end("a"), end("b", True), end("c", group="g"), end("d", True, group="g")]
    assert [pair.id for pair in reaction_pairs(frames)] == ["a", "g"]
    assert [pair.product.id for pair in reaction_pairs(frames[::2], frames[1::2])] == ["b", "d"]
    assert [pair.id for pair in reaction_pairs([end("a"), end("b"), end("a"), end("b")])] == ["a-1", "a-2"]
    with pytest.raises(RequestError, match="an even number"):
        reaction_pairs(frames[:3])
    with pytest.raises(RequestError, match="2 reactants and 1 products"):
        reaction_pairs(frames[:2], frames[:1])


def test_every_pair_has_a_row_and_is_searched_once(tmp_path):
    pairs = reaction_pairs(
        [
            end("inversion"),
            end("p", True),
            end("swapped", numbers=(6, 6, 6, 7)),
            end("q", numbers=(6, 6, 7, 6)),
            end("still"),
            end("still"),
        ]
    )
    engine, seen = closed_form_engines.own_engine(), list[tuple[int, hesse.pes.Reaction]]()
    first = search_reactions(
        pairs, engine, tmp_path / "out", quiet=True, images=5, on_result=lambda k, found: seen.append((k, found))
    )
    assert [row["outcome"] for row in first.rows] == ["found", "different_atoms", "same_ends"]
    assert "atom 2 is C and N" in first.rows[1]["reason"]
    assert first.statistics() == {"found": 1, "different_atoms": 1, "same_ends": 1}
    assert first.n_found == 1
    assert [k for k, _ in seen] == [0, 1, 2]
    assert seen[0][1].found
    calls = engine.calls
    again = search_reactions(pairs, engine, tmp_path / "out", quiet=True, images=5)
    assert (again.n_reused, engine.calls) == (3, calls)
    assert again.rows == first.rows
    other = search_reactions(pairs[2:], engine, tmp_path / "out", quiet=True, images=6)
    assert other.n_reused == 0


@pytest.mark.slow
def test_worker_processes_and_failing_engines(tmp_path):
    pairs = reaction_pairs([end("a"), end("b", True), end("sodium", numbers=(11,) * 4), end("c", True, (11,) * 4)])
    result = search_reactions(
        pairs, "ase:closed_form_engines:killer", tmp_path / "out", workers=2, quiet=True, images=5, verify="gfn1"
    )
    assert [row["outcome"] for row in result.rows] == ["found", "engine_failed"]
    assert "no convergence" in result.rows[1]["reason"]


def test_statistics_begin_with_found():
    rows = [{"outcome": o, "found": o == "found"} for o in ("no_saddle", "no_saddle", "found", "same_ends")]
    assert list(CampaignResult(tuple(rows)).statistics().items()) == [("found", 1), ("no_saddle", 2), ("same_ends", 1)]
