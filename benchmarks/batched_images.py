"""Seconds per iteration of an elastic band and of many relaxations with a model: all geometries in one pass against one
after another.

    python benchmarks/batched_images.py [MODEL.hesse] [--device cuda]

Without a model the default network with random weights is timed: the time does not depend on the weights. Each number
is the best of five passes over the same geometries: processor time of one thread on a CPU, wall time elsewhere.
"""

from __future__ import annotations

import argparse
import time

import torch
from ase.build import molecule

import hesse
from hesse.engines import PotentialEngine
from hesse.pes.points import PointEvaluator
from hesse.structures import Structure

MOLECULES = ("H2CO", "CH3CH2OH", "C6H6", "bicyclobutane")
COUNTS = (8, 16, 64)


def seconds(evaluate: PointEvaluator, images: list[Structure], *, together: bool, device: str) -> float:
    """The best time of five passes."""
    times, clock = [], time.process_time if device == "cpu" else time.perf_counter
    for _ in range(5):
        start = clock()
        if together:
            evaluate(images)
        else:
            for image in images:
                evaluate([image])
        times.append(clock() - start)
    return min(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.model is None:
        potential = hesse.HesseNet(hesse.HesseNetConfig(), (1, 6, 7, 8)).to(options.device)
    else:
        potential = hesse.as_potential(options.model, device=options.device)
    evaluate = PointEvaluator(PotentialEngine(potential))
    print(f"{torch.get_num_threads()} threads, {options.device}")
    print("| molecule | atoms | geometries | one after another, ms | together, ms | gain |\n|---|---|---|---|---|---|")
    for name in MOLECULES:
        for count in COUNTS:
            images = []
            for k in range(count):
                atoms = molecule(name)
                atoms.rattle(0.05, seed=k)
                images.append(hesse.from_ase(atoms))
            single, batched = (
                1e3 * seconds(evaluate, images, together=together, device=options.device) for together in (False, True)
            )
            print(f"| {name} | {len(images[0])} | {count} | {single:.0f} | {batched:.0f} | {single / batched:.1f} |")


if __name__ == "__main__":
    main()
