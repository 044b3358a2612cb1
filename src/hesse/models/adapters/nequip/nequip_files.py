"""Files of NequIP. Checkpoints and packages are read by NequIP itself; packages are written as by its own tool
(`nequip-package`), but from a model in memory."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import yaml
from ase import Atoms
from torch import nn

from hesse.errors import FileFormatError, WriteError
from hesse.runtime.filesystem import atomic_write, check_input_file
from hesse.runtime.imports import import_optional

__all__ = ["SUFFIX", "import_nequip", "load_eager_model", "write_package"]

SUFFIX = ".nequip.zip"
"""Suffix of packages; NequIP accepts no other."""

PACKAGE_VERSION = 2
"""Version of the package layout, as numbered by NequIP."""

MODEL_KEY = "sole_model"
"""Key of the model in files that hold a single one."""


def import_nequip(name: str = "nequip") -> ModuleType:
    """Import the package or a module of it, without its warnings.

    Args:
        name: full name of the module.

    Returns:
        The module.

    Raises:
        MissingExtraError: nequip is not installed.
    """
    with _suppress_warnings():
        return import_optional(name, extra="nequip", purpose="a NequIP model")


def load_eager_model(path: Path) -> nn.Module:
    """Load the model of a checkpoint or package in eager mode.

    Args:
        path: `.ckpt` or `.nequip.zip`.

    Returns:
        The model with trainable parameters; for a checkpoint with averaged weights (EMA), these.

    Raises:
        FileFormatError: missing, damaged, or a file of another program.
    """
    check_input_file(path, "model file of NequIP (.ckpt or .nequip.zip)")
    loaders = import_nequip("nequip.model.saved_models.load_utils")
    try:
        with _nequip_defaults(), _suppress_warnings():
            model: nn.Module = loaders.load_saved_model(str(path.resolve()), model_key=MODEL_KEY)
    except Exception as error:
        raise FileFormatError(
            f"{path}: neither a checkpoint (.ckpt) nor a package ({SUFFIX}) of NequIP that can be read "
            f"({type(error).__name__}: {error})"
        ) from error
    return model.requires_grad_(True) if not any(p.requires_grad for p in model.parameters()) else model


def write_package(path: Path, original: Any, symbols: Sequence[str], length_unit: float) -> None:
    """Write a model as a package. An existing file is replaced only after success.

    Args:
        path: file with the suffix `.nequip.zip`.
        original: the eager model, on the CPU. If it came from a package, the code in that package is kept.
        symbols: chemical symbol of each of its types.
        length_unit: unit of length of the model in Å.

    Raises:
        WriteError: another suffix, no permission, no space.
    """
    if not path.name.endswith(SUFFIX):
        raise WriteError(f"cannot write {path}: NequIP reads packages with the suffix {SUFFIX} only")
    package_utils = import_nequip("nequip.scripts._package_utils")
    system = torch.package.importer.sys_importer
    # Origin of the model's class: a package that was read, or the installed nequip.
    source = type(original).forward.__globals__.get("__loader__")
    packaged = isinstance(source, torch.package.PackageImporter)
    with _nequip_defaults(), _suppress_warnings():
        if packaged:
            assert isinstance(source, torch.package.PackageImporter)
            example = source.load_pickle("model", "example_data.pkl")
            config, metadata = (source.load_text("model", name) for name in ("config.yaml", "package_metadata.txt"))
            metadata = yaml.safe_dump({**yaml.safe_load(metadata), "available_models": ["eager"]})
            importers: tuple[Any, ...] = (source, system)
        else:
            example = _example_data(original, symbols, length_unit)
            config, metadata = yaml.safe_dump({"made_by": "hesse"}), _package_metadata(original, package_utils)
            importers = (system,)
        with atomic_write(path) as temporary, torch.package.PackageExporter(temporary, importer=importers) as package:
            package.mock([f"{name}.**" for name in package_utils._MOCK_MODULES])
            package.extern([f"{name}.**" for name in package_utils._EXTERNAL_MODULES])
            package.intern([f"{name}.**" for name in package_utils._INTERNAL_MODULES])
            package.save_pickle("model", "example_data.pkl", example, dependencies=True)
            package.save_text("model", "config.yaml", config)
            package.save_text("model", "package_metadata.txt", metadata)
            package.save_pickle("model", "eager_model.pkl", nn.ModuleDict({MODEL_KEY: original}), dependencies=True)


def _package_metadata(original: Any, package_utils: Any) -> str:
    """Metadata that NequIP checks before it loads a package."""
    versions = import_nequip("nequip.utils.versions")
    get_version = import_nequip("nequip.utils.versions.version_utils").get_version_safe
    return yaml.safe_dump(
        {
            "versions": versions.get_current_code_versions(verbose=False),
            "external_modules": {name: get_version(name) for name in package_utils._EXTERNAL_MODULES},
            "package_version_id": PACKAGE_VERSION,
            "available_models": ["eager"],
            "atom_types": dict(enumerate(original.type_names)),
        }
    )


def _example_data(original: Any, symbols: Sequence[str], length_unit: float) -> dict[str, torch.Tensor]:
    """A structure with atoms of all types, for tracing the model with `nequip-compile`."""
    data, integrations = import_nequip("nequip.data"), import_nequip("nequip.integrations.utils")
    r_max = float(original.metadata["r_max"])
    corners = torch.cartesian_prod(*[torch.arange(2.0)] * 3).numpy()
    kinds = [symbols[k % len(symbols)] for k in range(max(8, len(symbols)))]
    positions = [corners[k % 8] * 0.4 * r_max + 0.9 * r_max * (k // 8) for k in range(len(kinds))]
    atoms = Atoms(kinds, positions, cell=[10 * r_max * length_unit] * 3, pbc=False)
    example: dict[str, torch.Tensor] = data.from_ase(atoms)
    species = dict(zip(symbols, original.type_names, strict=True))
    for transform in integrations.basic_transforms(original.metadata, r_max, list(original.type_names), species):
        example = transform(example)
    return example


@contextmanager
def _nequip_defaults() -> Iterator[None]:
    """Set NequIP's global state while it loads and writes, then restore the default dtype and the random states."""
    state = import_nequip("nequip.utils.global_state")
    before, random_states = torch.get_default_dtype(), (random.getstate(), np.random.get_state())  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        try:
            if not state.global_state_initialized():
                state.set_global_state()
            torch.set_default_dtype(torch.float64)
            yield
        finally:
            torch.set_default_dtype(before)
            random.setstate(random_states[0])
            np.random.set_state(random_states[1])  # noqa: NPY002


@contextmanager
def _suppress_warnings() -> Iterator[None]:
    """Suppress warnings of NequIP, e3nn, Lightning and torch.package; users cannot act on them."""
    logger = logging.getLogger("nequip")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
