"""Structures: validation, ids, random keys, copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hesse.errors import GeometryError
from hesse.structures import Structure, rng_key
from oracles import atom, crystal, molecule

WATER: dict[str, Any] = {"numbers": [8, 1, 1], "positions": [[0, 0, 0.1], [0, 0.76, -0.5], [0, -0.76, -0.5]]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"positions": [[0, 0, 0]]}, "expected numbers"),
        ({"numbers": [], "positions": np.zeros((0, 3))}, "at least one atom"),
        ({"numbers": [8, 1, 0]}, "1..118"),
        ({"numbers": [8, 1, 119]}, "1..118"),
        ({"numbers": ["O", "H", "H"]}, "arrays of numbers"),
        ({"positions": [[0, 0, np.nan], [0, 1, 0], [1, 0, 0]]}, "finite"),
        ({"positions": [[0, 0, np.inf], [0, 1, 0], [1, 0, 0]]}, "finite"),
        ({"cell": np.eye(2)}, "cell"),
        ({"pbc": (True, True, True)}, "do not span"),
        ({"pbc": (True, True, False), "cell": [[3, 0, 0], [6, 0, 0], [0, 0, 3]]}, "do not span"),
    ],
    ids=lambda x: "" if isinstance(x, dict) else x,
)
def test_invalid_structures_raise_with_their_id(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(GeometryError, match=words) as caught:
        Structure(**{**WATER, "id": "water-17", **changes})
    assert "water-17" in str(caught.value) or "arrays of numbers" in words


def test_arrays_are_frozen_copies() -> None:
    positions = np.array(WATER["positions"], dtype=float)
    s = Structure(WATER["numbers"], positions)
    positions[0, 0] = 9.0
    assert s.positions[0, 0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        s.positions[0, 0] = 1.0


def test_the_default_id_is_the_content() -> None:
    s = Structure(**WATER)
    assert s.id == Structure(**WATER, tag="relaxed", group="water").id
    others = [
        s.with_positions(s.positions + 1e-3),
        Structure(**WATER, charge=1),
        Structure(**WATER, multiplicity=3),
        Structure([8, 1, 9], WATER["positions"]),
        Structure(**WATER, cell=5 * np.eye(3), pbc=(True, True, True)),
    ]
    assert len({s.id, *(o.id for o in others)}) == 6
    # Minus zero is zero.
    assert Structure([1], [[-0.0, 0, 0]]).id == Structure([1], [[0.0, 0, 0]]).id


def test_random_keys_are_63_bits_and_fixed() -> None:
    assert rng_key("water-17") == 4700797032182291372
    assert all(0 <= rng_key(str(i)) < 2**63 for i in range(100))


def test_overlapping_atoms_are_named() -> None:
    with pytest.raises(GeometryError, match=r"atoms 0 and 2 are 0\.200 Å apart"):
        Structure([1, 1, 1], [[0, 0, 0], [2, 0, 0], [0, 0.2, 0]]).check_no_overlap()
    with pytest.raises(GeometryError, match=r"0\.100 Å"):  # across the boundary
        Structure([1, 1], [[0.05, 0, 0], [4.95, 0, 0]], cell=5 * np.eye(3), pbc=(True, True, True)).check_no_overlap()
    for s in (atom(), molecule(8, 1), crystal()):
        s.check_no_overlap()
    assert atom().closest_pair()[0] == np.inf


def test_default_ids_contain_the_formula() -> None:
    water = Structure([8, 1, 1], [[0, 0, 0], [0, 0, 0.96], [0.93, 0, -0.24]])
    formula, _, digest = water.id.partition("-")
    assert formula == "H2O"
    assert len(digest) == 16
    with pytest.raises(GeometryError, match='"unknown-'):
        Structure([0, 200], [[0, 0, 0], [0, 0, 1]])


def test_the_closest_pair_of_many_atoms_equals_that_of_all_distances() -> None:
    positions = np.random.default_rng(3).random((700, 3)) * 60.0
    positions[650] = positions[3] + [0.05, 0.0, 0.0]
    distance, *pair = Structure(np.ones(700, dtype=int), positions).closest_pair()
    assert distance == pytest.approx(0.05)
    assert sorted(pair) == [3, 650]
    positions[650] = positions[3]
    distance, *pair = Structure(np.ones(700, dtype=int), positions).closest_pair()
    assert distance == 0.0
    assert sorted(pair) == [3, 650]
