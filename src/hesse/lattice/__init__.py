"""Lattice dynamics of crystals: force constants from any engine, phonons, and what follows from them."""

from hesse.lattice.band_structure import BandPath, Bands, DensityOfStates, ImaginaryMode, band_path
from hesse.lattice.ensembles import anharmonic_ensemble, sampling_temperature
from hesse.lattice.files import holds_phonons, read_cell, read_phonons
from hesse.lattice.force_constants import ForceConstantsReport
from hesse.lattice.grueneisen import Grueneisen, grueneisen
from hesse.lattice.labels import CrystalLabels, crystal_labels
from hesse.lattice.phonon_calculation import phonons
from hesse.lattice.phonon_comparison import PhononComparison, compare_phonons
from hesse.lattice.phonons_result import DEFAULT_MESH, Phonons
from hesse.lattice.quasiharmonic import QuasiHarmonic, fit_vinet, quasiharmonic, quasiharmonic_functions
from hesse.lattice.relaxation import CrystalState, relax_crystal
from hesse.lattice.self_consistent import Anharmonic, AnharmonicRound, anharmonic, check_anharmonic_options
from hesse.lattice.thermal import THZ, ThermalProperties, thermal_properties
from hesse.lattice.volumes import GRUENEISEN_VOLUMES, QUASIHARMONIC_VOLUMES, phonons_at_volumes

__all__ = [
    "DEFAULT_MESH",
    "GRUENEISEN_VOLUMES",
    "QUASIHARMONIC_VOLUMES",
    "THZ",
    "Anharmonic",
    "AnharmonicRound",
    "BandPath",
    "Bands",
    "CrystalLabels",
    "CrystalState",
    "DensityOfStates",
    "ForceConstantsReport",
    "Grueneisen",
    "ImaginaryMode",
    "PhononComparison",
    "Phonons",
    "QuasiHarmonic",
    "ThermalProperties",
    "anharmonic",
    "anharmonic_ensemble",
    "band_path",
    "check_anharmonic_options",
    "compare_phonons",
    "crystal_labels",
    "fit_vinet",
    "grueneisen",
    "holds_phonons",
    "phonons",
    "phonons_at_volumes",
    "quasiharmonic",
    "quasiharmonic_functions",
    "read_cell",
    "read_phonons",
    "relax_crystal",
    "sampling_temperature",
    "thermal_properties",
]
