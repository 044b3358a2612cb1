"""Writes `format-N.hesse` of the present format, with what the model in it answers. Run once per format, by the release
that introduces it; never again for an earlier one: what matters is that files of that release are still read."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from hesse.curvature import evaluate
from hesse.models import (
    AniConfig,
    Ensemble,
    HesseNetConfig,
    HipnnConfig,
    ReferenceEnergies,
    SumPotential,
    Zbl,
    ZblConfig,
    build_model,
    load_model,
    save_model,
)
from hesse.models.model_files import FORMAT_VERSION
from hesse.structures import Request, Structure, collate

FOLDER = Path(__file__).parent
ELEMENTS = (1, 6, 8)
FORMALDEHYDE = Structure(
    [6, 8, 1, 1], [[0, 0, 0], [0, 0.05, 1.21], [0.94, 0, -0.59], [-0.93, 0.04, -0.6]], id="formaldehyde"
)
PROBE = [[0.1, -0.2, 0.3], [0.4, 0.5, -0.6], [-0.7, 0.8, 0.9], [1.0, -1.1, 1.2]]


def main() -> None:
    target = FOLDER / f"format-{FORMAT_VERSION}.hesse"
    if target.exists():
        sys.exit(f"{target.name} is frozen already: a new format needs a new number")
    torch.manual_seed(7)
    energies = torch.tensor([-13.6, -1029.5, -2042.0], dtype=torch.float64)
    small = [
        HipnnConfig(l_max=2, features=5, sensitivities=4, blocks=2, onsite_layers=1, cutoff=4.0, longest=3.5),
        HesseNetConfig(features=4, channels=2, radial=3, cutoff=4.0),
        AniConfig(hidden=(5, 3), radial_shifts=(0.9, 1.8, 2.7), angular_shifts=(1.0, 2.0), sections=(0.5, 2.0)),
    ]
    networks = [build_model(config, ELEMENTS, energies) for config in small]
    whole = SumPotential([Zbl(ZblConfig(reach=1.7), ELEMENTS), Ensemble(networks), ReferenceEnergies(ELEMENTS)])
    save_model(target, whole.double(), {"data_hash": "frozen", "level": "none", "note": "random weights, seed 7"})
    model = load_model(target)
    probe = torch.tensor([PROBE], dtype=torch.float64)
    found = evaluate(model, collate([FORMALDEHYDE], model.cutoff), Request(forces=True, probes=probe))
    assert found.energy is not None
    assert found.forces is not None
    assert found.hvp is not None
    answer = {
        "numbers": FORMALDEHYDE.numbers.tolist(),
        "positions": FORMALDEHYDE.positions.tolist(),
        "probe": PROBE,
        "energy": found.energy.item(),
        "forces": found.forces.tolist(),
        "hvp": found.hvp[0].tolist(),
    }
    target.with_suffix(".json").write_text(json.dumps(answer, indent=1) + "\n")


if __name__ == "__main__":
    main()
