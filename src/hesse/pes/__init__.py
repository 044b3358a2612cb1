"""The potential-energy surface of any engine: relaxation."""

from hesse.pes.dynamics import Dynamics, DynamicsResult, Snapshot, run_dynamics
from hesse.pes.relaxation import MinimisationResult, minimise

__all__ = ["Dynamics", "DynamicsResult", "MinimisationResult", "Snapshot", "minimise", "run_dynamics"]
