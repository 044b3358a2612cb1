"""Errors by group and by structure: those of each part evaluated alone, in the right order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import hesse
from hesse.datasets import Dataset
from hesse.errors import ConfigError, RequestError
from hesse.evaluation import Evaluation, group_rows, structure_rows
from hesse.structures import Properties
from oracles import Morse, labeled, molecules

GROUPS = ("a", "b", "a", "", "b", "a")


def data() -> Dataset:
    structures = [
        replace(s, id=f"s{k}", group=GROUPS[k], tag="xy"[k % 2])
        for k, s in enumerate(molecules([3, 4, 5, 4, 2, 3], seed=2))
    ]
    return labeled(Morse(), structures, probes=1, hessian=True)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return hesse.evaluate(Morse(depth=1.3, width=1.1), data(), name="test")


def test_errors_of_a_group_are_those_of_its_structures_alone(evaluation: Evaluation) -> None:
    groups = {g.group: g for g in evaluation.by_group()}
    assert list(groups) == sorted(groups, key=lambda name: -groups[name].rmse["forces"])
    assert set(groups) == {"a", "b", "s3"}
    for name, rows in {"a": [0, 2, 5], "b": [1, 4], "s3": [3]}.items():
        alone = hesse.evaluate(Morse(depth=1.3, width=1.1), data().select(rows))
        assert groups[name].n_structures == len(rows)
        for prop in ("energy", "energy_per_atom", "forces", "hvp", "hessian"):
            for metric in ("rmse", "mae"):
                row = alone.row(prop, metric)
                assert row is not None
                assert getattr(groups[name], metric)[prop] == pytest.approx(row.value, rel=1e-12)
                assert groups[name].n[prop] == row.n


def test_the_worst_structures(evaluation: Evaluation) -> None:
    errors = evaluation.per_structure("forces")
    worst = evaluation.worst(3)
    assert [s.index for s in worst] == np.argsort(-errors)[:3].tolist()
    assert [s.rmse["forces"] for s in worst] == [errors[s.index] for s in worst]
    assert worst[0].id == evaluation.dataset.ids[worst[0].index]
    assert worst[0].n_atoms == len(evaluation.dataset.structures[worst[0].index])
    by_energy = evaluation.worst(100, "energy")
    assert len(by_energy) == 6
    assert [s.index for s in by_energy] == np.argsort(-evaluation.per_structure("energy")).tolist()
    assert by_energy[0].mae["energy"] == by_energy[0].rmse["energy"]
    assert worst[0].id in repr(worst[0])
    assert "eV/Å" in repr(evaluation.by_group()[0])


def test_structures_without_the_label_come_last() -> None:
    full = data()
    mask = torch.tensor([False, True, True, True, True, False])
    part = replace(full, labels=full.labels.replace(forces_mask=mask))
    evaluation = hesse.evaluate(Morse(depth=1.3), part)
    assert {s.index for s in evaluation.worst(6)[-2:]} == {0, 5}
    assert "forces" not in evaluation.worst(6)[-1].rmse
    only_energy = Dataset(full.structures, Properties(n_atoms=full.labels.n_atoms, energy=full.labels.energy))
    assert hesse.evaluate(Morse(depth=1.3), only_energy).ranking_property() == "energy_per_atom"


def test_wrong_requests(evaluation: Evaluation) -> None:
    with pytest.raises(RequestError, match=r'no errors of "force" here\. Did you mean "forces"'):
        evaluation.worst(3, "force")
    with pytest.raises(RequestError, match="stress"):
        evaluation.by_group("stress")
    for n in (0, -1, 1.5, "all"):
        with pytest.raises(ConfigError, match="n: expected"):
            evaluation.worst(n)  # type: ignore[arg-type]


def test_rows(evaluation: Evaluation) -> None:
    rows = group_rows("test", evaluation.by_group())
    assert len(rows) == 3 * 5 * 2
    assert {(r.property, r.unit) for r in rows} >= {("energy_per_atom", "eV/atom"), ("hessian", "eV/Å²")}
    assert {r.structures for r in rows if r.group == "a"} == {3}
    details = structure_rows("test", evaluation.worst(6))
    assert len(details) == 6 * 5 * 2
    assert {(r.id, r.group, r.tag) for r in details} == {(s.id, s.group, s.tag) for s in data().structures}
