"""Hesse's ANI against TorchANI, weights copied: environment vectors, energies, forces, Hessian-vector products."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("torchani", reason="the witness is torchani")

from torchani_models import torchani_labels, torchani_model

from hesse.curvature import evaluate
from hesse.errors import RequestError
from hesse.models import Ani, Ensemble
from hesse.models.adapters.torchani import ani_from_torchani
from hesse.structures import Request, collate
from hesse.units import energy_unit
from oracles import atom, crystal, linear, molecules

HARTREE = energy_unit("hartree")
TOLERANCE = 1e-9
NUMBERS = (1, 6, 7, 8, 16, 9, 17)
OPEN = [*molecules([9, 5, 12], elements=NUMBERS), atom(16), linear(4, elements=(6, 7)), linear(3)]
CASES: dict[str, dict[str, Any]] = {
    "1x": {"sections": 8, "angular_shifts": 4, "radial_precision": 16.0, "angular_precision": 8.0,
           "angular_zeta": 32.0},
    "2x": {"radial_start": 0.8, "angular_start": 0.8, "radial_cutoff": 5.1},
    "exponential cutoff, gelu, no biases": {"cutoff_fn": "smooth", "activation": "gelu", "bias": False},
    "three elements, other constants": {"symbols": ("O", "H", "C"), "radial_cutoff": 4.1, "angular_cutoff": 2.9,
                                        "radial_shifts": 5, "sections": 3, "angular_zeta": 9.0},
    "no self energies": {"self_energies": False},
}  # fmt: skip


def structures_of(model: Any) -> list[Any]:
    numbers = tuple(int(z) for z in model.atomic_numbers)
    return [s for s in OPEN if set(s.numbers) <= set(numbers)] + molecules([8, 3], seed=7, elements=numbers)


def compare(model: Any, structures: list[Any]) -> None:
    ours = ani_from_torchani(model)
    batch = collate(structures, ours.cutoff)
    probes = torch.randn(1, len(batch.numbers), 3, dtype=torch.float64)
    labels = evaluate(ours, batch, Request(forces=True, probes=probes))
    theirs = torchani_labels(model, structures, probes[0])
    close(labels.energy, theirs["energy"])
    close(labels.forces, theirs["forces"])
    close(labels.hvp[0], theirs["hvp"])  # type: ignore[index]
    assert float(theirs["hvp"].abs().max()) > 1.0


def close(got: torch.Tensor | None, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_energies_forces_and_curvature_equal_torchani(case: str) -> None:
    model = torchani_model(**CASES[case])
    compare(model, structures_of(model))


def test_a_crystal_equals_torchani() -> None:
    compare(torchani_model(**CASES["1x"]), [crystal(0)])


def test_environments_equal_torchani() -> None:
    """With elements sorted by atomic number, the vectors agree entry by entry."""
    model = torchani_model(**CASES["1x"], symbols=("H", "C", "N", "O", "F", "S", "Cl"))
    ours = ani_from_torchani(model)
    assert isinstance(ours, Ani)
    for structure in OPEN:
        theirs = model.aev_computer(
            model.species_converter(torch.from_numpy(structure.numbers.copy())[None]),
            torch.from_numpy(structure.positions.copy())[None],
        )
        close(ours.aevs(collate([structure], ours.cutoff)), theirs[0])


def test_an_ensemble_becomes_an_ensemble_of_its_active_members() -> None:
    model = torchani_model(ensemble_size=3)
    compare(model, OPEN[:2])
    model.set_active_members([0, 2])
    ours = ani_from_torchani(model)
    assert isinstance(ours, Ensemble)
    assert len(ours.parts) == 2
    compare(model, OPEN[:2])


def test_the_dtype_is_kept_and_references_are_float64() -> None:
    ours = ani_from_torchani(torchani_model().float())
    assert isinstance(ours, Ani)
    assert next(ours.parameters()).dtype == torch.float32
    assert ours.references.energies.dtype == torch.float64
    assert ours.elements == tuple(sorted(NUMBERS))
    assert float(ours.references.energies[0]) == pytest.approx(-0.5 * HARTREE)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"repulsion": True}, "repulsion_xtb"),
        ({"container": "SingleNN", "container_ctor": "default"}, "SingleNN"),
        ({"activation": torch.nn.Tanh()}, "Tanh"),
        ({"cutoff_fn": "biweight"}, "CutoffBiweight"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_parts_without_counterpart_are_reported(options: dict[str, Any], part: str) -> None:
    with pytest.raises(RequestError, match=f"{part}.*TorchAniPotential"):
        ani_from_torchani(torchani_model(**options))


def test_only_torchani_models_can_be_copied() -> None:
    with pytest.raises(RequestError, match="expected a model of TorchANI 2"):
        ani_from_torchani(torch.nn.Linear(2, 2))
