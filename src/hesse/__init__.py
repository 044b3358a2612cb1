"""Hesse trains machine-learning interatomic potentials with the right curvature, from Hessian-vector products.

Everything public is named in `__all__` and loaded on first use, so that `import hesse` (and `hesse --help`) is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hesse.curvature import evaluate, evaluate_ensemble
    from hesse.datasets import Dataset, read_dataset, write_dataset
    from hesse.deploy import HesseCalculator
    from hesse.engines import AseEngine, Engine, PotentialEngine, XtbEngine, make_engine, make_potential
    from hesse.errors import HesseError
    from hesse.evaluation import evaluate_model, predict
    from hesse.labelling import label
    from hesse.losses import LossWeights, weighted_loss
    from hesse.models import (
        Ani,
        AniConfig,
        Ensemble,
        HesseNet,
        HesseNetConfig,
        Hipnn,
        HipnnConfig,
        ReferenceEnergies,
        SumPotential,
        Zbl,
        ZblConfig,
        load_model,
        save_model,
    )
    from hesse.pes import minimize
    from hesse.potential import Potential
    from hesse.probes import Gaussian, OneHot, ProbeSeed, Rademacher, RigidBodyFree, Sphere, make_probe
    from hesse.recipes import g2_molecules
    from hesse.sampling import sample_normal_modes
    from hesse.structures import Batch, Properties, Request, Structure, collate, from_ase, to_ase
    from hesse.training import ProjectedHessianLoss, TrainConfig, TrainResult, load_config, train

_EXPORTS = {
    "curvature": ("evaluate_ensemble", "evaluate"),
    "datasets": ("Dataset", "read_dataset", "write_dataset"),
    "deploy": ("HesseCalculator",),
    "engines": ("AseEngine", "Engine", "PotentialEngine", "XtbEngine", "make_engine", "make_potential"),
    "errors": ("HesseError",),
    "evaluation": ("evaluate_model", "predict"),
    "labelling": ("label",),
    "losses": ("LossWeights", "weighted_loss"),
    "models": (
        "Ani",
        "AniConfig",
        "ReferenceEnergies",
        "Ensemble",
        "HesseNet",
        "HesseNetConfig",
        "Hipnn",
        "HipnnConfig",
        "SumPotential",
        "Zbl",
        "ZblConfig",
        "load_model",
        "save_model",
    ),
    "pes": ("minimize",),
    "potential": ("Potential",),
    "probes": ("Gaussian", "RigidBodyFree", "OneHot", "ProbeSeed", "Rademacher", "Sphere", "make_probe"),
    "recipes": ("g2_molecules",),
    "sampling": ("sample_normal_modes",),
    "structures": ("Batch", "Properties", "Request", "Structure", "collate", "from_ase", "to_ase"),
    "training": ("ProjectedHessianLoss", "TrainConfig", "TrainResult", "load_config", "train"),
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = [
    "Ani",
    "AniConfig",
    "AseEngine",
    "Batch",
    "Dataset",
    "Engine",
    "Ensemble",
    "Gaussian",
    "HesseCalculator",
    "HesseError",
    "HesseNet",
    "HesseNetConfig",
    "Hipnn",
    "HipnnConfig",
    "LossWeights",
    "OneHot",
    "Potential",
    "PotentialEngine",
    "ProbeSeed",
    "ProjectedHessianLoss",
    "Properties",
    "Rademacher",
    "ReferenceEnergies",
    "Request",
    "RigidBodyFree",
    "Sphere",
    "Structure",
    "SumPotential",
    "TrainConfig",
    "TrainResult",
    "XtbEngine",
    "Zbl",
    "ZblConfig",
    "__version__",
    "collate",
    "evaluate",
    "evaluate_ensemble",
    "evaluate_model",
    "from_ase",
    "g2_molecules",
    "label",
    "load_config",
    "load_model",
    "make_engine",
    "make_potential",
    "make_probe",
    "minimize",
    "predict",
    "read_dataset",
    "sample_normal_modes",
    "save_model",
    "to_ase",
    "train",
    "weighted_loss",
    "write_dataset",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'hesse' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"hesse.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
