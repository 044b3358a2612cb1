"""Transition states of four Morse atoms: the reference, other potentials beside it, and engines that fail."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from torch import Tensor

import closed_form_engines
from hesse.datasets import Dataset
from hesse.engines import PotentialEngine
from hesse.evaluation.reaction_errors import find_reactions
from hesse.evaluation.saddle_judgment import JudgmentSettings, SaddleTask, judge_saddle, saddle_tasks
from hesse.pes import irc, minimize, saddle
from hesse.structures import Batch, Properties
from oracles import Harmonic, Morse, labeled, rhombus


@cache
def reference() -> Dataset:
    """The rhombus and the two tetrahedra, with closed-form labels."""
    engine = PotentialEngine(Morse())
    top = saddle(rhombus(), engine, fmax=1e-4)
    path = irc(top.structure, engine, hessian=top.hessian)
    ends = [minimize(half[-1].structure, engine, fmax=1e-4).structure for half in (path.backward, path.forward)]
    structures = [
        replace(s, id=f"flip/{tag}", tag=tag, group="flip")
        for s, tag in zip((top.structure, *ends), ("ts", "reactant", "product"), strict=True)
    ]
    return labeled(Morse(), structures, hessian=True)


def task() -> SaddleTask:
    (found,) = saddle_tasks(reference(), find_reactions(reference())[0])
    return found


def test_the_task_holds_what_the_reference_says() -> None:
    data, found = reference(), task()
    energy = data.labels.energy
    assert energy is not None
    assert found.name == "flip"
    assert found.barrier == pytest.approx(float(energy[0] - energy[1]))
    top = saddle(rhombus(), PotentialEngine(Morse()), fmax=1e-4)
    assert found.frequency == pytest.approx(top.imaginary_frequency, rel=1e-3)
    assert [s.tag for s in found.structures] == ["ts", "reactant", "product"]


def test_the_reference_itself_has_its_transition_state_and_ends() -> None:
    row = judge_saddle(task(), PotentialEngine(Morse()))
    assert row["found"]
    assert row["rmsd"] < 1e-3
    assert row["imaginary_frequency"] == pytest.approx(row["reference_imaginary_frequency"], rel=1e-3)
    assert row["barrier"] == pytest.approx(row["reference_barrier"], abs=1e-3)
    assert row["ends"] == ["same", "same"]
    assert row["ends_right"]
    assert row["reason"] == ""
    assert row["hessians"] >= 1


class Shifted(Morse):
    """Its energies are not zero at the minimum."""

    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch) + 2.5


def test_an_offset_of_energies_does_not_change_the_barrier() -> None:
    row = judge_saddle(task(), PotentialEngine(Shifted()))
    assert row["barrier"] == pytest.approx(row["reference_barrier"], abs=1e-3)
    assert row["ends_right"]


def test_another_potential_has_another_barrier() -> None:
    """Twice the depth: twice the barrier, the same geometry, an imaginary frequency √2 times as large."""
    row = judge_saddle(task(), PotentialEngine(Morse(depth=8.0)))
    assert row["found"]
    assert row["barrier"] == pytest.approx(2 * row["reference_barrier"], rel=1e-3)
    assert row["imaginary_frequency"] == pytest.approx(np.sqrt(2) * row["reference_imaginary_frequency"], rel=1e-3)


def test_a_saddle_point_far_away_is_not_the_same() -> None:
    settings = JudgmentSettings(distance=0.05)
    row = judge_saddle(task(), PotentialEngine(Morse(r0=1.3)), settings)
    assert row["converged"]
    assert not row["found"]
    assert row["rmsd"] > 0.05
    assert f"{row['rmsd']:.2f} Å away" in row["reason"]
    assert row["ends_right"] is None


def test_the_path_is_followed_only_where_asked() -> None:
    row = judge_saddle(task(), PotentialEngine(Morse()), JudgmentSettings(follow=False))
    assert row["found"]
    assert row["ends_right"] is None
    assert row["barrier"] is not None
    row = judge_saddle(replace(task(), reactant=None), PotentialEngine(Morse()))
    assert (row["found"], row["barrier"], row["ends_right"]) == (True, None, None)


def test_a_path_of_another_reaction_has_the_wrong_ends() -> None:
    """The product is the reactant again: the path leads elsewhere."""
    found = task()
    row = judge_saddle(replace(found, product=found.reactant), PotentialEngine(Morse()))
    assert row["found"]
    assert row["ends_right"] is False
    assert row["reason"].startswith("path: its ends are")


def test_a_path_that_is_too_long_is_a_failure_of_the_path() -> None:
    row = judge_saddle(task(), PotentialEngine(Morse()), JudgmentSettings(irc_steps=2))
    assert row["found"]
    assert row["ends_right"] is False
    assert "steps" in row["reason"]


def test_failures_are_records() -> None:
    row = judge_saddle(task(), PotentialEngine(Harmonic([task().saddle])), JudgmentSettings(saddle_steps=3))
    assert not row["found"]
    assert row["reason"].startswith("search: ")

    class Broken(closed_form_engines.ClosedForm):
        def energy_function(self, structure):  # type: ignore[no-untyped-def]
            from hesse.errors import EngineError

            raise EngineError("no licence")

    row = judge_saddle(task(), Broken(Morse()))
    assert (row["found"], row["converged"], row["reason"]) == (False, False, "search: no licence")


def test_a_transition_state_without_labels() -> None:
    data = reference()
    bare = Dataset.from_pairs(
        [(s, Properties.single(4, forces=np.zeros((4, 3)), structure_id=s.id)) for s in data.structures], level="none"
    )
    (found,) = saddle_tasks(bare, find_reactions(bare)[0])
    assert (found.frequency, found.barrier) == (None, None)
