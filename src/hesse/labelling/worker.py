"""The work of one process of a campaign: compute the missing quantities of a structure and check them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from hesse.datasets import draw_fixed_probes, find_issues
from hesse.engines import Engine, FiniteDifferences, PotentialEngine, as_engine
from hesse.labelling.serialization import labels_to_bytes, split_by_quantity
from hesse.labelling.spec import FORCES, HESSIAN, STRESS, LabelSpec, hvp_quantities, probe_index, quantity_kind
from hesse.potential import Potential
from hesse.structures import Properties, Request, Structure

__all__ = ["LabelResult", "LabelTask", "WorkerSpec", "check_labels", "make_worker"]

WorkerSpec = tuple[str | Engine, FiniteDifferences | None, LabelSpec]
"""An engine or its name, how its curvature is taken from forces, and the properties to compute."""
LabelTask = tuple[Structure, tuple[str, ...]]
"""A structure and the names of the quantities to compute."""


@dataclass(frozen=True)
class LabelResult:
    """One quantity of one structure.

    Attributes:
        payload: its labels as bytes.
        suspect_reason: why they are suspect; empty if they are not.
    """

    payload: bytes
    suspect_reason: str


def make_worker(spec: WorkerSpec) -> Callable[[LabelTask], dict[str, LabelResult]]:
    """Make the engine, and a function that labels one structure with it.

    Args:
        spec: engine, differences and properties. From a name each process makes its own engine.

    Returns:
        A function from a structure and names of quantities to the results by quantity.
    """
    name_or_engine, differences, label_spec = spec
    engine = as_engine(name_or_engine, differences=differences)
    if isinstance(engine, PotentialEngine) and isinstance(name_or_engine, str):
        for part in engine.potential.modules():  # the campaign compares with the training data, once for all processes
            if isinstance(part, Potential):
                part.training_environments = None

    def label_structure(task: LabelTask) -> dict[str, LabelResult]:
        structure, quantities = task
        # Finite differences need energy and forces at the structure itself, and so do the sum rules: they are computed
        # even if the ledger has them.
        labels = engine.compute(
            structure,
            Request(
                energy=True,
                forces=True,
                probes=_draw_probes(structure, quantities, label_spec),
                hessian=HESSIAN in quantities,
                stress=STRESS in quantities,
                **{name: name in quantities for name in label_spec.outputs},
            ),
        )
        reasons = check_labels(structure, labels, quantities)
        return {
            quantity: LabelResult(labels_to_bytes(part), reasons.get(quantity, ""))
            for quantity, part in split_by_quantity(labels, quantities).items()
        }

    return label_structure


def _draw_probes(structure: Structure, quantities: tuple[str, ...], label_spec: LabelSpec) -> torch.Tensor | None:
    """The probes of the products among `quantities`, `[products, atoms, 3]`; None without products."""
    indices = [probe_index(quantity) for quantity in hvp_quantities(quantities)]
    if not indices:
        return None
    n_probes = max(indices) + 1
    return draw_fixed_probes([structure], label_spec.probe, n_probes=n_probes, seed=label_spec.seed)[indices]


def check_labels(structure: Structure, labels: Properties, quantities: tuple[str, ...]) -> dict[str, str]:
    """Check the labels of one structure against sum rules, symmetry and their own error estimates.

    Args:
        structure: the structure.
        labels: its labels; its products are those among `quantities`, in the same order.
        quantities: names of the requested quantities.

    Returns:
        For each suspect quantity, the reason.
    """
    products = hvp_quantities(quantities)
    reasons: dict[str, str] = {}
    for issue in find_issues([structure], labels).get(0, ()):
        quantity = products[issue.probe] if issue.label == "hvp" else issue.label
        reasons.setdefault(quantity, issue.reason)
    # Forces that were computed but not requested count as well, because the curvature was taken from them.
    if FORCES in reasons and FORCES not in quantities:
        reasons = {
            quantity: reasons[FORCES] for quantity in quantities if quantity_kind(quantity) in ("hvp", "hessian")
        }
    return {quantity: reason for quantity, reason in reasons.items() if quantity in quantities}
