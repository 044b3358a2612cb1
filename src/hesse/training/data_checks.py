"""Checks of what the structures of a run state: their charges and multiplicities, and their weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch

from hesse.datasets import DatasetLike
from hesse.errors import LabelValueError, MissingLabelError
from hesse.losses import Loss

__all__ = ["check_one_charge_state", "check_standard_masses", "check_weights"]


def check_one_charge_state(datasets: Sequence[DatasetLike]) -> None:
    """Check that all structures of several data sets have the same charge and multiplicity.

    A potential is a function of elements and positions: it gives an anion the energy of the neutral molecule.

    Args:
        datasets: the data of a run.

    Raises:
        LabelValueError: there are several charges or multiplicities; the message counts and names their structures.
    """
    counts: dict[tuple[int, int], int] = defaultdict(int)
    examples: dict[tuple[int, int], list[str]] = defaultdict(list)
    for data in datasets:
        states, ids = data.charge_states, data.ids
        states = torch.stack([states[:, 0], states[:, 1].clamp(min=1)], dim=1)  # a multiplicity of 0 is not stated
        for state in states.unique(dim=0):
            rows = (states == state).all(1).nonzero()[:, 0].tolist()
            key = (int(state[0]), int(state[1]))
            counts[key] += len(rows)
            examples[key] += [f'"{ids[row]}"' for row in rows[: 3 - len(examples[key])]]
    if len(counts) < 2:
        return
    ordered = sorted(counts, key=lambda key: (-counts[key], key))
    parts = []
    for charge, multiplicity in ordered[:6]:
        n, named = counts[charge, multiplicity], examples[charge, multiplicity]
        more = ", ..." if n > len(named) else ""
        sign = "+" if charge > 0 else ""
        parts.append(f"{n} of charge {sign}{charge} and multiplicity {multiplicity} ({', '.join(named)}{more})")
    if len(ordered) > 6:
        parts.append(f"{len(ordered) - 6} further combinations")
    sources = ", ".join(dict.fromkeys(data.source for data in datasets))
    raise LabelValueError(
        f"{sources}: structures of different charges or multiplicities: {'; '.join(parts)}. A potential knows elements "
        "and positions only, so that their labels contradict each other. Train on one charge and multiplicity at a "
        "time, or write allow_mixed_charges: true if that is meant."
    )


def check_standard_masses(datasets: Sequence[DatasetLike], option: str) -> None:
    """Check that no structure has masses of its own: losses and probes know the standard masses of the elements only.

    Args:
        datasets: the data of a run.
        option: the option that weights by masses, for the message.

    Raises:
        LabelValueError: there are structures with masses of isotopes; the message counts and names them.
    """
    for data in datasets:
        names = [s.id for _, part in data.iter_in_memory() for s in part.structures if s.masses is not None]
        if names:
            listed = ", ".join(f'"{name}"' for name in names[:3]) + (", ..." if len(names) > 3 else "")
            raise LabelValueError(
                f"{data.source}: {len(names)} of {len(data)} structures have masses of isotopes ({listed}), and "
                f"{option} knows the standard masses of the elements only. Leave out that option, or the masses "
                "(dataclasses.replace(structure, masses=None)): labels do not depend on them."
            )


def check_weights(data: DatasetLike, loss: Loss | None = None) -> None:
    """Check the weights of structures, if data have them.

    Args:
        data: the data.
        loss: the loss that is trained; None for data that are not trained on.

    Raises:
        LabelValueError: a weight that is negative or not a finite number; the message names the structure.
        MissingLabelError: all structures with a label of the loss have the weight zero.
    """
    weight = data.energies().weight
    if weight is None:
        return
    invalid = ~(torch.isfinite(weight) & (weight >= 0))
    if bool(invalid.any()):
        row = int(invalid.nonzero()[0, 0])
        raise LabelValueError(
            f'{data.source}: structure "{data.ids[row]}": weight = {float(weight[row]):g}, expected 0 or more '
            f"({int(invalid.sum())} of {len(data)} structures)"
        )
    for term in loss or ():
        if term.entry.role != "label" or not term.structure_weights:
            continue
        mask = data.mask(term.quantity)
        if term.quantity == "hvp":  # products are pairs, or made from Hessians
            mask = mask.any(0) | data.mask("hessian")
        if bool(mask.any()) and not bool((mask & (weight > 0)).any()):
            raise MissingLabelError(
                f"{data.source}: all {int(mask.sum())} structures with the label {term.quantity!r} have the weight 0, "
                "so that nothing is left to train on. Raise their weights, or set the loss weight of this label to 0."
            )
