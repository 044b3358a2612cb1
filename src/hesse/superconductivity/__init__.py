"""Critical temperatures of superconductors from their electron-phonon spectral function α²F(ω)."""

from hesse.superconductivity.formulas import allen_dynes_tc, mcmillan_tc, strong_coupling_factors
from hesse.superconductivity.lambda_files import LambdaRow, ModeCouplings, read_lambda_table, read_mode_couplings
from hesse.superconductivity.spectral_files import read_alpha2f
from hesse.superconductivity.spectral_function import SpectralFunction
from hesse.superconductivity.tc_result import TcResult, TcRow, tc

__all__ = [
    "LambdaRow",
    "ModeCouplings",
    "SpectralFunction",
    "TcResult",
    "TcRow",
    "allen_dynes_tc",
    "mcmillan_tc",
    "read_alpha2f",
    "read_lambda_table",
    "read_mode_couplings",
    "strong_coupling_factors",
    "tc",
]
