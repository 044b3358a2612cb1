"""What a run starts from: a network built from its configuration, or a potential that is given; and how the files of a
run keep either."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hesse.curvature import evaluate
from hesse.datasets import TrainingData
from hesse.engines import make_potential
from hesse.engines.potentials import file_in
from hesse.errors import ConfigError, RequestError, UnknownElementError, UnknownOptionError
from hesse.models import (
    SumPotential,
    Zbl,
    build_model,
    describe,
    fit_references,
    load_model,
    load_weights,
    read_model_header,
    save_model,
    save_weights,
)
from hesse.models.adapters import Adapter
from hesse.models.tensors import tensor_digest
from hesse.potential import Potential
from hesse.structures import Request
from hesse.training.config import TrainConfig
from hesse.training.processes import Processes

__all__ = ["given_potential", "identity_of", "is_own", "read_best", "starting_potential", "write_potential"]


def given_potential(config: TrainConfig, potential: Potential | None, folder: Path) -> Potential | None:
    """The potential that the caller, or `start_from`, names; None where the configuration describes a new network.

    Raises:
        ConfigError: both are given, or `start_from` is a file that the run in `folder` would replace.
        RequestError: what was given is no potential; and all that `make_potential` raises.
    """
    if config.start_from is None:
        if potential is not None and not isinstance(potential, Potential):
            raise RequestError(
                f"expected a hesse.Potential to train, got a {type(potential).__name__}. Any energy function becomes "
                "one through hesse.models.adapters.CallablePotential, models of other frameworks by their adapters."
            )
        return potential
    if potential is not None:
        raise ConfigError("a potential was given, and start_from names another: leave one of them out")
    file = Path(file_in(config.start_from) or "")
    if file.parent.resolve() == folder.resolve() and file.stem in ("model", "last"):
        raise ConfigError(f"start_from: {file} would be replaced by this run. Use another output folder.")
    with torch.random.fork_rng(devices=[]):  # a factory that draws weights draws the same ones when a run goes on
        torch.manual_seed(config.seed)
        return make_potential(config.start_from)


def identity_of(potential: Potential | None) -> str:
    """What of a given potential decides the numbers of a run: its class, options (of own models) and weights."""
    if potential is None:
        return ""
    kind = f"{type(potential).__module__}.{type(potential).__qualname__}"
    if is_own(potential):
        kind += json.dumps(describe(potential))
    return f"{kind}/{tensor_digest({}, {n: v.detach().cpu() for n, v in potential.state_dict().items()})}"


def starting_potential(config: TrainConfig, training: TrainingData, given: Potential | None) -> Potential:
    """The potential of a run's first step, in the run's type and on its device. One that was given is copied, so that
    the caller's own stays as it is.

    Raises:
        UnknownElementError: the data hold an element that a given potential does not know.
        ConfigError: nothing in it can be trained.
        RequestError: references are to be fitted, and it holds none; or it cannot be copied.
    """
    fit = config.references == "fit" or (config.references is None and given is None)
    fit = fit and config.weights.energy > 0
    if given is None:
        return _built(config, training, fit=fit).to(dtype=getattr(torch, config.dtype), device=config.device)
    try:
        potential = copy.deepcopy(given)
    except Exception as error:  # somebody else's module
        raise RequestError(f"this {type(given).__name__} cannot be copied ({type(error).__name__}: {error})") from error
    potential = potential.to(dtype=getattr(torch, config.dtype), device=config.device).train()
    foreign = sorted(set(training.elements) - set(potential.elements)) if potential.elements else []
    if foreign:
        raise UnknownElementError(
            f"{training.source}: the training structures hold element Z = {foreign[0]}, which the given "
            f"{type(potential).__name__} does not know (it knows {list(potential.elements)})"
        )
    if not any(parameter.requires_grad for parameter in potential.parameters()):
        raise ConfigError(f"no parameter of this {type(potential).__name__} can be trained (requires_grad)")
    if fit:
        potential.shift_elements(_residual_references(potential, training))
    return potential


def _built(config: TrainConfig, training: TrainingData, *, fit: bool) -> Potential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        elements = training.elements
        prior = None if config.prior is None else Zbl(config.prior, elements)
        references = None
        if fit:
            shifts = _residual_references(prior, training)
            references = torch.tensor([shifts[z] for z in elements], dtype=torch.float64)
        network = build_model(config.model, elements, references)
    return network if prior is None else SumPotential([prior, network])


def _residual_references(potential: Potential | None, training: TrainingData) -> dict[int, float]:
    """Energies per element that explain most of what `potential` leaves of the training energies."""
    labels, elements, numbers = training.energies(), training.elements, training.numbers
    if potential is not None and labels.energy is not None:
        own = (p for p in potential.parameters() if p.is_floating_point())
        first = next(own, torch.zeros(0, dtype=torch.float64))
        said = labels.energy.new_zeros(len(training), dtype=torch.float64)
        for places, part in training.parts():
            for indices in part.batches(1024):
                batch, _ = part.batch(indices, potential.cutoff, dtype=first.dtype, device=str(first.device))
                energy = evaluate(potential, batch, Request()).energy
                assert energy is not None
                said[places[indices]] = energy.to("cpu", torch.float64)
        labels = replace(labels, energy=labels.energy - said)
    fitted = fit_references(numbers, labels, elements)
    return dict(zip(elements, fitted.tolist(), strict=True))


# --- files -----------------------------------------------------------------------------------------------------------


def write_potential(folder: Path, stem: str, potential: Potential, provenance: Mapping[str, Any]) -> None:
    """Keep a potential: own models as `<stem>.hesse`; others as weights (`<stem>.safetensors`), adapted ones also in
    their framework's own format. Raises WriteError."""
    if is_own(potential):
        save_model(folder / f"{stem}.hesse", potential, provenance)
        return
    save_weights(folder / f"{stem}.safetensors", potential, provenance)
    if isinstance(potential, Adapter):
        potential.save(folder / f"{stem}{potential.suffix}")


def read_best(folder: Path, stem: str, like: Potential, processes: Processes) -> tuple[Potential, Path, dict[str, Any]]:
    """A kept potential, the file to use it from, and its provenance. `like`: one of the same make, copied where only
    weights were kept. The first of several processes reads, and tells the others what it found."""
    read: list[Potential] = []

    def tell() -> tuple[dict[str, Tensor], Path, dict[str, Any]]:
        potential, file, provenance = _read_best(folder, stem, like)
        read.append(potential)
        return {name: value.cpu() for name, value in potential.state_dict().items()}, file, provenance

    if processes.size == 1:
        return _read_best(folder, stem, like)
    state, file, provenance = processes.of_first(tell)
    if processes.first:
        return read[0], file, provenance
    potential = _bare_copy(like)
    potential.load_state_dict(state)
    return potential, file, provenance


def _read_best(folder: Path, stem: str, like: Potential) -> tuple[Potential, Path, dict[str, Any]]:
    own, weights = folder / f"{stem}.hesse", folder / f"{stem}.safetensors"
    if is_own(like):
        return load_model(own), own, read_model_header(own)["provenance"]
    potential = _bare_copy(like)
    provenance = load_weights(weights, potential)
    return potential, folder / f"{stem}{like.suffix}" if isinstance(like, Adapter) else weights, provenance


def _bare_copy(like: Potential) -> Potential:
    potential = copy.deepcopy(like).eval()
    potential.zero_grad(set_to_none=True)
    return potential


def is_own(potential: Potential) -> bool:
    """Whether it is one of Hesse's own: a `.hesse` file can hold it."""
    try:
        describe(potential)
    except UnknownOptionError:
        return False
    return True
