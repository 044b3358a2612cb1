"""Levels of theory that identify what computed a label.

The level of a program is its method ("GFN2-xTB"). That of a model or a calculator object also needs an identity,
because two models may have the same file name: ten digits of a digest follow its name, `model:water.hesse@3f2a9c01b4`.
A level of a model without such digits, as earlier versions wrote it, is unknown: it equals no other.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hesse.potential import Potential
from hesse.runtime.tensor_files import tensor_digest

__all__ = [
    "calculator_digest",
    "file_digest",
    "level_with_digest",
    "levels_agree",
    "module_file_digest",
    "names_unknown_model",
    "weights_digest",
]

_DIGITS = 10

_IDENTIFIED = re.compile(rf"^(?P<name>.+)@(?P<digits>[0-9a-f]{{{_DIGITS}}})$")

_MODEL_KINDS = ("model", "mace", "torchani", "hippynn", "nequip", "chgnet", "sevenn", "python")


def level_with_digest(name: str, *digests: str) -> str:
    """The level of a model or a calculator.

    Args:
        name: what a reader should see, such as "model:water.hesse".
        *digests: texts that together identify it; empty ones do not count.

    Returns:
        The name, `@` and ten hexadecimal digits; the name alone where nothing identifies it.
    """
    known = [digest for digest in digests if digest]
    if not known:
        return name
    return f"{name}@{hashlib.blake2b('/'.join(known).encode(), digest_size=_DIGITS // 2).hexdigest()}"


def levels_agree(one: str, other: str) -> bool:
    """Whether two levels of theory are certainly the same.

    Args:
        one: a level, such as "GFN2-xTB" or "model:water.hesse@3f2a9c01b4".
        other: another.

    Returns:
        True for the same text (upper or lower case); for models, for the same digits: a renamed file is the same model.
        False for a model without digits, because nothing is known about it, and for an empty level.
    """
    first, second = one.strip().lower(), other.strip().lower()
    if not first or names_unknown_model(first) or names_unknown_model(second):
        return False
    a, b = _IDENTIFIED.match(first), _IDENTIFIED.match(second)
    if a and b and _kind(first) == _kind(second) != "":
        return a["digits"] == b["digits"]
    return first == second


def names_unknown_model(level: str) -> bool:
    """Whether a level names a model without saying which.

    Args:
        level: a level of theory.

    Returns:
        True for "model:model" and the like, which many files have in common.
    """
    return bool(_kind(level)) and not _IDENTIFIED.match(level.strip().lower())


def _kind(level: str) -> str:
    kind, colon, _ = level.strip().lower().partition(":")
    return kind if colon and kind in _MODEL_KINDS else ""


def file_digest(path: str | Path) -> str:
    """Digest of the content of a file.

    Args:
        path: the file.

    Returns:
        32 hexadecimal digits (BLAKE2b).
    """
    digest = hashlib.blake2b(digest_size=16)
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def weights_digest(module: nn.Module) -> str:
    """Digest of the parameters and buffers of a module, with its class.

    Args:
        module: a potential, or a module of another framework.

    Returns:
        32 hexadecimal digits; empty for a module without any parameter or buffer, which they do not identify.
    """
    states = {
        name: value.detach().cpu() for name, value in module.state_dict().items() if isinstance(value, torch.Tensor)
    }
    if not states:
        return ""
    meta = {"class": type(module).__qualname__}
    if isinstance(module, Potential):
        meta |= {"cutoff": repr(float(module.cutoff)), "elements": repr(tuple(module.elements))}
    return tensor_digest(meta, states)


def module_file_digest(name: str) -> str:
    """Digest of the file of an imported module that belongs to no installed package: of a user's own code.

    Args:
        name: name of the module.

    Returns:
        32 hexadecimal digits; empty for a module of an installed package, or without a file.
    """
    path = getattr(sys.modules.get(name), "__file__", None)
    return file_digest(path) if not _release(name) and path is not None and Path(path).is_file() else ""


def _release(name: str) -> str:
    """Version of the package that a module belongs to; empty where it belongs to none."""
    try:
        return version(name.partition(".")[0])
    except (PackageNotFoundError, ValueError):
        return ""


def calculator_digest(calculator: Any, parameters: Mapping[str, str]) -> str:
    """Identity of an ASE calculator, as far as it can be known.

    Args:
        calculator: the calculator.
        parameters: its plain parameters as text.

    Returns:
        Digest of its class, the version of its package (the file of its module where it has none), its parameters, and
        the weights of the networks that it holds.
    """
    kind = type(calculator)
    release = _release(kind.__module__) or module_file_digest(kind.__module__)
    weights = [weights_digest(module) for module in _modules_in(calculator)]
    text = json.dumps([kind.__module__, kind.__qualname__, release, dict(parameters), weights], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _modules_in(thing: Any) -> list[nn.Module]:
    """Networks among the attributes of an object, single or in lists."""
    modules: list[nn.Module] = []
    for _, value in sorted(getattr(thing, "__dict__", {}).items()):
        members = value if isinstance(value, list | tuple) else [value]
        modules += [member for member in members if isinstance(member, nn.Module)]
    return modules
