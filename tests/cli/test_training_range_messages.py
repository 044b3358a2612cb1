"""Verbs that compute with a model say when a structure is outside its training data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from ase.io import write

import hesse as package
import oracles
from commands_in_process import hesse
from hesse.structures import TrainingEnvironments, to_ase


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two chains, and a model that was trained on longer bonds."""
    torch.manual_seed(0)
    model = package.HesseNet(package.HesseNetConfig(features=4, channels=2, radial=3, cutoff=3.0), (1, 6, 7, 8))
    known = [oracles.molecule(4, k) for k in range(20)]
    stretched = [s.with_positions(1.6 * s.positions) for s in known]
    model.training_environments = TrainingEnvironments.from_structures(stretched)
    package.save_model(tmp_path / "m.hesse", model.double())
    write(tmp_path / "in.extxyz", [to_ase(s) for s in known[:2]])
    return tmp_path


def test_relaxations_vibrations_and_dynamics(folder: Path) -> None:
    model = ("--engine", "m.hesse", "--quiet")
    relaxed = hesse("minimize", "in.extxyz", "min.h5", *model, "--fmax", 1e3, "--json", "rows.json", folder=folder)
    assert "  2 outside the training data of the model, such as " in relaxed.stdout
    assert [row["outside_training"] for row in json.loads((folder / "rows.json").read_text())] == [True, True]
    for verb in ("vibrations", "thermo"):
        done = hesse(verb, "in.extxyz", *model, folder=folder)
        assert "warning: 2 of 2 structures are outside the training data of the model" in done.stderr
    options = ("--no-relax", "--time", 0.001, "--seeds", 1, "--failure", "none")
    assert (
        "  2 ended outside the training data of the model"
        in hesse("md", "in.extxyz", "md.h5", *model, *options, folder=folder).stdout
    )
