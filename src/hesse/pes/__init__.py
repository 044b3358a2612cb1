"""The potential-energy surface of any engine: minima, transition states, reaction paths, motion."""

from hesse.pes.convergence import OptimizationHistory
from hesse.pes.dynamics import MDSettings, MDResult, Snapshot, run_md
from hesse.pes.paths import IRCResult, PathPoint, irc
from hesse.pes.relaxation import MinimisationResult, minimise
from hesse.pes.saddles import SADDLE_METHODS, SaddleResult, saddle

__all__ = [
    "SADDLE_METHODS",
    "OptimizationHistory",
    "MDSettings",
    "MDResult",
    "IRCResult",
    "MinimisationResult",
    "PathPoint",
    "SaddleResult",
    "Snapshot",
    "irc",
    "minimise",
    "run_md",
    "saddle",
]
