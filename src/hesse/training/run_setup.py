"""Before the first step of a run: check the data, group the parameters for weight decay."""

from __future__ import annotations

from typing import Any

from torch import nn

from hesse.datasets import DatasetLike
from hesse.errors import ConfigError, MissingLabelError, UnknownElementError
from hesse.potential import Potential
from hesse.training.config import TrainConfig
from hesse.training.data_checks import check_one_charge_state, check_standard_masses, check_weights
from hesse.training.replay_data import CURVATURE, broad_data, check_replay

__all__ = ["check_data", "weight_decay_groups"]


def check_data(
    training: DatasetLike, validation: DatasetLike | None, config: TrainConfig, replay: DatasetLike | None = None
) -> None:
    """Check that a run can be done on these data.

    Args:
        training: training data.
        validation: validation data, if any.
        config: settings of the run; its loss weights determine which labels are required.
        replay: replay data, if any.

    Raises:
        ConfigError: no label has a loss weight, or a weight that is zero has a ramp; or an option that needs validation
            data is given without them.
        LabelValueError: a structure whose weight is negative or not a number, structures of several charges or
            multiplicities without `config.allow_mixed_charges`, or masses of isotopes with terms weighted by masses.
        MissingLabelError: no training structure has a label whose weight is above zero (nor, for energies and the like,
            a replay structure), or all that have it have themselves the weight zero; or no validation structure has any
            of these labels.
        UnknownElementError: validation data contain an element that training data lack.
    """
    loss = config.make_loss()
    active = loss.quantities()
    if not active:
        raise ConfigError("the loss is a regularizer only: give the weight of a label")
    fresh = config.probe.source == "fresh"
    needed = ["hessian" if name == "hvp" and fresh else name for name in active]
    in_replay = [name for name in needed if replay is not None and name not in CURVATURE and replay.has(name)]
    if not any(training.has(name) for name in needed):
        in_replay = []  # nothing to train on
    training.check_has_labels(*(name for name in needed if name not in in_replay))
    if "energy" in in_replay and not broad_data(training, replay).has("energy"):
        lacking = sorted(set(training.elements) - set(replay.elements if replay is not None else ()))
        raise MissingLabelError(
            f"the training data have no energies, and the replay data, which have some, lack their elements {lacking}: "
            "energies per element cannot be fitted. Add structures with these elements to the replay data"
        )
    check_weights(training, loss)
    if config.batch.draw == "by-weight" and training.energies().weight is None:
        raise ConfigError("batch.draw: by-weight needs weights of the structures, and the training data have none")
    if validation is not None:
        check_weights(validation)
    check_replay(training, replay, config)
    datasets = [data for data in (training, validation, replay) if data is not None]
    if not config.allow_mixed_charges:
        check_one_charge_state(datasets)
    weighted = next((term.name for term in loss if term.mass_weighted), None)
    if weighted is not None:
        check_standard_masses(datasets, f"the loss term {weighted} with mass_weighted: true")
    elif config.probe.weighting != "none":
        check_standard_masses([training], f"probe.weighting: {config.probe.weighting}")
    unknown = set(config.weight_ramps) - loss.weights().keys()
    if unknown:
        raise ConfigError(f"weight_ramps are given for {', '.join(sorted(unknown))}, whose weight is zero")
    if validation is None and (config.early_stopping is not None or config.schedule.kind == "plateau"):
        option = "schedule: {kind: plateau}" if config.early_stopping is None else "early_stopping"
        raise ConfigError(f"{option} acts on validation errors, and this run has no validation data: leave it out")
    if validation is not None:
        # Products are computed from Hessians where there are any.
        if not any(validation.has(name) for name in (*active, *(["hessian"] if "hvp" in active else []))):
            raise MissingLabelError(
                f"{validation.source}: the validation structures hold none of the weighted labels "
                f"({', '.join(active)}), so the best model cannot be selected. Label them, or train without validation."
            )
        known_elements = broad_data(training, replay).elements
        unknown_elements = set(validation.elements) - set(known_elements)
        if unknown_elements:
            structures = (structure for _, part in validation.iter_in_memory() for structure in part.structures)
            first = next(s for s in structures if unknown_elements & set(s.numbers.tolist()))
            raise UnknownElementError(
                f'{validation.source}: structure "{first.id}" holds element '
                f"{sorted(unknown_elements & set(first.numbers.tolist()))}, which no training structure has (they have "
                f"{list(known_elements)})"
            )


def weight_decay_groups(model: Potential, decay: float) -> list[dict[str, Any]]:
    """Parameter groups for AdamW: weight matrices decay, other parameters (biases, scales, ...) do not.

    Args:
        model: the potential; parameters with `requires_grad` off are left out.
        decay: weight decay of the matrices.

    Returns:
        Two groups, of matrices and of other parameters.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:  # frozen by the user
            continue
        is_matrix = name.endswith("weight") and parameter.dim() >= 2 and min(parameter.shape) > 1
        (matrices if is_matrix else others).append(parameter)
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
