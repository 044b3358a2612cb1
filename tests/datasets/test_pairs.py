"""Keeping some of the (probe, product) pairs of a data set."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import oracles
from hesse.datasets import Dataset, with_pairs
from hesse.errors import MissingLabelError, RequestError
from hesse.structures import Labels


@pytest.fixture
def three_pairs():
    made = []
    for structure in oracles.molecules((3, 4)):
        hessian = oracles.Morse().exact(structure).hessian
        probes = np.random.default_rng(0).normal(size=(3, len(structure), 3))
        hvp = np.einsum("iajb,kjb->kia", hessian, probes)
        made.append((structure, Labels.of(len(structure), probes=probes, hvp=hvp)))
    return Dataset.of(made, probe="rademacher, gaussian, one-hot", probes="3")


@pytest.mark.parametrize("chosen", [[0], [2], [2, 0], [0, 1, 2]])
def test_pairs_stay_together_and_keep_their_names(three_pairs, chosen):
    kept = with_pairs(three_pairs, chosen)
    families = ["rademacher", "gaussian", "one-hot"]
    assert kept.attributes["probe"] == ", ".join(families[k] for k in chosen)
    assert kept.attributes["probes"] == str(len(chosen))
    for place, k in enumerate(chosen):
        assert torch.equal(kept.labels.probes[place], three_pairs.labels.probes[k])
        assert torch.equal(kept.labels.hvp[place], three_pairs.labels.hvp[k])
        assert torch.equal(kept.labels.mask("hvp")[place], three_pairs.labels.mask("hvp")[k])


def test_wrong_requests(three_pairs):
    with pytest.raises(MissingLabelError, match="holds 3"):
        with_pairs(three_pairs, [3])
    with pytest.raises(RequestError, match="each once"):
        with_pairs(three_pairs, [1, 1])
    with pytest.raises(RequestError, match="numbers of pairs"):
        with_pairs(three_pairs, [])
    bare = Dataset.of([(s, Labels.of(len(s), energy=0.0)) for s in three_pairs.structures])
    with pytest.raises(MissingLabelError, match="holds 0"):
        with_pairs(bare, [0])
