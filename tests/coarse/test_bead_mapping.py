"""Mapping of trajectories: weights, forces, molecules across boundaries, readers, and wrong input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from small_liquids import CELL, waters, write_dump

from hesse.coarse import (
    AtomTopology,
    BeadMapping,
    StatePoint,
    describe_beads,
    map_atoms,
    map_groups,
    map_molecules,
    map_trajectory,
    open_trajectory,
    state_point_of,
)
from hesse.datasets import Dataset, read_dataset, write_dataset
from hesse.errors import FileFormatError, GeometryError, HesseError, MissingLabelError, RequestError, UnitError
from hesse.structures import Properties, Structure, bead_number, species_names

MASSES = np.array([15.999, 1.008, 1.008])


def ethanol_like(names: str = "ABCD") -> AtomTopology:
    """Two molecules of four atoms."""
    return AtomTopology(
        names=tuple(names * 2),
        masses=np.array([12.0, 1.0, 16.0, 2.0] * 2),
        molecules=np.array([0] * 4 + [1] * 4),
        molecule_names=("ETH", "ETH"),
    )


def test_beads_of_whole_and_of_cut_molecules_are_the_same() -> None:
    whole, cut = (map_trajectory(waters(wrapped=w), temperature=300) for w in (False, True))
    frames = waters(wrapped=False)
    for k, (a, b) in enumerate(zip(whole.structures, cut.structures, strict=True)):
        difference = (a.positions - b.positions) @ np.linalg.inv(CELL)
        np.testing.assert_allclose(difference, np.round(difference), atol=1e-9)
        atoms = frames.structures[k].positions.reshape(8, 3, 3)
        centers = np.einsum("i,mix->mx", frames.structures[k].atomic_masses[:3], atoms)
        difference = (centers / frames.structures[k].atomic_masses[:3].sum() - b.positions) @ np.linalg.inv(CELL)
        np.testing.assert_allclose(difference, np.round(difference), atol=1e-9)
        fractions = b.positions @ np.linalg.inv(CELL)
        assert ((fractions >= 0) & (fractions < 1)).all(), "beads are in the cell"
    forces = frames.labels.forces.numpy().reshape(3, 8, 3, 3).sum(2)  # type: ignore[union-attr]
    np.testing.assert_allclose(cut.labels.forces.numpy().reshape(3, 8, 3), forces, atol=1e-12)  # type: ignore[union-attr]


def test_mapped_data_say_where_they_come_from() -> None:
    beads = map_trajectory(waters(4), temperature=298.15, blocks=2)
    first = beads.structures[0]
    assert species_names(first.numbers) == ["H2O"] * 8
    np.testing.assert_allclose(first.atomic_masses, 18.015, atol=1e-3)
    density = 8 * 18.015 / abs(np.linalg.det(CELL)) * 1.66053906660
    assert first.tag == f"298.15K {density:.3f}g/cm3"
    assert state_point_of(first) == StatePoint(298.15, round(density, 3))
    assert len({s.group for s in beads.structures}) == 2
    assert beads.metadata["molecules"] == '[["H2O"]]'
    card = dict(describe_beads(beads))
    assert card["frames"] == "4"
    assert card["beads H2O"].startswith("8 in the first frame, 18.015 u")
    assert card[f"state point {first.tag}"].startswith("4 frames")


@pytest.mark.parametrize("center", ["mass", "geometry", lambda masses, names: np.eye(len(masses))[0]])
def test_a_shift_of_a_bead_by_its_force_weights_moves_it_alone(center: object) -> None:
    topology = ethanol_like()
    mapping = map_groups(topology, {"ETH": [("L", ["A", "B"]), ("R", ["C", "D"])]}, center=center)  # type: ignore[arg-type]
    directions = np.random.default_rng(0).normal(size=(4, 3))
    moved = mapping.positions(mapping.displacements(directions))
    np.testing.assert_allclose(moved, directions, atol=1e-12)
    np.testing.assert_allclose(np.asarray(mapping.position_weights.sum(1)).ravel(), 1.0)
    forces = np.random.default_rng(1).normal(size=(8, 3))
    np.testing.assert_allclose(mapping.forces(forces).sum(0), forces.sum(0), atol=1e-12)
    np.testing.assert_allclose(mapping.masses, [13, 18, 13, 18])


def test_beads_may_share_atoms() -> None:
    topology = ethanol_like()
    members = [np.array([0, 1, 2]), np.array([2, 3]), np.array([4, 5, 6, 7])]
    mapping = map_atoms(topology, members, ["L", "R", "W"])
    directions = np.random.default_rng(0).normal(size=(3, 3))
    np.testing.assert_allclose(mapping.positions(mapping.displacements(directions)), directions, atol=1e-12)
    np.testing.assert_allclose(mapping.force_weights.toarray()[2], [0, 0, 0, 0, 1, 1, 1, 1], atol=1e-12)


def test_the_mean_force_is_the_gradient_of_the_free_energy() -> None:
    """Atoms in harmonic wells: the potential of mean force of a bead is known, for any weights."""
    rng = np.random.default_rng(2)
    springs, weights = np.array([1.0, 3.0]), np.array([0.3, 0.7])
    # W(R) = ½ K R² with 1/K = Σ c²/k; the mean of Σ d f at fixed R must be -K R.
    stiffness = 1.0 / (weights**2 / springs).sum()
    samples = rng.normal(size=(200_000, 2)) / np.sqrt(springs)
    position, force = samples @ weights, -(samples * springs).sum(1)
    slope = (position * force).mean() / (position**2).mean()
    assert slope == pytest.approx(-stiffness, rel=0.02)


def test_wrong_weights_are_refused() -> None:
    topology = ethanol_like()
    good = map_molecules(topology)
    with pytest.raises(RequestError, match="must add up to one"):
        replace(good, position_weights=2.0 * good.position_weights)
    with pytest.raises(RequestError, match="map of forces does not belong"):
        replace(good, force_weights=csr_matrix(0.5 * good.force_weights.toarray()))
    with pytest.raises(RequestError, match="add up to 4"):
        map_molecules(topology, center=lambda masses, names: np.ones(len(masses)))
    assert isinstance(good, BeadMapping)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"ETH": [("L", ["A", "B"])]}, "2 of its 4 atoms belong to no bead, such as C \\(2\\), D \\(3\\)"),
        ({"ETH": [("L", ["A", "X"]), ("R", ["C", "D"])]}, "has no atom called 'X'"),
        ({"ETH": [("L", ["A", "A"]), ("R", ["C", "D"])]}, "names an atom twice"),
        ({"ETH": [("L", [0, 7])]}, "there is no atom 7"),
        ({"ETH": [("too long a name", [0])]}, "name of a bead type"),
        ({"WAT": [("W", [0])]}, 'no molecule called "WAT"'),
        ({}, "no beads for the molecules ETH: 8 atoms would be lost"),
    ],
)
def test_groups_that_do_not_fit(groups: dict[str, list[tuple[str, list[str | int]]]], words: str) -> None:
    with pytest.raises(HesseError, match=words):
        map_groups(ethanol_like(), groups)


def test_molecules_of_two_kinds_under_one_name() -> None:
    mixed = AtomTopology(("O", "H", "O"), np.array([16.0, 1.0, 16.0]), np.array([0, 0, 1]), ("SOL", "SOL"))
    with pytest.raises(RequestError, match="molecules of two kinds are called 'SOL': 1 of the atoms O H and 1 of"):
        map_molecules(mixed)
    heavy = AtomTopology(("O", "O"), np.array([16.0, 18.0]), np.array([0, 1]), ("SOL", "SOL"))
    with pytest.raises(RequestError, match="different masses"):
        map_molecules(heavy)


def test_beads_that_are_dropped() -> None:
    mixed = AtomTopology(("O", "H", "Na"), np.array([16.0, 1.0, 23.0]), np.array([0, 0, 1]), ("SOL", "NA"))
    mapping = map_molecules(mixed, drop=["NA"], bead_types={"SOL": "W"})
    assert species_names(mapping.numbers) == ["W"]
    assert mapping.lost_atoms().tolist() == [2]


# --- frames --------------------------------------------------------------------------------------------------------


def changed(data: Dataset, frame: int, **fields: object) -> Dataset:
    structures = list(data.structures)
    structures[frame] = replace(structures[frame], **fields)  # type: ignore[arg-type]
    return replace(data, structures=tuple(structures))


def test_frames_without_forces() -> None:
    data = waters()
    with pytest.raises(MissingLabelError, match=r"frame 0 has no forces.*nstfout"):
        map_trajectory(replace(data, labels=data.labels.replace(forces=None)), temperature=300)


def test_cells_that_change() -> None:
    data = waters()
    other = changed(data, 2, cell=1.05 * CELL, positions=1.05 * data.structures[2].positions)
    with pytest.raises(GeometryError, match=r"frame 2: the cell is .* it was .*variable-cell"):
        map_trajectory(other, temperature=300)
    mapped = map_trajectory(other, temperature=300, variable_cell=True)
    assert len({s.tag for s in mapped.structures}) == 1


def test_overlapping_beads() -> None:
    data = waters()
    positions = np.array(data.structures[1].positions)
    positions[3:6] = positions[0:3] + 0.05
    with pytest.raises(GeometryError, match=r"frame 1: beads 0 \(H2O\) and 1 \(H2O\) are 0.0866 Å apart"):
        map_trajectory(changed(data, 1, positions=positions), temperature=300, molecule_size=3)


def test_other_wrong_input() -> None:
    data = waters()
    with pytest.raises(RequestError, match="no frames from 5"):
        map_trajectory(data, temperature=300, start=5)
    with pytest.raises(RequestError, match=r"no frames from 5 on: it has 3, numbered 0 to 2"):
        map_trajectory(data, temperature=300, start=5)
    with pytest.raises(RequestError, match=r"no frames from 2 up to before 1"):
        map_trajectory(data, temperature=300, start=2, stop=1)
    with pytest.raises(RequestError, match="temperature above 0"):
        map_trajectory(data, temperature=-1)
    with pytest.raises(RequestError, match="24 atoms are no multiple of the molecule size 5"):
        map_trajectory(data, temperature=300, molecule_size=5)
    with pytest.raises(RequestError, match="has other atoms"):
        map_trajectory(changed(data, 1, numbers=np.array([1, 8, 1] * 8)), temperature=300)
    with pytest.raises(RequestError, match="24 atoms, the mapping is of 8"):
        map_trajectory(data, map_molecules(ethanol_like()), temperature=300)


def monoxide(frames: int = 2, *, wrapped: bool, cell: bool) -> Dataset:
    """27 CO molecules in a cubic box, some of them across its boundaries."""
    rng = np.random.default_rng(4)
    grid = 5.0 * np.stack(np.meshgrid(*[range(3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    structures = []
    for k in range(frames):
        axes = rng.normal(size=(27, 3))
        ends = 1.13 * axes / np.linalg.norm(axes, axis=1)[:, None]
        positions = np.stack([grid, grid + ends], axis=1).reshape(-1, 3)
        fields = {"cell": 15.0 * np.eye(3), "pbc": (True, True, True)} if cell else {}
        structures.append(
            Structure(np.array([6, 8] * 27), positions % 15.0 if wrapped else positions, id=str(k), **fields)
        )
    forces = torch.from_numpy(rng.normal(size=(frames * 54, 3)))
    return Dataset(tuple(structures), Properties(n_atoms=torch.full((frames,), 54), forces=forces))


def test_wrapped_molecules_without_a_cell_are_in_pieces() -> None:
    whole = map_trajectory(monoxide(wrapped=True, cell=True), temperature=100)
    assert set(species_names(whole.structures[0].numbers)) == {"CO"}
    cut = monoxide(wrapped=True, cell=False)
    with pytest.raises(RequestError, match=r"in pieces: the bonds of the first frame make .*CO.* no periodic cell"):
        map_trajectory(cut, temperature=100)
    with pytest.raises(GeometryError, match=r"frame 0: molecule \d+ \(CO\) is in pieces: .* 1\.13 Å in the others"):
        map_trajectory(cut, temperature=100, molecule_size=2)
    intact = monoxide(wrapped=False, cell=False)
    later = replace(intact, structures=(intact.structures[0], cut.structures[1]))
    with pytest.raises(GeometryError, match=r"frame 1: molecule \d+ \(CO\) is in pieces"):
        map_trajectory(later, temperature=100)
    card = dict(describe_beads(map_trajectory(intact, temperature=100)))
    assert "no periodic cell: dynamics, priors and g(r) of beads need one" in card["state point 100K"]


def test_halves_of_molecules_are_pieces_too() -> None:
    numbers, ethane = [6, 1, 1, 1, 6, 1, 1, 1], np.zeros((8, 3))
    ethane[:4] = [[0, 0, 0], [-0.4, 1.0, 0], [-0.4, -0.5, 0.9], [-0.4, -0.5, -0.9]]
    ethane[4:] = [[1.5, 0, 0], [1.9, -1.0, 0], [1.9, 0.5, 0.9], [1.9, 0.5, -0.9]]
    halves = ethane + 20.0
    halves[4:] += 30.0
    frame = Structure(np.array(numbers * 2), np.concatenate([ethane, halves]))
    data = Dataset((frame,), Properties(n_atoms=torch.tensor([16]), forces=torch.zeros(16, 3)))
    with pytest.raises(RequestError, match=r"in pieces: the bonds of the first frame make 1 C2H6, 2 CH3"):
        map_trajectory(data, temperature=100)


def test_a_molecule_size_that_cuts_bonds() -> None:
    data = monoxide(wrapped=True, cell=True)
    with pytest.raises(RequestError, match=r"bonds connect atoms of different molecules of size 3 .* atoms 2 and 3 \("):
        map_trajectory(data, temperature=100, molecule_size=3)
    atoms = map_trajectory(data, temperature=100, molecule_size=1)
    assert set(species_names(atoms.structures[0].numbers)) == {"C", "O"}


def test_a_time_between_frames_is_kept() -> None:
    assert map_trajectory(waters(), temperature=300, frame_time=0.25).metadata["frame_time"] == "0.25 ps"
    assert map_trajectory(waters(), temperature=300, frame_time=0.25, step=2).metadata["frame_time"] == "0.5 ps"
    with pytest.raises(RequestError, match=r"frame_time \(--frame-time\): expected a number above 0, got -1"):
        map_trajectory(waters(), temperature=300, frame_time=-1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lammps_units": "lj"}, r"lammps_units \(--lammps-units\): has no effect on a data set"),
        ({"timestep": 2.0}, r"timestep .*no effect"),
        ({"molecules": "fragment"}, r"molecules .*no effect"),
    ],
)
def test_options_of_other_sources_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        map_trajectory(waters(), temperature=300, **options)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="a trajectory that is open already"):
        map_trajectory(open_trajectory(waters()), temperature=300, **options)  # type: ignore[arg-type]


def test_isomers_under_one_formula() -> None:
    ether = np.array([[0, 0, 0], [1.4, 0, 0], [2.8, 0, 0]])  # C O C
    alcohol = ether[[0, 1, 2]]
    numbers = np.array([6, 8, 6, 6, 6, 8])
    positions = np.concatenate([ether, alcohol + np.array([0, 0, 8.0])])
    frame = Structure(numbers, positions, cell=20 * np.eye(3), pbc=(True, True, True))
    data = Dataset((frame,), waters(1).labels.replace(n_atoms=torch.tensor([6]), forces=torch.zeros(6, 3)))
    with pytest.raises(RequestError, match="two kinds have the formula C2O: molecules 0 and 1"):
        map_trajectory(data, temperature=300)


def test_a_molecule_larger_than_half_the_cell() -> None:
    cell = 9 * np.eye(3)
    frame = Structure(np.array([18, 18]), [[0, 0, 0], [0, 4.49, 4.49]], cell=cell, pbc=(True, True, True))  # type: ignore[arg-type]
    data = Dataset((frame,), waters(1).labels.replace(n_atoms=torch.tensor([2]), forces=torch.zeros(2, 3)))
    with pytest.raises(GeometryError, match=r"parts are 6\.35 Å apart, more than half the cell .* really one molecule"):
        map_trajectory(data, temperature=300, molecule_size=2)


# --- readers -------------------------------------------------------------------------------------------------------


def test_lammps_dumps_are_read_in_their_units(tmp_path: Path) -> None:
    data = waters()
    write_dump(tmp_path / "water.dump", data, scramble=3)
    options = {"temperature": 300, "lammps_units": "real", "names": {"1 2 2": "H2O"}, "timestep": 2.0}
    found = map_trajectory(tmp_path / "water.dump", **options)  # type: ignore[arg-type]
    expected = map_trajectory(data, temperature=300)
    for a, b in zip(found.structures, expected.structures, strict=True):
        np.testing.assert_allclose(a.positions, b.positions, atol=1e-3)  # masses differ in the fourth digit
        np.testing.assert_allclose(a.cell, b.cell, atol=1e-12)
        assert (a.numbers == bead_number("H2O")).all()
    np.testing.assert_allclose(found.labels.forces, expected.labels.forces, atol=1e-6)  # type: ignore[arg-type]
    assert found.metadata["frame_time"] == "0.2 ps"


def test_dumps_that_miss_something(tmp_path: Path) -> None:
    path = tmp_path / "water.dump"
    write_dump(path, waters(), mass=False)
    with pytest.raises(RequestError, match=r"molecule_size .* no effect on a LAMMPS dump"):
        map_trajectory(path, temperature=300, lammps_units="real", molecule_size=3)
    with pytest.raises(UnitError, match=r"does not state its units.*real or metal"):
        map_trajectory(path, temperature=300)
    with pytest.raises(FileFormatError, match="no column mass"):
        map_trajectory(path, temperature=300, lammps_units="real")
    write_dump(path, waters(), forces=False)
    with pytest.raises(MissingLabelError, match="has no forces"):
        map_trajectory(path, temperature=300, lammps_units="real")
    path.write_text("\n".join(path.read_text().split("\n")[:60]))
    with pytest.raises(FileFormatError, match="frame 1 is damaged or cut off"):
        map_trajectory(path, temperature=300, lammps_units="real", start=1)


@pytest.mark.parametrize("suffix", [".h5", ".extxyz"])
def test_data_sets_are_trajectories(tmp_path: Path, suffix: str) -> None:
    write_dataset(tmp_path / f"water{suffix}", waters())
    found = map_trajectory(tmp_path / f"water{suffix}", temperature=300)
    expected = map_trajectory(waters(), temperature=300)
    np.testing.assert_allclose(found.structures[2].positions, expected.structures[2].positions, atol=1e-9)
    write_dataset(tmp_path / f"beads{suffix}", found)
    again = read_dataset(tmp_path / f"beads{suffix}")
    assert again.structures[0].tag == expected.structures[0].tag
    assert again.metadata["molecules"] == '[["H2O"]]'


def test_trajectories_that_need_a_topology(tmp_path: Path) -> None:
    (tmp_path / "water.trr").write_bytes(b"nothing")
    with pytest.raises(FileFormatError, match="give the topology"):
        open_trajectory(tmp_path / "water.trr")
