"""Invariance of fingerprints; duplicates, diversity and energy windows against brute force."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st

import oracles
from hesse.errors import ConfigError, MissingLabelError, RequestError
from hesse.sampling import (
    SelectionCriteria,
    distance_fingerprint,
    farthest_point_sampling,
    fingerprint_distance,
    select_structures,
    unique_structures,
)
from hesse.structures import Structure, from_ase


def shaken(structure: Structure, size: float, seed: int, **options) -> Structure:
    moved = structure.positions + size * np.random.default_rng(seed).normal(size=structure.positions.shape)
    return Structure(structure.numbers, moved, **options)


@given(seed=st.integers(0, 10_000), n=st.integers(1, 8), mirror=st.booleans())
def test_fingerprints_are_invariant(seed, n, mirror):
    one = oracles.molecule(n, seed)
    order = np.random.default_rng(seed).permutation(n)
    turn = oracles.rotation(seed) * (-1 if mirror else 1)
    other = Structure(one.numbers[order], one.positions[order] @ turn.T + [3.0, -1.0, 7.0])
    assert fingerprint_distance(one, other) == pytest.approx(0.0, abs=1e-12)


@given(seed=st.integers(0, 10_000), n=st.integers(2, 6))
def test_the_distance_is_a_lower_bound_of_every_matching(seed, n):
    """Brute force over permutations of equal atoms: none brings the distance matrices closer than the fingerprint."""
    one, other = oracles.molecule(n, seed), None
    other = shaken(one, 0.3, seed)
    first, second = np.triu_indices(n, 1)

    def matrix(s, order):
        x = s.positions[list(order)]
        return np.linalg.norm(x[first] - x[second], axis=1)

    start = matrix(one, range(n))
    best = min(
        np.sqrt(np.mean((matrix(other, order) - start) ** 2))
        for order in itertools.permutations(range(n))
        if np.array_equal(one.numbers[list(order)], one.numbers)
    )
    assert fingerprint_distance(one, other) <= best + 1e-12


def test_small_displacements_in_angstrom():
    one = oracles.molecule(9, 3, elements=(6,))
    r = 1e-4
    result = [fingerprint_distance(one, shaken(one, r / np.sqrt(3), seed)) for seed in range(200)]
    # Each distance changes by the difference of two components of r/√3 each.
    assert np.sqrt(np.mean(np.square(result))) == pytest.approx(np.sqrt(2 / 3) * r, rel=0.1)


def test_fingerprints_of_crystals_are_independent_of_the_cell():
    one = oracles.crystal(1, elements=(6, 8, 8))
    other = Structure(
        one.numbers[[0, 2, 1]],
        one.positions[[0, 2, 1]] + one.cell[0] * 2 + [0.1, 0.2, 0.3],
        cell=one.cell + np.array([[0, 0, 0], [0, 0, 0], one.cell[0].tolist()]),
        pbc=one.pbc,
    )
    assert fingerprint_distance(one, other) == pytest.approx(0.0, abs=1e-9)
    fcc, bcc = (from_ase(bulk("Cu", kind, a=a)) for kind, a in (("fcc", 3.6), ("bcc", 2.87)))
    # Sixteen directed neighbors of one atom: twelve at a/√2 and four of the six at a; eight and six and two in bcc.
    assert distance_fingerprint(fcc) == pytest.approx([3.6 / np.sqrt(2)] * 12 + [3.6] * 4)
    assert distance_fingerprint(bcc) == pytest.approx(
        [2.87 * np.sqrt(3) / 2] * 8 + [2.87] * 6 + [2.87 * np.sqrt(2)] * 2
    )
    assert fingerprint_distance(fcc, bcc) > 0.2


def test_different_molecules_are_not_compared():
    one = oracles.molecule(4, 1)
    charged = Structure(one.numbers, one.positions, charge=1, multiplicity=2)
    with pytest.raises(RequestError, match="cannot be compared"):
        fingerprint_distance(one, charged)
    assert unique_structures([one, charged, one]) == [0, 1]


@pytest.mark.parametrize("tolerance", [0.02, 0.1, 0.4])
def test_duplicates_are_those_of_a_plain_double_loop(tolerance):
    structures = [shaken(oracles.molecule(6, k % 3), 0.1 * ((k * 7) % 5) / 5, k, id=f"s{k}") for k in range(120)]
    structures += [oracles.atom(6), oracles.atom(6), oracles.atom(8)]
    kept: list[int] = []
    for i, s in enumerate(structures):
        like = [
            k
            for k in kept
            if sorted(structures[k].numbers) == sorted(s.numbers)
            and fingerprint_distance(structures[k], s) <= tolerance
        ]
        if not like:
            kept.append(i)
    assert unique_structures(structures, tolerance) == kept
    assert 3 <= len(kept) < len(structures)


def test_farthest_points_are_those_of_the_definition():
    structures = [shaken(oracles.molecule(5, 1), 0.3, k) for k in range(40)]
    chosen = farthest_point_sampling(structures, 12).tolist()
    gaps = np.array([[fingerprint_distance(a, b) for a in structures] for b in structures])
    assert chosen[0] == 0
    for k in range(1, 12):
        assert gaps[chosen[k], chosen[:k]].min() == pytest.approx(gaps[:, chosen[:k]].min(1).max())
    assert len(set(chosen)) == 12
    assert sorted(farthest_point_sampling(structures, 99).tolist()) == list(range(40))
    mixed = [*structures[:5], oracles.molecule(4, 9), oracles.atom(1)]
    assert farthest_point_sampling(mixed, 3).tolist() == [0, 5, 6]
    twins = [structures[0]] * 3
    assert sorted(farthest_point_sampling(twins, 3).tolist()) == [0, 1, 2]


def test_criteria_and_reasons():
    base, other = oracles.molecule(5, 1), oracles.molecule(4, 2)
    structures = [shaken(base, 0.2, k, id=f"a{k}", group="a") for k in range(4)]
    structures += [Structure(base.numbers, structures[1].positions + 5.0, id="copy", group="a")]
    structures += [shaken(other, 0.2, k, id=f"b{k}", group="a") for k in range(2)]
    energies = [0.0, 0.5, 3.1, 0.2, 0.1, 100.0, np.nan]
    result = select_structures(
        structures, SelectionCriteria(tolerance=0.05, energy_window=3.0, per_group=3), energies=energies
    )
    steps = {d.id: (d.step, d.reason) for d in result.rejected}
    assert steps["a2"] == ("window", "3.1 eV above the lowest of its group, more than 3 eV")
    assert steps["b1"] == ("window", "no energy")
    assert steps["copy"] == ("duplicate", 'within 0.05 Å of "a1"')
    assert [structures[i].id for i in result.selected] == ["a0", "a1", "b0"] or [
        structures[i].id for i in result.selected
    ] == [
        "a0",
        "a3",
        "b0",
    ]
    assert len(result.selected) + len(result.rejected) == len(structures)
    few = select_structures(structures, SelectionCriteria(tolerance=None, count=2))
    assert [structures[i].id for i in few.selected] == ["a0", "b0"]
    assert {d.step for d in few.rejected} == {"count"}


def test_invalid_criteria_get_a_reply():
    structures = [oracles.molecule(3, 1)]
    with pytest.raises(ConfigError, match="tolerance"):
        unique_structures(structures, 0.0)
    with pytest.raises(ConfigError, match="window"):
        SelectionCriteria(energy_window=-1.0)
    with pytest.raises(ConfigError, match="expected 1 or more"):
        SelectionCriteria(count=0)
    with pytest.raises(ConfigError, match="needs a tolerance"):
        SelectionCriteria(tolerance=None)
    with pytest.raises(MissingLabelError, match="energies"):
        select_structures(structures, SelectionCriteria(energy_window=1.0))
    with pytest.raises(ConfigError, match="one energy"):
        select_structures(structures, SelectionCriteria(energy_window=1.0), energies=[1.0, 2.0])
    assert unique_structures([]) == []
    assert select_structures([], SelectionCriteria(per_group=1, count=1)).selected == ()


def test_many_structures_of_one_composition():
    """Groups of copies: the cost is that of the selected ones. (10⁵ structures are timed in docs/sampling.md.)"""
    centers = [oracles.molecule(8, 1).positions + 0.3 * np.random.default_rng(k).normal(size=(8, 3)) for k in range(50)]
    numbers = oracles.molecule(8, 1).numbers
    structures = [Structure(numbers, centers[k % 50], id=str(k)) for k in range(4000)]
    start = time.process_time()
    assert unique_structures(structures, 0.01) == list(range(50))
    assert time.process_time() - start < 20.0
