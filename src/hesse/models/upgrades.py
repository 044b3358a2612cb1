"""Model files of earlier formats: one function per step, from a version to the next.

Each takes the description of the model and its tensors and returns those of the next version. They are never changed
once released, so that a file of any age is read through all steps since. What earlier releases wrote is kept in the
tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

__all__ = ["FORMAT_VERSION", "migrate"]

Description = dict[str, Any]
Tensors = dict[str, Tensor]


def _migrate_1_to_2(description: Description, tensors: Tensors) -> tuple[Description, Tensors]:
    """Only HIP-NN existed, with its element references as a tensor of its own."""
    renamed = {("references.energies" if name == "references" else name): value for name, value in tensors.items()}
    return description, renamed


MIGRATIONS: Mapping[int, Callable[[Description, Tensors], tuple[Description, Tensors]]] = {1: _migrate_1_to_2}
FORMAT_VERSION = max(MIGRATIONS) + 1


def migrate(version: int, description: Description, tensors: Tensors) -> tuple[Description, Tensors]:
    """A description and tensors of format `version` in the present format."""
    for step in range(version, FORMAT_VERSION):
        description, tensors = MIGRATIONS[step](description, tensors)
    return description, tensors
