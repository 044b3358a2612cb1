"""Errors of barriers, and statistics of transition states."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from hesse.datasets import Dataset
from hesse.evaluation.averages import MetricRow
from hesse.evaluation.reaction_errors import ReactionMembers, find_reactions, reaction_metrics, saddle_metrics
from hesse.structures import Properties
from oracles import molecule

ENERGIES = {
    ("a", "reactant"): (0.0, 0.1),
    ("a", "ts"): (1.5, 1.9),
    ("a", "product"): (-0.5, -0.3),
    ("b", "ts"): (2.0, 1.7),
    ("b", "product"): (1.0, 1.0),
    ("c", "reactant"): (0.3, 5.0),
    ("", "ts"): (0.0, 9.0),
    ("a", "irc"): (0.0, 9.0),
}
"""Reference and predicted energies by group and tag, eV."""


def reactions(energies: dict[tuple[str, str], tuple[float, float]] = ENERGIES) -> tuple[Dataset, Properties]:
    structures = [
        replace(molecule(3, k, elements=(6,)), id=f"{group}/{tag}/{k}", group=group, tag=tag)
        for k, (group, tag) in enumerate(energies)
    ]
    pairs = [
        (s, Properties.single(3, energy=known, structure_id=s.id))
        for s, (known, _) in zip(structures, energies.values(), strict=True)
    ]
    data = Dataset.from_pairs(pairs, level="closed form")
    return data, data.labels.replace(energy=torch.tensor([e for _, e in energies.values()], dtype=torch.float64))


def values_of(rows: list[MetricRow]) -> dict[tuple[str, str], MetricRow]:
    return {(row.property, row.metric): row for row in rows}


def test_reactions_are_found_by_group_and_tag() -> None:
    found, notes = find_reactions(reactions()[0])
    assert found == [ReactionMembers("a", 0, 1, 2), ReactionMembers("b", None, 3, 4)]
    assert notes == []


def test_a_transition_state_alone_is_searched_but_a_minimum_alone_is_no_reaction() -> None:
    data, _ = reactions({("a", "ts"): (0.0, 0.0), ("b", "product"): (0.0, 0.0)})
    assert find_reactions(data) == ([ReactionMembers("a", saddle=0)], [])


def test_a_group_with_two_reactants_is_no_single_reaction() -> None:
    data, _ = reactions()
    structures = [replace(s, group="a") if s.group == "c" else s for s in data.structures]
    found, (note,) = find_reactions(replace(data, structures=tuple(structures)))
    assert [r.name for r in found] == ["b"]
    assert "1 groups" in note
    assert note.endswith("a")


def test_barriers_are_differences_of_energies() -> None:
    rows = values_of(reaction_metrics(*reactions(), name="set"))
    barrier = (1.9 - 0.1) - 1.5
    reverse = [(1.9 + 0.3) - 2.0, (1.7 - 1.0) - 1.0]
    energy = (-0.3 - 0.1) + 0.5
    assert rows["barrier", "mae"].value == pytest.approx(barrier)
    assert rows["barrier", "mae"].n == 1
    assert rows["reverse_barrier", "mae"].value == pytest.approx(np.abs(reverse).mean())
    assert rows["reverse_barrier", "rmse"].value == pytest.approx(np.sqrt(np.square(reverse).mean()))
    assert rows["reverse_barrier", "bias"].value == pytest.approx(np.mean(reverse))
    assert rows["reverse_barrier", "bias"].groups == 2
    assert rows["reaction_energy", "mae"].value == pytest.approx(energy)
    assert {(row.dataset, row.tag, row.unit) for row in rows.values()} == {("set", "", "eV")}


def test_an_offset_of_all_energies_is_no_error() -> None:
    data, _ = reactions()
    shifted = data.labels.replace(energy=data.labels.energy + 17.0)
    rows = values_of(reaction_metrics(data, shifted))
    assert rows["barrier", "mae"].value == pytest.approx(0.0, abs=1e-12)


def test_the_noise_of_two_energies_adds() -> None:
    data, predictions = reactions()
    error = torch.tensor([0.03, 0.04, 0.0, 0.3, 0.4, 0.0, 0.0, 0.0], dtype=torch.float64)
    noisy = replace(data, labels=data.labels.replace(energy_error=error))
    rows = values_of(reaction_metrics(noisy, predictions))
    assert rows["barrier", "noise_floor"].value == pytest.approx(0.05)
    assert rows["reverse_barrier", "noise_floor"].value == pytest.approx(np.sqrt((0.04**2 + 0.5**2) / 2))


def test_missing_energies_leave_a_reaction_out() -> None:
    data, predictions = reactions()
    mask = torch.ones(8, dtype=torch.bool)
    mask[0] = False
    part = data.labels.replace(energy=data.labels.energy.masked_fill(~mask, torch.nan), energy_mask=mask)
    rows = values_of(reaction_metrics(replace(data, labels=part), predictions))
    assert ("barrier", "mae") not in rows
    assert rows["reverse_barrier", "mae"].n == 2
    without = data.labels.replace(energy=None, forces=torch.zeros(24, 3))
    assert reaction_metrics(replace(data, labels=without), predictions) == []


def record(found: bool, **values: Any) -> dict[str, Any]:
    empty = dict.fromkeys(
        ["rmsd", "imaginary_frequency", "reference_imaginary_frequency", "barrier", "reference_barrier", "ends_right"]
    )
    return {**empty, "found": found, **values}


def test_statistics_of_transition_states() -> None:
    records = [
        record(True, rmsd=0.1, imaginary_frequency=-900.0, reference_imaginary_frequency=-1000.0, ends_right=True),
        record(True, rmsd=0.2, imaginary_frequency=-500.0, barrier=1.0, reference_barrier=1.4, ends_right=False),
        record(False, rmsd=1.7, imaginary_frequency=-100.0, reference_imaginary_frequency=-1000.0),
        record(False),
    ]
    rows = values_of(saddle_metrics(records, "set"))
    assert (rows["transition_states", "fraction_found"].value, rows["transition_states", "fraction_found"].n) == (
        0.5,
        4,
    )
    assert rows["transition_states", "rmsd"].value == pytest.approx(0.15)
    assert (rows["imaginary_frequency", "bias"].value, rows["imaginary_frequency", "bias"].n) == (100.0, 1)
    assert rows["relaxed_barrier", "mae"].value == pytest.approx(0.4)
    assert (rows["irc_ends", "fraction_right"].value, rows["irc_ends", "fraction_right"].n) == (0.5, 2)
    assert saddle_metrics([], "set") == []


def test_structures_of_reactions_may_be_anywhere_in_the_data() -> None:
    data, predictions = reactions()
    order = [4, 1, 6, 0, 7, 2, 5, 3]
    first = values_of(reaction_metrics(data, predictions))
    second = values_of(reaction_metrics(data.select(order), predictions.select(torch.tensor(order))))
    assert {key: row.value for key, row in first.items()} == pytest.approx({k: r.value for k, r in second.items()})
