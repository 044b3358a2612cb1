"""The potential-energy surface of any engine: minima, transition states, reaction paths, motion."""

from hesse.pes.convergence import Convergence
from hesse.pes.dynamics import Dynamics, DynamicsResult, Snapshot, run_dynamics
from hesse.pes.paths import IRCResult, PathPoint, irc
from hesse.pes.relaxation import MinimisationResult, minimise
from hesse.pes.saddles import SADDLE_METHODS, SaddleResult, saddle

__all__ = [
    "SADDLE_METHODS",
    "Convergence",
    "Dynamics",
    "DynamicsResult",
    "IRCResult",
    "MinimisationResult",
    "PathPoint",
    "SaddleResult",
    "Snapshot",
    "irc",
    "minimise",
    "run_dynamics",
    "saddle",
]
