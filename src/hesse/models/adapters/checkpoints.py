"""Checkpoints of other frameworks: published ones inside the installed packages, and reading without running code."""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hesse.errors import FileFormatError, MissingExtraError, RequestError, UnknownOptionError, did_you_mean
from hesse.runtime.filesystem import check_input_file

__all__ = ["PUBLISHED", "checkpoint_file", "is_published", "read_checkpoint"]

PUBLISHED: Mapping[str, Mapping[str, str]] = {
    "chgnet": {
        "0.2.0": "pretrained/0.2.0/chgnet_0.2.0_e30f77s348m32.pth.tar",
        "0.3.0": "pretrained/0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar",
        "r2scan": "pretrained/r2scan/chgnet_r2scan_transfer_learning_e15f36s161m23.pth.tar",
    },
    "sevenn": {
        "7net-0": "pretrained_potentials/SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth",
        "7net-0_22may2024": "pretrained_potentials/SevenNet_0__22May2024/checkpoint_sevennet_0.pth",
        "7net-l3i5": "pretrained_potentials/SevenNet_l3i5/checkpoint_l3i5.pth",
        "7net-mf-0": "pretrained_potentials/SevenNet_MF_0/checkpoint_sevennet_mf_0.pth",
    },
}
"""Weights that packages bring with them: their names, and their files relative to the folder of the package."""


def is_published(framework: str, name: str | Path) -> bool:
    """Whether a name is one of published weights, and not a path.

    Args:
        framework: name of the package.
        name: what follows it in the name of a potential; upper and lower case are the same.

    Returns:
        True if it is in `PUBLISHED`.
    """
    return str(name).lower() in PUBLISHED.get(framework, {})


def checkpoint_file(framework: str, name: str | Path) -> Path:
    """The file of a checkpoint.

    Args:
        framework: name of the package.
        name: a name of published weights, or a path.

    Returns:
        The file, which exists. Nothing is downloaded, and the package is not imported.

    Raises:
        MissingExtraError: published weights of a package that is not installed.
        UnknownOptionError: neither published weights nor a file; the message has the nearest name.
        FileFormatError: the path is a folder, or its file is missing.
    """
    if not is_published(framework, name):
        published = PUBLISHED.get(framework)
        if published and not Path(name).exists():
            raise UnknownOptionError(
                f'"{name}" is neither a file nor published weights of {framework}. '
                f"{did_you_mean(str(name).lower(), published)} Weights that the package does not bring with it are not "
                "downloaded: give the path of their file."
            )
        check_input_file(name, f"model file of {framework}")
        return Path(name)
    spec = importlib.util.find_spec(framework)
    if spec is None or spec.origin is None:
        raise MissingExtraError(
            f"the weights {name} are part of the package {framework}, which is not installed: "
            f'pip install "hesse[{framework}]"'
        )
    file = Path(spec.origin).parent / PUBLISHED[framework][str(name).lower()]
    if not file.is_file():
        raise FileFormatError(
            f"{file}: the installed {framework} does not hold the weights {name}: install a newer one"
        )
    return file


def read_checkpoint(path: Path, framework: str, *, trust_pickle: bool = False) -> dict[str, Any]:
    """Read a checkpoint that `torch.save` wrote. Only plain data, tensors and numpy arrays are built from it.

    Args:
        path: the file.
        framework: name of the package, for messages.
        trust_pickle: build other objects too, which can run code of the file's author.

    Returns:
        Its content.

    Raises:
        FileFormatError: not such a file.
        RequestError: it holds other objects, and `trust_pickle` is False.
    """
    if not zipfile.is_zipfile(path):
        raise FileFormatError(f"{path}: not a checkpoint of {framework}, which torch.save writes as a zip archive")
    try:
        with torch.serialization.safe_globals(_array_types()):
            others = torch.serialization.get_unsafe_globals_in_checkpoint(path)
            if others and not trust_pickle:
                raise RequestError(
                    f"{path}: beside weights and settings this file holds objects of other kinds "
                    f"({', '.join(sorted(others))}), and building them can run code of its author. If you trust the "
                    "author, pass trust_pickle=True (on the command line ?trust=pickle after the file name)."
                )
            content = torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    except RequestError:
        raise
    except Exception as error:
        message = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise FileFormatError(f"{path}: not a readable checkpoint of {framework} ({message})") from error
    if not isinstance(content, dict):
        raise FileFormatError(f"{path}: not a checkpoint of {framework}: a {type(content).__name__}, expected a dict")
    return content


def _array_types() -> list[Any]:
    """Parts of pickled numpy arrays, under the names of NumPy 1 and 2. None of it runs code from the file."""
    rebuild: Any = np._core.multiarray._reconstruct  # type: ignore[attr-defined]
    scalar: Any = np._core.multiarray.scalar  # type: ignore[attr-defined]
    names = [(f, f"numpy.{core}.multiarray.{f.__name__}") for f in (rebuild, scalar) for core in ("core", "_core")]
    kinds = {type(np.dtype(code)) for code in "?bhilqBHILQefd"}
    return [*names, np.ndarray, np.dtype, *sorted(kinds, key=lambda kind: kind.__name__)]
