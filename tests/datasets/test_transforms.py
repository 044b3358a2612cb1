"""Selection of some (probe, product) pairs of a data set."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import oracles
from hesse.datasets import Dataset, select_probes
from hesse.errors import MissingLabelError, RequestError
from hesse.structures import Properties


@pytest.fixture
def three_pairs():
    pairs = []
    for structure in oracles.molecules((3, 4)):
        hessian = oracles.Morse().exact(structure).hessian
        probes = np.random.default_rng(0).normal(size=(3, len(structure), 3))
        hvp = np.einsum("iajb,kjb->kia", hessian, probes)
        pairs.append((structure, Properties.single(len(structure), probes=probes, hvp=hvp)))
    return Dataset.from_pairs(pairs, probe="rademacher, gaussian, one-hot", probes="3")


@pytest.mark.parametrize("chosen", [[0], [2], [2, 0], [0, 1, 2]])
def test_pairs_stay_together_and_keep_their_distributions(three_pairs, chosen):
    selected = select_probes(three_pairs, chosen)
    families = ["rademacher", "gaussian", "one-hot"]
    assert selected.metadata["probe"] == ", ".join(families[k] for k in chosen)
    assert selected.metadata["probes"] == str(len(chosen))
    for slot, k in enumerate(chosen):
        assert torch.equal(selected.labels.probes[slot], three_pairs.labels.probes[k])
        assert torch.equal(selected.labels.hvp[slot], three_pairs.labels.hvp[k])
        assert torch.equal(selected.labels.mask("hvp")[slot], three_pairs.labels.mask("hvp")[k])


def test_invalid_requests(three_pairs):
    with pytest.raises(MissingLabelError, match="holds 3"):
        select_probes(three_pairs, [3])
    with pytest.raises(RequestError, match="each once"):
        select_probes(three_pairs, [1, 1])
    with pytest.raises(RequestError, match="numbers of pairs"):
        select_probes(three_pairs, [])
    bare = Dataset.from_pairs([(s, Properties.single(len(s), energy=0.0)) for s in three_pairs.structures])
    with pytest.raises(MissingLabelError, match="holds 0"):
        select_probes(bare, [0])
