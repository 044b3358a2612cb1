"""Messages before the first step about what a run cannot learn or show: idle processes, curvature that validation
does not see, energies per element that the data do not determine."""

from __future__ import annotations

from hesse.datasets import DatasetLike
from hesse.models import undetermined_elements
from hesse.structures import species_names
from hesse.training.config import TrainConfig
from hesse.training.initial_model import trains_atomic_energies

__all__ = ["curvature_messages", "idle_messages", "reference_energy_messages", "start_messages"]


def start_messages(
    training: DatasetLike, validation: DatasetLike | None, config: TrainConfig, *, fitted_to: DatasetLike | None
) -> list[str]:
    """Messages about labels and energies per element, for the record of a run.

    Args:
        training: training data.
        validation: validation data, if any.
        config: settings of the run.
        fitted_to: the data to whose energies those per element were fitted: training or replay data; None if they were
            not fitted.

    Returns:
        One line each; none if there is nothing to say.
    """
    messages = [] if validation is None else curvature_messages(validation, config)
    if fitted_to is not None and not trains_atomic_energies(config, training):
        messages += reference_energy_messages(fitted_to)
    return messages


def idle_messages(n_structures: int, max_structures: int, n_processes: int) -> list[str]:
    """Say that steps have fewer structures than there are processes.

    Args:
        n_structures: number of training structures.
        max_structures: largest number of structures in a step.
        n_processes: number of processes that train together.

    Returns:
        One line if so, none otherwise.
    """
    largest = min(n_structures, max_structures)
    if largest >= n_processes:
        return []
    return [
        f"warning: {n_processes} processes share steps of at most {largest} structure{'s' if largest > 1 else ''}: the "
        f"others wait. Use --devices {largest}, or more structures in a step (batch.structures)."
    ]


def curvature_messages(validation: DatasetLike, config: TrainConfig) -> list[str]:
    """Say that curvature is trained, and that validation cannot tell its error.

    Args:
        validation: validation data.
        config: settings of the run.

    Returns:
        One line if no validation structure has a Hessian or products, none otherwise.
    """
    trained = [name for name in ("hvp", "hessian") if name in config.make_loss().quantities()]
    if not trained or validation.has("hessian") or validation.has("hvp"):
        return []
    return [
        f"warning: {' and '.join(trained)} {'are' if len(trained) > 1 else 'is'} trained, and no validation structure "
        "has a Hessian or products H v: their errors are not known, and the best model is selected without them. Add "
        "these labels to the validation data; until then the progress line shows the term of the training step."
    ]


def reference_energy_messages(data: DatasetLike) -> list[str]:
    """Say that the compositions of the training data do not determine the energies of all elements.

    Args:
        data: training or replay data, to which energies per element were fitted.

    Returns:
        One line if so, none otherwise.
    """
    free = undetermined_elements(data.numbers, data.energies(), data.elements)
    if not free:
        return []
    symbols = ", ".join(species_names(free))
    return [
        f"warning: the energies per element of {symbols} are not determined: the training molecules have too few "
        "different compositions (one molecule has one). Forces, Hessians and energy differences between geometries of "
        "these molecules do not need them, but total energies of other molecules may be wrong by many eV. If you need "
        "those, add molecules of other compositions (or the free atoms) to the training data, or start from a "
        "potential that knows the elements (init_from)."
    ]
