"""Designed probes: their second moment, the size of their products, and what they favor, by closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import hesse
from hesse.datasets import FIXED_PROBE_KINDS, draw_fixed_probes
from hesse.errors import ConfigError, GeometryError, RequestError, UnknownOptionError
from hesse.harmonic.hessian_prior import typical_hessian
from hesse.harmonic.normal_modes import normal_modes
from hesse.harmonic.probe_weighting import probe_transform
from hesse.probes import PROBE_KINDS, ProbeSeed, make_probe
from hesse.structures import Structure, collate
from oracles import atom, crystal, linear, molecule

WEIGHTED = ("mass", "soft-modes", "free-energy")
DESIGNED = (*WEIGHTED, "softest")
MOLECULES = {m.id: m for m in hesse.g2_molecules()}
ETHANOL = MOLECULES["CH3CH2OH"]


def drawn(structure: Structure, kind: str, n_probes: int = 1, seed: int = 0) -> np.ndarray:
    return draw_fixed_probes([structure], kind, n_probes=n_probes, seed=seed).reshape(n_probes, -1).numpy()


def typical(structure: Structure) -> np.ndarray:
    return typical_hessian(structure).mean


def test_the_kinds_are_the_distributions_and_the_designed_ones() -> None:
    assert (*PROBE_KINDS, *DESIGNED, "symmetry-adapted") == FIXED_PROBE_KINDS


@pytest.mark.parametrize("kind", PROBE_KINDS)
def test_distributions_are_drawn_as_everywhere_else(kind: str) -> None:
    """Ledgers and studies of earlier versions keep their directions, bit by bit."""
    structures = [ETHANOL, MOLECULES["H2O"], *[molecule(3 + k % 3, seed=k) for k in range(300)]]
    expected = make_probe(kind, 2).draw(collate(structures, 1.0, dtype=torch.float64), ProbeSeed(7))
    tolerance = 1e-12 if "internal" in kind else 0.0
    torch.testing.assert_close(
        draw_fixed_probes(structures, kind, n_probes=2, seed=7), expected, rtol=0, atol=tolerance
    )


@pytest.mark.parametrize("kind", WEIGHTED)
def test_second_moment_and_size_of_weighted_probes(kind: str) -> None:
    """E v vᵀ = c² P Pᵀ, with c from ‖H c P‖ = ‖H‖: each element of the mean of 20,000 draws lies within 5 standard
    errors (729 elements: one false alarm in 2,000 choices of the seed), which are below 3 % of the largest element."""
    v = drawn(ETHANOL, kind, 20_000)
    hessian, n = typical(ETHANOL), len(ETHANOL)
    matrix = probe_transform(ETHANOL, hessian.reshape(n, 3, n, 3), kind).reshape(3 * n, 3 * n)  # type: ignore[arg-type]
    expected = matrix @ matrix.T * (np.square(hessian).sum() / np.square(hessian @ matrix).sum())
    errors = (v[:, :, None] * v[:, None, :]).std(0) / math.sqrt(len(v))
    assert np.all(np.abs(v.T @ v / len(v) - expected) <= 5 * errors + 1e-12)
    assert errors.max() < 0.03 * expected.max()
    assert np.square(v @ hessian).sum(1).mean() == pytest.approx(np.square(hessian).sum(), rel=0.03)


def test_free_energy_probes_estimate_the_first_order_error_of_the_free_energy() -> None:
    """`E[v·ΔH v]` is proportional to the change of the harmonic free energy: the same factor for any small ΔH, here for
    random ones and by central differences of the free energy itself."""
    n, hessian = len(ETHANOL), typical(ETHANOL)
    matrix = probe_transform(ETHANOL, hessian.reshape(n, 3, n, 3), "free-energy").reshape(3 * n, 3 * n)
    assert normal_modes(ETHANOL, hessian.reshape(n, 3, n, 3)).frequencies.min() > 100  # no frequency is raised
    rng, ratios = np.random.default_rng(0), []
    for _ in range(4):
        change = rng.normal(size=(3 * n, 3 * n))
        change = 1e-4 * (change + change.T)
        slope = 0.5 * (free_energy(hessian + change) - free_energy(hessian - change))
        ratios.append(slope / np.trace(matrix.T @ change @ matrix))
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-6)


def free_energy(hessian: np.ndarray) -> float:
    """Harmonic, at 298.15 K, in eV."""
    n = len(ETHANOL)
    energies = normal_modes(ETHANOL, hessian.reshape(n, 3, n, 3)).frequencies / 8065.543937
    kt = 8.617333262e-5 * 298.15
    return float((energies / 2 + kt * np.log1p(-np.exp(-energies / kt))).sum())


def test_softest_probes_are_displacements_of_the_softest_modes() -> None:
    n = len(ETHANOL)
    hessian = typical(ETHANOL)
    v = drawn(ETHANOL, "softest", 3)
    root_mass = np.sqrt(np.repeat(ETHANOL.to_ase().get_masses(), 3))
    modes = normal_modes(ETHANOL, hessian.reshape(n, 3, n, 3))
    for k in range(3):
        in_modes = modes.vectors.reshape(len(modes), -1) @ (root_mass * v[k])
        assert abs(in_modes[k]) == pytest.approx(np.linalg.norm(in_modes), rel=1e-9)
        assert np.linalg.norm(hessian @ v[k]) == pytest.approx(np.linalg.norm(hessian), rel=1e-9)


def test_soft_modes_get_a_larger_share_than_with_equal_weights() -> None:
    n, hessian = len(ETHANOL), typical(ETHANOL)
    modes = normal_modes(ETHANOL, hessian.reshape(n, 3, n, 3))
    root_mass = np.sqrt(np.repeat(ETHANOL.to_ase().get_masses(), 3))
    shares = {}
    for kind in WEIGHTED:
        in_modes = np.square((drawn(ETHANOL, kind, 500) * root_mass) @ modes.vectors.reshape(len(modes), -1).T)
        shares[kind] = in_modes[:, :3].sum() / in_modes.sum()
    assert shares["mass"] < 0.2 < min(shares["soft-modes"], shares["free-energy"])


@pytest.mark.parametrize("kind", DESIGNED)
def test_designed_probes_are_functions_of_structure_seed_and_number(kind: str) -> None:
    structures = [ETHANOL, linear(2), atom(1), MOLECULES["H2O"], linear(4)]
    sizes = [len(s) for s in structures]
    together = draw_fixed_probes(structures, kind, seed=3).split(sizes, dim=1)
    for structure, part in zip(structures, together, strict=True):
        np.testing.assert_array_equal(part.reshape(1, -1), drawn(structure, kind, seed=3))
        assert torch.isfinite(part).all()
        assert part.abs().max() > 0.1
    np.testing.assert_allclose(drawn(ETHANOL, kind, 4, seed=3)[:1], drawn(ETHANOL, kind, seed=3), rtol=0, atol=1e-12)
    if kind != "softest":
        assert not np.allclose(drawn(ETHANOL, kind, seed=4), drawn(ETHANOL, kind, seed=3))


def test_designed_probes_turn_with_the_molecule() -> None:
    """The softest direction is a vector of the molecule; the signs of the other kinds belong to the axes."""
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turned = ETHANOL.with_positions(ETHANOL.positions @ turn.T, id="turned")
    expected = drawn(ETHANOL, "softest").reshape(-1, 3) @ turn.T
    found = drawn(turned, "softest").reshape(-1, 3)
    assert abs(np.sum(expected * found)) == pytest.approx(np.sum(expected**2), rel=1e-8)


def test_wrong_requests_get_a_reply() -> None:
    with pytest.raises(UnknownOptionError, match=r'no probe "soft-mode"\. Did you mean "soft-modes"\?'):
        draw_fixed_probes([ETHANOL], "soft-mode")
    with pytest.raises(ConfigError, match="at least one direction per structure, got 0"):
        draw_fixed_probes([ETHANOL], "mass", n_probes=0)
    with pytest.raises(GeometryError, match="is periodic: probes of kind soft-modes are designed for molecules"):
        draw_fixed_probes([ETHANOL, crystal(2)], "soft-modes")
    with pytest.raises(RequestError, match="has 3 modes, fewer than the 4 probes along softest modes"):
        draw_fixed_probes([MOLECULES["H2O"]], "softest", n_probes=4)
