"""The prior of beads against closed forms, finite differences and its own definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hesse.curvature import evaluate_structures
from hesse.errors import ConfigError, RequestError
from hesse.models import (
    BeadAngle,
    BeadBond,
    BeadMolecule,
    BeadPrior,
    BeadPriorConfig,
    Hipnn,
    HipnnConfig,
    PairRepulsion,
    SumPotential,
    load_model,
    save_model,
)
from hesse.structures import Request, Structure, bead_number

A, B = bead_number("A"), bead_number("B")
PAIR = PairRepulsion(types=("A", "B"), taper=3.0, strength=0.4)
CHAIN = BeadMolecule(
    types=("A", "B", "A"),
    bonds=(BeadBond(beads=(0, 1), length=2.0, stiffness=5.0), BeadBond(beads=(1, 2), length=2.5, stiffness=4.0)),
    angles=(BeadAngle(beads=(0, 1, 2), cosine=-0.5, stiffness=0.7),),
)


def beads(numbers: list[int], positions: object, **fields: object) -> Structure:
    return Structure(np.array(numbers), np.array(positions, dtype=float), masses=np.ones(len(numbers)), **fields)  # type: ignore[arg-type]


def energy_and_forces(prior: BeadPrior, structure: Structure) -> tuple[float, np.ndarray]:
    found = evaluate_structures(prior, [structure], Request(forces=True))
    assert found.energy is not None
    assert found.forces is not None
    return float(found.energy[0]), found.forces.numpy()


def test_the_repulsion_has_the_published_force() -> None:
    """s p at the taper, s nearer by d, zero beyond the reach."""
    prior = BeadPrior(BeadPriorConfig(pairs=(PAIR,)), (A, B))
    for r, force in ((3.0, 0.4 * 0.05), (2.85, 0.4), (2.7, 0.4 / 0.05), (3.7, 0.0)):
        forces = energy_and_forces(prior, beads([A, B], [[0, 0, 0], [r, 0, 0]]))[1]
        np.testing.assert_allclose(forces, [[-force, 0, 0], [force, 0, 0]], rtol=1e-12, atol=1e-15)
    assert energy_and_forces(prior, beads([A, A], [[0, 0, 0], [2.0, 0, 0]]))[0] == 0.0, "only pairs of its types"


def test_it_ends_smoothly_to_third_order() -> None:
    """Fourth differences across both joints fall with the step as those of a C³ function."""
    prior = BeadPrior(BeadPriorConfig(pairs=(PAIR,)), (A, B))

    def third(r: float, h: float) -> float:
        forces = [energy_and_forces(prior, beads([A, B], [[0, 0, 0], [r + k * h, 0, 0]]))[1][1, 0] for k in (-1, 0, 1)]
        return (forces[0] - 2 * forces[1] + forces[2]) / h**2

    for joint in (PAIR.taper, PAIR.reach):
        h = 2e-3
        jump = abs(third(joint + 1.5 * h, h) - third(joint - 1.5 * h, h))
        assert jump < 0.06 * abs(third(PAIR.taper - 0.1, h)), joint


def test_bonds_and_angles_have_their_closed_form_across_boundaries() -> None:
    prior = BeadPrior(BeadPriorConfig(molecules=(CHAIN,)), (A, B))
    positions = np.array([[0.2, 0.1, 0.0], [2.3, 0.4, 0.3], [3.1, 2.7, 0.2]])
    one, two = positions[0] - positions[1], positions[2] - positions[1]
    r, s = np.linalg.norm(one), np.linalg.norm(two)
    expected = 0.5 * 5 * (r - 2.0) ** 2 + 0.5 * 4 * (s - 2.5) ** 2 + 0.5 * 0.7 * (one @ two / r / s + 0.5) ** 2
    energy, forces = energy_and_forces(prior, beads([A, B, A], positions))
    assert energy == pytest.approx(expected, rel=1e-12)
    cell = np.array([[9.0, 0, 0], [2.0, 8.0, 0], [1.0, -1.0, 10.0]])
    moved = positions + np.array([[0, 0, 0], [1, -1, 0], [-1, 2, 1]]) @ cell
    cut = beads([A, B, A], moved, cell=cell, pbc=(True, True, True))
    again, forces_cut = energy_and_forces(prior, cut)
    assert again == pytest.approx(expected, rel=1e-10)
    np.testing.assert_allclose(forces_cut, forces, atol=1e-10)


def test_forces_are_those_of_differences() -> None:
    config = BeadPriorConfig(pairs=(PAIR, PairRepulsion(types=("A", "A"), taper=2.5, strength=0.2)), molecules=(CHAIN,))
    prior = BeadPrior(config, (A, B))
    rng = np.random.default_rng(3)
    chains = np.array([[0, 0, 0], [2, 0, 0], [3, 2, 0]]) + np.array([[[0, 0, 0]], [[0.5, 0.4, 2.6]]])
    positions = chains.reshape(-1, 3) + 0.1 * rng.normal(size=(6, 3))
    cell = 8.0 * np.eye(3)
    box = beads([A, B, A] * 2, positions, cell=cell, pbc=(True, True, True))
    energy, forces = energy_and_forces(prior, box)
    direction, h = rng.normal(size=(6, 3)), 1e-5
    up, down = (energy_and_forces(prior, box.with_positions(positions + s * h * direction))[0] for s in (1, -1))
    assert (up - down) / (2 * h) == pytest.approx(-(forces * direction).sum(), rel=1e-6)
    assert energy > 0
    np.testing.assert_allclose(forces.sum(0), 0.0, atol=1e-12)


def test_bonded_beads_do_not_repel_but_all_others_do() -> None:
    config = BeadPriorConfig(pairs=(PAIR, PairRepulsion(types=("A", "A"), taper=2.5, strength=0.2)), molecules=(CHAIN,))
    bonded = BeadPrior(BeadPriorConfig(molecules=(CHAIN,)), (A, B))
    positions = np.array([[0, 0, 0], [1.5, 0, 0], [1.5, 1.5, 0.0]])
    one = beads([A, B, A], positions)
    assert energy_and_forces(BeadPrior(config, (A, B)), one)[0] == energy_and_forces(bonded, one)[0]
    above = [positions + np.array([0, 0, z]) for z in (20.0, 2.0)]
    far, near = (beads([A, B, A] * 2, np.concatenate([positions, other])) for other in above)
    full = BeadPrior(config, (A, B))
    assert energy_and_forces(full, far)[0] == pytest.approx(2 * energy_and_forces(bonded, one)[0])
    assert energy_and_forces(full, near)[0] > energy_and_forces(full, far)[0] + 0.01


def test_molecules_that_are_none_of_the_prior_are_named() -> None:
    prior = BeadPrior(BeadPriorConfig(molecules=(CHAIN,)), (A, B))
    with pytest.raises(RequestError, match=r'"box": bead 3 \(A\) is not part of a molecule .*: A-B-A'):
        energy_and_forces(prior, beads([A, B, A, A, A], np.arange(15).reshape(5, 3), id="box"))
    with pytest.raises(ConfigError, match="expected different beads from 0 to 1"):
        BeadMolecule(types=("A", "B"), bonds=(BeadBond(beads=(0, 2), length=1.0, stiffness=1.0),))


def test_a_model_file_keeps_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    prior = BeadPrior(BeadPriorConfig(pairs=(PAIR,), molecules=(CHAIN,)), (A, B))
    options = HipnnConfig(l_max=1, features=4, sensitivities=4, blocks=1, onsite_layers=0, cutoff=6.0)
    structure = beads([A, B, A], [[0, 0, 0], [2, 0, 0], [3, 2, 0]])
    for model in (prior, SumPotential([prior, Hipnn(options, (A, B)).double()])):
        save_model(tmp_path / "model.hesse", model)
        again = load_model(tmp_path / "model.hesse")
        values = [evaluate_structures(m, [structure], Request(forces=True)).forces for m in (model, again)]
        torch.testing.assert_close(values[0], values[1])
