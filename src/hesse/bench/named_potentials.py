"""Potentials for benchmarks by name: model files, and Hesse's networks with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from hesse.datasets import open_datasets
from hesse.engines import make_potential
from hesse.errors import ConfigError
from hesse.models import build_model
from hesse.potential import Potential, check_elements
from hesse.runtime.yaml_text import parse_yaml
from hesse.structures import Structure
from hesse.training import TrainConfig, load_config, validate_config
from hesse.training.initial_model import build_initial_potential, resolve_initial_potential

__all__ = [
    "NATIVE_KINDS",
    "named_potentials",
    "parse_network_config",
    "potential_from_config",
    "untrained_network",
]

NATIVE_KINDS = ("hipnn", "ani", "hessenet")


def parse_network_config(text: str) -> Any:
    """Parse the configuration of one of Hesse's networks.

    Args:
        text: the kind, with options: `hipnn` or `hipnn?l_max=0,features=32`.

    Returns:
        The configuration of the network.

    Raises:
        UnknownOptionError: unknown kind or option.
        ConfigError: invalid value, or text that is not name=value.
    """
    kind, _, option_text = text.partition("?")
    options: dict[str, object] = {"kind": kind}
    for part in option_text.split(",") if option_text else ():
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise ConfigError(f'"{text}": expected name=value after the question mark, got "{part}"')
        options[name] = parse_yaml(value, f'"{text}"', error_type=ConfigError)
    return validate_config(TrainConfig, {"model": options}, source=f'"{text}"').model


def untrained_network(text: str, elements: Sequence[int], *, seed: int = 0) -> Potential:
    """One of Hesse's networks with random weights.

    Args:
        text: kind and options, as for `parse_network_config`.
        elements: atomic numbers.
        seed: seed of the weights.

    Returns:
        The network.

    Raises:
        UnknownOptionError: unknown kind or option.
        ConfigError: invalid value.
    """
    config = parse_network_config(text)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_model(config, tuple(elements))


def named_potentials(
    files: Sequence[str], kinds: Sequence[str], structures: Sequence[Structure]
) -> dict[str, Potential]:
    """Load and build the potentials of a benchmark.

    Args:
        files: paths and names as for `make_potential` (`MODEL.hesse`, `mace:FILE`, ...).
        kinds: networks with random weights, as for `parse_network_config`.
        structures: the structures of the benchmark, whose elements the potentials must know.

    Returns:
        The potentials by name, files first.

    Raises:
        ConfigError: a name occurs twice.
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
        for structure in structures:
            check_elements(
                potential,
                structure.numbers,
                where=f'structure "{structure.id}"',
                name=name,
                advice="Give structures of its elements with --data.",
            )
    return potentials


def potential_from_config(file: str | Path) -> tuple[Potential, tuple[Structure, ...]]:
    """The initial potential of a training configuration, and its training structures.

    Args:
        file: the configuration, as for `hesse train`.

    Returns:
        The potential and the structures.

    Raises:
        HesseError: all that `load_config`, `open_datasets` and `make_potential` raise.
    """
    config = load_config(file)
    training = open_datasets(config.data.train_files)
    structures = tuple(s for _, part in training.iter_in_memory() for s in part.structures)
    initial = resolve_initial_potential(config, None, config.output)
    return build_initial_potential(config, training, initial), structures
