"""Potentials of Hesse's own, and their files."""

from hesse.models.files import ModelConfig, build_model, load_model, read_model_header, save_model
from hesse.models.hipnn import Hipnn, HipnnConfig
from hesse.models.references import fit_references

__all__ = [
    "Hipnn",
    "HipnnConfig",
    "ModelConfig",
    "build_model",
    "fit_references",
    "load_model",
    "read_model_header",
    "save_model",
]
