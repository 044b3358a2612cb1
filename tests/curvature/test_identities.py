"""Identities of second and third derivatives that hold for every potential (symmetry, sum rules, calculus)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hesse.curvature import evaluate
from hesse.models import Hipnn, HipnnConfig
from hesse.potential import Potential
from hesse.structures import Batch, Properties, Request, Structure, collate
from oracles import LennardJones, Morse, atom, crystal, linear, molecules, rotation


def hipnn(l_max: int, **options: object) -> Hipnn:
    """A tiny network with weights large enough for every term to matter."""
    torch.manual_seed(5)
    settings = {"features": 5, "sensitivities": 5, "blocks": 2, "onsite_layers": 1, "cutoff": 4.0, "longest": 3.5}
    model = Hipnn(HipnnConfig(l_max=l_max, **{**settings, **options}), (1, 6, 8)).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


INVARIANT: list[Potential] = [Morse(), LennardJones(), *(hipnn(l_max) for l_max in (0, 1, 2))]
invariant = pytest.mark.parametrize(
    "potential", INVARIANT, ids=lambda p: f"hipnn-l{p.config.l_max}" if isinstance(p, Hipnn) else type(p).__name__
)
STRUCTURES = [*molecules([6, 3, 8], seed=2), linear(3), atom(8), *molecules([2], seed=5)]


def directions(batch: Batch, k: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(k, len(batch.numbers), 3)))


def per_structure(batch: Batch, values: torch.Tensor) -> torch.Tensor:
    return batch.sum_over_atoms(values.sum(-1))


def relative(difference: torch.Tensor, scale: torch.Tensor) -> float:
    return float(difference.abs().max() / scale.abs().max())


@invariant
def test_curvature_is_symmetric(potential: Potential) -> None:
    batch = collate([*STRUCTURES, crystal(0)], potential.cutoff)
    u, v = directions(batch, 2)
    products = evaluate(potential, batch, Request(probes=torch.stack([u, v]))).hvp
    assert products is not None
    left, right = per_structure(batch, u * products[1]), per_structure(batch, v * products[0])
    torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9)


@invariant
def test_translations_and_rotations(potential: Potential) -> None:
    """`H t = 0`, also in a crystal; `H (e × r) = e × ∇E`, for molecules."""
    batch = collate(STRUCTURES, potential.cutoff)
    axes = torch.eye(3, dtype=torch.float64)
    shifts = axes[:, None].expand(3, len(batch.numbers), 3)
    turns = torch.linalg.cross(shifts, batch.positions[None].expand(3, -1, -1))
    labels = evaluate(potential, batch, Request(forces=True, probes=torch.cat([shifts, turns]), hessian=True))
    assert labels.hvp is not None
    assert labels.forces is not None
    assert labels.hessian is not None
    assert relative(labels.hvp[:3], labels.hessian) < 1e-12
    expected = torch.linalg.cross(shifts, -labels.forces[None].expand(3, -1, -1))
    assert relative(labels.hvp[3:] - expected, labels.hvp) < 1e-12

    solid = collate([crystal(0)], potential.cutoff)
    shifts = axes[:, None].expand(3, len(solid.numbers), 3)
    drift = evaluate(potential, solid, Request(probes=shifts, hessian=True))
    assert drift.hvp is not None
    assert drift.hessian is not None
    assert relative(drift.hvp, drift.hessian) < 1e-12


@invariant
def test_energies_forces_and_hessians_rotate_with_the_structure(potential: Potential) -> None:
    structure = STRUCTURES[0]
    mirror = rotation(3) @ np.diag([1.0, 1.0, -1.0])  # improper, so that handedness is covered
    for matrix in (rotation(1), mirror):
        turned = structure.with_positions(structure.positions @ matrix.T + np.array([1.0, -2.0, 3.0]))
        batch = collate([structure, turned], potential.cutoff)
        labels = evaluate(potential, batch, Request(forces=True, hessian=True))
        assert labels.energy is not None
        assert labels.forces is not None
        torch.testing.assert_close(labels.energy[0], labels.energy[1], rtol=1e-12, atol=1e-10)
        before, after = (part.numpy() for part in labels.forces.split(len(structure)))
        np.testing.assert_allclose(after, before @ matrix.T, atol=1e-10 * np.abs(before).max())
        hessian = np.einsum("xa,iajb,yb->ixjy", matrix, labels.hessian_of(0).numpy(), matrix)
        np.testing.assert_allclose(labels.hessian_of(1), hessian, atol=1e-10 * np.abs(hessian).max())


@invariant
def test_derivatives_permute_with_the_atoms(potential: Potential) -> None:
    structure = STRUCTURES[2]
    order = np.random.default_rng(0).permutation(len(structure))
    shuffled = Structure(structure.numbers[order], structure.positions[order])
    labels = evaluate(potential, collate([structure, shuffled], potential.cutoff), Request(forces=True, hessian=True))
    assert labels.energy is not None
    assert labels.forces is not None
    torch.testing.assert_close(labels.energy[0], labels.energy[1], rtol=1e-12, atol=1e-11)
    before, after = (part.numpy() for part in labels.forces.split(len(structure)))
    scale = float(labels.hessian_of(0).abs().max())
    np.testing.assert_allclose(after, before[order], atol=1e-12 * scale)
    expected = labels.hessian_of(0).numpy()[order][:, :, order]
    np.testing.assert_allclose(labels.hessian_of(1), expected, atol=1e-12 * scale)


@pytest.mark.parametrize("l_max", [0, 1, 2])
def test_central_differences_reach_hessians_of_the_network_at_second_order(l_max: int) -> None:
    model, structure = hipnn(l_max), STRUCTURES[0]
    batch = collate([structure], model.cutoff)
    direction = directions(batch, 1)
    exact = evaluate(model, batch, Request(probes=direction)).hvp
    assert exact is not None
    steps, errors = np.logspace(-2.5, -3.7, 4), []
    for h in steps:
        forces = []
        for sign in (-1, 1):
            moved = structure.with_positions(structure.positions + sign * h * direction[0].numpy())
            result = evaluate(model, collate([moved], model.cutoff), Request(forces=True)).forces
            assert result is not None
            forces.append(result)
        errors.append(float(((forces[0] - forces[1]) / (2 * h) - exact[0]).norm()))
    order, _ = np.polyfit(np.log(steps), np.log(errors), 1)
    assert 1.9 < order < 2.1


# --- third derivatives: parameters ----------------------------------------------------------------------------------


def gradients(model: Potential, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True))


@pytest.mark.parametrize("l_max", [0, 1, 2])
def test_parameter_gradient_of_a_curvature_loss_equals_that_with_a_constant_residual(l_max: int) -> None:
    """`∂θ |Hv − y|² = 2 ∂θ (r · Hv)` with r constant, and `r · Hv` follows from central differences of parameter
    gradients of energies, along v and r, without any second derivative."""
    model, structure = hipnn(l_max), STRUCTURES[0]
    batch = collate([structure], model.cutoff)
    v = directions(batch, 1)
    target = directions(batch, 1, seed=1)
    product = evaluate(model, batch, Request(probes=v), create_graph=True).hvp
    assert product is not None
    full = gradients(model, (product - target).square().sum())
    product = evaluate(model, batch, Request(probes=v), create_graph=True).hvp
    assert product is not None
    frozen = gradients(model, 2 * ((product - target).detach() * product).sum())
    for a, b in zip(full, frozen, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)

    residual = (product - target).detach()[0]
    h = 1e-3

    def energy_slopes(moved: torch.Tensor) -> list[torch.Tensor]:
        return gradients(model, model(batch.with_positions(positions=batch.positions + moved)).sum())

    corners = [
        (s * t, energy_slopes(h * (s * v[0] + t * residual / residual.norm()))) for s in (1, -1) for t in (1, -1)
    ]
    for k, exact in enumerate(full):
        mixed = sum(sign * derivatives[k] for sign, derivatives in corners) / (4 * h * h)
        estimate = 2 * float(residual.norm()) * mixed
        assert float((estimate - exact).norm()) < 2e-3 * float(exact.norm()) + 1e-5 * max(float(e.norm()) for e in full)


@pytest.mark.parametrize("l_max", [0, 1, 2])
@pytest.mark.parametrize("request_kind", ["probes", "hessian"])
def test_training_on_several_directions_sums_their_gradients(l_max: int, request_kind: str) -> None:
    """K directions at once (batched path) equal K single ones (plain path); so does the whole Hessian."""
    model, structures = hipnn(l_max), STRUCTURES[1:3]
    batch = collate(structures, model.cutoff)
    if request_kind == "probes":
        v = directions(batch, 3)
    else:
        rows = 3 * max(len(s) for s in structures)
        v = torch.zeros(rows, len(batch.numbers), 3, dtype=torch.float64)
        begin = 0
        for s in structures:
            for c in range(3 * len(s)):
                v[c, begin + c // 3, c % 3] = 1.0
            begin += len(s)

    def loss(labels: Properties) -> torch.Tensor:
        value = labels.hvp if labels.hvp is not None else labels.hessian
        assert value is not None
        return value.square().sum()

    request = Request(probes=v) if request_kind == "probes" else Request(hessian=True)
    together = gradients(model, loss(evaluate(model, batch, request, create_graph=True)))
    single = [gradients(model, loss(evaluate(model, batch, Request(probes=one[None]), create_graph=True))) for one in v]
    for k, value in enumerate(together):
        expected = torch.stack([g[k] for g in single]).sum(0)
        torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-9 * float(expected.norm() + 1))
