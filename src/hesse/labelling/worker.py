"""What a worker of a campaign does: one structure, asked for the quantities that are missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from hesse.datasets import find_issues
from hesse.engines import Engine, FiniteDifferences, make_engine
from hesse.labelling.serialization import labels_to_bytes, split_by_quantity
from hesse.labelling.spec import FORCES, HESSIAN, STRESS, LabelSpec, hvp_quantities, probe_index, quantity_kind
from hesse.probes import ProbeSeed, make_probe
from hesse.structures import Properties, Request, Structure, collate

__all__ = ["LabelResult", "LabelTask", "WorkerSpec", "check_labels", "make_worker"]

WorkerSpec = tuple[str | Engine, FiniteDifferences | None, LabelSpec]
LabelTask = tuple[Structure, tuple[str, ...]]


@dataclass(frozen=True)
class LabelResult:
    """One quantity of one structure: its labels as bytes, and why they are suspect (empty when they are not)."""

    payload: bytes
    suspect_reason: str


def make_worker(spec: WorkerSpec) -> Callable[[LabelTask], dict[str, LabelResult]]:
    """An engine, and a function from a structure and the quantities it is asked for to their answers."""
    engine_or_name, differences, label_spec = spec
    if isinstance(engine_or_name, str):
        torch.set_num_threads(1)
        engine = make_engine(engine_or_name, differences=differences)
    else:
        engine = engine_or_name

    def label_structure(task: LabelTask) -> dict[str, LabelResult]:
        structure, quantities = task
        # Energy and forces are the point that every derivative is taken about, and the identities need them: they are
        # asked for even when they are known.
        labels = engine.compute(
            structure,
            Request(
                energy=True,
                forces=True,
                probes=_draw_probes(structure, quantities, label_spec),
                hessian=HESSIAN in quantities,
                stress=STRESS in quantities,
            ),
        )
        reasons = check_labels(structure, labels, quantities)
        return {
            quantity: LabelResult(labels_to_bytes(part), reasons.get(quantity, ""))
            for quantity, part in split_by_quantity(labels, quantities).items()
        }

    return label_structure


def _draw_probes(structure: Structure, quantities: tuple[str, ...], label_spec: LabelSpec) -> torch.Tensor | None:
    """The probes of the products among `quantities`: of each the one that its place in the stream says."""
    indices = [probe_index(quantity) for quantity in hvp_quantities(quantities)]
    if not indices:
        return None
    probe = make_probe(label_spec.probe, max(indices) + 1)
    # Probes need no neighbors: the shortest list will do.
    return probe.draw(collate([structure], 0.1), ProbeSeed(label_spec.seed))[indices]


def check_labels(structure: Structure, labels: Properties, quantities: tuple[str, ...]) -> dict[str, str]:
    """Why each quantity that is suspect is so."""
    products = hvp_quantities(quantities)
    reasons: dict[str, str] = {}
    for issue in find_issues([structure], labels).get(0, ()):
        quantity = products[issue.probe] if issue.label == "hvp" else issue.label
        reasons.setdefault(quantity, issue.reason)
    # Forces that are only the company of what was asked testify too: curvature was taken from them.
    if FORCES in reasons and FORCES not in quantities:
        reasons = {
            quantity: reasons[FORCES] for quantity in quantities if quantity_kind(quantity) in ("hvp", "hessian")
        }
    return {quantity: reason for quantity, reason in reasons.items() if quantity in quantities}
