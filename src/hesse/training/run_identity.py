"""Identity of a run: settings, data and initial potential. A checkpoint is continued only by the same run,
except that the number of steps may change.

If something else differs, the reply names it, and the ways to go on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hesse.datasets import DatasetLike
from hesse.errors import FileFormatError
from hesse.training.config import TrainConfig

__all__ = [
    "Identity",
    "changed_run_error",
    "find_changes",
    "find_setting_changes",
    "flat_settings",
    "other_steps_messages",
    "run_identity",
]

Identity = Mapping[str, Any]
"""JSON values: `settings` and `steps` of the run, `training` and `validation` data, and `replay` data if there are any
(digest, number of structures), and the digest of the initial `potential`."""

WITHOUT_EFFECT = {
    "tensorboard", "checkpoint_every", "cpu_threads", "compile", "allow_mixed_charges", "allow_shared_structures",
}  # fmt: skip
"""Options that change no number of a run."""
_MAX_VALUE = 60
"""Characters of a value in a message."""


def run_identity(
    config: TrainConfig,
    training: DatasetLike,
    validation: DatasetLike | None,
    initial_digest: str = "",
    replay: DatasetLike | None = None,
) -> dict[str, Any]:
    """Everything that determines the numbers of a run.

    Args:
        config: its settings. Those that change no number (record, checkpoints, threads, compilation) are left out.
        training: training data.
        validation: validation data, if any.
        initial_digest: `potential_digest` of the potential that the run starts from; empty for a new network.
        replay: replay data, if any.

    Returns:
        See `Identity`.
    """
    return {
        "steps": config.steps,
        "settings": config.model_dump(mode="json", exclude={*WITHOUT_EFFECT, "steps"}),
        "training": [training.fingerprint(), len(training)],
        "validation": None if validation is None else [validation.fingerprint(), len(validation)],
        **({} if replay is None else {"replay": [replay.fingerprint(), len(replay)]}),
        "potential": hashlib.blake2b(initial_digest.encode(), digest_size=16).hexdigest(),
    }


def find_changes(saved: Identity, current: Identity) -> list[str]:
    """Compare two runs. Their numbers of steps may differ.

    Args:
        saved: the run of a checkpoint.
        current: the run that is to continue it.

    Returns:
        What differs, as texts; none if it is the same run.
    """
    changes = find_setting_changes(saved["settings"], current["settings"])
    for part in ("training", "validation", "replay"):
        if saved.get(part) != current.get(part):
            counts = [data[part][1] if data.get(part) else 0 for data in (saved, current)]
            changes.append(f"the {part} data ({counts[0]} structures before, {counts[1]} now)")
    if saved["potential"] != current["potential"] and not any(text.startswith("init_from ") for text in changes):
        changes.append("the potential that it starts from (its options or weights)")
    return changes


def find_setting_changes(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Compare the settings of two runs.

    Args:
        saved: settings as plain values, by section.
        current: the settings to compare them with.

    Returns:
        Each option that differs, with both values.
    """
    before, now = flat_settings(saved), flat_settings(current)
    return [
        f"{name} ({_shown(before.get(name))} before, {_shown(now.get(name))} now)"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    ]


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings without sections.

    Args:
        settings: settings as plain values, by section.
        prefix: of all names.

    Returns:
        Values by dotted name.
    """
    result: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, Mapping) and value
        result.update(flat_settings(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value})
    return result


def _shown(value: Any) -> str:
    text = "none" if value is None else json.dumps(value) if not isinstance(value, str) else value
    return text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 3]}..."


def changed_run_error(folder: Path, changes: Sequence[str]) -> FileFormatError:
    """The reply to a run that is started in the folder of another one.

    Args:
        folder: folder of the run.
        changes: what differs, see `find_changes`.

    Returns:
        The error: what changed, and the ways to go on.
    """
    model = next((f for f in sorted(folder.glob("model.*")) if f.suffix == ".hesse"), None)
    further = (
        f"give another output and init_from: {model} (instead of model and repulsion) to train its model further"
        if model is not None
        else "give another output, and its model as the potential to start from (init_from), to train it further"
    )
    return FileFormatError(
        f"{folder}: this run was started with another configuration or other data: {'; '.join(changes)}. Only steps "
        f"may change in the same folder. In a new run, {further}; or give another output only, to begin with a new "
        "network; or --restart (restart=True) to begin again here, which replaces this run."
    )


def other_steps_messages(config: TrainConfig, previous_steps: int, step: int, *, stopped: bool) -> list[str]:
    """Tell what another number of steps means for a run that goes on.

    Args:
        config: settings of the run with the new number of steps.
        previous_steps: the number of steps before.
        step: steps that are done.
        stopped: whether early stopping or the plateau schedule ended the run.

    Returns:
        Lines for the record of the run; none if the number of steps is the same.
    """
    if previous_steps == config.steps:
        return []
    text = f"the run goes on after step {step} with steps: {config.steps} instead of {previous_steps}"
    if stopped:
        cause = "early_stopping" if config.early_stopping is not None else "the plateau schedule (stop_below)"
        return [
            f"warning: {cause} has ended this run after step {step}, and more steps do not change that. To train its "
            "model further, start a new run with init_from and another output."
        ]
    dependent = [f"learning rate (schedule {config.schedule.kind})"] if config.schedule.kind == "cosine" else []
    ramps = [*config.weight_ramps, *(term.name for term in config.loss or () if term.ramp is not None)]
    if ramps:
        dependent.append(f"weight ramps ({', '.join(ramps)})")
    if not dependent:
        return [f"{text}: nothing depends on their number, the result is that of one run of {config.steps} steps"]
    verb = "depend" if ramps else "depends"
    rise = " The learning rate may rise again." if config.schedule.kind == "cosine" else ""
    return [
        f"warning: {text}. The {' and the '.join(dependent)} {verb} on the number of steps: from here on as in a run "
        f"of {config.steps} steps, before as in a run of {previous_steps}.{rise} The result is not that of one run of "
        f"{config.steps} steps; for it, use --restart or another output."
    ]
