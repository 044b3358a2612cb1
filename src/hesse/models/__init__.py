"""Hesse's own potentials, sums and ensembles of potentials, and model files. Adapters: `hesse.models.adapters`."""

from hesse.models.ani import Ani, AniConfig
from hesse.models.bead_prior import BeadAngle, BeadBond, BeadMolecule, BeadPrior, BeadPriorConfig, PairRepulsion
from hesse.models.compose import Ensemble, SumPotential, with_reference_energies
from hesse.models.hessenet import HesseNet, HesseNetConfig
from hesse.models.hipnn import Hipnn, HipnnConfig
from hesse.models.model_files import (
    best_model,
    is_run_folder,
    load_model,
    load_weights,
    read_model_header,
    read_training_environments,
    read_weights_header,
    save_model,
    save_weights,
)
from hesse.models.reference_energies import ReferenceEnergies, fit_reference_energies, undetermined_elements
from hesse.models.registry import ModelConfig, build_model, from_description, to_description
from hesse.models.zbl import Zbl, ZblConfig

__all__ = [
    "Ani",
    "AniConfig",
    "BeadAngle",
    "BeadBond",
    "BeadMolecule",
    "BeadPrior",
    "BeadPriorConfig",
    "Ensemble",
    "HesseNet",
    "HesseNetConfig",
    "Hipnn",
    "HipnnConfig",
    "ModelConfig",
    "PairRepulsion",
    "ReferenceEnergies",
    "SumPotential",
    "Zbl",
    "ZblConfig",
    "best_model",
    "build_model",
    "fit_reference_energies",
    "from_description",
    "is_run_folder",
    "load_model",
    "load_weights",
    "read_model_header",
    "read_training_environments",
    "read_weights_header",
    "save_model",
    "save_weights",
    "to_description",
    "undetermined_elements",
    "with_reference_energies",
]
