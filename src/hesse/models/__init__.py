"""Potentials of Hesse's own, what they can be composed of, and their files. Adapters: `hesse.models.adapters`."""

from hesse.models.ani import Ani, AniConfig
from hesse.models.build import ModelConfig, from_description, build_model, to_description
from hesse.models.compose import Ensemble, SumPotential, with_reference_energies
from hesse.models.equivariant import HesseNet, HesseNetConfig
from hesse.models.files import load_model, read_model_header, save_model
from hesse.models.hipnn import Hipnn, HipnnConfig
from hesse.models.references import ReferenceEnergies, fit_reference_energies
from hesse.models.weights import load_weights, read_weights_header, save_weights
from hesse.models.zbl import Zbl, ZblConfig

__all__ = [
    "Ani",
    "AniConfig",
    "ReferenceEnergies",
    "Ensemble",
    "HesseNet",
    "HesseNetConfig",
    "Hipnn",
    "HipnnConfig",
    "ModelConfig",
    "SumPotential",
    "Zbl",
    "ZblConfig",
    "from_description",
    "build_model",
    "to_description",
    "fit_reference_energies",
    "load_model",
    "load_weights",
    "read_model_header",
    "read_weights_header",
    "save_model",
    "save_weights",
    "with_reference_energies",
]
