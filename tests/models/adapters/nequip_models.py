"""Small NequIP and Allegro models with random weights, NequIP's calculator, and a checkpoint of its own training."""

from __future__ import annotations

import copy
import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from hesse.models.adapters.nequip.nequip_files import _nequip_defaults, _suppress_warnings, import_nequip
from hesse.structures import to_ase
from oracles import molecules

SHIFTS = {"H": -13.6, "C": -1029.0, "O": -2041.0}
COMMON: dict[str, Any] = {
    "seed": 1,
    "type_names": ["H", "C", "O"],
    "r_max": 4.0,
    "num_layers": 2,
    "l_max": 1,
    "num_bessels": 4,
    "radial_mlp_width": 8,
    "avg_num_neighbors": 5.0,
    "per_type_energy_scales": 1.2,
    "per_type_energy_shifts": SHIFTS,
}


def nequip_model(kind: str = "nequip", *, dtype: str = "float64", **options: Any) -> Any:
    """A small model with random parameters."""
    return copy.deepcopy(_built(kind, dtype, yaml.safe_dump(options)))


@functools.cache
def _built(kind: str, dtype: str, options: str) -> Any:
    settings = {**COMMON, "model_dtype": dtype, **yaml.safe_load(options)}
    with _nequip_defaults(), _suppress_warnings():
        if kind == "nequip":
            return import_nequip("nequip.model").NequIPGNNModel(num_features=4, **settings)
        from allegro.model import AllegroModel

        del settings["radial_mlp_width"]
        return AllegroModel(
            num_scalar_features=8,
            num_tensor_features=4,
            radial_chemical_embed={
                "_target_": "allegro.nn.TwoBodyBesselScalarEmbed",
                "num_bessels": settings.pop("num_bessels"),
            },
            **settings,
        )


def nequip_calculator(model: Any) -> Any:
    """NequIP's own ASE calculator, with its own neighbor lists, for a model or a file."""
    calculators = import_nequip("nequip.integrations.ase")
    with _nequip_defaults(), _suppress_warnings():
        if isinstance(model, Path):
            return calculators.NequIPCalculator._from_saved_model(
                model, device="cpu", chemical_species_to_atom_type_map=True
            )
        names = list(model.type_names)
        transforms = import_nequip("nequip.integrations.utils").basic_transforms(
            model.metadata, float(model.metadata["r_max"]), names, {name: name for name in names}
        )
        return calculators.NequIPCalculator(copy.deepcopy(model).eval(), device="cpu", transforms=transforms)


def checkpoint(folder: Path, model: dict[str, Any]) -> Path:
    """Run `nequip-train` for one epoch on a few molecules of zero energy and force, and return its checkpoint.

    Args:
        folder: where it runs.
        model: the `model` section of its configuration.
    """
    frames = []
    for structure in molecules([5, 6, 4, 5], seed=7):
        atoms = to_ase(structure)
        atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=0.0 * atoms.positions)
        frames.append(atoms)
    write(folder / "frames.xyz", frames, format="extxyz")
    transforms = [
        {"_target_": "nequip.data.transforms.ChemicalSpeciesToAtomTypeMapper", "model_type_names": ["H", "C", "O"]},
        {"_target_": "nequip.data.transforms.NeighborListTransform", "r_max": 4.0},
    ]
    metric = {"field": "total_energy", "metric": {"_target_": "nequip.train.MeanSquaredError"}, "coeff": 1.0}
    config = {
        "run": ["train"],
        "cutoff_radius": 4.0,
        "data": {
            "_target_": "nequip.data.datamodule.ASEDataModule",
            "seed": 1,
            "split_dataset": {"file_path": str(folder / "frames.xyz"), "train": 2, "val": 2},
            "transforms": transforms,
            "train_dataloader": {"_target_": "torch.utils.data.DataLoader", "batch_size": 2},
            "val_dataloader": {"_target_": "torch.utils.data.DataLoader", "batch_size": 2},
        },
        "trainer": {
            "_target_": "lightning.Trainer",
            "accelerator": "cpu",
            "max_epochs": 1,
            "enable_progress_bar": False,
            "logger": False,
            "callbacks": [
                {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "dirpath": str(folder), "filename": "best"}
            ],
        },
        "training_module": {
            "_target_": "nequip.train.EMALightningModule",
            "loss": {"_target_": "nequip.train.MetricsManager", "metrics": [metric]},
            "val_metrics": {"_target_": "nequip.train.MetricsManager", "metrics": [metric]},
            "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.01},
            "ema_decay": 0.9,
            "model": model,
        },
        "global_options": {"allow_tf32": False},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    command = [Path(sys.executable).parent / "nequip-train", "-cp", str(folder), "-cn", "run.yaml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "best.ckpt"


def weights(model: torch.nn.Module) -> torch.Tensor:
    """All parameters, end to end."""
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])
