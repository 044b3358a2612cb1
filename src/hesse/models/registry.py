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

from hesse.errors import ConfigError, UnknownOptionError, did_you_mean
from hesse.models.ani import Ani, AniConfig
from hesse.models.compose import Ensemble, SumPotential
from hesse.models.hessenet import HesseNet, HesseNetConfig
from hesse.models.hipnn import Hipnn, HipnnConfig
from hesse.models.reference_energies import ReferenceEnergies
from hesse.models.zbl import Zbl, ZblConfig
from hesse.potential import Potential

__all__ = ["ModelConfig", "build_model", "from_description", "to_description"]

DEFAULT_KIND = "hipnn"
NETWORKS: dict[str, tuple[type, type[Potential]]] = {
    "hipnn": (HipnnConfig, Hipnn),
    "ani": (AniConfig, Ani),
    "hessenet": (HesseNetConfig, HesseNet),
}
"""Kinds of network that can be trained: configuration and class."""
COMPOSITES: dict[str, type[SumPotential | Ensemble]] = {"sum": SumPotential, "ensemble": Ensemble}
PARAMETER_FREE = ("zbl", "references")
MAX_DEPTH = 5
"""Sums within sums within ...: more levels than this is a damaged file, not a model."""
MAX_PARTS = 256


def model_kind(config: Any) -> str:
    """The kind that a configuration (or a mapping that is to become one) names."""
    if isinstance(config, Mapping):
        return str(config.get("kind", DEFAULT_KIND))
    return str(getattr(config, "kind", ""))


ModelConfig = Annotated[
    Annotated[HipnnConfig, Tag("hipnn")]
    | Annotated[AniConfig, Tag("ani")]
    | Annotated[HesseNetConfig, Tag("hessenet")],
    Discriminator(model_kind),
]
"""The configuration of any network that can be trained, told apart by `kind` (without it: HIP-NN)."""


def build_model(
    config: Any, elements: tuple[int, ...], reference_energies: Float[Tensor, "elements"] | None = None
) -> Potential:
    """The network that a configuration describes, freshly initialized from torch's global generator.

    Args:
        config: a `HipnnConfig`, `AniConfig`, `HesseNetConfig`, ...
        elements: atomic numbers it is for.
        references: eV per element, in that order; zero where None.
    """
    build: Callable[..., Potential] = NETWORKS[config.kind][1]
    return build(config, elements, reference_energies)


def to_description(potential: Potential) -> dict[str, Any]:
    """What must be known to build such a potential again, apart from its tensors.

    Raises:
        UnknownOptionError: it is not one of Hesse's own kinds, or is made of such a one.
    """
    elements = list(potential.elements)
    for kind, composite in COMPOSITES.items():
        if type(potential) is composite:
            parts = [to_description(part) for part in potential.parts]
            return {"model": {"kind": kind, "parts": parts}, "elements": elements}
    if type(potential) is ReferenceEnergies:
        return {"model": {"kind": "references"}, "elements": elements}
    if type(potential) in (Zbl, *(network for _, network in NETWORKS.values())):
        config: BaseModel = potential.config  # type: ignore[assignment]
        return {"model": config.model_dump(mode="json"), "elements": elements}
    raise UnknownOptionError(
        f"only Hesse's own models have .hesse files, got a {type(potential).__name__}. Its weights go to a file with "
        "hesse.models.save_weights; a model of another framework is saved by its adapter (potential.save)."
    )


def from_description(description: Mapping[str, Any], *, max_tensors: int | None = None) -> Potential:
    """The potential of a description, freshly initialized.

    Args:
        description: as `to_description` gives it.
        most_tensors: give up as soon as more are needed: those of the file that the description comes from.

    Raises:
        UnknownOptionError: a kind that does not exist.
        ConfigError: options that cannot be, or more tensors than allowed.
    """
    return _build(description, _TensorBudget(max_tensors), depth=0)


class _TensorBudget:
    """How many more tensors may be made."""

    def __init__(self, tensors: int | None) -> None:
        self.limit, self.remaining = tensors, tensors

    def charge(self, potential: Potential) -> Potential:
        """Pay for a part. Raises ConfigError where it costs too much."""
        if self.remaining is not None:
            self.remaining -= len(potential.state_dict())
            if self.remaining < 0:
                raise ConfigError(f"its {self.limit} tensors are too few for the model it describes")
        return potential


def _build(description: Mapping[str, Any], budget: _TensorBudget, *, depth: int) -> Potential:
    if depth > MAX_DEPTH:
        raise ConfigError(f"more than {MAX_DEPTH} levels of sums and ensembles")
    if not isinstance(description, Mapping) or not isinstance(description.get("model"), Mapping):
        raise ConfigError(f'expected {{"model": ..., "elements": ...}}, got {str(description)[:60]}')
    options, numbers = dict(description["model"]), description.get("elements")
    if not isinstance(numbers, list) or not all(isinstance(z, int) for z in numbers):
        raise ConfigError(f"expected a list of atomic numbers, got {str(numbers)[:60]}")
    elements = tuple(numbers)
    kind = model_kind(options)
    if kind in COMPOSITES:
        parts = options.get("parts")
        if not isinstance(parts, list) or len(parts) > MAX_PARTS:
            raise ConfigError(f"a {kind} needs a list of at most {MAX_PARTS} parts")
        return COMPOSITES[kind]([_build(part, budget, depth=depth + 1) for part in parts])
    if kind == "references":
        return budget.charge(ReferenceEnergies(elements))
    if kind == "zbl":
        return Zbl(_validated_config(ZblConfig, options), elements)
    if kind in NETWORKS:
        config_class, build = NETWORKS[kind]
        return budget.charge(build(_validated_config(config_class, options), elements))
    raise UnknownOptionError(
        f'unknown kind of model "{kind}". {did_you_mean(kind, [*NETWORKS, *COMPOSITES, *PARAMETER_FREE])}'
    )


def _validated_config(config_class: Any, options: dict[str, Any]) -> Any:
    try:
        return TypeAdapter(config_class).validate_python(options)
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f'{config_class.__name__}, option "{option}" = {first.get("input")!r}: {first["msg"]}'
        ) from None
