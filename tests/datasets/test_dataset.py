"""A data set in memory: indexing, batches, splits that keep groups together, a hash of the content."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hesse.datasets import Dataset
from hesse.errors import MissingLabelError, RequestError
from hesse.structures import Batch, Properties, collate
from oracles import Morse, atom, crystal, labeled, molecule, molecules

MIXED = [molecule(5, 1), crystal(2), atom(), molecule(7, 2), crystal(3, atoms=2)]
DATA = labeled(Morse(), MIXED, probes=2, hessian=True)
WRONG: Any = [1]


def require_same(one: Batch, other: Batch) -> None:
    for f in fields(one):
        a, b = getattr(one, f.name), getattr(other, f.name)
        if f.name == "cell_shifts" and (a is None or b is None):
            # A batch of molecules from a data set with crystals has cell shifts of zero.
            assert all(x is None or not x.any() for x in (a, b))
        elif isinstance(a, Tensor):
            torch.testing.assert_close(a, b)
        else:
            assert a == b


@given(st.lists(st.integers(0, len(MIXED) - 1), min_size=1, max_size=7), st.sampled_from([2.0, 4.5]))
def test_batches_by_indexing_equal_collated_ones(indices: list[int], cutoff: float) -> None:
    batch, labels = DATA.batch(indices, cutoff)
    require_same(batch, collate([MIXED[i] for i in indices], cutoff))
    for k, i in enumerate(indices):
        torch.testing.assert_close(labels.hessian_of(k), DATA.labels.hessian_of(i))


def test_single_precision_batches() -> None:
    batch, labels = DATA.batch([0, 1], 4.0, dtype=torch.float32)
    assert batch.positions.dtype == torch.float32
    assert labels.forces is not None
    assert labels.forces.dtype == torch.float32


@given(st.integers(0, 1000), st.lists(st.integers(1, 30), min_size=1, max_size=20), st.integers(1, 60))
def test_batches_are_limited_by_atoms(seed: int, sizes: list[int], most: int) -> None:
    structures = [replace(atom(), id=str(i)) for i in range(len(sizes))]
    data = Dataset(tuple(structures), Properties.concatenate([Properties.single(1) for _ in structures]))
    object.__setattr__(data, "labels", data.labels.replace(n_atoms=torch.tensor(sizes)))
    runs = data.batch_indices(most, max_structures=4)
    assert [i for run in runs for i in run] == list(range(len(sizes)))
    assert all(len(run) == 1 or (sum(sizes[i] for i in run) <= most and len(run) <= 4) for run in runs)


@given(st.integers(0, 1000), st.lists(st.sampled_from("abcdefg"), min_size=12, max_size=40))
def test_splits_keep_groups_together_and_lose_nothing(seed: int, groups: list[str]) -> None:
    pair = molecule(2, 1)
    structures = tuple(
        replace(pair, positions=pair.positions * (1 + i / 100), id=f"{g}-{i}", group=g) for i, g in enumerate(groups)
    )
    data = Dataset(structures, Properties.concatenate([Properties.single(2) for _ in groups]))
    try:
        parts = data.split(0.6, 0.4, seed=seed)
    except RequestError as error:
        assert "leaves a part empty" in str(error)  # noqa: PT017
        return
    ids = [{s.id for s in part.structures} for part in parts]
    assert ids[0] | ids[1] == {s.id for s in structures}
    assert not ids[0] & ids[1]
    assert not {s.group for s in parts[0].structures} & {s.group for s in parts[1].structures}
    again = data.split(0.6, 0.4, seed=seed)
    assert [s.id for s in again[0].structures] == [s.id for s in parts[0].structures]


def test_splits_by_structure_have_the_requested_sizes() -> None:
    data = Dataset(tuple(molecules([3] * 100)), Properties.concatenate([Properties.single(3) for _ in range(100)]))
    assert [len(p) for p in data.split(0.8, 0.1, 0.1)] == [80, 10, 10]
    with pytest.raises(RequestError, match="fractions"):
        data.split(0.8, 0.3)


def test_selection_by_id_and_by_condition() -> None:
    assert [s.id for s in DATA.with_ids([MIXED[3].id, MIXED[0].id]).structures] == [MIXED[3].id, MIXED[0].id]
    with pytest.raises(RequestError, match='no structure "nobody"'):
        DATA.with_ids([MIXED[0].id, "nobody"])
    assert len(DATA.filter(lambda s: s.periodic)) == 2


def test_the_hash_depends_on_the_content_only() -> None:
    same = Dataset(DATA.structures, DATA.labels, metadata={"level": "another"}, source="elsewhere.h5")
    assert same.content_hash() == DATA.content_hash()
    assert DATA.labels.forces is not None
    moved = DATA.labels.forces.clone()
    moved[0, 0] += 1e-12
    others = [
        DATA.select([0, 1, 2, 4, 3]),
        replace(DATA, labels=DATA.labels.replace(forces=moved)),
        replace(DATA, labels=DATA.labels.replace(hvp=None, probes=None)),
        Dataset((replace(MIXED[0], id="renamed"), *MIXED[1:]), DATA.labels),
    ]
    assert len({DATA.content_hash(), *(d.content_hash() for d in others)}) == 5


def test_invalid_data_sets_are_refused() -> None:
    with pytest.raises(RequestError, match='"atom-1" occurs twice'):
        Dataset((atom(), atom()), Properties.concatenate([Properties.single(1)] * 2))
    with pytest.raises(RequestError, match="not of the same sizes"):
        Dataset((atom(),), Properties.single(2))
    with pytest.raises(MissingLabelError, match=r"'hessian' \(found: energy, forces, hvp\)"):
        labeled(Morse(), molecules([3]), probes=1).check_has_labels("energy", "hessian")
    assert DATA.elements == tuple(sorted(set(np.concatenate([s.numbers for s in MIXED]).tolist())))


def test_repr_is_short() -> None:
    data = labeled(Morse(), molecules([3, 4], 0), hessian=True)
    assert repr(data).startswith("Dataset('memory', Properties(2 structures, 7 atoms: energy 2, forces 2")
    assert "4 atoms)" in repr(data.structures[1])


# --- a sequence ------------------------------------------------------------------------------------------------------


def test_items_are_pairs_and_parts_are_data_sets() -> None:
    structure, labels = DATA[1]
    assert structure is DATA.structures[1]
    torch.testing.assert_close(labels.hessian_of(0), DATA.labels.hessian_of(1))
    assert DATA[-1][0] is DATA.structures[-1]
    assert DATA[np.int64(2)][0] is DATA[torch.tensor(2)][0] is DATA.structures[2]
    assert [s.id for s, _ in DATA] == list(DATA.ids)
    assert Dataset.from_pairs(DATA).content_hash() == DATA.content_hash()
    assert DATA[1:4:2].ids == (DATA.ids[1], DATA.ids[3])
    assert DATA[[3, 0, -1]].ids == (DATA.ids[3], DATA.ids[0], DATA.ids[4])
    assert DATA[torch.tensor([2, 1])].ids == (DATA.ids[2], DATA.ids[1])
    mask = torch.tensor([s.periodic for s in DATA.structures])
    assert DATA[mask].ids == DATA[mask.numpy()].ids == DATA[mask.tolist()].ids == DATA.filter(lambda s: s.periodic).ids
    assert len(DATA[[]]) == len(DATA[5:]) == len(DATA[np.zeros(5, dtype=bool)]) == 0


@pytest.mark.parametrize("index", [5, -6, [0, 5], 1.0, "x", None, True, [True], [[0]], [0.5], (slice(2), 0)])
def test_a_wrong_index_gets_a_reply(index: object) -> None:
    with pytest.raises(RequestError, match=r"out of range: there are 5|cannot select from 5|is indexed by integers"):
        DATA[index]  # type: ignore[call-overload]


def test_data_sets_add_up() -> None:
    one = replace(DATA[:2], metadata={"level": "a", "engine": "x", "step": "1"}, not_read={"p": 2})
    other = replace(labeled(Morse(), MIXED[2:], probes=0), metadata={"level": "b", "engine": "x"}, source="b.h5")
    both = one + other
    assert both.ids == DATA.ids
    assert both.mask("hessian").tolist() == [True, True, False, False, False]
    assert both.metadata == {"level": "a; b", "engine": "x"}
    assert (both.source, both.not_read) == ("memory + b.h5", {"p": 2})
    assert (DATA[:2] + DATA[2:]).content_hash() == DATA.content_hash()
    with pytest.raises(RequestError, match="occurs twice"):
        one + DATA
    with pytest.raises(RequestError, match="only a Dataset can be added to a Dataset, got list"):
        one + WRONG


def copies(groups: list[str]) -> Dataset:
    pair = molecule(2, 1)
    structures = tuple(
        replace(pair, positions=pair.positions * (1 + i / 100), id=f"s{i}", group=g) for i, g in enumerate(groups)
    )
    return Dataset(structures, Properties.concatenate([Properties.single(2) for _ in groups]))


def test_advice_of_a_split_that_is_impossible_helps() -> None:
    for groups, by_group in ((["a", "b"], True), (["", ""], True), (["a", "a"], False)):
        data = copies(groups)
        with pytest.raises(
            RequestError, match=r"by \(0.8, 0.2\) leaves a part empty; use more data, or other"
        ) as caught:
            data.split(0.8, 0.2, by_group=by_group)
        assert "by_group" not in str(caught.value)
        first, last = map(float, str(caught.value).rpartition("such as (")[2].rstrip(")").split(", "))
        assert len(data.split(first, last, by_group=by_group)) == 2
        assert last == pytest.approx(0.3)
    data = copies(["a"] * 5)
    with pytest.raises(RequestError, match=r"use more data, or by_group=False") as caught:
        data.split(0.8, 0.2)
    assert "fractions" not in str(caught.value)
    assert len(data.split(0.8, 0.2, by_group=False)) == 2
    with pytest.raises(RequestError, match=r"\(0.333, 0.333, 0.333\)"):
        copies(["a", "b", "c"]).split(0.9, 0.05, 0.05)
