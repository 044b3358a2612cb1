"""Coarse graining: from atomistic trajectories with forces to models of beads that run, and their judgement."""

from hesse.coarse.atom_frames import AtomFrame, AtomTopology, Trajectory
from hesse.coarse.bead_comparison import BeadComparison, CurveComparison, StatePointComparison, compare_beads
from hesse.coarse.bead_distributions import (
    BinnedDistribution,
    angular_distribution,
    density_profile,
    mean_square_displacement,
    radial_distribution,
)
from hesse.coarse.bead_dynamics import BeadRun, run_beads, virial_pressures
from hesse.coarse.bead_frames import BeadFrames, frames_by_state_point
from hesse.coarse.bead_mapping import BeadGroup, BeadMapping, Center, map_atoms, map_groups, map_molecules
from hesse.coarse.force_noise import ExplainedForces, explained_forces, force_noise
from hesse.coarse.free_energy_curvature import curvature_labels
from hesse.coarse.mapped_data import describe_beads, map_trajectory
from hesse.coarse.mdanalysis_trajectory import UniverseTrajectory, map_selections
from hesse.coarse.open_trajectory import open_trajectory
from hesse.coarse.prior_fit import InternalDistribution, PairDistribution, PriorFit, fit_prior
from hesse.coarse.state_points import StatePoint, check_state_points, density_of, state_point_of

__all__ = [
    "AtomFrame",
    "AtomTopology",
    "BeadComparison",
    "BeadFrames",
    "BeadGroup",
    "BeadMapping",
    "BeadRun",
    "BinnedDistribution",
    "Center",
    "CurveComparison",
    "ExplainedForces",
    "InternalDistribution",
    "PairDistribution",
    "PriorFit",
    "StatePoint",
    "StatePointComparison",
    "Trajectory",
    "UniverseTrajectory",
    "angular_distribution",
    "check_state_points",
    "compare_beads",
    "curvature_labels",
    "density_of",
    "density_profile",
    "describe_beads",
    "explained_forces",
    "fit_prior",
    "force_noise",
    "frames_by_state_point",
    "map_atoms",
    "map_groups",
    "map_molecules",
    "map_selections",
    "map_trajectory",
    "mean_square_displacement",
    "open_trajectory",
    "radial_distribution",
    "run_beads",
    "state_point_of",
    "virial_pressures",
]
