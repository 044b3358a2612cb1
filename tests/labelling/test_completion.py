"""Completion of the Hessians of a data set, from Python and by `hesse complete`."""

from __future__ import annotations

import json
from types import MappingProxyType

import numpy as np
import pytest
import torch

import closed_form_engines
import oracles
from commands_in_process import hesse
from hesse.datasets import Dataset, read_dataset, write_dataset
from hesse.engines import Engine
from hesse.errors import (
    ConfigError,
    EngineError,
    ExecutionError,
    HesseError,
    InconsistentLabelsError,
    MissingLabelError,
)
from hesse.labelling import complete_hessians
from hesse.structures import Properties

MORSE = oracles.Morse()


def labeled(n_atoms, seed, pairs, *, hessian=False, suspect=False, name=""):
    structure = oracles.molecule(n_atoms, seed, name=name)
    exact = MORSE.exact(structure)
    probes = np.random.default_rng(seed).choice([-1.0, 1.0], size=(pairs, n_atoms, 3))
    products = np.einsum("iajb,kjb->kia", exact.hessian, probes)
    labels = Properties.single(
        n_atoms,
        energy=exact.energy,
        forces=-exact.gradient,
        probes=probes if pairs else None,
        hvp=products if pairs else None,
        hvp_error=np.full(pairs, 1e-3) if pairs else None,
        hessian=exact.hessian if hessian else None,
        suspect=suspect,
    )
    return structure, labels


@pytest.fixture
def data():
    return Dataset.from_pairs(
        [
            labeled(4, 0, 12, name="good"),
            labeled(5, 1, 12, name="known", hessian=True),
            labeled(4, 2, 1, name="few"),
            labeled(4, 3, 12, name="doubtful", suspect=True),
            labeled(3, 4, 0, name="none"),
        ],
        level="morse",
    )


def test_each_structure_gets_a_hessian_or_a_reason(data) -> None:
    result = complete_hessians(data, quiet=True)
    assert [row["status"] for row in result.rows] == ["completed", "had a Hessian", "failed", "failed", "failed"]
    assert [row["pairs"] for row in result.rows] == [12, 12, 1, 12, 0]
    assert "at least 2 are needed" in result.rows[2]["reason"]
    assert result.rows[3]["reason"] == "its labels are suspect"
    labels = result.dataset.labels
    assert labels.mask("hessian").tolist() == [True, True, False, False, False]
    exact = MORSE.exact(data.structures[0]).hessian
    np.testing.assert_allclose(labels.hessian_of(0).numpy(), exact, atol=0.05)
    assert float(labels.hessian_error[0]) == result.rows[0]["error"] < 0.05
    np.testing.assert_array_equal(labels.hessian_of(1), data.labels.hessian_of(1))
    assert result.dataset.metadata["level"] == "morse"
    assert result.dataset.metadata["completed_hessians"].startswith("1 of 5")
    for name in ("energy", "forces", "probes", "hvp"):
        torch.testing.assert_close(labels[name], data.labels[name], equal_nan=True)
    strict = complete_hessians(data, max_error=1e-9, quiet=True)
    assert strict.n_completed == 0
    assert "is above 1e-09" in strict.rows[0]["reason"]
    assert complete_hessians(data, min_pairs=1, quiet=True).n_completed == 2


class Fails(Engine):
    name, level, settings = "fails", "fails", MappingProxyType({})

    def compute(self, structure, request=None):
        if structure.id == "few":
            raise EngineError("no convergence")
        return closed_form_engines.own_engine().compute(structure, request)


def test_a_prior_engine_that_fails_for_one_structure(data) -> None:
    result = complete_hessians(data, prior=Fails(), min_pairs=1, quiet=True)
    assert [row["status"] for row in result.rows][:3] == ["completed", "had a Hessian", "failed"]
    assert result.rows[2]["reason"] == "no convergence"
    assert result.dataset.metadata["completion_prior"] == "fails"
    assert result.rows[0]["error"] < 0.01


def test_wrong_requests_get_a_reply(data) -> None:
    with pytest.raises(MissingLabelError, match="no products"):
        complete_hessians([oracles.molecule(3, 0)], quiet=True)
    with pytest.raises(ConfigError, match="min_pairs"):
        complete_hessians(data, min_pairs=0)
    with pytest.raises(ConfigError, match="max_error"):
        complete_hessians(data, max_error=-1.0)
    flipped = [labeled(6, seed, 8, name=f"m{seed}") for seed in range(12)]
    wrong = [(s, p.replace(hvp=-p.hvp)) for s, p in flipped]
    with pytest.raises(InconsistentLabelsError):
        complete_hessians(Dataset.from_pairs(wrong), quiet=True)


def test_the_command(data, tmp_path) -> None:
    write_dataset(tmp_path / "in.h5", data)
    done = hesse("complete", "in.h5", "out.h5", "--json", "rows.json", "--quiet", folder=tmp_path)
    assert done.exit_code == 0, done.stderr
    assert "out.h5: 1 of 5 Hessians completed" in done.stdout
    assert "from 12 products each" in done.stdout
    assert "1 had a Hessian already" in done.stdout
    assert "not completed: few: 1 products" in done.stderr
    assert [row["id"] for row in json.loads((tmp_path / "rows.json").read_text())] == list(data.ids)
    back = read_dataset(tmp_path / "out.h5")
    assert back.labels.mask("hessian").tolist() == [True, True, False, False, False]
    with pytest.raises(HesseError, match="exists already"):
        hesse("complete", "in.h5", "out.h5", folder=tmp_path)
    with pytest.raises(HesseError, match="no engine"):
        hesse("complete", "in.h5", "new.h5", "--prior", "gfn3", folder=tmp_path)
    few = Dataset.from_pairs([labeled(4, 2, 1, name="few")], level="morse")
    write_dataset(tmp_path / "few.h5", few)
    with pytest.raises(ExecutionError, match="none of 1 Hessians"):
        hesse("complete", "few.h5", "new.h5", "--json", "few.json", "--quiet", folder=tmp_path)
    assert not (tmp_path / "new.h5").exists()
    assert json.loads((tmp_path / "few.json").read_text())[0]["status"] == "failed"
