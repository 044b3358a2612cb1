"""How far good levels of theory lie apart: a line beside the errors of a model, of which no data set knows.

The numbers are mean absolute differences of Hessian elements from wB97M-D4/def2-QZVPPD, at minima of up to 46
molecules, as others measured them. An error of a model near the first two is within the uncertainty of any reference.
"""

from __future__ import annotations

from typing import Final

from hesse.evaluation.averages import MetricRow

__all__ = ["LEVEL_SPREAD", "level_spread_row"]

LEVEL_SPREAD: Final = {
    "wB97M-D4 in a smaller basis, TZVPD": 0.016,
    "wB97M-V": 0.038,
    "B3LYP-D3/DZVP": 0.109,
    "g-xTB": 0.303,
}
"""eV/Å²; see the module."""
_GOOD_FUNCTIONAL: Final = "wB97M-V"
_N_MOLECULES: Final = 46


def level_spread_row(name: str) -> MetricRow:
    """The difference of two good density functionals, as a row beside those of a data set.

    Args:
        name: name of the data set.

    Returns:
        The row, of property "hessian" and metric "level_spread", to compare with the "mae"; `n` is the number of
        molecules.
    """
    return MetricRow(name, "", "hessian", "level_spread", LEVEL_SPREAD[_GOOD_FUNCTIONAL], "eV/Å²", _N_MOLECULES)
