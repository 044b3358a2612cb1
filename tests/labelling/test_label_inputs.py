"""`hesse.label` takes atoms, files, names, engines, calculators and potentials."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.io import write

import closed_form_engines
import hesse
import oracles
from hesse.errors import RequestError
from hesse.labelling import LabelReport, LabelSpec, label, plan_labels


def run(structures: object, engine: object, **options: object) -> LabelReport:
    return label(structures, engine, quiet=True, **options)  # type: ignore[arg-type]


def water(angle: float = 104.0) -> Atoms:
    atoms = molecule("H2O")
    atoms.set_angle(1, 0, 2, angle)
    return atoms


def test_atoms_with_a_calculator_object() -> None:
    report = hesse.label(water(), closed_form_engines.morse(), quiet=True)
    labels = report.dataset.labels
    assert len(report.dataset) == 1
    assert labels.hvp is not None
    assert labels.hvp.shape == (1, 3, 3)
    assert re.search(r"labeled    1 structures \(MorseCalculator@[0-9a-f]{10}\), 0 of them before", report.table())
    assert "hvp error  median" in report.table()


def test_a_name_in_this_process_leaves_the_number_of_threads_alone() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        run(water(), "ase:closed_form_engines:morse", workers=0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_list_a_file_and_a_dataset_are_the_same(tmp_path: Path) -> None:
    frames = [water(100.0), water(110.0)]
    write(tmp_path / "frames.extxyz", frames)
    engine = closed_form_engines.own_engine()
    energies = [
        run(source, engine, probes=0).dataset.labels.energy
        for source in (frames, hesse.as_structures(frames), tmp_path / "frames.extxyz", str(tmp_path / "frames.extxyz"))
    ]
    assert all(energy is not None and torch.allclose(energy, energies[0]) for energy in energies)  # type: ignore[arg-type]
    again = run(run(frames, engine).dataset, engine, probes=0)
    assert again.dataset.labels.hvp is None


def test_arguments_and_spec_mean_the_same() -> None:
    engine, frame = closed_form_engines.own_engine(), oracles.molecule(3, 1)
    spec = LabelSpec(n_probes=2, probe="gaussian", seed=4, hessian=True)
    one = run([frame], engine, spec=spec).dataset.labels
    two = run([frame], engine, probes=2, probe="gaussian", seed=4, hessian=True).dataset.labels
    assert torch.equal(one.hvp, two.hvp)  # type: ignore[arg-type]
    assert one.hessian is not None
    with pytest.raises(RequestError, match="give either spec, or probes"):
        run([frame], engine, spec=spec, probes=3)


def test_a_potential_labels_and_other_weights_are_another_engine(tmp_path: Path) -> None:
    torch.manual_seed(0)
    frames = [oracles.molecule(3, 1)]
    config = hesse.HipnnConfig(features=4, sensitivities=4, blocks=1, onsite_layers=1)
    first, second = (hesse.Hipnn(config, (1, 6, 8)).double() for _ in range(2))
    output = tmp_path / "labels.h5"
    assert run(frames, first, output=output).n_reused == 0
    assert run(frames, first, output=output).n_reused == 1
    assert len(plan_labels(frames, second, output).pending) == 1
    assert run(frames, second, output=output).n_reused == 0


def test_wrong_arguments_get_a_reply() -> None:
    engine, frame = closed_form_engines.own_engine(), oracles.molecule(3, 1)
    for structures, source, options, reply in (
        (3, engine, {}, "expected structures"),
        ([frame, 3], engine, {}, "one item of the list is int"),
        ([], engine, {}, "got an empty list"),
        (frame, object(), {}, "expected an engine"),
        (frame, engine, {"workers": 2}, "works in this process only"),
        (frame, engine, {"scheduler": "tcp://127.0.0.1:1"}, "works in this process only"),
    ):
        with pytest.raises(RequestError, match=reply):
            run(structures, source, **options)
