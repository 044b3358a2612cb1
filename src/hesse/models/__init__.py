"""Potentials of Hesse's own, what they can be composed of, and their files. Adapters: `hesse.models.adapters`."""

from hesse.models.ani import Ani, AniConfig
from hesse.models.build import ModelConfig, build_described, build_model, describe
from hesse.models.compose import Ensemble, SumPotential, with_references
from hesse.models.equivariant import Equivariant, EquivariantConfig
from hesse.models.files import load_model, read_model_header, save_model
from hesse.models.hipnn import Hipnn, HipnnConfig
from hesse.models.references import ElementReferences, fit_references
from hesse.models.weights import load_weights, read_weights_header, save_weights
from hesse.models.zbl import Zbl, ZblConfig

__all__ = [
    "Ani",
    "AniConfig",
    "ElementReferences",
    "Ensemble",
    "Equivariant",
    "EquivariantConfig",
    "Hipnn",
    "HipnnConfig",
    "ModelConfig",
    "SumPotential",
    "Zbl",
    "ZblConfig",
    "build_described",
    "build_model",
    "describe",
    "fit_references",
    "load_model",
    "load_weights",
    "read_model_header",
    "read_weights_header",
    "save_model",
    "save_weights",
    "with_references",
]
