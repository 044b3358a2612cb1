"""What is measured, by name: potentials in files, and Hesse's own networks fresh from their configuration."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from ase.data import chemical_symbols

from hesse.datasets import read_dataset
from hesse.engines import make_potential
from hesse.errors import ConfigError, UnknownElementError
from hesse.models import build_model
from hesse.potential import Potential
from hesse.structures import Structure
from hesse.training import TrainConfig, load_config, validate_config
from hesse.training.start import given_potential, starting_potential

__all__ = ["OWN_KINDS", "fresh_network", "named_potentials", "network_config", "potential_of_run", "require_elements"]

OWN_KINDS = ("hipnn", "ani", "equivariant")


def network_config(text: str) -> Any:
    """The configuration of one of Hesse's own networks: `hipnn`, or with options `hipnn?l_max=0,features=32`.

    Raises:
        UnknownOptionError: a kind or option that does not exist.
        ConfigError: a value that cannot be.
    """
    kind, _, tail = text.partition("?")
    options: dict[str, object] = {"kind": kind}
    for part in tail.split(",") if tail else ():
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise ConfigError(f'"{text}": expected name=value after the question mark, got "{part}"')
        options[name] = yaml.safe_load(value)
    return validate_config(TrainConfig, {"model": options}, source=f'"{text}"').model


def fresh_network(text: str, elements: Sequence[int], *, seed: int = 0) -> Potential:
    """One of Hesse's own networks with random weights; raises as `network_config` does, whose text it takes."""
    config = network_config(text)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_model(config, tuple(elements))


def named_potentials(
    files: Sequence[str], kinds: Sequence[str], structures: Sequence[Structure]
) -> dict[str, Potential]:
    """Potentials of files (`MODEL.hesse`, `mace:FILE`, ...) and fresh networks, by their names.

    Raises:
        ConfigError: a name twice.
        UnknownElementError: a potential does not know an element of the structures.
        HesseError: all that `make_potential` and `fresh_network` raise.
    """
    names = [*files, *kinds]
    if len(set(names)) < len(names):
        raise ConfigError(f"each potential is measured once, got {', '.join(names)}")
    elements = sorted({int(z) for s in structures for z in s.numbers})
    found = {name: make_potential(name) for name in files}
    found |= {name: fresh_network(name, elements) for name in kinds}
    for name, potential in found.items():
        require_elements(name, potential, elements)
    return found


def potential_of_run(file: str | Path) -> tuple[Potential, tuple[Structure, ...]]:
    """The potential that the training configuration in `file` starts from, and its training structures.

    Raises:
        HesseError: all that `load_config`, `read_dataset` and `make_potential` raise.
    """
    config = load_config(file)
    training = read_dataset(config.data.train)
    given = given_potential(config, None, config.output)
    return starting_potential(config, training, given), training.structures


def require_elements(name: str, potential: Potential, elements: Collection[int]) -> None:
    """Raise UnknownElementError where `potential` does not know one of `elements`."""
    foreign = sorted(set(elements) - set(potential.elements)) if potential.elements else []
    if foreign:
        known = ", ".join(chemical_symbols[z] for z in potential.elements)
        raise UnknownElementError(
            f"{name} knows {known}, and the structures hold {chemical_symbols[foreign[0]]}: give structures of its "
            "elements with --data"
        )
