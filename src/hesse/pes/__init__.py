"""The potential-energy surface of any engine: relaxation."""

from hesse.pes.relaxation import MinimisationResult, minimise

__all__ = ["MinimisationResult", "minimise"]
