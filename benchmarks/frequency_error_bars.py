"""Are the error bars of frequencies right? GFN2-xTB with two steps of central differences, against fourth order.

    python benchmarks/frequency_error_bars.py [MOLECULE ...]

For each molecule and step: the estimated and the actual error of the Hessian (eV/Å²), the largest error of a frequency
(cm⁻¹), and the ratio of actual errors to error bars over all modes (root mean square and largest; 1 is expected of the
first).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

import numpy as np
import torch

import hesse
from hesse.engines import FiniteDifferences
from hesse.errors import HarmonicWarning

__all__ = ["main"]

MOLECULES = ("CH3OH", "C2H6", "H2O2", "CH3CHO", "C2H6NH", "CH3NO2", "HCOOCH3", "C4H4O")
COARSE = 0.03
"""Å; far above the default step, so that errors are large."""


def main(names: Sequence[str] = MOLECULES) -> None:
    """Print the table.

    Args:
        names: molecules of the G2 collection.
    """
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", HarmonicWarning)
    exact = hesse.make_engine("gfn2", differences=FiniteDifferences(hessian_richardson=True))
    steps = {"default": None, f"{COARSE} Å": COARSE}
    print("molecule   step      Hessian est. actual   frequency  error/bar rms  largest")
    for molecule in hesse.g2_molecules():
        if molecule.id not in names:
            continue
        relaxed = hesse.minimize(molecule, exact, fmax=1e-3)
        reference = hesse.vibrations(relaxed, exact)
        for name, step in steps.items():
            engine = hesse.make_engine("gfn2", differences=FiniteDifferences(step=step))
            result = hesse.vibrations(relaxed, engine)
            assert result.frequency_errors is not None
            errors = np.abs(result.frequencies - reference.frequencies)
            ratios = errors / result.frequency_errors
            actual = np.sqrt(np.mean((result.hessian - reference.hessian) ** 2))
            print(
                f"{molecule.id:10s} {name:9s} {result.hessian_error:8.1e} {actual:8.1e} {errors.max():11.4f} "
                f"{np.sqrt(np.mean(ratios**2)):14.2f} {ratios.max():8.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:] or MOLECULES)
