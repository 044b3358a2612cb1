"""Lattice dynamics of crystals: force constants from any engine, phonons, and what follows from them."""

from hesse.lattice.bands import BandPath, Bands, DensityOfStates, ImaginaryMode, band_path
from hesse.lattice.compute import phonons
from hesse.lattice.files import read_phonons
from hesse.lattice.force_constants import ForceConstantsReport
from hesse.lattice.phonons_result import Phonons
from hesse.lattice.relaxation import CrystalState, relax_crystal
from hesse.lattice.thermal import ThermalProperties, thermal_properties

__all__ = [
    "BandPath",
    "Bands",
    "CrystalState",
    "DensityOfStates",
    "ForceConstantsReport",
    "ImaginaryMode",
    "Phonons",
    "ThermalProperties",
    "band_path",
    "phonons",
    "read_phonons",
    "relax_crystal",
    "thermal_properties",
]
