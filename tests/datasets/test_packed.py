"""Packed tensors: the same batches as from `collate`, bit by bit; neighbor pairs of many structures at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hesse.datasets import Dataset, PackedDataset, neighbor_pairs
from hesse.errors import GeometryError
from hesse.structures import Properties, Structure, collate, find_neighbors
from oracles import Morse, atom, crystal, labeled, molecule

MIXED = [molecule(5, 1), crystal(2), atom(), molecule(7, 2), crystal(3, atoms=2), molecule(5, 3)]
DATA = labeled(Morse(), MIXED, probes=2, hessian=True)
PLAIN = labeled(Morse(), [molecule(4, 5), molecule(6, 6)], probes=0, hessian=False)
PARTLY = Dataset((*DATA.structures, *PLAIN.structures), Properties.concatenate([DATA.labels, PLAIN.labels]))
CHOICE = st.lists(st.integers(0, len(PARTLY) - 1), min_size=1, max_size=9)


def require_identical(one: Any, other: Any) -> None:
    assert vars(one).keys() == vars(other).keys()
    for name, a in vars(one).items():
        b = vars(other)[name]
        if isinstance(a, Tensor):
            assert a.dtype == b.dtype, name
            assert a.shape == b.shape, name
            assert torch.equal(a.nan_to_num(1e30), b.nan_to_num(1e30)), name
        else:
            assert a == b, name


@settings(max_examples=40)
@given(CHOICE, st.sampled_from([torch.float32, torch.float64]), st.sampled_from([0.5, 2.0, 4.5]))
def test_batches_equal_collated_ones(chosen: list[int], dtype: torch.dtype, cutoff: float) -> None:
    batch, labels = PARTLY.packed(cutoff).to("cpu", dtype).batch(chosen)
    expected = collate([PARTLY.structures[i] for i in chosen], cutoff).to(dtype=dtype)
    if batch.cell_shifts is not None and expected.cell_shifts is None:
        assert not batch.cell_shifts.any()  # molecules of a data set with crystals
        batch = replace(batch, cell_shifts=None)
    if batch.cell_shifts is None and expected.cell_shifts is not None:
        assert not expected.neighbor_mask.any()
        expected = replace(expected, cell_shifts=None)
    require_identical(batch, expected)
    require_identical(labels, PARTLY.labels.select(torch.tensor(chosen)).to(dtype=dtype))


@given(CHOICE)
def test_concatenated_parts(chosen: list[int]) -> None:
    cuts = [PARTLY.select(part) for part in ([0, 1, 2], [3], [4, 5, 6, 7])]
    joined = PackedDataset.concatenate([part.packed(3.0) for part in cuts])
    for one, other in zip(joined.batch(chosen), PARTLY.packed(3.0).batch(chosen), strict=True):
        require_identical(one, other)
    assert joined.n_bytes() > 0


def test_picking_some_labels() -> None:
    labels = PARTLY.labels.pick(("forces", "hvp"))
    names = set(vars(labels))
    assert names == {"n_atoms", "forces", "probes", "hvp", "hvp_mask"}
    assert torch.equal(labels.mask("hvp"), PARTLY.labels.mask("hvp"))


@settings(max_examples=40)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 99), st.just(0.0) | st.floats(1e-3, 6.0))
def test_pairs_of_many_structures_equal_those_of_each(sizes: list[int], seed: int, cutoff: float) -> None:
    structures = [molecule(n, seed + k) for k, n in enumerate(sizes)]
    structures += [crystal(3), molecule(70, seed)] if seed % 3 == 0 else []
    table = pairs_of(structures, cutoff)
    each = [find_neighbors(s.positions, s.cell, s.pbc, cutoff) for s in structures]
    assert table.counts.tolist() == np.concatenate([p.counts for p in each]).tolist()
    assert table.neighbors.tolist() == np.concatenate([p.neighbors for p in each]).tolist()
    assert (table.cell_shifts is None) == (not any(s.periodic for s in structures))
    if table.cell_shifts is not None:
        assert table.cell_shifts.tolist() == np.concatenate([p.cell_shifts for p in each]).tolist()


@pytest.mark.parametrize("cutoff", [-1.0, np.nan, np.inf])
def test_invalid_cutoffs(cutoff: float) -> None:
    with pytest.raises(GeometryError, match="cutoff"):
        pairs_of([molecule(4, 1)], cutoff)


def pairs_of(structures: list[Structure], cutoff: float) -> Any:
    return neighbor_pairs(
        np.concatenate([s.positions for s in structures]),
        np.array([len(s) for s in structures]),
        np.stack([s.cell for s in structures]),
        np.array([s.pbc for s in structures]),
        cutoff,
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_batch_on_a_gpu_needs_no_synchronization() -> None:
    on_gpu = PARTLY.packed(4.5).to("cuda", torch.float32)
    on_cpu = PARTLY.packed(4.5).to("cpu", torch.float32)
    on_gpu.batch([0, 1])
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch, labels = on_gpu.batch([3, 0, 6, 1])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for one, other in zip((batch.to("cpu"), labels.to("cpu")), on_cpu.batch([3, 0, 6, 1]), strict=True):
        require_identical(one, other)
