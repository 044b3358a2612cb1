"""Labels of the curvature of the free energy against the closed form of a harmonic chain, and of beads with hidden
springs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hesse.coarse import AtomTopology, curvature_labels, map_atoms, map_trajectory
from hesse.datasets import Dataset
from hesse.errors import MissingLabelError, RequestError
from hesse.models.adapters import CallablePotential
from hesse.structures import Properties, Structure, bead_number
from hesse.units import BOLTZMANN

TEMPERATURE = 300.0
KT = BOLTZMANN * TEMPERATURE


def chain(n: int = 6) -> np.ndarray:
    """Force constants of a chain with a tether, eV/Å², the same along x, y and z."""
    springs = np.array([2.0, 5.0, 3.0, 1.0, 4.0])[: n - 1]
    matrix = 0.3 * np.eye(n)
    for i, k in enumerate(springs):
        matrix[i : i + 2, i : i + 2] += k * np.array([[1, -1], [-1, 1]])
    return matrix


def two_atoms_a_bead(center: str) -> tuple[AtomTopology, object]:
    masses = np.array([12.0, 1.0, 16.0, 1.0, 14.0, 2.0])
    topology = AtomTopology(("X",) * 6, masses, np.zeros(6, dtype=int), ("CHAIN",))
    members = [np.array([0, 1]), np.array([2, 3]), np.array([4, 5])]
    return topology, map_atoms(topology, members, ["A", "B", "C"], center=center)  # type: ignore[arg-type]


@pytest.mark.parametrize("center", ["mass", "geometry"])
def test_the_formula_is_the_schur_complement(center: str) -> None:
    """Exactly: the free energy of a Gaussian has the Hessian (C K⁻¹ Cᵀ)⁻¹, and D K Dᵀ - β Cov is that."""
    stiffness, (_, mapping) = chain(), two_atoms_a_bead(center)
    c, d = (m.toarray() for m in (mapping.position_weights, mapping.force_weights))  # type: ignore[attr-defined]
    expected = np.linalg.inv(c @ np.linalg.inv(stiffness) @ c.T)
    spread = np.linalg.inv(stiffness)
    conditional = spread - spread @ c.T @ expected @ c @ spread  # covariance of the atoms at fixed beads, over kT
    covariance = d @ stiffness @ conditional @ stiffness @ d.T
    np.testing.assert_allclose(d @ stiffness @ d.T - covariance, expected, atol=1e-12)


def test_labels_of_a_sampled_chain_average_to_the_closed_form() -> None:
    stiffness, (topology, mapping) = chain(), two_atoms_a_bead("mass")
    c, d = (m.toarray() for m in (mapping.position_weights, mapping.force_weights))  # type: ignore[attr-defined]
    expected = np.linalg.inv(c @ np.linalg.inv(stiffness) @ c.T)
    rng = np.random.default_rng(0)
    frames = 500
    x = np.linalg.cholesky(KT * np.linalg.inv(stiffness)) @ rng.normal(size=(frames, 6, 3))
    place = np.array([[3.0 * i, 0, 0] for i in range(6)])
    v = rng.normal(size=(3, 3))
    u = d.T @ v
    structures = tuple(
        Structure(np.full(6, 18), place + x[k], id=f"f{k}", masses=topology.masses) for k in range(frames)
    )
    labels = Properties(
        n_atoms=torch.full((frames,), 6),
        forces=torch.from_numpy(-(stiffness @ x).reshape(-1, 3)),
        probes=torch.from_numpy(np.tile(u, (frames, 1)))[None],
        hvp=torch.from_numpy(np.tile(stiffness @ u, (frames, 1)))[None],
    )
    beads = map_trajectory(Dataset(structures, labels), mapping, temperature=TEMPERATURE, molecule_size=6)  # type: ignore[arg-type]
    np.testing.assert_allclose(beads.labels.probes[0, :3], v, atol=1e-12)  # type: ignore[index]
    hessian, rest = torch.from_numpy(expected), torch.from_numpy(c @ place)

    def energy(positions: torch.Tensor, *_: object) -> torch.Tensor:
        moved = positions - rest
        return 0.5 * (moved * (hessian @ moved)).sum()

    model = CallablePotential(energy, elements=tuple(int(z) for z in mapping.numbers))  # type: ignore[attr-defined]
    corrected = curvature_labels(beads, model, reach=100.0, covariance="instantaneous")
    products = corrected.labels.hvp.numpy().reshape(frames, 3, 3)  # type: ignore[union-attr]
    error = products.std(0) / np.sqrt(frames)
    plain = (d @ stiffness @ d.T) @ v
    assert np.abs(products.mean(0) - expected @ v).max() < 4 * error.max()
    assert np.abs(plain - expected @ v).max() > 8 * error.max(), "without the covariance it is another matrix"
    with pytest.raises(RequestError, match="already"):
        curvature_labels(corrected, model, reach=100.0)


def hidden_springs(frames: int, stiffness: float = 2.0) -> tuple[Dataset, CallablePotential, torch.Tensor]:
    """Two beads on a spring, each pulled by a hidden atom: the free energy is that of the visible spring. Returns the
    data, the free energy and its products."""
    rng = np.random.default_rng(1)
    rest, spring, number = np.array([2.0, 0, 0]), 3.0, bead_number("A")
    positions = 0.1 * rng.normal(size=(frames, 2, 3)) + np.array([[0, 0, 0], rest])
    stretch = spring * (positions[:, 1] - positions[:, 0] - rest)
    noise = np.sqrt(KT * stiffness) * rng.normal(size=(frames, 2, 3))
    probes = rng.normal(size=(frames, 2, 3))
    exact = spring * np.stack([probes[:, 0] - probes[:, 1], probes[:, 1] - probes[:, 0]], axis=1)

    def energy(x: torch.Tensor, *_: object) -> torch.Tensor:
        return 0.5 * spring * (x[1] - x[0] - x.new_tensor(rest)).square().sum()

    structures = tuple(
        Structure(np.full(2, number), x, id=f"f{k}", masses=np.ones(2), tag="300K") for k, x in enumerate(positions)
    )
    labels = Properties(
        n_atoms=torch.full((frames,), 2),
        forces=torch.from_numpy((np.stack([stretch, -stretch], axis=1) + noise).reshape(-1, 3)),
        probes=torch.from_numpy(probes.reshape(1, -1, 3)),
        hvp=torch.from_numpy((exact + stiffness * probes).reshape(1, -1, 3)),
    )
    return (
        Dataset(structures, labels),
        CallablePotential(energy, elements=(number,)),
        torch.from_numpy(exact).reshape(-1, 3),
    )


def test_averaged_covariances_have_little_noise() -> None:
    data, model, exact = hidden_springs(400)
    errors = {}
    for kind in ("averaged", "instantaneous"):
        found = curvature_labels(data, model, reach=5.0, covariance=kind)  # type: ignore[arg-type]
        errors[kind] = float((found.labels.hvp[0] - exact).square().mean().sqrt())  # type: ignore[index]
    assert errors["averaged"] < 0.15, "of products of size 3; the covariance itself is 2"
    assert errors["instantaneous"] > 5 * errors["averaged"]


def test_wrong_input() -> None:
    data, model, _ = hidden_springs(2)
    with pytest.raises(MissingLabelError, match="expected beads with forces and Hessian-vector products"):
        curvature_labels(Dataset(data.structures, data.labels.replace(hvp=None, probes=None)), model, reach=5.0)
    topology, mapping = two_atoms_a_bead("mass")
    deforming = Properties.single(6, forces=np.zeros((6, 3)), probes=np.eye(6)[None, :, :3], hvp=np.zeros((1, 6, 3)))
    frame = Structure(np.full(6, 18), 3.0 * np.arange(18).reshape(6, 3), masses=topology.masses)
    with pytest.raises(RequestError, match="directions of its Hessian-vector products deform beads"):
        map_trajectory(Dataset((frame,), deforming), mapping, temperature=300, molecule_size=6)  # type: ignore[arg-type]
