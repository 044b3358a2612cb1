"""A MACE model with random weights and the size of MACE-OFF23 small, for timings beside it.

96 scalar channels, two layers, correlation order 3, spherical harmonics up to l = 3, 4.5 Å (arXiv 2312.15211). The time
of a call does not depend on the weights.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from importlib import import_module

import numpy as np
import torch
from ase.calculators.calculator import Calculator

__all__ = ["mace_small"]


def mace_small(elements: Sequence[int]) -> Calculator:
    """The calculator of MACE in float32.

    Args:
        elements: atomic numbers.

    Returns:
        Its ASE calculator.

    Raises:
        ImportError: mace-torch is not installed.
    """
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        modules, o3 = import_module("mace.modules"), import_module("e3nn.o3")  # in this order
        calculators = import_module("mace.calculators")

        block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            model = modules.ScaleShiftMACE(
                r_max=4.5, num_bessel=8, num_polynomial_cutoff=5, max_ell=3, interaction_cls=block,
                interaction_cls_first=block, num_interactions=2, num_elements=len(elements),
                hidden_irreps=o3.Irreps("96x0e"), MLP_irreps=o3.Irreps("16x0e"),
                atomic_energies=np.zeros(len(elements)), avg_num_neighbors=15.0, atomic_numbers=list(elements),
                correlation=3, gate=torch.nn.functional.silu, radial_MLP=[64, 64, 64], heads=None,
                atomic_inter_scale=1.0, atomic_inter_shift=0.0,
            )  # fmt: skip
            return calculators.MACECalculator(models=model, device="cpu", default_dtype="float32")
        finally:
            torch.set_default_dtype(before)
