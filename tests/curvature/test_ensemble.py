"""Mean and standard deviation over several potentials, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hesse.curvature import evaluate_ensemble
from hesse.errors import RequestError
from hesse.models import Ensemble
from hesse.structures import Request, collate
from oracles import Harmonic, Morse, molecules

STRUCTURES = molecules([3, 4], seed=8)


def test_mean_and_standard_deviation_equal_closed_forms() -> None:
    members = [Harmonic(STRUCTURES, seed=1), Harmonic(STRUCTURES, seed=2), Morse()]
    probes = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 7, 3)))
    result = evaluate_ensemble(members, collate(STRUCTURES, 6.0), Request(forces=True, probes=probes, hessian=True))
    start = 0
    for k, structure in enumerate(STRUCTURES):
        exact = [member.exact(structure) for member in members]
        atoms = slice(start, start + len(structure))
        start += len(structure)
        v = probes[:, atoms].numpy()
        expected = {
            "energy": np.array([e.energy for e in exact]),
            "forces": np.array([-e.gradient for e in exact]),
            "hvp": np.array([np.einsum("iajb,kjb->kia", e.hessian, v) for e in exact]),
            "hessian": np.array([e.hessian for e in exact]),
        }
        for labels, statistic in ((result.mean, np.mean), (result.std, lambda x, axis: np.std(x, axis, ddof=1))):
            assert labels.energy is not None
            assert labels.forces is not None
            assert labels.hvp is not None
            got = {
                "energy": labels.energy[k], "forces": labels.forces[atoms], "hvp": labels.hvp[:, atoms],
                "hessian": labels.hessian_of(k),
            }  # fmt: skip
            for name, value in got.items():
                np.testing.assert_allclose(value, statistic(expected[name], axis=0), rtol=1e-9, atol=1e-9, err_msg=name)
    assert result.std.probes is not None
    torch.testing.assert_close(result.std.probes, probes)


def test_the_parts_of_an_ensemble_agree_with_its_mean() -> None:
    ensemble = Ensemble([Morse(depth=1.0), Morse(depth=3.0)])
    batch = collate(STRUCTURES, 6.0)
    result = evaluate_ensemble(ensemble.parts, batch, Request(forces=True))
    assert result.mean.energy is not None
    assert result.std.energy is not None
    torch.testing.assert_close(result.mean.energy, batch.sum_over_atoms(ensemble(batch)))
    # Both are proportional to the depth, so the standard deviation of two is |3 − 1|/√2 times the energy per depth.
    torch.testing.assert_close(result.std.energy, result.mean.energy / 2 * 2**0.5)
    with pytest.raises(RequestError, match="two potentials or more"):
        evaluate_ensemble([Morse()], batch, Request())
