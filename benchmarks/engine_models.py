"""Two small models for the runs of docs/deploy.md: ethanol at GFN2-xTB, and copper with the potential EMT of ASE.

    python benchmarks/engine_models.py FOLDER

They are trained for minutes: their dynamics is stable, their accuracy is not the point.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.io import write

import hesse

STEPS = 300
NETWORK = {"kind": "hessenet", "features": 16, "channels": 8, "radial": 6, "cutoff": 4.5}


def copper() -> Atoms:
    return bulk("Cu", cubic=True).repeat(2)


def make(folder: Path) -> None:
    """Label, train and write `ethanol.hesse` and `copper.hesse`."""
    cases = {
        "ethanol": (hesse.minimize(molecule("CH3CH2OH"), "gfn2").structure, "gfn2", 40, (0.04, 0.08, 0.12), 0.0),
        "copper": (copper(), EMT(), 10, (0.06, 0.12, 0.18), 0.02),
    }
    for name, (start, engine, count, sizes, strain) in cases.items():
        sampled = hesse.sample_rattled(start, sizes=sizes, count=count, strain=strain, quiet=True)
        data = hesse.label(sampled.structures, engine, quiet=True).dataset
        config = hesse.TrainConfig(model=NETWORK, steps=STEPS, compile="never", validate_every=100)
        held = len(data) // 10
        hesse.train(data[held:], data[:held], config, output=folder / f"run-{name}", quiet=True)
        shutil.copy(folder / f"run-{name}" / "model.hesse", folder / f"{name}.hesse")
        write(folder / f"{name}.extxyz", hesse.to_ase(start) if name == "ethanol" else start)
        print(name, len(data), "structures", flush=True)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
