"""Initial potential of a run, and the files of trained potentials.

A run starts from a new network as its configuration describes it, or from an existing potential.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hesse.curvature import evaluate, evaluate_structures
from hesse.datasets import DatasetLike
from hesse.engines import PotentialLike, as_potential
from hesse.engines.names import path_in_name
from hesse.errors import ConfigError, RequestError, UnknownOptionError
from hesse.models import (
    SumPotential,
    Zbl,
    build_model,
    fit_reference_energies,
    load_model,
    load_weights,
    read_model_header,
    save_model,
    save_weights,
    to_description,
)
from hesse.models.adapters import Adapter
from hesse.potential import Potential, check_elements, dtype_and_device, structure_at
from hesse.runtime.tensor_files import tensor_digest
from hesse.structures import Request, segment_ids
from hesse.training.config import TrainConfig
from hesse.training.distributed import Communicator

__all__ = [
    "build_initial_potential",
    "fits_reference_energies",
    "is_native",
    "load_best",
    "potential_digest",
    "resolve_initial_potential",
    "save_potential",
    "start_digest",
    "trains_atomic_energies",
]


def resolve_initial_potential(config: TrainConfig, potential: PotentialLike | None, folder: Path) -> Potential | None:
    """The existing potential that a run starts from.

    Args:
        config: settings of the run.
        potential: argument of `hesse.train`.
        folder: folder of the run.

    Returns:
        The potential of the argument or of `config.init_from`; None if the run starts from a new network.

    Raises:
        ConfigError: both are given, or it is a file that this run would replace.
        RequestError: the argument is not a potential.
        HesseError: all errors of `hesse.make_potential`.
    """
    if config.init_from is not None:
        if potential is not None:
            raise ConfigError("a potential was given, and init_from names another: leave one of them out")
        potential = config.init_from
    if potential is None:
        return None
    if isinstance(potential, str | Path):
        file = Path(path_in_name(str(potential)) or "")
        if file.parent.resolve() == folder.resolve() and file.stem in ("model", "last"):
            raise ConfigError(f"init_from: {file} would be replaced by this run. Use another output folder.")
    with torch.random.fork_rng(devices=[]):  # a continued run gets the same parameters from a factory that draws them
        torch.manual_seed(config.seed)
        return as_potential(potential)


def potential_digest(potential: Potential | None) -> str:
    """Digest of everything in an initial potential that determines the numbers of a run.

    Args:
        potential: the potential, if any.

    Returns:
        Its class, options (of Hesse's networks) and a digest of its parameters; empty without a potential.
    """
    if potential is None:
        return ""
    kind = f"{type(potential).__module__}.{type(potential).__qualname__}"
    if is_native(potential):
        kind += json.dumps(to_description(potential))
    return f"{kind}/{tensor_digest({}, {n: v.detach().cpu() for n, v in potential.state_dict().items()})}"


def start_digest(config: TrainConfig, initial_potential: Potential | None) -> str:
    """Digest of the potentials in files or arguments that a run starts from.

    Args:
        config: settings of the run.
        initial_potential: the potential to start from; None for a new network.

    Returns:
        That of the potential, or of the baseline of a new network; empty without either.
    """
    if initial_potential is None and config.baseline is not None:
        return potential_digest(load_model(config.baseline))
    return potential_digest(initial_potential)


def fits_reference_energies(config: TrainConfig, initial_potential: Potential | None) -> bool:
    """Whether a run fits energies per element to the training labels.

    Args:
        config: settings of the run.
        initial_potential: the potential to start from; None for a new network.

    Returns:
        True if so.
    """
    fit = config.reference_energies == "fit" or (config.reference_energies is None and initial_potential is None)
    return fit and not {"energy", "atomic_energies"}.isdisjoint(config.make_loss().quantities())


def trains_atomic_energies(config: TrainConfig, training: DatasetLike) -> bool:
    """Whether a run trains on energies of atoms, whose means are then the energies per element.

    Args:
        config: settings of the run.
        training: training data.

    Returns:
        True if the loss has such a term and the data such labels.
    """
    return "atomic_energies" in config.make_loss().quantities() and training.has("atomic_energies")


def build_initial_potential(
    config: TrainConfig, training: DatasetLike, initial_potential: Potential | None
) -> Potential:
    """The potential before the first step, with the dtype and on the device of the run.

    Args:
        config: settings of the run.
        training: training data.
        initial_potential: the potential to start from, which is copied; None for a new network.

    Returns:
        The potential to train.

    Raises:
        UnknownElementError: the data contain an element that the initial potential does not know.
        ConfigError: it has no trainable parameter.
        FileFormatError: the baseline is not a model file.
        RequestError: reference energies are to be fitted and it has none, or it cannot be copied.
    """
    fit = fits_reference_energies(config, initial_potential)
    if initial_potential is None:
        return _build_network(config, training, fit=fit).to(dtype=getattr(torch, config.dtype), device=config.device)
    try:
        potential = copy.deepcopy(initial_potential)
    except Exception as error:  # modules of other packages raise errors of any class
        raise RequestError(
            f"this {type(initial_potential).__name__} cannot be copied ({type(error).__name__}: {error})"
        ) from error
    potential = potential.to(dtype=getattr(torch, config.dtype), device=config.device).train()
    check_elements(potential, training.numbers, where=structure_at(training.ids, training.n_atoms, training.source))
    if not any(parameter.requires_grad for parameter in potential.parameters()):
        raise ConfigError(f"no parameter of this {type(potential).__name__} can be trained (requires_grad)")
    if fit:
        potential.shift_reference_energies(_residual_reference_energies(potential, training, config))
    return potential


def _build_network(config: TrainConfig, training: DatasetLike, *, fit: bool) -> Potential:
    """A new network, with the repulsion, the baseline and the fitted reference energies."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        elements = training.elements
        fixed: list[Potential] = [] if config.repulsion is None else [Zbl(config.repulsion, elements)]
        if config.baseline is not None:
            fixed.append(_load_baseline(config.baseline, training))
        reference_energies = None
        if fit:
            shifts = _residual_reference_energies(SumPotential(fixed) if fixed else None, training, config)
            reference_energies = torch.tensor([shifts[z] for z in elements], dtype=torch.float64)
        network = build_model(config.model, elements, reference_energies)
    return SumPotential([*fixed, network]) if fixed else network


def _load_baseline(path: Path, training: DatasetLike) -> Potential:
    """A potential that is added to the network, without trainable parameters."""
    baseline = load_model(path).requires_grad_(False)
    where = structure_at(training.ids, training.n_atoms, training.source)
    check_elements(baseline, training.numbers, where=where, name=f"the baseline {path}")
    return baseline


def _residual_reference_energies(
    potential: Potential | None, training: DatasetLike, config: TrainConfig
) -> dict[int, float]:
    """Energies per element, fitted to the training labels minus the predictions of `potential`: means of the energies
    of atoms where these are trained, otherwise a fit to the energies of structures."""
    if trains_atomic_energies(config, training):
        return _mean_atomic_energies(potential, training)
    labels, elements, numbers = training.energies(), training.elements, training.numbers
    if potential is not None and labels.energy is not None:
        dtype, device = dtype_and_device(potential)
        predicted = labels.energy.new_zeros(len(training), dtype=torch.float64)
        for dataset_indices, part in training.iter_in_memory():
            for indices in part.batch_indices(1024):
                batch, _ = part.batch(indices, potential.cutoff, dtype=dtype, device=device)
                energy = evaluate(potential, batch, Request()).energy
                assert energy is not None
                predicted[dataset_indices[indices]] = energy.to("cpu", torch.float64)
        labels = labels.replace(energy=labels.energy - predicted)
    fitted = fit_reference_energies(numbers, labels, elements)
    return dict(zip(elements, fitted.tolist(), strict=True))


def _mean_atomic_energies(potential: Potential | None, training: DatasetLike) -> dict[int, float]:
    """By element, the mean labeled energy of an atom minus that predicted by `potential`; zero for an element none of
    whose atoms is labeled."""
    elements = torch.tensor(training.elements)
    sums, counts = torch.zeros(2, len(elements), dtype=torch.float64)
    for _, part in training.iter_in_memory():
        labels, numbers = part.labels, part.numbers.long()
        targets = labels.atomic_energies
        if targets is None:
            continue
        if potential is not None:
            predicted = evaluate_structures(potential, part.structures, Request(atomic_energies=True)).atomic_energies
            assert predicted is not None
            targets = targets - predicted
        labeled = labels.mask("atomic_energies")[segment_ids(labels.n_atoms)]
        index = torch.searchsorted(elements, numbers[labeled])
        sums.index_add_(0, index, targets[labeled])
        counts.index_add_(0, index, torch.ones_like(targets[labeled]))
    return dict(zip(training.elements, (sums / counts.clamp(min=1)).tolist(), strict=True))


def save_potential(folder: Path, stem: str, potential: Potential, provenance: Mapping[str, Any]) -> None:
    """Save a potential: one of Hesse's networks as `<stem>.hesse`; others as parameters (`<stem>.safetensors`), adapted
    ones also in the format of their framework.

    Args:
        folder: folder of the file.
        stem: file name without suffix.
        potential: the potential.
        provenance: how it was trained; JSON values by name.

    Raises:
        WriteError: the file cannot be written.
    """
    if is_native(potential):
        save_model(folder / f"{stem}.hesse", potential, provenance)
        return
    save_weights(folder / f"{stem}.safetensors", potential, provenance)
    if isinstance(potential, Adapter):
        potential.save(folder / f"{stem}{potential.suffix}")


def load_best(
    folder: Path, stem: str, template: Potential, communicator: Communicator
) -> tuple[Potential, Path, dict[str, Any]]:
    """Load a potential that `save_potential` has saved. Process 0 reads and sends it to the others.

    Args:
        folder: folder of the file.
        stem: file name without suffix.
        template: a potential of the same architecture, which is copied if only parameters were saved.
        communicator: the processes of the run.

    Returns:
        The potential in evaluation mode, its file (of an adapted one, in the format of its framework), and its
        provenance.
    """
    loaded: list[Potential] = []

    def load() -> tuple[dict[str, Tensor], Path, dict[str, Any]]:
        potential, file, provenance = _load_best(folder, stem, template)
        loaded.append(potential)
        return {name: value.cpu() for name, value in potential.state_dict().items()}, file, provenance

    if communicator.size == 1:
        return _load_best(folder, stem, template)
    state, file, provenance = communicator.run_on_rank_zero(load)
    if communicator.is_rank_zero:
        return loaded[0], file, provenance
    potential = _eval_copy(template)
    potential.load_state_dict(state)
    return potential, file, provenance


def _load_best(folder: Path, stem: str, template: Potential) -> tuple[Potential, Path, dict[str, Any]]:
    model_file, weights_file = folder / f"{stem}.hesse", folder / f"{stem}.safetensors"
    if is_native(template):
        return load_model(model_file), model_file, read_model_header(model_file)["provenance"]
    potential = _eval_copy(template)
    provenance = load_weights(weights_file, potential)
    return potential, folder / f"{stem}{template.suffix}" if isinstance(template, Adapter) else weights_file, provenance


def _eval_copy(template: Potential) -> Potential:
    """A copy in evaluation mode, without gradients."""
    potential = copy.deepcopy(template).eval()
    potential.zero_grad(set_to_none=True)
    return potential


def is_native(potential: Potential) -> bool:
    """Whether a potential is made of Hesse's networks, so that it can be saved as a `.hesse` file.

    Args:
        potential: the potential.

    Returns:
        True if so.
    """
    try:
        to_description(potential)
    except UnknownOptionError:
        return False
    return True
