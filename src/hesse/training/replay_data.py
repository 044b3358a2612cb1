"""Replay data: other data for steps between those on training data. Checks, and what is learned from them."""

from __future__ import annotations

from hesse.datasets import DatasetLike
from hesse.engines.levels import levels_agree
from hesse.errors import ConfigError, UnknownElementError
from hesse.losses import LossTerm, LossWeights
from hesse.training.config import TrainConfig

__all__ = [
    "CURVATURE",
    "broad_data",
    "check_replay",
    "replay_messages",
    "same_level",
    "without_curvature_terms",
]

CURVATURE = ("hvp", "hessian")
"""Quantities whose terms steps on replay data do not have."""


def check_replay(training: DatasetLike, replay: DatasetLike | None, config: TrainConfig) -> None:
    """Check the replay data of a run, or that there are none.

    Args:
        training: training data.
        replay: replay data, if any.
        config: settings of the run.

    Raises:
        ConfigError: replay options without replay data, or with `curvature.every_n_steps`; or a loss of curvature only.
        MissingLabelError: no replay structure has a label of the loss.
        UnknownElementError: replay data contain an element that training data lack.
    """
    if replay is None:
        if config.replay is not None:
            raise ConfigError("replay needs other data (data.replay, or the argument replay of hesse.train)")
        return
    if config.curvature.every_n_steps > 1:
        raise ConfigError(
            "curvature.every_n_steps and replay exclude each other: with replay data, curvature terms are in one of "
            "1 + replay.steps steps"
        )
    terms = ordinary_terms(config)
    if not any(term.entry.role == "label" for term in terms):
        raise ConfigError("replay: the loss has curvature terms only, and steps on replay data have none of them")
    labels = [term.quantity for term in terms if term.entry.role == "label"]
    if not any(replay.has(name) for name in labels):
        replay.check_has_labels(labels[0])
    unknown = set(replay.elements) - set(broad_data(training, replay).elements)
    if unknown:
        raise UnknownElementError(
            f"{replay.source}: the replay data hold the elements {sorted(unknown)}, which no training structure has "
            f"(they have {list(training.elements)})"
        )


def replay_messages(training: DatasetLike, replay: DatasetLike | None) -> list[str]:
    """Warn of replay data of another level of theory.

    Args:
        training: training data.
        replay: replay data, if any.

    Returns:
        One line if so, none otherwise.
    """
    if replay is None or same_level(training, replay):
        return []
    first, second = (data.metadata.get("level") or "an unknown level" for data in (training, replay))
    return [f"warning: the training labels are of {first}, the replay labels of {second}"]


def broad_data(training: DatasetLike, replay: DatasetLike | None) -> DatasetLike:
    """The data that show which elements, energies per element and surroundings of atoms a potential is made for.

    Args:
        training: training data.
        replay: replay data, if any.

    Returns:
        The replay data if they have all elements of the training data, which are then the special ones, and energies
        of the same level, or the only energies; otherwise the training data.
    """
    if replay is None or not replay.has("energy") or not set(training.elements) <= set(replay.elements):
        return training
    return replay if same_level(training, replay) or not training.has("energy") else training


def same_level(one: DatasetLike, other: DatasetLike) -> bool:
    """Whether two data sets state the same level of theory.

    Args:
        one: a data set.
        other: another.

    Returns:
        True if so, or if neither states any.
    """
    first, second = (str(data.metadata.get("level") or "") for data in (one, other))
    return levels_agree(first, second) or not (first or second)


def without_curvature_terms(config: TrainConfig) -> TrainConfig:
    """The settings of steps on replay data.

    Args:
        config: settings of the run.

    Returns:
        The same without the curvature terms of the loss.
    """
    return config.model_copy(update={"loss": ordinary_terms(config), "weights": LossWeights()})


def ordinary_terms(config: TrainConfig) -> tuple[LossTerm, ...]:
    """The terms of the loss without those of curvature.

    Args:
        config: settings of the run.

    Returns:
        The terms.
    """
    return tuple(term for term in config.make_loss() if term.quantity not in CURVATURE)
