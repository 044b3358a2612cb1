"""The potential-energy surface of any engine: minima, transition states, reaction paths, vibrations, dynamics."""

from hesse.pes.band_result import NEBResult
from hesse.pes.elastic_band import band_tangent, neb
from hesse.pes.end_identity import EndComparison, EndMatch, compare_end
from hesse.pes.geometry_changes import Displacement, atom_name, bond_name, check_same_atoms, displacement
from hesse.pes.imaginary_modes import MinimumResult, remove_imaginary_modes
from hesse.pes.lowest_modes import lowest_modes
from hesse.pes.md import MDResult, MDSettings, Snapshot, run_md
from hesse.pes.md_failures import Failure, FailureReason
from hesse.pes.md_settings import RAMPS, ReplicaSettings
from hesse.pes.md_survival import SurvivalCurve, compare_survival, survival_curve, survival_of_rows
from hesse.pes.minimization import MinimizationResult, minimize, minimize_each
from hesse.pes.rates import eyring_rate, wigner_factor
from hesse.pes.reaction_path import IRCResult, PathPoint, irc
from hesse.pes.reaction_result import Reaction, ReactionOutcome, ReactionThermo, StageCalls, Verification
from hesse.pes.reaction_search import ReactionSettings, reaction
from hesse.pes.reaction_verification import verify_reaction
from hesse.pes.saddle_result import SaddleResult
from hesse.pes.surface import OptimizationHistory
from hesse.pes.training_range import describe_outside, extrapolation, extrapolation_columns, farthest
from hesse.pes.transition_state import SADDLE_METHODS, saddle
from hesse.pes.vibrational_analysis import Vibrations, vibrations

__all__ = [
    "RAMPS",
    "SADDLE_METHODS",
    "Displacement",
    "EndComparison",
    "EndMatch",
    "Failure",
    "FailureReason",
    "IRCResult",
    "MDResult",
    "MDSettings",
    "MinimizationResult",
    "MinimumResult",
    "NEBResult",
    "OptimizationHistory",
    "PathPoint",
    "Reaction",
    "ReactionOutcome",
    "ReactionSettings",
    "ReactionThermo",
    "ReplicaSettings",
    "SaddleResult",
    "Snapshot",
    "StageCalls",
    "SurvivalCurve",
    "Verification",
    "Vibrations",
    "atom_name",
    "band_tangent",
    "bond_name",
    "check_same_atoms",
    "compare_end",
    "compare_survival",
    "describe_outside",
    "displacement",
    "extrapolation",
    "extrapolation_columns",
    "eyring_rate",
    "farthest",
    "irc",
    "lowest_modes",
    "minimize",
    "minimize_each",
    "neb",
    "reaction",
    "remove_imaginary_modes",
    "run_md",
    "saddle",
    "survival_curve",
    "survival_of_rows",
    "verify_reaction",
    "vibrations",
    "wigner_factor",
]
