"""Distributions of beads against closed forms: an ideal gas, lattices, a random walk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hesse.coarse.bead_distributions import (
    BinnedDistribution,
    angular_distribution,
    density_profile,
    mean_square_displacement,
    radial_distribution,
)
from hesse.coarse.bead_frames import BeadFrames, frames_by_state_point
from hesse.errors import GeometryError, RequestError
from hesse.structures import Structure, bead_number

VOTCA = Path(__file__).parents[3] / "shared/data/cg_votca"
pytest.importorskip("freud", reason="freud computes distributions of pairs")


def frames(positions: np.ndarray, cell: np.ndarray, types: str = "W", **fields: object) -> BeadFrames:
    positions = np.asarray(positions, dtype=float).reshape(-1, np.shape(positions)[-2], 3)
    n = positions.shape[1]
    numbers = np.array([bead_number(types[k % len(types)]) for k in range(n)])
    runs = fields.pop("runs", np.zeros(len(positions), dtype=int))
    return BeadFrames("", numbers, np.full(n, 18.0), positions, np.asarray(cell, dtype=float), runs, **fields)


def fcc(side: int, edge: float) -> tuple[np.ndarray, np.ndarray]:
    base = 0.5 * edge * np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])
    corners = edge * np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    return (corners[:, None] + base).reshape(-1, 3), side * edge * np.eye(3)


@pytest.mark.parametrize("pair", [None, ("A", "A"), ("A", "B")])
def test_an_ideal_gas_in_a_skewed_cell_has_g_1(pair: tuple[str, str] | None) -> None:
    rng = np.random.default_rng(1)
    cell = np.array([[0.0, 14.0, 3.0], [15.0, 2.0, 0.0], [1.0, 4.0, 16.0]])  # left-handed
    gas = frames(rng.uniform(-2, 3, (100, 60, 3)) @ cell, cell, "AB")
    assert np.linalg.det(cell) < 0
    rdf = radial_distribution(gas, bins=20, pair=pair)
    n_pairs = {None: 60 * 59 / 2, ("A", "A"): 30 * 29 / 2, ("A", "B"): 30 * 30}[pair]
    shell = 4 * np.pi * rdf.centers**2 * rdf.width / gas.volume
    expected = 1.0 / np.sqrt(n_pairs * shell * len(gas))  # counting statistics
    assert (np.abs(rdf.mean[2:] - 1.0) / expected[2:]).max() < 4.0
    low, high = rdf.band()
    half = 0.5 * (high - low) / 1.96
    assert np.median(half[2:] / expected[2:]) == pytest.approx(1.0, abs=0.3)


def test_the_shells_of_a_lattice_are_where_and_as_large_as_they_must_be() -> None:
    positions, cell = fcc(3, 4.0)
    shaken = frames(positions + 0.7, cell)
    rdf = radial_distribution(shaken, bins=300, blocks=1)
    density = len(positions) / shaken.volume
    neighbors = rdf.mean * 4 * np.pi * rdf.centers**2 * rdf.width * density * (len(positions) - 1) / len(positions)
    for distance, count in ((4.0 / 2**0.5, 12), (4.0, 6), (4.0 * 1.5**0.5, 24)):
        near = np.abs(rdf.centers - distance) < 0.05
        assert neighbors[near].sum() == pytest.approx(count, rel=5e-3)
    assert neighbors.sum() == pytest.approx(12 + 6 + 24 + 12, rel=5e-3)  # 4 √2 = 5.66 Å is inside 6 Å


def test_angles_of_a_lattice() -> None:
    positions, cell = fcc(2, 4.0)
    adf = angular_distribution(frames(positions, cell), cutoff=3.2, bins=36, blocks=1)
    share = adf.mean * 5.0
    exact = {60: 24, 90: 12, 120: 24, 180: 6}  # of the 66 pairs among 12 nearest neighbors
    assert share.sum() == pytest.approx(1.0)
    for degrees, count in exact.items():
        assert share[np.abs(adf.centers - degrees) < 4].sum() == pytest.approx(count / 66)


def test_angles_of_an_ideal_gas_have_random_directions() -> None:
    rng = np.random.default_rng(3)
    gas = frames(rng.uniform(0, 12, (40, 80, 3)), 12 * np.eye(3), "AB")
    adf = angular_distribution(gas, cutoff=4.0, bins=18, pair=("A", "B"))
    assert np.abs(adf.mean - np.sin(np.radians(adf.centers)) * np.pi / 360).max() < 4e-4


def test_a_slab_has_its_density_wherever_it_drifts() -> None:
    rng = np.random.default_rng(2)
    cell = np.diag([10.0, 10.0, 40.0])
    positions = rng.uniform(0, 1, (50, 200, 3)) * [10, 10, 20] + rng.uniform(0, 40, (50, 1, 1)) * [0, 0, 1]
    profile = density_profile(frames(positions, cell), bins=20)
    inside = np.abs(profile.centers - 20.0) < 8.0
    assert profile.mean[inside].mean() == pytest.approx(200 * 18.0 / 2000 * 1.66054, rel=0.02)
    assert profile.mean[np.abs(profile.centers - 20.0) > 12.0].max() < 0.02
    assert profile.mean.mean() == pytest.approx(200 * 18.0 / 4000 * 1.66054)


def test_displacements_of_a_random_walk_through_the_boundary_and_of_two_runs() -> None:
    rng = np.random.default_rng(4)
    walk = np.cumsum(rng.normal(0, 0.4, (2, 60, 150, 3)), axis=1)
    cell = np.diag([9.0, 9.0, 9.0])
    wrapped = (walk.reshape(120, 150, 3)) % 9.0
    both = frames(wrapped, cell, runs=np.repeat([0, 1], 60), frame_time=0.5)
    times, msd = mean_square_displacement(both)
    assert len(times) == 31
    assert times[1] == 0.5
    slope = np.polyfit(times[1:16], msd[1:16], 1)[0]
    assert slope == pytest.approx(3 * 0.16 / 0.5 * 149 / 150, rel=0.05)
    assert msd[0] == pytest.approx(0.0, abs=1e-4)


def test_bands_of_independent_blocks_cover_the_truth() -> None:
    rng, covered, widths = np.random.default_rng(5), [], []
    for seed in range(200):
        one = BinnedDistribution(np.arange(3.0), rng.normal(0, 1, (10, 3)))
        low, high = one.band(seed=seed, samples=300)
        covered.append((low < 0) & (high > 0))
        widths.append(high - low)
    assert np.mean(widths) / (2 * 1.96) == pytest.approx(10**-0.5, rel=0.08)
    assert 0.88 < np.mean(covered) < 0.97  # Student's t for ten blocks would be 15 % wider
    assert np.isnan(BinnedDistribution(np.arange(3.0), np.ones((1, 3))).band()).all()


def structure(tag: str = "", edge: float = 9.0, n: int = 4, **fields: object) -> Structure:
    positions = np.random.default_rng(n).uniform(0, edge, (n, 3))
    fields = {"pbc": True, "masses": [18.0] * n, "cell": edge * np.eye(3)} | fields
    return Structure([bead_number("W")] * n, positions, tag=tag, **fields)


def test_frames_are_sorted_by_state_point_and_run() -> None:
    data = [structure("a", id="x/0"), structure("b", id="y/0"), structure("a", id="z/0"), structure("a", id="x/1")]
    found = frames_by_state_point(data, frame_time=2.0)
    assert list(found) == ["a", "b"]
    assert found["a"].runs.tolist() == [0, 0, 1]
    assert len(found["a"].without_start(2.0)) == 1
    with pytest.raises(RequestError, match="no frame is later than 9 ps; the longest run has 2 ps"):
        found["a"].without_start(9.0)
    assert found["a"].types == ("W",)


@pytest.mark.parametrize(
    ("second", "error", "words"),
    [
        (structure("a", edge=9.5, id="1"), GeometryError, "the cell changes, from 9.000 x 9.000"),
        (structure("a", n=5, id="1"), RequestError, r"different beads \(W4 and W5\)"),
    ],
)
def test_frames_that_do_not_belong_together_are_refused(second: Structure, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        frames_by_state_point([structure("a", id="0"), second])


def test_a_molecule_without_a_cell_is_refused() -> None:
    with pytest.raises(GeometryError, match="periodic in three directions"):
        frames_by_state_point([structure(pbc=False, cell=np.zeros((3, 3)))])


def test_distances_beyond_half_the_cell_and_unknown_types_are_refused() -> None:
    box = frames(np.zeros((1, 4, 3)) + np.arange(4)[:, None], 9.0 * np.eye(3))
    with pytest.raises(RequestError, match=r"below half the width of the cell, 4\.500 Å, got 6"):
        radial_distribution(box, r_max=6.0)
    with pytest.raises(RequestError, match="no beads of type 'MEOH', only W"):
        radial_distribution(box, pair=("W", "MEOH"))
    with pytest.raises(RequestError, match="axis of a density profile"):
        density_profile(box, axis=3)
    with pytest.raises(RequestError, match="no run has three frames"):
        mean_square_displacement(box)
    with pytest.raises(RequestError, match="must be a positive number of Å"):
        angular_distribution(box, cutoff=0.0)


def read_gro(path: Path) -> tuple[np.ndarray, list[str], np.ndarray]:
    lines = path.read_text().splitlines()
    atoms = lines[2 : 2 + int(lines[1])]
    positions = 10 * np.array([[float(a[20 + 8 * k : 28 + 8 * k]) for k in range(3)] for a in atoms])
    return positions, [a[10:15].strip() for a in atoms], 10 * np.diag([float(v) for v in lines[-1].split()[:3]])


@pytest.mark.parametrize(
    ("folder", "table", "bead", "first_peak", "height", "intramolecular"),
    [
        ("spce", "CG-CG.dist.tgt", None, 2.80, 2.92, 0.0),
        ("methanol", "rdf_methanol.xvg", None, 3.40, 1.61, 0.0),
        ("propane", "A-A.dist.tgt", "A", 4.10, 1.48, 3.2),
    ],
)
def test_a_snapshot_of_votca_has_the_published_distribution(
    folder: str, table: str, bead: str | None, first_peak: float, height: float, intramolecular: float
) -> None:
    if not VOTCA.exists():
        pytest.skip("the tutorial data of VOTCA are not here")
    positions, names, cell = read_gro(VOTCA / folder / "ibi" / "conf.gro")
    if bead is not None:
        positions = positions[[name.startswith(bead) for name in names]]
    rows = [line.split() for line in (VOTCA / folder / "ibi" / table).read_text().splitlines()]
    target = np.array([[float(v) for v in row[:2]] for row in rows if row and row[0][0] not in "#@"])
    target[:, 0] *= 10
    peak = target[:, 1].argmax()
    assert target[peak] == pytest.approx([first_peak, height], abs=0.01)
    # Bins of 0.1 Å around multiples of 0.1 Å, as in the table, from pairs of bins of half the width.
    fine = radial_distribution(frames(positions, cell), r_max=12.05, bins=241, blocks=1)
    pairs_of_bins = fine.mean[1:].reshape(-1, 2), (fine.centers[1:] ** 2).reshape(-1, 2)
    g, r = np.average(pairs_of_bins[0], axis=1, weights=pairs_of_bins[1]), 0.1 * np.arange(1, 121)
    expected = np.interp(r, *target.T, left=0.0)
    volume = np.linalg.det(cell)
    counts = expected * len(positions) ** 2 / 2 * 4 * np.pi * r**2 * 0.1 / volume
    many = (counts > 30) & (r > intramolecular)
    deviations = (g - expected)[many] / expected[many] * np.sqrt(counts[many])
    assert np.sqrt(np.mean(deviations**2)) < 1.5  # counting statistics of one snapshot: 1
    at_peak = round(10 * target[peak, 0]) - 1
    assert g[at_peak] == pytest.approx(height, abs=5 * height / np.sqrt(counts[at_peak]))
