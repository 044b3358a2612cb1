"""Distributions of probes: second moment, variance of the estimate, reproducibility, rigid-body motions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hesse.errors import ConfigError, UnknownOptionError
from hesse.probes import (
    PROBE_KINDS,
    Gaussian,
    OneHot,
    Probe,
    ProbeSeed,
    Rademacher,
    RigidBodyFree,
    Sphere,
    make_probe,
    project_out_rigid_body,
)
from hesse.structures import Batch, Structure, collate
from hesse.structures.rigid_body import rigid_body_modes
from oracles import atom, crystal, linear, molecule, molecules

STREAM = ProbeSeed(seed=11, epoch=3)
every_kind = pytest.mark.parametrize("kind", PROBE_KINDS)


def projector(structure: Structure) -> np.ndarray:
    """On the internal space, from an orthonormal basis of rigid motions found by numpy's SVD."""
    n = len(structure)
    motions = [np.tile(e, (n, 1)).ravel() for e in np.eye(3)]
    if not structure.periodic:
        motions += [np.cross(e, structure.positions).ravel() for e in np.eye(3)]
    u, sizes, _ = np.linalg.svd(np.array(motions).T, full_matrices=False)
    basis = u[:, sizes > 1e-8 * sizes[0]]
    return np.eye(3 * n) - basis @ basis.T


def sampled(probe: Probe, structure: Structure, stream: ProbeSeed = STREAM) -> np.ndarray:
    batch = collate([structure], 3.0)
    return probe.draw(batch, stream).reshape(probe.n_probes, -1).numpy()


def internal_dof(batch: Batch) -> list[int]:
    modes = rigid_body_modes(batch.positions, batch.n_atoms, batch.pbc.any(-1), linear_tolerance=10**-4.5)
    return (3 * batch.n_atoms - modes.present.sum(0)).tolist()


def slab() -> Structure:
    """Periodic in two directions: not invariant under rotation either."""
    solid = crystal(2)
    return Structure(solid.numbers, solid.positions, id="slab", cell=solid.cell, pbc=(True, True, False))


SHAPES = [molecule(4, seed=5), atom(6), linear(3), crystal(1)]


@every_kind
@pytest.mark.parametrize("structure", SHAPES, ids=lambda s: s.id)
def test_second_moment_is_the_identity_or_the_projector(kind: str, structure: Structure) -> None:
    """Every element of the mean of `v vᵀ` lies within 5 standard errors of the identity (projector). With 20,000 draws
    a wrong scale by 14 % (one-hot), 5 % (others) is found; 5 σ among 144 elements misfires once in 10⁴."""
    draws = 20_000
    v = sampled(make_probe(kind, draws), structure)
    expected = projector(structure) if kind.endswith("internal") else np.eye(3 * len(structure))
    moment = v.T @ v / draws
    products = (v[:, :, None] * v[:, None, :]).var(axis=0)
    assert np.all(np.abs(moment - expected) <= 5 * np.sqrt(products / draws) + 1e-12)
    assert np.sqrt(products / draws).max() < 0.008 * math.sqrt(3 * len(structure))
    mean_error = 5 * np.sqrt(np.diag(expected).clip(0) / draws) + 1e-12
    if kind != "one-hot":  # columns of a Hessian have a mean: √(3N)/(3N)
        assert np.all(np.abs(v.mean(axis=0)) <= mean_error)


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        ("gaussian", lambda a: 2 * np.sum(a**2)),
        ("rademacher", lambda a: 2 * (np.sum(a**2) - np.sum(np.diag(a) ** 2))),
        ("one-hot", lambda a: len(a) * np.sum(np.diag(a) ** 2) - np.trace(a) ** 2),
    ],
)
def test_variance_of_the_estimate_is_that_of_the_formula(kind: str, formula: object) -> None:
    """`vᵀ A v` with `A = ΔHᵀΔH`: mean `tr A`, and the variance of its closed form, within 4.5 standard errors of a
    sample variance (its own error estimated from the fourth moment; below 4 %, so a factor of two cannot hide)."""
    rng = np.random.default_rng(0)
    error = rng.normal(size=(12, 12)) * np.exp(-np.abs(np.subtract.outer(range(12), range(12))))
    a = (error + error.T) @ (error + error.T)
    v = sampled(make_probe(kind, 40_000), molecule(4, seed=5))
    estimates = np.einsum("ki,ij,kj->k", v, a, v)
    deviations = (estimates - estimates.mean()) ** 2
    expected = formula(a)  # type: ignore[operator]
    standard = deviations.std() / math.sqrt(len(v))
    assert abs(estimates.mean() - np.trace(a)) < 4.5 * math.sqrt(expected / len(v))
    assert abs(deviations.mean() - expected) < 4.5 * standard
    assert standard < 0.04 * expected


def test_each_distribution_has_its_values() -> None:
    structure = molecule(5, seed=1)
    assert set(np.unique(sampled(Rademacher(50), structure))) == {-1.0, 1.0}
    np.testing.assert_allclose(np.linalg.norm(sampled(Sphere(50), structure), axis=1), math.sqrt(15), rtol=1e-12)
    hot = sampled(OneHot(2000), structure)
    assert ((hot != 0).sum(axis=1) == 1).all()
    np.testing.assert_allclose(hot.max(axis=1), math.sqrt(15), rtol=1e-15)
    counts = (hot != 0).sum(axis=0)
    assert ((counts - 2000 / 15) ** 2 / (2000 / 15)).sum() < 42.6  # χ² with 14 degrees of freedom, p = 1e-4
    gauss = sampled(Gaussian(4000), structure)
    assert abs((gauss**4).mean() - 3) < 5 * math.sqrt(96 / gauss.size)  # kurtosis


# --- reproducibility -------------------------------------------------------------------------------------------------


@every_kind
def test_probes_do_not_depend_on_the_rest_of_the_batch(kind: str) -> None:
    structures = [*molecules([4, 7, 3]), linear(3), atom(1)]
    probe = make_probe(kind, 3)
    batch = collate(structures, 3.0)
    drawn = dict(zip(batch.ids, probe.draw(batch, STREAM).split(batch.n_atoms.tolist(), dim=1), strict=True))
    for order in ([4, 2, 0, 3, 1], [1], [3, 3, 0]):
        other = collate([structures[i] for i in order], 5.0)
        parts = probe.draw(other, STREAM).split(other.n_atoms.tolist(), dim=1)
        for name, part in zip(other.ids, parts, strict=True):
            torch.testing.assert_close(part, drawn[name], rtol=0, atol=1e-12 if "internal" in kind else 0)


@every_kind
def test_more_probes_leave_the_first_ones_as_they_are(kind: str) -> None:
    structure = molecule(6, seed=4)
    many = sampled(make_probe(kind, 5), structure)
    for k in (1, 2, 4):
        np.testing.assert_allclose(sampled(make_probe(kind, k), structure), many[:k], rtol=0, atol=1e-13)


@every_kind
def test_seed_epoch_id_and_index_each_make_a_new_probe(kind: str) -> None:
    # 12 atoms: two independent one-hot probes coincide once in 36 draws; among 40 pairs, all differing is not expected.
    structure = molecule(12, seed=3)
    base = sampled(make_probe(kind, 40), structure)
    renamed = structure.with_positions(structure.positions, id="another name")
    for other in (
        sampled(make_probe(kind, 40), structure, ProbeSeed(STREAM.seed + 1, STREAM.epoch)),
        sampled(make_probe(kind, 40), structure, ProbeSeed(STREAM.seed, STREAM.epoch + 1)),
        sampled(make_probe(kind, 40), renamed),
        np.roll(base, 1, axis=0),
    ):
        same = np.isclose(base, other).all(axis=1).sum()
        assert same <= (6 if kind == "one-hot" else 0)
        overlap = np.sum(base * other) / (40 * 36)
        assert abs(overlap) < 4.5 / math.sqrt(40 * 30) if kind != "one-hot" else overlap < 0.2


@every_kind
def test_probes_follow_the_type_of_positions_but_not_its_precision(kind: str) -> None:
    batch = collate([*molecules([4, 6])], 3.0)
    narrow = make_probe(kind, 2).draw(batch.to(dtype=torch.float32), STREAM)
    wide = make_probe(kind, 2).draw(batch, STREAM)
    assert narrow.dtype == torch.float32
    assert wide.dtype == torch.float64
    torch.testing.assert_close(narrow.double(), wide, rtol=0, atol=3e-6)


@pytest.mark.gpu
@every_kind
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
def test_devices_agree(kind: str) -> None:
    batch = collate([*molecules([4, 6]), atom(1)], 3.0)
    probe = make_probe(kind, 3)
    torch.testing.assert_close(
        probe.draw(batch.to("cuda"), STREAM).cpu(), probe.draw(batch, STREAM), rtol=0, atol=1e-12
    )


# Computed once in Python integers, by the function documented in counter_rng.
PINNED_SIGNS = [[-1.0, -1.0, 1.0, 1.0, -1.0, -1.0], [1.0, 1.0, -1.0, 1.0, -1.0, 1.0]]
PINNED_GAUSS = [
    -1.6192294070962865,
    -0.5522396880145971,
    0.15222477456531697,
    0.8381677827164566,
    -0.1576719317750466,
    -0.012742737180148749,
]


def test_probes_stay_as_they_were_in_this_version() -> None:
    """Runs can only be resumed if these numbers do not change."""
    batch = collate([Structure([1, 1], [[0.0, 0, 0], [0.8, 0, 0]], id="pinned")], 3.0)
    signs = Rademacher(2).draw(batch, ProbeSeed(5, 1)).reshape(2, 6)
    assert signs.tolist() == PINNED_SIGNS
    gauss = Gaussian().draw(batch, ProbeSeed(5, 1)).reshape(6)
    torch.testing.assert_close(gauss, torch.tensor(PINNED_GAUSS, dtype=torch.float64), rtol=0, atol=1e-12)


# --- rigid motions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("structure", "dimensions"),
    [
        (molecule(5, seed=2), 9),
        (atom(1), 0),
        (linear(2), 1),
        (linear(5), 10),
        (crystal(0), 6),
        (slab(), 6),
        (molecule(3, seed=9), 3),
    ],
    ids=lambda x: getattr(x, "id", str(x)),
)
def test_internal_probes_contain_no_rigid_body_motion(structure: Structure, dimensions: int) -> None:
    batch = collate([structure], 3.0)
    assert internal_dof(batch) == [dimensions]
    v = RigidBodyFree(Gaussian(dimensions + 3)).draw(batch, STREAM)
    flat = v.reshape(len(v), -1).numpy()
    np.testing.assert_allclose(flat, flat @ projector(structure), atol=1e-10)
    sizes = np.linalg.svd(flat, compute_uv=False)
    assert (sizes > 1e-6).sum() == dimensions  # all of the internal space is reached
    again = project_out_rigid_body(batch, v)
    torch.testing.assert_close(again, v, rtol=0, atol=1e-12)


def test_projection_in_a_batch_is_that_of_each_structure_alone() -> None:
    structures = [*molecules([5, 8]), linear(3), atom(1), crystal(0), molecule(4, seed=77)]
    batch = collate(structures, 3.0)
    v = torch.from_numpy(np.random.default_rng(0).normal(size=(2, len(batch.numbers), 3)))
    projected = project_out_rigid_body(batch, v).split(batch.n_atoms.tolist(), dim=1)
    for structure, before, after in zip(structures, v.split(batch.n_atoms.tolist(), dim=1), projected, strict=True):
        flat = before.reshape(2, -1).numpy() @ projector(structure)
        np.testing.assert_allclose(after.reshape(2, -1), flat, atol=1e-10, err_msg=structure.id)


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("bend", [0.0, 1e-3, 0.1])
def test_nearly_linear_molecules_far_from_the_origin(offset: float, bend: float) -> None:
    straight = linear(4)
    positions = straight.positions.copy()
    positions[1] += bend * np.array([0.5, -0.2, 0.2])
    structure = straight.with_positions(positions + offset)
    batch = collate([structure], 3.0)
    assert internal_dof(batch) == [7 if bend == 0.0 else 6]
    v = RigidBodyFree(Rademacher(3)).draw(batch, STREAM).reshape(3, -1).numpy()
    centered = straight.with_positions(positions - positions.mean(axis=0))
    np.testing.assert_allclose(v, v @ projector(centered), atol=1e-7)


# --- refusals --------------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("count", [0, -1])
def test_less_than_one_probe_raises(kind: str, count: int) -> None:
    with pytest.raises(ConfigError, match=rf"at least one direction per structure, got {count}"):
        make_probe(kind, count)


def test_unknown_names_get_the_nearest_one() -> None:
    with pytest.raises(UnknownOptionError, match=r'no probe "radmacher"\. Did you mean "rademacher"\?'):
        make_probe("radmacher")
    with pytest.raises(UnknownOptionError, match="Valid: gaussian, "):
        make_probe("xyz")
