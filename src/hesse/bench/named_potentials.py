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
from hesse.training.initial_model import build_initial_potential, resolve_initial_potential

__all__ = [
    "NATIVE_KINDS",
    "check_elements",
    "named_potentials",
    "parse_network_config",
    "potential_from_config",
    "untrained_network",
]

NATIVE_KINDS = ("hipnn", "ani", "hessenet")


def parse_network_config(text: str) -> Any:
    """The configuration of one of Hesse's own networks: `hipnn`, or with options `hipnn?l_max=0,features=32`.

    Raises:
        UnknownOptionError: a kind or option that does not exist.
        ConfigError: a value that cannot be.
    """
    kind, _, option_text = text.partition("?")
    options: dict[str, object] = {"kind": kind}
    for part in option_text.split(",") if option_text else ():
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise ConfigError(f'"{text}": expected name=value after the question mark, got "{part}"')
        options[name] = yaml.safe_load(value)
    return validate_config(TrainConfig, {"model": options}, source=f'"{text}"').model


def untrained_network(text: str, elements: Sequence[int], *, seed: int = 0) -> Potential:
    """One of Hesse's own networks with random weights; raises as `parse_network_config` does, whose text it takes."""
    config = parse_network_config(text)
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
        HesseError: all that `make_potential` and `untrained_network` raise.
    """
    names = [*files, *kinds]
    if len(set(names)) < len(names):
        raise ConfigError(f"each potential is measured once, got {', '.join(names)}")
    elements = sorted({int(z) for s in structures for z in s.numbers})
    potentials = {name: make_potential(name) for name in files}
    potentials |= {name: untrained_network(name, elements) for name in kinds}
    for name, potential in potentials.items():
        check_elements(name, potential, elements)
    return potentials


def potential_from_config(file: str | Path) -> tuple[Potential, tuple[Structure, ...]]:
    """The potential that the training configuration in `file` starts from, and its training structures.

    Raises:
        HesseError: all that `load_config`, `read_dataset` and `make_potential` raise.
    """
    config = load_config(file)
    training = read_dataset(config.data.train)
    initial = resolve_initial_potential(config, None, config.output)
    return build_initial_potential(config, training, initial), training.structures


def check_elements(name: str, potential: Potential, elements: Collection[int]) -> None:
    """Raise UnknownElementError where `potential` does not know one of `elements`."""
    unknown = sorted(set(elements) - set(potential.elements)) if potential.elements else []
    if unknown:
        known = ", ".join(chemical_symbols[z] for z in potential.elements)
        raise UnknownElementError(
            f"{name} knows {known}, and the structures hold {chemical_symbols[unknown[0]]}: give structures of its "
            "elements with --data"
        )
