"""Eigenpairs from products against dense diagonalization of closed-form Hessians."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from closed_form_engines import ClosedForm
from hesse.curvature import HessianOperator, lowest_eigenpairs
from hesse.errors import EngineError, LabelShapeError, RequestError
from hesse.harmonic.normal_modes import internal_basis, normal_modes
from hesse.models import Hipnn, HipnnConfig
from hesse.pes import minimize, saddle
from hesse.structures import Structure, collate, to_ase

MORSE = oracles.Morse(depth=2.0, width=1.6, r0=1.3, cutoff=6.0)


def dense(structure: Structure, hessian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenpairs in the space without rigid motions; vectors as rows."""
    basis = internal_basis(structure, np.ones(len(structure)))
    matrix = hessian.reshape(basis.shape[1], -1)
    values, rows = np.linalg.eigh(basis @ (0.5 * (matrix + matrix.T)) @ basis.T)
    return values, rows.T @ basis


def by_matrix(hessian: np.ndarray):
    return lambda v: np.einsum("iajb,kjb->kia", hessian, v)


@pytest.mark.parametrize("preconditioned", [True, False])
@pytest.mark.parametrize(
    "structure",
    [oracles.molecule(10, 0), oracles.molecule(40, 1), oracles.crystal(0), oracles.linear(5), oracles.linear(2)],
    ids=["10 atoms", "40 atoms", "crystal", "chain", "pair"],
)
def test_lowest_pairs_are_those_of_the_dense_hessian(structure: Structure, preconditioned: bool) -> None:
    hessian = MORSE.exact(structure).hessian
    values, vectors = dense(structure, hessian)
    count = min(3, len(values))
    result = lowest_eigenpairs(
        MORSE, structure, count, tolerance=1e-6, preconditioned=preconditioned, max_products=3 * len(values) + 30
    )
    assert result.converged.all()
    assert (result.residuals <= 1e-6).all()
    np.testing.assert_allclose(result.eigenvalues, values[:count], atol=1e-8)
    flat = result.vectors.reshape(count, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(count), atol=1e-9)
    # Each vector lies in the span of the dense ones of its eigenvalue: degenerate eigenvectors may be mixed.
    for value, vector in zip(result.eigenvalues, flat, strict=True):
        same = vectors[np.abs(values - value) < 1e-5]
        assert np.linalg.norm(same @ vector) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("preconditioned", [True, False])
def test_residuals_equal_their_definition(preconditioned: bool) -> None:
    structure = oracles.molecule(20, 3)
    hessian = MORSE.exact(structure).hessian
    result = lowest_eigenpairs(by_matrix(hessian), structure, 2, tolerance=1e-2, preconditioned=preconditioned)
    basis = internal_basis(structure, np.ones(20))
    inside = basis.T @ basis
    for value, vector, residual in zip(result.eigenvalues, result.vectors, result.residuals, strict=True):
        product = inside @ by_matrix(hessian)(vector[None]).reshape(-1)
        assert np.linalg.norm(product - value * vector.reshape(-1)) == pytest.approx(residual, abs=1e-10)
        assert np.abs(dense(structure, hessian)[0] - value).min() <= residual + 1e-12


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), atoms=st.integers(3, 12), count=st.integers(1, 4), copies=st.integers(1, 4))
def test_degenerate_eigenvalues_are_found_with_their_multiplicity(
    seed: int, atoms: int, count: int, copies: int
) -> None:
    """A Hessian with prescribed eigenvalues, the lowest of them `copies` times."""
    structure = oracles.molecule(atoms, seed)
    basis = internal_basis(structure, np.ones(atoms))
    rng = np.random.default_rng(seed)
    values = np.sort(rng.uniform(0.5, 50.0, len(basis)))
    copies, count = min(copies, len(basis)), min(count, len(basis))
    values[:copies] = -0.3
    rotation = np.linalg.qr(rng.normal(size=(len(basis), len(basis))))[0]
    matrix = basis.T @ rotation @ np.diag(values) @ rotation.T @ basis
    result = lowest_eigenpairs(
        lambda v: (v.reshape(len(v), -1) @ matrix).reshape(v.shape), structure, count, tolerance=1e-7
    )
    np.testing.assert_allclose(result.eigenvalues, np.sort(values)[:count], atol=1e-9)


def test_a_symmetric_molecule_keeps_its_degenerate_pairs() -> None:
    """Four equal atoms in a tetrahedron: modes of symmetry E (twice) below T (three times)."""
    guess = Structure([6] * 4, 0.5 * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]), id="tetrahedron")
    other = minimize(guess, ClosedForm(MORSE), fmax=1e-6).structure
    result = lowest_eigenpairs(MORSE, other, 5, tolerance=1e-7)
    values = result.eigenvalues
    assert values[1] == pytest.approx(values[0], abs=1e-6)
    assert values[2:] == pytest.approx(values[2], abs=1e-6)
    assert values[2] > values[1] + 1.0


def test_the_reaction_mode_of_a_saddle_point() -> None:
    engine = ClosedForm(oracles.Morse())
    top = saddle(oracles.rhombus(), engine)
    assert top.converged
    assert top.modes is not None
    for subject in (oracles.Morse(), engine):  # a potential, and an engine by differences of forces
        result = lowest_eigenpairs(subject, top.structure, 2, masses=True, tolerance=1e-4)
        assert result.eigenvalues[0] < 0 < result.eigenvalues[1]
        np.testing.assert_allclose(result.frequencies, top.modes.frequencies[:2], atol=0.05)
        overlap = abs(np.sum(result.vectors[0] * top.modes.vectors[0]))
        assert overlap == pytest.approx(1.0, abs=1e-6)
        np.testing.assert_allclose(
            np.abs(result.cartesian[0]), np.abs(top.modes.cartesian[0]), atol=1e-4 * np.abs(result.cartesian).max()
        )


def test_frequencies_of_a_network_are_those_of_its_hessian() -> None:
    torch.manual_seed(0)
    network = Hipnn(HipnnConfig(features=8, sensitivities=5, blocks=1, cutoff=4.5, longest=4.0), (1, 6, 8)).double()
    structure = oracles.molecule(24, 5)
    masses = np.linspace(1.0, 16.0, 24)
    products = HessianOperator(network, structure)
    hessian = products(torch.eye(72, dtype=torch.float64).reshape(72, 24, 3)).reshape(24, 3, 24, 3).numpy()
    expected = normal_modes(structure, hessian, masses=masses)
    result = lowest_eigenpairs(network, structure, 3, masses=masses, tolerance=1e-6)
    np.testing.assert_allclose(result.frequencies, expected.frequencies[:3], atol=1e-2)


def chain(n: int, seed: int = 0) -> Structure:
    """A long relaxed coil of Morse atoms: many soft modes."""
    return minimize(oracles.molecule(n, seed, elements=(6,)), ClosedForm(MORSE), fmax=1e-3).structure


@pytest.mark.slow
def test_the_preconditioner_saves_products_at_a_minimum() -> None:
    structure = chain(30)
    hessian = MORSE.exact(structure).hessian
    products = {
        preconditioned: lowest_eigenpairs(by_matrix(hessian), structure, preconditioned=preconditioned).n_products
        for preconditioned in (True, False)
    }
    assert products[True] < products[False]


def test_a_good_start_saves_products() -> None:
    structure = oracles.molecule(30, 2)
    first = lowest_eigenpairs(MORSE, structure, tolerance=1e-4)
    near = structure.with_positions(structure.positions + 1e-3 * np.random.default_rng(0).normal(size=(30, 3)))
    again = lowest_eigenpairs(MORSE, near, tolerance=1e-4, start=first.cartesian)
    afresh = lowest_eigenpairs(MORSE, near, tolerance=1e-4)
    assert again.n_products < afresh.n_products
    assert again.eigenvalues[0] == pytest.approx(afresh.eigenvalues[0], abs=1e-6)


def test_a_symmetric_start_does_not_hide_the_lowest_mode() -> None:
    """Started from an eigenvector of a higher eigenvalue, the lowest one is still found."""
    structure = oracles.molecule(8, 4)
    hessian = MORSE.exact(structure).hessian
    values, vectors = dense(structure, hessian)
    result = lowest_eigenpairs(by_matrix(hessian), structure, start=vectors[6].reshape(8, 3), tolerance=1e-6)
    assert result.eigenvalues[0] == pytest.approx(values[0], abs=1e-8)


def test_restarts_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesse.curvature.davidson.MAX_SUBSPACE", 24)
    structure = oracles.molecule(30, 6)
    hessian = MORSE.exact(structure).hessian
    result = lowest_eigenpairs(
        by_matrix(hessian), structure, 2, tolerance=1e-5, preconditioned=False, max_products=2000
    )
    np.testing.assert_allclose(result.eigenvalues, dense(structure, hessian)[0][:2], atol=1e-7)
    assert result.n_products > 30


def test_missing_convergence_raises() -> None:
    structure = oracles.molecule(30, 0)
    with pytest.raises(EngineError, match=r"0 of 1 eigenpairs converged to 1e-06 in 5 products.*strict=False"):
        lowest_eigenpairs(MORSE, structure, tolerance=1e-6, max_products=5)
    result = lowest_eigenpairs(MORSE, structure, tolerance=1e-6, max_products=5, strict=False)
    assert result.n_products == 5
    assert not result.converged.any()
    assert result.residuals[0] > 1e-6


def test_noisy_products_do_not_converge() -> None:
    structure = oracles.molecule(12, 0)
    rng = np.random.default_rng(0)
    hessian = MORSE.exact(structure).hessian
    with pytest.raises(EngineError, match="converged"):
        lowest_eigenpairs(lambda v: by_matrix(hessian)(v) + 1e-2 * rng.normal(size=v.shape), structure, tolerance=1e-6)


def test_products_at_a_geometry_are_those_of_a_batch() -> None:
    batch = collate(oracles.molecules([5, 9, 2]), MORSE.cutoff)
    operator = HessianOperator(MORSE, batch, memory_mib=1e-3)
    directions = torch.randn(5, 16, 3, dtype=torch.float64)
    result = operator(directions)
    start = 0
    for structure in oracles.molecules([5, 9, 2]):
        part = slice(start, start + len(structure))
        exact = MORSE.exact(structure)
        np.testing.assert_allclose(result[:, part], by_matrix(exact.hessian)(directions[:, part].numpy()), atol=1e-9)
        np.testing.assert_allclose(operator.gradient[part], exact.gradient, atol=1e-9)
        start += len(structure)
    assert operator.energy.shape == (3,)
    assert operator.graph_mib > 0
    with pytest.raises(LabelShapeError, match="directions"):
        operator(directions[0])


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"count": 0}, RequestError, "0 were requested"),
        ({"count": 10}, RequestError, "9 modes"),
        ({"tolerance": 0.0}, RequestError, "tolerance"),
        ({"max_products": 0}, RequestError, "max_products"),
        ({"masses": [1.0, 2.0]}, RequestError, "5 positive masses"),
        ({"start": np.ones((4, 3))}, LabelShapeError, "directions"),
    ],
)
def test_invalid_options_raise(options: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        lowest_eigenpairs(MORSE, oracles.molecule(5, 0), **options)


def test_invalid_operators_raise() -> None:
    five = oracles.molecule(5, 0)
    with pytest.raises(RequestError, match="a potential, an engine, or a function"):
        lowest_eigenpairs("gfn2", five)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="from_ase"):
        lowest_eigenpairs(MORSE, to_ase(five))  # type: ignore[arg-type]
    with pytest.raises(LabelShapeError, match="products of shape"):
        lowest_eigenpairs(lambda v: v[0], five)
    with pytest.raises(EngineError, match="finite"):
        lowest_eigenpairs(lambda v: v * np.nan, five)
    with pytest.raises(RequestError, match="masses"):
        _ = lowest_eigenpairs(MORSE, five).frequencies
