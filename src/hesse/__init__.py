"""Hesse trains machine-learning interatomic potentials with the right curvature, from Hessian-vector products.

Everything public is listed in `__all__` and loaded on first use, so that `import hesse` (and `hesse --help`) is quick.
Functions are named like the verbs of the command line: `hesse.label`, `hesse.train`, `hesse.evaluate`, ...
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hesse._version import __version__

if TYPE_CHECKING:
    from hesse.checks import check_potential
    from hesse.checks import check_potential as check
    from hesse.curvature import HessianOperator, evaluate_ensemble, evaluate_structures
    from hesse.datasets import Dataset, as_dataset, as_structure, as_structures, read_dataset, write_dataset
    from hesse.deploy import HesseCalculator, export
    from hesse.engine import Engine
    from hesse.engines import (
        AseEngine,
        PotentialEngine,
        PyscfEngine,
        XtbEngine,
        as_engine,
        as_potential,
        make_engine,
        make_potential,
    )
    from hesse.engines.compute import compute
    from hesse.errors import HesseError
    from hesse.evaluation import predict
    from hesse.harmonic.normal_modes import NormalModes, normal_modes
    from hesse.labelling import LabelSpec, complete_hessians, label, teacher_labels
    from hesse.lattice import Anharmonic, Phonons, anharmonic, phonons, read_phonons
    from hesse.losses import Loss, LossTerm, LossWeights, weighted_loss
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
        fit_reference_energies,
        load_model,
        save_model,
    )
    from hesse.models.adapters import CallablePotential
    from hesse.models.adapters.chgnet import ChgnetPotential
    from hesse.models.adapters.hippynn import HippynnPotential
    from hesse.models.adapters.mace import MacePotential
    from hesse.models.adapters.nequip import NequipPotential
    from hesse.models.adapters.sevenn import SevennPotential
    from hesse.models.adapters.torchani import TorchAniPotential
    from hesse.pes import (
        MDSettings,
        irc,
        minimize,
        neb,
        reaction,
        remove_imaginary_modes,
        run_md,
        saddle,
        vibrations,
    )
    from hesse.pes.lowest_modes import lowest_modes
    from hesse.potential import Potential
    from hesse.probes import Gaussian, OneHot, ProbeSeed, Rademacher, RigidBodyFree, Sphere, make_probe
    from hesse.recipes import analyze_vibrations, evaluate, g2_molecules, thermo
    from hesse.recipes.protocols import plan_recipe, run_recipe
    from hesse.reports.phonon_figure import draw_phonons
    from hesse.sampling import (
        run_replicas,
        sample_md,
        sample_normal_modes,
        sample_paths,
        sample_rattled,
        score_structures,
    )
    from hesse.structures import (
        Batch,
        Properties,
        Quantity,
        Request,
        Structure,
        bead_number,
        collate,
        from_ase,
        register_quantity,
        to_ase,
    )
    from hesse.studies import StudyConfig, compare, run_study
    from hesse.superconductivity import SpectralFunction, read_alpha2f, tc
    from hesse.training import ProjectedHessianLoss, TrainConfig, TrainResult, load_config, train

_EXPORTS = {
    "checks": ("check_potential",),
    "curvature": ("HessianOperator", "evaluate_ensemble", "evaluate_structures"),
    "datasets": ("Dataset", "as_dataset", "as_structure", "as_structures", "read_dataset", "write_dataset"),
    "deploy": ("HesseCalculator", "export"),
    "engine": ("Engine",),
    "engines": (
        "AseEngine",
        "PotentialEngine",
        "PyscfEngine",
        "Quantity",
        "XtbEngine",
        "as_engine",
        "as_potential",
        "compute",
        "make_engine",
        "make_potential",
    ),
    "errors": ("HesseError",),
    "evaluation": ("predict",),
    "harmonic.normal_modes": ("NormalModes", "normal_modes"),
    "labelling": ("LabelSpec", "complete_hessians", "label", "teacher_labels"),
    "lattice": ("Anharmonic", "Phonons", "anharmonic", "phonons", "read_phonons"),
    "losses": ("Loss", "LossTerm", "LossWeights", "weighted_loss"),
    "models": (
        "Ani",
        "AniConfig",
        "Ensemble",
        "HesseNet",
        "HesseNetConfig",
        "Hipnn",
        "HipnnConfig",
        "ReferenceEnergies",
        "SumPotential",
        "Zbl",
        "ZblConfig",
        "fit_reference_energies",
        "load_model",
        "save_model",
    ),
    "models.adapters": ("CallablePotential",),
    "models.adapters.chgnet": ("ChgnetPotential",),
    "models.adapters.hippynn": ("HippynnPotential",),
    "models.adapters.mace": ("MacePotential",),
    "models.adapters.nequip": ("NequipPotential",),
    "models.adapters.sevenn": ("SevennPotential",),
    "models.adapters.torchani": ("TorchAniPotential",),
    "pes": (
        "MDSettings",
        "irc",
        "lowest_modes",
        "minimize",
        "neb",
        "reaction",
        "remove_imaginary_modes",
        "run_md",
        "saddle",
        "vibrations",
    ),
    "potential": ("Potential",),
    "probes": ("Gaussian", "OneHot", "ProbeSeed", "Rademacher", "RigidBodyFree", "Sphere", "make_probe"),
    "recipes": ("analyze_vibrations", "evaluate", "g2_molecules", "thermo"),
    "recipes.protocols": ("plan_recipe", "run_recipe"),
    "reports.phonon_figure": ("draw_phonons",),
    "sampling": (
        "run_replicas",
        "sample_md",
        "sample_normal_modes",
        "sample_paths",
        "sample_rattled",
        "score_structures",
    ),
    "structures": (
        "Batch",
        "Properties",
        "Quantity",
        "Request",
        "Structure",
        "bead_number",
        "collate",
        "from_ase",
        "register_quantity",
        "to_ase",
    ),
    "studies": ("StudyConfig", "compare", "run_study"),
    "superconductivity": ("SpectralFunction", "read_alpha2f", "tc"),
    "training": ("ProjectedHessianLoss", "TrainConfig", "TrainResult", "load_config", "train"),
}
"""Names that are defined under the same name in a package of Hesse."""

_VERBS = {
    "check": ("checks", "check_potential"),
}
"""Functions that are named like the verbs of the command line and have a longer name where they are defined."""

_SOURCES = {name: (module, name) for module, names in _EXPORTS.items() for name in names} | _VERBS

_RENAMED = {
    "Labels": "Properties",
    "Weights": "LossWeights",
    "ProbeStream": "ProbeSeed",
    "Internal": "RigidBodyFree",
    "ElementReferences": "ReferenceEnergies",
    "Equivariant": "HesseNet",
    "EquivariantConfig": "HesseNetConfig",
    "assess": "evaluate",
    "committee": "evaluate_ensemble",
    "minimise": "minimize",
}
"""Names of earlier versions, for the error message."""

__all__ = [
    "Anharmonic",
    "Ani",
    "AniConfig",
    "AseEngine",
    "Batch",
    "CallablePotential",
    "ChgnetPotential",
    "Dataset",
    "Engine",
    "Ensemble",
    "Gaussian",
    "HesseCalculator",
    "HesseError",
    "HesseNet",
    "HesseNetConfig",
    "HessianOperator",
    "Hipnn",
    "HipnnConfig",
    "HippynnPotential",
    "LabelSpec",
    "Loss",
    "LossTerm",
    "LossWeights",
    "MDSettings",
    "MacePotential",
    "NequipPotential",
    "NormalModes",
    "OneHot",
    "Phonons",
    "Potential",
    "PotentialEngine",
    "ProbeSeed",
    "ProjectedHessianLoss",
    "Properties",
    "PyscfEngine",
    "Quantity",
    "Rademacher",
    "ReferenceEnergies",
    "Request",
    "RigidBodyFree",
    "SevennPotential",
    "SpectralFunction",
    "Sphere",
    "Structure",
    "StudyConfig",
    "SumPotential",
    "TorchAniPotential",
    "TrainConfig",
    "TrainResult",
    "XtbEngine",
    "Zbl",
    "ZblConfig",
    "__version__",
    "analyze_vibrations",
    "anharmonic",
    "as_dataset",
    "as_engine",
    "as_potential",
    "as_structure",
    "as_structures",
    "bead_number",
    "check",
    "check_potential",
    "collate",
    "compare",
    "complete_hessians",
    "compute",
    "draw_phonons",
    "evaluate",
    "evaluate_ensemble",
    "evaluate_structures",
    "export",
    "fit_reference_energies",
    "from_ase",
    "g2_molecules",
    "irc",
    "label",
    "load_config",
    "load_model",
    "lowest_modes",
    "make_engine",
    "make_potential",
    "make_probe",
    "minimize",
    "neb",
    "normal_modes",
    "phonons",
    "plan_recipe",
    "predict",
    "reaction",
    "read_alpha2f",
    "read_dataset",
    "read_phonons",
    "register_quantity",
    "remove_imaginary_modes",
    "run_md",
    "run_recipe",
    "run_replicas",
    "run_study",
    "saddle",
    "sample_md",
    "sample_normal_modes",
    "sample_paths",
    "sample_rattled",
    "save_model",
    "score_structures",
    "tc",
    "teacher_labels",
    "thermo",
    "to_ase",
    "train",
    "vibrations",
    "weighted_loss",
    "write_dataset",
]


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        raise AttributeError(f"hesse.{name} was renamed to hesse.{_RENAMED[name]}")
    if name not in _SOURCES:
        raise AttributeError(f"module 'hesse' has no attribute {name!r}")
    module, attribute = _SOURCES[name]
    value = getattr(importlib.import_module(f"hesse.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
