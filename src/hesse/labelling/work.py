"""What a worker of a campaign does: one structure, asked for the quantities that are missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from hesse.datasets import find_doubts
from hesse.engines import Differences, Engine, make_engine
from hesse.labelling.payload import labels_to_bytes, quantities_of
from hesse.labelling.request import FORCES, HESSIAN, STRESS, LabelRequest, kind_of, probe_index, products_of
from hesse.probes import ProbeStream, make_probe
from hesse.structures import Labels, Request, Structure, collate

__all__ = ["Answer", "Spec", "Task", "judge", "set_up"]

Spec = tuple[str | Engine, Differences | None, LabelRequest]
Task = tuple[Structure, tuple[str, ...]]


@dataclass(frozen=True)
class Answer:
    """One quantity of one structure: its labels as bytes, and why they are suspect (empty when they are not)."""

    payload: bytes
    suspect: str


def set_up(spec: Spec) -> Callable[[Task], dict[str, Answer]]:
    """An engine, and a function from a structure and the quantities it is asked for to their answers."""
    chosen, differences, asked = spec
    if isinstance(chosen, str):
        torch.set_num_threads(1)
        engine = make_engine(chosen, differences=differences)
    else:
        engine = chosen

    def work(task: Task) -> dict[str, Answer]:
        structure, quantities = task
        # Energy and forces are the point that every derivative is taken about, and the identities need them: they are
        # asked for even when they are known.
        labels = engine.compute(
            structure,
            Request(
                energy=True,
                forces=True,
                probes=_directions(structure, quantities, asked),
                hessian=HESSIAN in quantities,
                stress=STRESS in quantities,
            ),
        )
        reasons = judge(structure, labels, quantities)
        return {
            quantity: Answer(labels_to_bytes(part), reasons.get(quantity, ""))
            for quantity, part in quantities_of(labels, quantities).items()
        }

    return work


def _directions(structure: Structure, quantities: tuple[str, ...], asked: LabelRequest) -> torch.Tensor | None:
    """The probes of the products among `quantities`: of each the one that its place in the stream says."""
    chosen = [probe_index(quantity) for quantity in products_of(quantities)]
    if not chosen:
        return None
    probe = make_probe(asked.probe, max(chosen) + 1)
    # Probes need no neighbours: the shortest list will do.
    return probe.draw(collate([structure], 0.1), ProbeStream(asked.seed))[chosen]


def judge(structure: Structure, labels: Labels, quantities: tuple[str, ...]) -> dict[str, str]:
    """Why each quantity that is suspect is so."""
    products = products_of(quantities)
    reasons: dict[str, str] = {}
    for doubt in find_doubts([structure], labels).get(0, ()):
        quantity = products[doubt.probe] if doubt.label == "hvp" else doubt.label
        reasons.setdefault(quantity, doubt.reason)
    # Forces that are only the company of what was asked testify too: curvature was taken from them.
    if FORCES in reasons and FORCES not in quantities:
        reasons = {quantity: reasons[FORCES] for quantity in quantities if kind_of(quantity) in ("hvp", "hessian")}
    return {quantity: reason for quantity, reason in reasons.items() if quantity in quantities}
