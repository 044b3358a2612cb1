"""Messages about the validation data before the first step: which groups are held out, are they few."""

from __future__ import annotations

from hesse.datasets import DatasetLike

__all__ = ["FEW_GROUPS", "validation_messages"]

FEW_GROUPS = 5
"""With fewer groups in all data, the choice of those that are held out decides which model is the best."""

_MAX_NAMES = 6


def validation_messages(training: DatasetLike, validation: DatasetLike | None) -> list[str]:
    """Describe the validation data of a run.

    Args:
        training: training data.
        validation: validation data, if any.

    Returns:
        Which groups (molecules, reactions; single structures without a group) are held out, and a warning if they are
        too few for the choice of the best model.
    """
    if validation is None:
        return ["validation: none, the model after the last step is the result"]
    trained, held_out = _group_names(training), _group_names(validation)
    total = trained | held_out
    n_structures = f"{len(validation)} of {len(training) + len(validation)} structures"
    if not any(training.groups) and not any(validation.groups):
        text = f"validation: {n_structures} ({_listed(held_out)})"
    else:
        text = f"validation: {len(held_out)} of {len(total)} groups ({_listed(held_out)}), {n_structures}"
    shared = held_out & trained
    if shared:
        groups = "one group is" if len(shared) == 1 else f"{len(shared)} groups are"
        return [f"{text}; {groups} in the training data too, so that errors are those of known molecules"]
    if len(total) >= FEW_GROUPS and len(held_out) > 1:
        return [text]
    reason = (
        f"there are {len(total)} groups in all"
        if len(total) < FEW_GROUPS
        else "a single group is held out"
        if any(validation.groups)
        else "a single structure is held out"
    )
    # Where every group has one structure, a split of structures is one of groups.
    can_mix = len(total) < len(training) + len(validation)
    of_all = "structures of all groups (data.by_group=false; if it is set, another seed), " if can_mix else ""
    return [
        text,
        f"warning: {reason}: the best model is selected by the errors of {_listed(held_out)} alone, and may be bad for "
        f"everything else. Use more molecules, a validation file (data.validation), {of_all}or train without "
        "validation (data.validation_fraction=0).",
    ]


def _group_names(data: DatasetLike) -> set[str]:
    """Groups, and ids of structures without one."""
    return {group or name for name, group in zip(data.ids, data.groups, strict=True)}


def _listed(names: set[str]) -> str:
    """ "a, b and 3 more"."""
    shown = ", ".join(sorted(names)[:_MAX_NAMES])
    return shown + (f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else "")
