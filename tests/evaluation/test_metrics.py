"""Errors against numbers worked out by hand, and what counts when labels are missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hesse.datasets import Dataset
from hesse.errors import LabelShapeError, LabelValueError, RequestError
from hesse.evaluation import MetricRow, error_metrics, matched_values, symmetrized_hessian
from hesse.structures import Properties, Structure
from oracles import Morse, atom, labeled, linear, molecules


def value(rows: list[MetricRow], property: str, metric: str = "rmse", tag: str = "") -> tuple[float, int]:
    (row,) = [r for r in rows if (r.property, r.metric, r.tag) == (property, metric, tag)]
    return row.value, row.n


def two_structures(**second: object) -> tuple[Dataset, Properties]:
    """One atom and two atoms with whole-number labels, and predictions that miss by known amounts."""
    one = Structure([1], [[0.0, 0.0, 0.0]], id="one", tag="small")
    two = Structure([1, 1], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]], id="two", tag="large")
    lone = Properties.single(
        1, energy=1.0, forces=[[0, 0, 0]], probes=[[[1, 1, 1]]], hvp=[[[0, 0, 0]]], hessian=np.eye(3)[None, :, None]
    )
    pair: dict[str, object] = {"energy": 2.0, "forces": np.zeros((2, 3)), "hessian": np.zeros((2, 3, 2, 3))} | second
    dataset = Dataset.from_pairs([(one, lone), (two, Properties.single(2, **pair))])  # type: ignore[arg-type]
    hessian = torch.cat([torch.eye(3).reshape(-1) + 1.0, torch.full((36,), 2.0)]).double()
    predicted = Properties(
        n_atoms=dataset.labels.n_atoms,
        energy=torch.tensor([4.0, -2.0]).double(),
        forces=torch.tensor([[3.0, 0, 0], [0, 6.0, 0], [0, 0, 0]]).double(),
        probes=torch.ones(1, 3, 3).double(),
        hvp=torch.tensor([[[2.0, 0, 1], [9, 9, 9], [9, 9, 9]]]).double(),
        hvp_mask=torch.tensor([[True, False]]),
        hessian=hessian,
    )
    return dataset, predicted


def test_errors_equal_those_worked_out_by_hand() -> None:
    rows = error_metrics(*two_structures())
    assert value(rows, "energy") == (pytest.approx(np.sqrt((9 + 16) / 2)), 2)
    assert value(rows, "energy", "mae") == (pytest.approx(3.5), 2)
    assert value(rows, "energy_per_atom") == (pytest.approx(np.sqrt((9 + 4) / 2)), 2)
    assert value(rows, "forces") == (pytest.approx(np.sqrt(45 / 9)), 9)
    assert value(rows, "forces", "mae") == (pytest.approx(1.0), 9)
    assert value(rows, "hvp") == (pytest.approx(np.sqrt(5 / 3)), 3)  # the second structure has no stored product
    assert value(rows, "hessian") == (pytest.approx(np.sqrt((9 * 1 + 36 * 4) / 45)), 45)
    assert value(rows, "hessian", "mae") == (pytest.approx((9 + 72) / 45), 45)


def test_rows_of_tags_and_of_the_whole_set() -> None:
    rows = error_metrics(*two_structures(), name="set")
    assert {r.tag for r in rows} == {"", "small", "large"}
    assert {r.dataset for r in rows} == {"set"}
    assert value(rows, "energy", tag="small") == (3.0, 1)
    assert value(rows, "forces", tag="large") == (pytest.approx(np.sqrt(36 / 6)), 6)
    assert not [r for r in rows if (r.tag, r.property) == ("large", "hvp")]
    assert {r.tag for r in error_metrics(*two_structures(), by_tag=False)} == {""}


def test_missing_labels_do_not_count() -> None:
    rows = error_metrics(*two_structures(energy=None, hessian=None))
    assert value(rows, "energy") == (3.0, 1)
    assert value(rows, "hessian") == (1.0, 9)
    dataset, predicted = two_structures()
    without = predicted.replace(hessian=None, energy_mask=torch.tensor([False, True]))
    rows = error_metrics(dataset, without)
    assert value(rows, "energy") == (4.0, 1)
    assert not [r for r in rows if r.property == "hessian"]


def test_hessians_present_on_different_structures_are_matched() -> None:
    data = labeled(Morse(), molecules([2, 3, 4]), hessian=True)
    labels = data.labels.replace(
        hessian=data.labels.select(torch.tensor([0, 2])).hessian,
        hessian_mask=torch.tensor([True, False, True]),
    )
    dataset = Dataset(data.structures, labels)
    tail = data.labels.select(torch.tensor([1, 2])).hessian
    assert tail is not None
    predicted = data.labels.replace(hessian=tail + 0.5, hessian_mask=torch.tensor([False, True, True]))
    reference, prediction, owner = matched_values(dataset, predicted, "hessian")
    assert owner.tolist() == [2] * 144
    torch.testing.assert_close(prediction, reference + 0.5)


def test_references_are_symmetrized() -> None:
    structures = [atom(), *molecules([3, 2])]
    labels = Properties.concatenate(
        [
            Properties.single(len(s), hessian=np.random.default_rng(1).normal(size=(len(s), 3, len(s), 3)))
            for s in structures
        ]
    )
    flat = symmetrized_hessian(labels)
    symmetric = labels.replace(hessian=flat)
    for k, s in enumerate(structures):
        raw = labels.hessian_of(k).reshape(3 * len(s), -1)
        torch.testing.assert_close(symmetric.hessian_of(k).reshape(3 * len(s), -1), (raw + raw.T) / 2)
    rows = error_metrics(Dataset(tuple(structures), labels), symmetric)
    assert value(rows, "hessian")[0] == 0.0


@given(st.lists(st.integers(2, 5), min_size=1, max_size=5), st.integers(0, 1000))
def test_the_whole_is_the_sum_of_its_tags(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    structures = [
        Structure(s.numbers, s.positions, id=s.id, tag="ab"[int(rng.integers(2))]) for s in molecules(sizes, seed)
    ]
    data = labeled(Morse(), structures, hessian=True, probes=2)
    predicted = data.labels.map_tensors(lambda t: t + torch.from_numpy(rng.normal(size=t.shape)))
    rows = error_metrics(data, predicted)
    for property in ("energy", "energy_per_atom", "forces", "hvp", "hessian"):
        parts = [(r.value, r.n) for r in rows if r.tag and r.property == property and r.metric == "rmse"]
        whole, n = value(rows, property)
        assert n == sum(count for _, count in parts)
        assert whole**2 * n == pytest.approx(sum(v**2 * count for v, count in parts))


def test_predictions_of_other_structures_are_refused() -> None:
    data = labeled(Morse(), molecules([3, 4]))
    with pytest.raises(LabelShapeError, match="predict"):
        error_metrics(data, data.select([0]).labels)


def test_a_label_that_is_not_finite_is_reported_by_name() -> None:
    data = labeled(Morse(), [*molecules([3]), linear()])
    forces = data.labels.forces
    assert forces is not None
    broken = Dataset(data.structures, data.labels.replace(forces=forces.index_fill(0, torch.tensor([4]), torch.nan)))
    with pytest.raises(LabelValueError, match=r'"line".*label of forces'):
        error_metrics(broken, data.labels)


def test_an_unknown_property_is_refused_with_the_nearest_name() -> None:
    data = labeled(Morse(), molecules([3]))
    with pytest.raises(RequestError, match='Did you mean "forces"'):
        matched_values(data, data.labels, "force")
