"""Trajectories and selections of MDAnalysis, against the same frames without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_liquids import waters

from hesse.coarse import map_selections, map_trajectory, open_trajectory
from hesse.coarse.mdanalysis_trajectory import UniverseTrajectory
from hesse.errors import RequestError
from hesse.structures import species_names

MDAnalysis = pytest.importorskip("MDAnalysis", reason="the extra coarse is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")
KJ = 0.010364269656262175
"""One kJ/mol in eV."""


def universe() -> Any:
    """Eight waters in memory, with the forces of `waters`."""
    data = waters()
    u = MDAnalysis.Universe.empty(24, n_residues=8, atom_resindex=np.repeat(np.arange(8), 3), trajectory=True)
    u.add_TopologyAttr("names", ["OW", "HW1", "HW2"] * 8)
    u.add_TopologyAttr("masses", data.structures[0].atomic_masses)
    u.add_TopologyAttr("resnames", ["SOL"] * 8)
    u.add_TopologyAttr("resids", np.arange(1, 9))
    dimensions = MDAnalysis.lib.mdamath.triclinic_box(*_rotated(data.structures[0].cell)[0])
    turns = _rotated(data.structures[0].cell)[1]
    u.load_new(
        np.stack([s.positions @ turns for s in data.structures]),
        forces=data.labels.forces.numpy().reshape(3, 24, 3) @ turns / KJ,  # type: ignore[union-attr]
        dimensions=np.tile(dimensions, (3, 1)),
        dt=0.5,
    )
    return u


def _rotated(cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cell with its first vector along x and its second in the plane of x and y, and the rotation."""
    q, r = np.linalg.qr(cell.T)
    signs = np.sign(np.diag(r))
    return (r.T * signs), q * signs


def test_a_universe_is_mapped_like_a_data_set() -> None:
    found = map_trajectory(universe(), temperature=300)
    expected = map_trajectory(waters(), temperature=300)
    cell, turn = _rotated(expected.structures[0].cell)
    for a, b in zip(found.structures, expected.structures, strict=True):
        np.testing.assert_allclose(a.cell, cell, atol=1e-4)
        difference = (a.positions - b.positions @ turn) @ np.linalg.inv(cell)
        np.testing.assert_allclose(difference, np.round(difference), atol=1e-5)
        assert species_names(a.numbers) == ["SOL"] * 8
    turned = expected.labels.forces.numpy() @ turn  # type: ignore[union-attr]
    np.testing.assert_allclose(found.labels.forces.numpy(), turned, atol=1e-5)  # type: ignore[union-attr]
    assert found.metadata["frame_time"] == "0.5 ps"


def test_selections_make_beads() -> None:
    trajectory = open_trajectory(universe())
    assert isinstance(trajectory, UniverseTrajectory)
    mapping = map_selections(trajectory, [("O", "name OW"), ("HH", "name HW1 HW2")])
    assert species_names(mapping.numbers[:4]) == ["O", "HH", "O", "HH"]
    np.testing.assert_allclose(mapping.masses[:2], [15.999, 2.016], atol=1e-6)
    data = map_trajectory(trajectory, mapping, temperature=300)
    assert data.metadata["molecules"] == '[["O", "HH"]]'
    with pytest.raises(RequestError, match=r"8 of 24 atoms are in no selection, such as HW2 of SOL \(atom 2\)"):
        map_selections(trajectory, [("OH", "name OW HW1")])
    with pytest.raises(RequestError, match="chooses no atoms"):
        map_selections(trajectory, [("X", "name C")])
    with pytest.raises(RequestError, match="selection 'nmae OW' of bead 'O'"):
        map_selections(trajectory, [("O", "nmae OW")])


def test_gromacs_files(tmp_path: Path) -> None:
    u = universe()
    u.atoms.write(str(tmp_path / "water.gro"))
    with MDAnalysis.Writer(str(tmp_path / "water.trr"), 24) as writer:
        for _ in u.trajectory:
            writer.write(u.atoms)
    found = map_trajectory(tmp_path / "water.trr", topology=tmp_path / "water.gro", temperature=300)
    expected = map_trajectory(u, temperature=300)
    np.testing.assert_allclose(found.labels.forces, expected.labels.forces, atol=1e-5)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.structures[1].cell, expected.structures[1].cell, atol=1e-3)
    assert found.metadata["mapped_from"].endswith("water.trr")
