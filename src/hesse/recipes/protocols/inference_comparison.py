"""Time and memory of teacher and student in molecular dynamics."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import units
from ase.md.verlet import VelocityVerlet

from hesse.curvature.hvp import energy_and_gradient
from hesse.curvature.memory import saved_tensor_bytes
from hesse.deploy import HesseCalculator
from hesse.engines import make_potential
from hesse.engines.names import path_in_name
from hesse.models import Ensemble
from hesse.potential import Potential, dtype_and_device
from hesse.recipes.protocols.recipe_settings import Files
from hesse.recipes.protocols.stages import Stage, StageWork
from hesse.recipes.protocols.student_data import open_data
from hesse.structures import Structure, collate, to_ase

__all__ = ["cost_stage", "cost_table"]

BLOCKS = 5
"""The steps are divided into blocks, in which the models alternate, so that other load on the machine affects all."""
TEMPERATURE = 300.0
"""K"""
TIME_STEP = 0.25
"""fs"""


def cost_stage(name: str, models: Mapping[str, Sequence[str]], files: Files, steps: int) -> Stage:
    """A stage that times models in molecular dynamics of one molecule of median size, and measures their memory.

    Args:
        name: name of the stage.
        models: names of potentials (of several: their mean) by name in the table.
        files: data with the molecule.
        steps: steps of each model.

    Returns:
        The stage. Results by model: steps a second (median of the blocks), MiB that one evaluation of forces of up to
        64 structures keeps, number of parameters.
    """
    paths = [Path(p) for names in models.values() for n in names if (p := path_in_name(n)) is not None]

    def work(stage: StageWork) -> dict[str, Any]:
        structures = sorted(open_data(files).structures, key=len)
        loaded = {key: _potential(names) for key, names in models.items()}
        seconds = _time_dynamics(loaded, structures[len(structures) // 2], steps)
        sample = structures[:: max(1, len(structures) // 64)][:64]
        return {
            "structure": structures[len(structures) // 2].id,
            "atoms": len(structures[len(structures) // 2]),
            "structures": len(sample),
            "models": {
                key: {
                    "steps_per_second": 1.0 / seconds[key],
                    "mib": _graph_mib(potential, sample),
                    "parameters": sum(p.numel() for p in potential.parameters()),
                }
                for key, potential in loaded.items()
            },
        }

    return Stage(name, "time and memory of teacher and student", work, {"md_steps": steps}, tuple(paths))


def _potential(names: Sequence[str]) -> Potential:
    potentials = [make_potential(name) for name in names]
    return potentials[0] if len(potentials) == 1 else Ensemble(potentials)


def _time_dynamics(models: Mapping[str, Potential], structure: Structure, steps: int) -> dict[str, float]:
    """Seconds of a step of each model, medians of the blocks."""
    runs, start = {}, to_ase(structure)
    scale = np.sqrt(units.kB * TEMPERATURE / start.get_masses())[:, None]
    velocities = scale * np.random.default_rng(0).normal(size=(len(start), 3))
    for name, potential in models.items():
        atoms = start.copy()
        atoms.calc = HesseCalculator(potential)
        runs[name] = VelocityVerlet(atoms, timestep=TIME_STEP * units.fs)
        runs[name].run(2)  # the first steps find neighbors and allocate memory
    block = max(1, steps // BLOCKS)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(BLOCKS):
        for name, run in runs.items():
            run.atoms.positions = start.positions  # every block alike, and short: also a poor model survives it
            run.atoms.set_velocities(velocities)
            started = time.perf_counter()
            run.run(block)
            times[name].append((time.perf_counter() - started) / block)
    return {name: statistics.median(values) for name, values in times.items()}


def _graph_mib(potential: Potential, structures: Sequence[Structure]) -> float:
    """MiB of tensors that are kept for the forces of some structures, and of the parameters."""
    dtype, device = dtype_and_device(potential)
    batch = potential.precompute(collate(list(structures), potential.cutoff, dtype=dtype, device=device))
    with saved_tensor_bytes() as saved:
        energy_and_gradient(
            lambda positions: potential(batch.with_positions(positions=positions)),
            [batch.positions.requires_grad_(True)],
            create_graph=False,
        )
    tensors: list[torch.Tensor] = [*potential.parameters(), *potential.buffers()]
    return (saved[0] + sum(t.numel() * t.element_size() for t in tensors)) / 2**20


def cost_table(results: Mapping[str, Any]) -> str:
    """Results of `cost_stage` as text.

    Args:
        results: the results.

    Returns:
        A line for each model, and one with the ratios.
    """
    models = results["models"]
    lines = [
        f"{name}: {row['steps_per_second']:.3g} MD steps a second ({results['atoms']} atoms), {row['mib']:.3g} MiB for "
        f"the forces of {results['structures']} structures, {row['parameters']} parameters"
        for name, row in models.items()
    ]
    teacher, student = models["teacher"], models["student"]
    speed, memory = student["steps_per_second"] / teacher["steps_per_second"], student["mib"] / teacher["mib"]
    lines.append(f"the student is {speed:.2g} times as fast and needs {memory:.2g} times the memory")
    return "\n".join(lines)
