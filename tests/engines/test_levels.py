"""Levels of theory of models and calculators: the same name never stands for two of them."""

from __future__ import annotations

import shutil

import pytest
import torch
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

import oracles
from hesse.datasets import Dataset
from hesse.engines import AseEngine, PotentialEngine, make_engine
from hesse.engines.levels import levels_agree, names_unknown_model
from hesse.errors import RequestError
from hesse.models import HipnnConfig, build_model, save_model
from hesse.sampling.starts import stored_hessians
from hesse.structures import Request


@pytest.fixture
def models(tmp_path):
    """Two models of the same file name, as every training run writes it."""
    paths = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        path = tmp_path / f"run{seed}" / "model.hesse"
        path.parent.mkdir()
        save_model(path, build_model(HipnnConfig(features=4, sensitivities=4), (1, 6, 8)).double())
        paths.append(path)
    return paths


def test_two_models_of_one_file_name_have_different_levels(models, tmp_path):
    first, second = (make_engine(path).level for path in models)
    assert first.startswith("model:model.hesse@")
    assert not levels_agree(first, second)
    shutil.copy(models[0], tmp_path / "water.hesse")
    renamed = make_engine(tmp_path / "water.hesse").level
    assert renamed.startswith("model:water.hesse@")
    assert levels_agree(renamed, first)


def test_a_stored_hessian_of_another_model_is_not_reused(models):
    structure = oracles.molecule(4, 1)
    engines = [make_engine(path) for path in models]
    labels = engines[0].compute(structure, Request(forces=True, hessian=True))

    def stored(level, engine):
        return stored_hessians(Dataset.from_pairs([(structure, labels)], level=level), engine)[0].hessian

    assert stored(engines[0].level, engines[0]) == pytest.approx(labels.hessian_of(0).numpy())
    with pytest.raises(RequestError, match=r"holds Hessians of model:model.hesse@.*the engine is model:model.hesse@"):
        stored(engines[0].level, engines[1])
    with pytest.warns(UserWarning, match="level model:model does not say which model"):
        assert stored("model:model", engines[0]) is None


def test_levels_of_calculators_and_potentials_contain_what_identifies_them():
    assert AseEngine(EMT()).level == AseEngine(EMT()).level
    assert AseEngine(EMT()).level.startswith("EMT@")
    assert AseEngine(EMT(), level="mine").level == "mine"
    assert AseEngine(LennardJones(epsilon=1.0)).level != AseEngine(LennardJones(epsilon=1.1)).level
    network = LennardJones()
    network.model = torch.nn.Linear(1, 1)
    other = LennardJones()
    other.model = torch.nn.Linear(1, 1)
    assert AseEngine(network).level != AseEngine(other).level
    first, second = (PotentialEngine(build_model(HipnnConfig(features=4), (1, 8))) for _ in range(2))
    assert first.level.startswith("model:Hipnn@")
    assert not levels_agree(first.level, second.level)


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        ("GFN2-xTB", "gfn2-xtb ", True),
        ("GFN2-xTB", "GFN1-xTB", False),
        ("model:model", "model:model", False),
        ("mace:small.model", "mace:small.model", False),
        ("mace:small.model@0123456789", "mace:copy.model@0123456789", True),
        ("mace:small.model@0123456789", "model:small.model@0123456789", False),
        ("EMT@0123456789", "EMT@0123456789", True),
        ("EMT", "EMT@0123456789", False),
        ("", "", False),
    ],
)
def test_agreement_of_levels(one, other, agree):
    assert levels_agree(one, other) is agree
    assert levels_agree(other, one) is agree


def test_levels_of_unknown_models():
    assert names_unknown_model("model:model")
    assert not names_unknown_model("model:model.hesse@0123456789")
    assert not names_unknown_model("GFN2-xTB")
