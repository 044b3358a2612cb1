"""Is the gradient of a curvature loss the slope of the loss? Not where the activation has a kink.

    python benchmarks/fine_tuning/kinks.py OUT

OUT is a folder of `fine_tune.py`. The parameters of a member of ANI-1x are moved by a small step, against the gradient
of the mean squared error of the products, and against its signs (as the first steps of Adam do). The slope that the
gradient predicts is compared with the central difference of the loss over the step, in float64, for the published CELU
and for the smooth activation with the same weights. Second derivatives of a CELU jump where its argument is zero; a
step moves these places, which no derivative at one point can see.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from prepare import by_formula, starting_point
from torch import Tensor

import hesse
from hesse.curvature import evaluate
from hesse.structures import Request, collate

STEPS = (1e-3, 3e-3, 1e-2)
"""Lengths of the steps, Euclidean norm of all parameters."""


def slopes(network: hesse.Ani, data: hesse.Dataset) -> list[tuple[str, float, list[float]]]:
    """Predicted and measured slopes of the loss.

    Args:
        network: in float64.
        data: structures with one stored product each.

    Returns:
        For each direction its name, the slope by the gradient, and the central differences for `STEPS`.
    """
    batch = collate(list(data.structures), network.cutoff)
    assert data.labels.probes is not None
    assert data.labels.hvp is not None
    probes, reference = data.labels.probes.double(), data.labels.hvp.double()
    parameters = [p for p in network.parameters() if p.requires_grad]

    def loss(*, create_graph: bool = False) -> Tensor:
        products = evaluate(network, batch, Request(probes=probes), create_graph=create_graph).hvp
        assert products is not None
        return (products - reference).square().mean()

    gradient = torch.autograd.grad(loss(create_graph=True), parameters, materialize_grads=True)
    result = []
    for name, direction in (
        ("gradient", [-g for g in gradient]),
        ("signs of the gradient", [-g.sign() for g in gradient]),
    ):
        length = float(torch.stack([d.square().sum() for d in direction]).sum().sqrt())
        unit = [d / length for d in direction]
        predicted = sum(float((g * u).sum()) for g, u in zip(gradient, unit, strict=True))
        measured = []
        for step in STEPS:
            ends = []
            for shift in (step, -2 * step):
                _move(parameters, unit, shift)
                ends.append(float(loss().detach()))
            _move(parameters, unit, step)
            measured.append((ends[0] - ends[1]) / (2 * step))
        result.append((name, predicted, measured))
    return result


@torch.no_grad()
def _move(parameters: Sequence[Tensor], direction: Sequence[Tensor], step: float) -> None:
    for parameter, part in zip(parameters, direction, strict=True):
        parameter.add_(part, alpha=step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--structures", type=int, default=6)
    arguments = parser.parse_args()
    horm = hesse.read_dataset(arguments.output / "data" / "horm.h5")
    data = horm.select(by_formula(horm, 0)[0][: arguments.structures])
    print("| activation | step against | slope by the gradient | " + " | ".join(f"over {s:g}" for s in STEPS) + " |")
    print("|---" * (3 + len(STEPS)) + "|")
    for name, smooth in (("celu", False), ("smooth-celu", True)):
        network = starting_point(arguments.output / "data", 0, smooth=smooth).double()
        for direction, predicted, measured in slopes(network, data):
            cells = " | ".join(f"{value:.0f}" for value in measured)
            print(f"| {name} | {direction} | {predicted:.0f} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
