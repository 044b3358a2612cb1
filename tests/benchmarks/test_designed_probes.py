"""Probes from several geometries or several potentials: orthogonality, second moment, and the files of the script."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parents[2] / "benchmarks" / "designed_probes"
sys.path.insert(0, str(HERE))

import informed  # noqa: E402

from hesse.datasets import draw_fixed_probes, read_dataset  # noqa: E402
from hesse.harmonic.hessian_prior import typical_hessian  # noqa: E402
from hesse.structures import Structure  # noqa: E402
from oracles import Harmonic, molecule  # noqa: E402

TINY = HERE.parent / "reactions" / "tiny" / "rtp-train.h5"


def reaction(n: int, seed: int) -> list[Structure]:
    """Three geometries of the same atoms, turned at random."""
    rng = np.random.default_rng(seed)
    first = molecule(n, seed=seed)
    result = []
    for k in range(3):
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        positions = (first.positions + 0.1 * rng.normal(size=(n, 3))) @ (turn * np.sign(np.linalg.det(turn)))
        result.append(replace(first.with_positions(positions, id=f"{seed}-{k}"), group=f"r{seed}"))
    return result


def test_probes_of_a_reaction_are_orthogonal_when_its_structures_are_superposed() -> None:
    structures = [*reaction(4, 1), *reaction(6, 2)]
    v = informed.complementary_probes(structures, seed=3)[0].numpy()
    for first, n in ((0, 4), (12, 6)):
        members = structures[:3] if first == 0 else structures[3:]
        rows = []
        for k, structure in enumerate(members):
            rotation = informed.superposition(structure.positions, members[0].positions)
            assert np.linalg.det(rotation) == pytest.approx(1.0)
            assert np.linalg.norm(structure.positions @ rotation - members[0].positions) < 1.0 * n
            rows.append((v[first + k * n : first + (k + 1) * n] @ rotation).reshape(-1))
        np.testing.assert_allclose(np.array(rows) @ np.array(rows).T, 3 * n * np.eye(3), atol=1e-10)


def test_complementary_probes_have_the_identity_as_second_moment() -> None:
    """4,000 rotations, each structure of the reaction: within 5 standard errors of the identity (at most 0.11)."""
    structures = reaction(3, 5)
    v = np.array([informed.complementary_probes(structures, seed=s)[0].numpy().reshape(3, 9) for s in range(4000)])
    moment = np.einsum("skc,skd->kcd", v, v) / len(v)
    error = np.sqrt(np.einsum("skc,skd->kcd", v**2, v**2) / len(v)) / np.sqrt(len(v))
    assert np.all(np.abs(moment - np.eye(9)) < 5 * error)
    assert error.max() < 0.022 * 1.5


def test_disagreement_is_the_difference_of_the_products_of_two_potentials() -> None:
    structures = [molecule(4, seed=1), molecule(3, seed=2)]
    models = [Harmonic(structures, seed=s) for s in (0, 1)]
    v = informed.disagreement_probes(structures, models, seed=0)[0].numpy()
    z = draw_fixed_probes(structures, "rademacher", seed=informed.COMMITTEE_SEED)[0].numpy()
    start = 0
    for structure in structures:
        part = slice(start, start + len(structure))
        start = part.stop
        size = 3 * len(structure)
        hessians = [m.exact(structure).hessian.reshape(size, size) for m in models]
        expected = (hessians[0] - hessians[1]) @ z[part].reshape(-1)
        cosine = expected @ v[part].reshape(-1) / np.linalg.norm(expected) / np.linalg.norm(v[part])
        assert abs(cosine) == pytest.approx(1.0, abs=1e-6)
        typical = typical_hessian(structure).mean
        assert np.linalg.norm(typical @ v[part].reshape(-1)) == pytest.approx(np.linalg.norm(typical))


def test_the_script_writes_pairs_of_the_stored_hessians(tmp_path: Path) -> None:
    data = read_dataset(TINY)
    for design in ("complementary", "half"):
        informed.main([design, str(TINY), str(tmp_path / f"{design}.h5")])
    complementary, half = (read_dataset(tmp_path / f"{design}.h5") for design in ("complementary", "half"))
    assert complementary.labels.mask("hvp").all()
    assert half.labels.mask("hvp")[0].tolist() == informed.half_mask(data).tolist()
    assert 0 < int(half.labels.mask("hvp").sum()) < len(data)
    probes = complementary.labels.probes
    assert probes is not None
    np.testing.assert_allclose(complementary.labels.hvp, data.labels.hessian_matvec(probes), atol=1e-4)
    with pytest.raises(SystemExit):
        informed.main(["disagreement", str(TINY), str(tmp_path / "d.h5"), "--models", "one.hesse"])
