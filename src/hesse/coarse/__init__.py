"""Coarse graining: from all-atom trajectories to data sets of beads, priors, and the judgment of their dynamics."""

from hesse.coarse.atom_frames import AtomFrame, AtomTopology, Trajectory
from hesse.coarse.bead_mapping import BeadGroup, BeadMapping, Center, map_atoms, map_groups, map_molecules
from hesse.coarse.mapped_data import describe_beads, map_trajectory
from hesse.coarse.mdanalysis_trajectory import UniverseTrajectory, map_selections
from hesse.coarse.open_trajectory import open_trajectory
from hesse.coarse.state_points import StatePoint, check_state_points, density_of, state_point_of

__all__ = [
    "AtomFrame",
    "AtomTopology",
    "BeadGroup",
    "BeadMapping",
    "Center",
    "StatePoint",
    "Trajectory",
    "UniverseTrajectory",
    "check_state_points",
    "density_of",
    "describe_beads",
    "map_atoms",
    "map_groups",
    "map_molecules",
    "map_selections",
    "map_trajectory",
    "open_trajectory",
    "state_point_of",
]
