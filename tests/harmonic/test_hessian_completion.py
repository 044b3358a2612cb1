"""Completion of Hessians from products: exact cases, conditioning, invariance, and the estimated error."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

import oracles
from hesse.errors import GeometryError, LabelShapeError, LabelValueError, MissingLabelError, RequestError
from hesse.harmonic import hessian_completion
from hesse.harmonic.hessian_completion import _covariance, complete_hessian
from hesse.harmonic.hessian_prior import typical_hessian
from hesse.structures import Structure, from_ase


@pytest.fixture(scope="module")
def ethanol():
    return from_ase(molecule("CH3CH2OH"), id="ethanol")


@pytest.fixture(scope="module")
def truth(ethanol):
    """A Hessian with all its sum rules, at a point with forces."""
    return oracles.Morse(depth=2.0).exact(ethanol)


def random_probes(structure, count, seed=0):
    return np.random.default_rng(seed).choice([-1.0, 1.0], size=(count, len(structure), 3))


def complete(structure, exact, probes, **options):
    products = np.einsum("iajb,kjb->kia", exact.hessian, probes)
    return complete_hessian(structure, probes, products, forces=-exact.gradient, **options)


def test_the_covariance_of_products_is_that_of_the_spread() -> None:
    """The matrix that is built directly against the operator on single products."""
    structure = oracles.molecule(4, 0)
    spread = typical_hessian(structure).spread
    vectors = np.random.default_rng(0).normal(size=(12, 3))
    system = _covariance(spread, vectors)
    columns = []
    for unit in np.eye(36):
        half = 0.5 * unit.reshape(12, 3) @ vectors.T
        columns.append((spread.apply(half + half.T) @ vectors).reshape(-1))
    np.testing.assert_allclose(system, np.array(columns), atol=1e-10)
    np.testing.assert_allclose(system, system.T, atol=1e-10)
    assert np.linalg.eigvalsh(system).min() > -1e-9


def test_the_answer_is_that_of_conditioning_gaussian_elements() -> None:
    """Independent: draw nothing, but condition the Gaussian of all elements of the matrix on the products, in dense
    linear algebra over the elements themselves."""
    structure = oracles.molecule(3, 1)
    n3 = 9
    prior = typical_hessian(structure)
    exact = oracles.Morse().exact(structure)
    probes = random_probes(structure, 2)
    found = complete(structure, exact, probes)
    covariance = np.zeros((81, 81))
    for k, unit in enumerate(np.eye(81)):
        matrix = unit.reshape(9, 9)
        covariance[:, k] = prior.spread.apply(0.5 * (matrix + matrix.T)).reshape(-1)
    rigid, rigid_products = hessian_completion._rigid_pairs(structure, exact.gradient)
    vectors = np.concatenate([probes.reshape(2, n3), rigid])
    products = np.concatenate([(probes.reshape(2, n3) @ exact.hessian.reshape(9, 9)), rigid_products])
    design = np.einsum("ac,kd->kacd", np.eye(n3), vectors).reshape(-1, 81)
    system = design @ covariance @ design.T + np.eye(len(design)) * hessian_completion.MIN_ERROR**2
    change = covariance @ design.T @ np.linalg.solve(system, products.reshape(-1) - design @ prior.mean.reshape(-1))
    np.testing.assert_allclose(found.hessian.reshape(-1), prior.mean.reshape(-1) + change, atol=1e-5)


def test_as_many_products_as_coordinates_give_the_hessian(ethanol, truth) -> None:
    found = complete(ethanol, truth, random_probes(ethanol, 27))
    np.testing.assert_allclose(found.hessian, truth.hessian, atol=0.02)
    assert found.error < 0.02
    assert found.n_pairs == 27
    flat = found.hessian.reshape(27, 27)
    np.testing.assert_allclose(flat, flat.T, atol=1e-12)


def test_products_and_sum_rules_are_reproduced(ethanol, truth) -> None:
    probes = random_probes(ethanol, 4)
    found = complete(ethanol, truth, probes)
    for directions in (probes, np.tile(np.eye(3)[:, None], (1, 9, 1))):
        expected = np.einsum("iajb,kjb->kia", truth.hessian, directions)
        np.testing.assert_allclose(np.einsum("iajb,kjb->kia", found.hessian, directions), expected, atol=0.01)
    turned = np.cross([0.0, 0.0, 1.0], ethanol.positions)
    expected = np.cross([0.0, 0.0, 1.0], truth.gradient)
    np.testing.assert_allclose(np.einsum("iajb,jb->ia", found.hessian, turned), expected, atol=0.03)


def test_more_products_are_better_and_their_error_is_told(ethanol, truth) -> None:
    errors, told = [], []
    for count in (2, 6, 12, 18):
        runs = [complete(ethanol, truth, random_probes(ethanol, count, seed)) for seed in range(4)]
        errors.append(np.sqrt(np.mean([np.mean((r.hessian - truth.hessian) ** 2) for r in runs])))
        told.append(np.sqrt(np.mean([r.error**2 for r in runs])))
    assert errors[0] > 1.5 * errors[1] > 1.5**2 * errors[2] > 1.5**3 * errors[3]
    # The estimate is that of one product less: larger, by less than a factor of two.
    assert (0.9 * np.array(errors) < told).all()
    assert (np.array(told) < 2.5 * np.array(errors)).all()
    rms = np.sqrt(np.mean(runs[0].hessian ** 2))
    assert runs[0].relative_error == pytest.approx(runs[0].error / rms)


def test_leaving_out_a_probe_is_computed_without_another_solution(ethanol, truth) -> None:
    probes = random_probes(ethanol, 5)
    whole = complete(ethanol, truth, probes)
    squares = []
    for k in range(5):
        others = complete(ethanol, truth, np.delete(probes, k, axis=0))
        missed = np.einsum("iajb,jb->ia", others.hessian - truth.hessian, probes[k])
        squares.append(np.sum(missed**2) / 27**2)
    assert whole.error == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-4)


def test_it_turns_with_the_molecule_and_knows_no_order_nor_length_of_probes(ethanol, truth) -> None:
    probes = random_probes(ethanol, 3)
    found = complete(ethanol, truth, probes)
    turn = oracles.rotation(1)
    turned = ethanol.with_positions(ethanol.positions @ turn.T + 1.0)
    products = np.einsum("iajb,kjb->kia", truth.hessian, probes)
    lengths = np.array([0.1, 1.0, 30.0])[:, None, None]
    again = complete_hessian(
        turned, (lengths * probes) @ turn.T, (lengths * products) @ turn.T, forces=-truth.gradient @ turn.T
    )
    back = np.einsum("ca,icjd,db->iajb", turn, again.hessian, turn)
    np.testing.assert_allclose(back, found.hessian, atol=1e-4)
    assert again.error == pytest.approx(found.error, rel=1e-4)
    order = np.random.default_rng(0).permutation(9)
    shuffled = Structure(ethanol.numbers[order], ethanol.positions[order], id="other")
    mixed = complete_hessian(shuffled, probes[:, order], products[:, order], forces=-truth.gradient[order]).hessian
    np.testing.assert_allclose(mixed, found.hessian[order][:, :, order], atol=1e-5)


def test_a_prior_that_is_almost_right_is_corrected(ethanol, truth) -> None:
    near = 0.95 * truth.hessian
    probes = random_probes(ethanol, 3)
    plain, better = complete(ethanol, truth, probes), complete(ethanol, truth, probes, prior=near)

    def error(found):
        return np.sqrt(np.mean((found.hessian - truth.hessian) ** 2))

    assert error(better) < 0.3 * error(plain)
    assert error(better) < 0.8 * np.sqrt(np.mean((near - truth.hessian) ** 2))


def test_noisy_products_are_not_trusted_beyond_their_error(ethanol) -> None:
    """The true Hessian deviates from the expected one as the spread says, up to translations."""
    prior = typical_hessian(ethanol)
    rng = np.random.default_rng(0)
    deviation = 0.3 * np.sqrt(np.abs(prior.spread.apply(np.ones((27, 27))))) * rng.normal(size=(27, 27))
    deviation = (deviation + deviation.T).reshape(9, 3, 9, 3)
    deviation[range(9), :, range(9)] = 0.0
    deviation[range(9), :, range(9)] = -deviation.sum(2).transpose(0, 2, 1)
    true = prior.mean + 0.5 * (deviation.reshape(27, 27) + deviation.reshape(27, 27).T)
    probes = random_probes(ethanol, 20)
    products = (probes.reshape(20, 27) @ true).reshape(20, 9, 3)
    noisy = products + 5.0 * rng.normal(size=products.shape)

    def error(errors):
        found = complete_hessian(ethanol, probes, noisy, errors=errors).hessian.reshape(27, 27)
        return np.sqrt(np.mean((found - true) ** 2))

    assert error(5.0) < 0.7 * error(None)


def test_linear_molecules_and_single_atoms() -> None:
    line = oracles.linear(3)
    exact = oracles.Morse().exact(line)
    found = complete(line, exact, random_probes(line, 9))
    np.testing.assert_allclose(found.hessian, exact.hessian, atol=0.02)
    lone = complete_hessian(oracles.atom(6), np.ones((1, 1, 3)), np.zeros((1, 1, 3)))
    np.testing.assert_allclose(lone.hessian, 0.0, atol=1e-6)


def test_wrong_input_gets_a_reply(ethanol, truth, monkeypatch) -> None:
    probes = random_probes(ethanol, 2)
    for arguments, error, words in (
        ((probes[:, :4], probes[:, :4]), LabelShapeError, "probes of shape"),
        ((probes, probes[:1]), LabelShapeError, "2 probes, but 1 products"),
        ((probes[:0], probes[:0]), MissingLabelError, "no products"),
        ((0.0 * probes, probes), LabelValueError, "zero in all"),
        ((probes, np.nan * probes), LabelValueError, "not finite"),
        (("probes", probes), LabelShapeError, "expected numbers"),
    ):
        with pytest.raises(error, match=words):
            complete_hessian(ethanol, *arguments)
    with pytest.raises(LabelShapeError, match="forces"):
        complete_hessian(ethanol, probes, probes, forces=np.zeros((2, 3)))
    with pytest.raises(LabelValueError, match="below zero"):
        complete_hessian(ethanol, probes, probes, errors=[-1.0, 0.1])
    with pytest.raises(LabelShapeError, match="Hessian of shape"):
        complete_hessian(ethanol, probes, probes, prior=np.eye(27))
    with pytest.raises(GeometryError, match="periodic"):
        complete_hessian(oracles.crystal(), np.ones((1, 3, 3)), np.ones((1, 3, 3)))
    monkeypatch.setattr(hessian_completion, "MAX_GIB", 1e-6)
    with pytest.raises(RequestError, match="linear system"):
        complete_hessian(ethanol, probes, probes)
