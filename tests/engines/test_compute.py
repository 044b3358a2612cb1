"""hesse.compute: the properties of several structures are those of each, whatever the engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

import hesse
from hesse.errors import GeometryError, LabelShapeError, RequestError
from oracles import Morse, molecules

POTENTIAL = Morse(depth=1.0, width=1.2)
SOURCES = {"engine": EMT, "potential": lambda: POTENTIAL}


def structures(source: str) -> list[hesse.Structure]:
    if source == "potential":
        return molecules([3, 5, 2], seed=1)
    return [hesse.from_ase(a) for a in (molecule("CO"), molecule("N2"), molecule("H2O"))]


@pytest.mark.parametrize("source", SOURCES)
def test_products_are_those_of_the_hessian_for_each_structure(source: str) -> None:
    inputs = structures(source)
    n_atoms = [len(s) for s in inputs]
    probes = np.random.default_rng(0).normal(size=(2, sum(n_atoms), 3))
    result = hesse.compute(inputs, SOURCES[source](), forces=True, hessian=True, probes=probes)
    assert result.hvp is not None
    start = 0
    for i, n in enumerate(n_atoms):
        local = torch.from_numpy(probes[:, start : start + n])
        expected = torch.einsum("iajb,kjb->kia", result.hessian_of(i), local)
        torch.testing.assert_close(result.hvp[:, start : start + n], expected, rtol=1e-3, atol=2e-3)
        start += n


@pytest.mark.parametrize("source", SOURCES)
def test_random_probes_belong_to_structures(source: str) -> None:
    """A structure has the same probes alone and among others; a seed changes them."""
    inputs = structures(source)
    together = hesse.compute(inputs, SOURCES[source](), probes=2)
    alone = hesse.compute(inputs[1], SOURCES[source](), probes=2)
    other_seed = hesse.compute(inputs[1], SOURCES[source](), probes=2, seed=1)
    assert together.probes is not None
    assert alone.probes is not None
    assert torch.equal(together.select(torch.tensor([1])).probes, alone.probes)  # type: ignore[arg-type]
    assert not torch.equal(alone.probes, other_seed.probes)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [np.int64(2), np.uint8(2), np.array(2), torch.tensor(2)], ids=str)
def test_a_number_of_probes_may_be_of_numpy_or_torch(count: int) -> None:
    water = molecules([3], seed=0)
    expected = hesse.compute(water, SOURCES["potential"](), probes=2)
    result = hesse.compute(water, SOURCES["potential"](), probes=count)
    torch.testing.assert_close(result.hvp, expected.hvp, rtol=0, atol=0)
    assert hesse.compute(water, SOURCES["potential"](), probes=np.int64(0)).hvp is None


def test_stress_of_crystals_beside_molecules_is_masked() -> None:
    crystal = bulk("Cu", cubic=True)
    result = hesse.compute([crystal, molecule("CO")], EMT(), stress=True)
    assert result.mask("stress").tolist() == [True, False]
    crystal.calc = EMT()
    np.testing.assert_allclose(result.stress[0].numpy(), crystal.get_stress(voigt=False), atol=1e-8)  # type: ignore[index]


def test_impossible_requests_get_a_reply() -> None:
    water = molecule("H2O")
    for source in (EMT(), POTENTIAL):
        with pytest.raises(GeometryError, match="stress"):
            hesse.compute(water, source, stress=True)
        with pytest.raises(LabelShapeError, match="probes of shape"):
            hesse.compute([water, water], source, probes=np.ones((1, 3, 3)))
        for wrong in ("two", 2.0, np.float64(2), np.array(2.5), -1, np.int64(-1), True, np.True_, torch.tensor(2.0)):
            with pytest.raises(RequestError, match="probes: expected a whole number"):
                hesse.compute(water, source, probes=wrong)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="whole structures"):
        hesse.compute(water, EMT(), atomic_energies=True)
