"""Conversion between potentials and their descriptions, as stored in model files.

A description is JSON: `{"model": {"kind": ..., options}, "elements": [...]}`. A sum or an ensemble contains the
descriptions of its parts: `{"model": {"kind": "sum", "parts": [...]}, "elements": [...]}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from jaxtyping import Float
from pydantic import BaseModel, Discriminator, Tag, TypeAdapter, ValidationError
from torch import Tensor

from hesse.errors import ConfigError, UnknownOptionError, did_you_mean
from hesse.models.ani import Ani, AniConfig
from hesse.models.bead_prior import BeadPrior, BeadPriorConfig
from hesse.models.compose import Ensemble, SumPotential
from hesse.models.hessenet import HesseNet, HesseNetConfig
from hesse.models.hipnn import Hipnn, HipnnConfig
from hesse.models.reference_energies import ReferenceEnergies
from hesse.models.zbl import Zbl, ZblConfig
from hesse.potential import Potential

__all__ = ["ModelConfig", "build_model", "from_description", "to_description"]

DEFAULT_KIND = "hessenet"
NETWORKS: dict[str, tuple[type, type[Potential]]] = {
    "hessenet": (HesseNetConfig, HesseNet),
    "hipnn": (HipnnConfig, Hipnn),
    "ani": (AniConfig, Ani),
}
"""Kinds of network that can be trained: configuration and class."""
RENAMED_KINDS = {"equivariant": "hessenet"}
"""Present names of kinds that older files call otherwise."""
COMPOSITES: dict[str, type[SumPotential | Ensemble]] = {"sum": SumPotential, "ensemble": Ensemble}
PARAMETER_FREE = ("zbl", "bead-prior", "references")
"""Kinds without trainable parameters."""
MAX_DEPTH = 5
"""Nesting depth of sums and ensembles; a file with more levels is damaged."""
MAX_PARTS = 256
MAX_PARAMETERS = 10**9


def model_kind(config: Any) -> str:
    """The kind of a configuration, or of a mapping of its options."""
    if isinstance(config, Mapping):
        return str(config.get("kind", DEFAULT_KIND))
    return str(getattr(config, "kind", ""))


ModelConfig = Annotated[
    Annotated[HipnnConfig, Tag("hipnn")]
    | Annotated[AniConfig, Tag("ani")]
    | Annotated[HesseNetConfig, Tag("hessenet")],
    Discriminator(model_kind),
]
"""Configuration of any network that can be trained, distinguished by `kind` (default: HesseNet)."""


def build_model(
    config: Any, elements: tuple[int, ...], reference_energies: Float[Tensor, "elements"] | None = None
) -> Potential:
    """A network with random weights, drawn from torch's global generator.

    Args:
        config: a `HesseNetConfig`, `HipnnConfig` or `AniConfig`.
        elements: atomic numbers it supports.
        reference_energies: eV per element, in the order of `elements`; zero if None.

    Returns:
        The network, in torch's default dtype, on the CPU.

    Raises:
        ConfigError: a network of more than a billion parameters.
    """
    build: Callable[..., Potential] = NETWORKS[config.kind][1]
    _check_size(build, config, elements)
    return build(config, elements, reference_energies)


def _check_size(build: Callable[..., Potential], config: Any, elements: tuple[int, ...]) -> None:
    """Refuse a network that is too large, before memory is taken for it."""
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            count = sum(p.numel() for p in build(config, elements, None).parameters())
    except (RuntimeError, MemoryError, OverflowError) as error:
        raise ConfigError(f"a network of these options cannot be built: {str(error).splitlines()[0]}") from error
    if count > MAX_PARAMETERS:
        raise ConfigError(
            f"a network of these options has {count:.1e} parameters, more than the {MAX_PARAMETERS:.0e} allowed; "
            "reduce features, channels, widths or sensitivities"
        )


def to_description(potential: Potential) -> dict[str, Any]:
    """Everything needed to build a potential of this kind again, except its tensors.

    Args:
        potential: one of Hesse's own kinds, or a sum or ensemble of them.

    Returns:
        `{"model": {"kind": ..., options}, "elements": [...]}`, plain values that can be stored as JSON.

    Raises:
        UnknownOptionError: the potential, or a part of it, is not one of Hesse's own kinds.
    """
    elements = list(potential.elements)
    for kind, composite in COMPOSITES.items():
        if type(potential) is composite:
            parts = [to_description(part) for part in potential.parts]
            return {"model": {"kind": kind, "parts": parts}, "elements": elements}
    if type(potential) is ReferenceEnergies:
        return {"model": {"kind": "references"}, "elements": elements}
    if type(potential) in (Zbl, BeadPrior, *(network for _, network in NETWORKS.values())):
        config: BaseModel = potential.config  # type: ignore[assignment]
        return {"model": config.model_dump(mode="json"), "elements": elements}
    raise UnknownOptionError(
        f"only Hesse's own models have .hesse files, got a {type(potential).__name__}. Its weights go to a file with "
        "hesse.models.save_weights; a model of another framework is saved by its adapter (potential.save)."
    )


def from_description(description: Mapping[str, Any], *, max_tensors: int | None = None) -> Potential:
    """A potential with random weights from its description.

    Args:
        description: as returned by `to_description`. Former names of kinds are accepted.
        max_tensors: raise as soon as the potential needs more tensors: the number of tensors in the file that the
            description comes from.

    Returns:
        The potential; its tensors are still to be loaded.

    Raises:
        UnknownOptionError: a kind that does not exist.
        ConfigError: invalid options, or more tensors than allowed.
    """
    return _build(description, _TensorBudget(max_tensors), depth=0)


class _TensorBudget:
    """Number of tensors that a description may still create."""

    def __init__(self, tensors: int | None) -> None:
        self.limit, self.remaining = tensors, tensors

    def charge(self, potential: Potential) -> Potential:
        """Subtract the tensors of a part. Raises ConfigError if none are left."""
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
    if kind in RENAMED_KINDS:
        kind = options["kind"] = RENAMED_KINDS[kind]
    if kind in COMPOSITES:
        parts = options.get("parts")
        if not isinstance(parts, list) or len(parts) > MAX_PARTS:
            raise ConfigError(f"a {kind} needs a list of at most {MAX_PARTS} parts")
        return COMPOSITES[kind]([_build(part, budget, depth=depth + 1) for part in parts])
    if kind == "references":
        return budget.charge(ReferenceEnergies(elements))
    if kind == "zbl":
        return Zbl(_validated_config(ZblConfig, options), elements)
    if kind == "bead-prior":
        return BeadPrior(_validated_config(BeadPriorConfig, options), elements)
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
