"""Where descriptions (text, configurations) become potentials, and potentials descriptions.

A description is JSON: `{"model": {"kind": ..., options}, "elements": [...]}`; a sum or an ensemble holds the
descriptions of its parts: `{"model": {"kind": "sum", "parts": [...]}, "elements": [...]}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from jaxtyping import Float
from pydantic import BaseModel, Discriminator, Tag, TypeAdapter, ValidationError
from torch import Tensor

from hesse.errors import ConfigError, UnknownOptionError, nearest_name
from hesse.models.ani import Ani, AniConfig
from hesse.models.compose import Ensemble, SumPotential
from hesse.models.equivariant import Equivariant, EquivariantConfig
from hesse.models.hipnn import Hipnn, HipnnConfig
from hesse.models.references import ElementReferences
from hesse.models.zbl import Zbl, ZblConfig
from hesse.potential import Potential

__all__ = ["ModelConfig", "build_described", "build_model", "describe"]

DEFAULT_KIND = "hipnn"
NETWORKS: dict[str, tuple[type, type[Potential]]] = {
    "hipnn": (HipnnConfig, Hipnn),
    "ani": (AniConfig, Ani),
    "equivariant": (EquivariantConfig, Equivariant),
}
"""Kinds of network that can be trained: configuration and class."""
COMPOSED: dict[str, type[SumPotential | Ensemble]] = {"sum": SumPotential, "ensemble": Ensemble}
FIXED = ("zbl", "references")
DEEPEST = 5
"""Sums within sums within ...: more levels than this is a damaged file, not a model."""
MOST_PARTS = 256


def kind_of(config: Any) -> str:
    """The kind that a configuration (or a mapping that is to become one) names."""
    if isinstance(config, Mapping):
        return str(config.get("kind", DEFAULT_KIND))
    return str(getattr(config, "kind", ""))


ModelConfig = Annotated[
    Annotated[HipnnConfig, Tag("hipnn")]
    | Annotated[AniConfig, Tag("ani")]
    | Annotated[EquivariantConfig, Tag("equivariant")],
    Discriminator(kind_of),
]
"""The configuration of any network that can be trained, told apart by `kind` (without it: HIP-NN)."""


def build_model(
    config: Any, elements: tuple[int, ...], references: Float[Tensor, "elements"] | None = None
) -> Potential:
    """The network that a configuration describes, freshly initialised from torch's global generator.

    Args:
        config: a `HipnnConfig`, `AniConfig`, `EquivariantConfig`, ...
        elements: atomic numbers it is for.
        references: eV per element, in that order; zero where None.
    """
    build: Callable[..., Potential] = NETWORKS[config.kind][1]
    return build(config, elements, references)


def describe(potential: Potential) -> dict[str, Any]:
    """What must be known to build such a potential again, apart from its tensors.

    Raises:
        UnknownOptionError: it is not one of Hesse's own kinds, or is made of such a one.
    """
    elements = list(potential.elements)
    for kind, composed in COMPOSED.items():
        if type(potential) is composed:
            parts = [describe(part) for part in potential.parts]
            return {"model": {"kind": kind, "parts": parts}, "elements": elements}
    if type(potential) is ElementReferences:
        return {"model": {"kind": "references"}, "elements": elements}
    if type(potential) in (Zbl, *(network for _, network in NETWORKS.values())):
        config: BaseModel = potential.config  # type: ignore[assignment]
        return {"model": config.model_dump(mode="json"), "elements": elements}
    raise UnknownOptionError(
        f"only Hesse's own models have .hesse files, got a {type(potential).__name__}. Its weights go to a file with "
        "hesse.models.save_weights; a model of another framework is saved by its adapter (potential.save)."
    )


def build_described(description: Mapping[str, Any], *, most_tensors: int | None = None) -> Potential:
    """The potential of a description, freshly initialised.

    Args:
        description: as `describe` gives it.
        most_tensors: give up as soon as more are needed: those of the file that the description comes from.

    Raises:
        UnknownOptionError: a kind that does not exist.
        ConfigError: options that cannot be, or more tensors than allowed.
    """
    return _built(description, _Allowance(most_tensors), depth=0)


class _Allowance:
    """How many more tensors may be made."""

    def __init__(self, tensors: int | None) -> None:
        self.allowed, self.left = tensors, tensors

    def take(self, potential: Potential) -> Potential:
        """Pay for a part. Raises ConfigError where it costs too much."""
        if self.left is not None:
            self.left -= len(potential.state_dict())
            if self.left < 0:
                raise ConfigError(f"its {self.allowed} tensors are too few for the model it describes")
        return potential


def _built(description: Mapping[str, Any], allowance: _Allowance, *, depth: int) -> Potential:
    if depth > DEEPEST:
        raise ConfigError(f"more than {DEEPEST} levels of sums and ensembles")
    if not isinstance(description, Mapping) or not isinstance(description.get("model"), Mapping):
        raise ConfigError(f'expected {{"model": ..., "elements": ...}}, got {str(description)[:60]}')
    options, given = dict(description["model"]), description.get("elements")
    if not isinstance(given, list) or not all(isinstance(z, int) for z in given):
        raise ConfigError(f"expected a list of atomic numbers, got {str(given)[:60]}")
    elements = tuple(given)
    kind = kind_of(options)
    if kind in COMPOSED:
        parts = options.get("parts")
        if not isinstance(parts, list) or len(parts) > MOST_PARTS:
            raise ConfigError(f"a {kind} needs a list of at most {MOST_PARTS} parts")
        return COMPOSED[kind]([_built(part, allowance, depth=depth + 1) for part in parts])
    if kind == "references":
        return allowance.take(ElementReferences(elements))
    if kind == "zbl":
        return Zbl(_validated(ZblConfig, options), elements)
    if kind in NETWORKS:
        config_class, build = NETWORKS[kind]
        return allowance.take(build(_validated(config_class, options), elements))
    raise UnknownOptionError(f'unknown kind of model "{kind}". {nearest_name(kind, [*NETWORKS, *COMPOSED, *FIXED])}')


def _validated(config_class: Any, options: dict[str, Any]) -> Any:
    try:
        return TypeAdapter(config_class).validate_python(options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f'{config_class.__name__}, option "{where}" = {first.get("input")!r}: {first["msg"]}'
        ) from None
