"""The data and the configurations of the measurements of ensemble distillation, and of teacher and student."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from hesse.datasets import Dataset, write_dataset
from hesse.models import Hipnn, HipnnConfig, save_model
from hesse.recipes.protocols import plan_recipe
from oracles import Morse, labeled, molecules

HERE = Path(__file__).parents[2] / "benchmarks" / "distillation"
sys.path.insert(0, str(HERE))

import prepare  # noqa: E402


def test_reactions_are_split_and_the_configurations_fit(tmp_path: Path) -> None:
    data = labeled(Morse(), molecules(60 * [3], seed=1), hessian=True)
    structures = tuple(replace(s, group=f"reaction-{k // 2}") for k, s in enumerate(data.structures))
    write_dataset(tmp_path / "nms.h5", Dataset(structures, data.labels))
    train, test = prepare.from_reactions(tmp_path, 40, 4)
    assert (len(train), len(test)) == (40, 4)
    assert not set(train.groups) & set(test.groups)
    assert train.has("forces")
    assert not train.has("hessian")
    assert test.has("hessian")
    for name, part in (("train", train), ("test", test), ("truth", test)):
        write_dataset(tmp_path / f"{name}.h5", part)
    torch.manual_seed(0)
    save_model(tmp_path / "teacher.hesse", Hipnn(HipnnConfig(features=4, l_max=0), (1, 6, 8)), {})
    for file, recipe in (("ensemble.yaml", "ensemble-distillation"), ("student.yaml", "teacher-student")):
        text = (HERE / file).read_text()
        (tmp_path / file).write_text(text.replace("torchani:ani1x.pt?architecture=ani1x", "teacher.hesse"))
        plan = plan_recipe(recipe, tmp_path / file)
        assert len(plan.stages) > 9
        assert set(plan.states.values()) == {"to do"}
