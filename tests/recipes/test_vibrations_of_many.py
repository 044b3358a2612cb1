"""Vibrations of many structures: stored Hessians, engines, models, frozen atoms; failures, and continuing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.constraints import FixAtoms
from ase.units import Hartree

import closed_form_engines
import hesse
import oracles
from hesse.datasets import Dataset
from hesse.errors import ConfigError, EngineError, ExecutionError, RequestError
from hesse.harmonic.thermochemistry import ThermoSettings
from hesse.labelling import ledger_path
from hesse.sampling.search_journal import journal_path
from hesse.structures import Properties, Request, Structure, to_ase

STRUCTURES = [oracles.molecule(n, n, name=f"m{n}") for n in (4, 3, 6)]


class Counting(hesse.Engine):
    """The closed form; fails for one structure, and counts."""

    name, level, settings = "counting", "closed form", {}

    def __init__(self, fails: str = "") -> None:
        self.engine, self.fails, self.calls = closed_form_engines.own_engine(), fails, 0

    def compute(self, structure: Structure, request: Request = Request()) -> Properties:
        self.calls += 1
        if structure.id == self.fails:
            raise EngineError(f'structure "{structure.id}": no convergence')
        return self.engine.compute(structure, request)


def stored(*structures: Structure, level: str = "closed form", forces: bool = True) -> Dataset:
    pairs = []
    for structure in structures:
        exact = oracles.Morse().exact(structure)
        labels: dict[str, Any] = {"energy": exact.energy, "hessian": exact.hessian}
        if forces:
            labels["forces"] = -exact.gradient
        pairs.append((structure, Properties.single(len(structure), **labels)))
    return Dataset.from_pairs(pairs, level=level)


def expected(structure: Structure, **options: Any) -> np.ndarray:
    return hesse.normal_modes(structure, oracles.Morse().exact(structure).hessian, **options).frequencies


def test_stored_hessians_are_used_and_others_computed(tmp_path: Path) -> None:
    data = stored(*STRUCTURES[:2]) + Dataset.from_pairs([(STRUCTURES[2], Properties.single(6))], level="closed form")
    alone = hesse.analyze_vibrations(data, quiet=True)
    assert [result.structure.id for result in alone] == ["m4", "m3"]
    assert alone.n_stored == 2
    assert alone.failures[0].id == "m6"
    assert "give an engine" in alone.failures[0].reason
    engine = Counting()
    both = hesse.analyze_vibrations(data, engine, quiet=True)
    assert engine.calls == 1
    assert not both.failures
    for result, structure in zip(both, STRUCTURES, strict=True):
        np.testing.assert_allclose(result.frequencies, expected(structure), atol=0.5)
    assert len(hesse.analyze_vibrations(data, engine, reuse=False, quiet=True)) == 3
    assert engine.calls == 4
    with pytest.raises(RequestError, match=r"holds Hessians of B3LYP, but the engine is closed form.*--no-reuse"):
        hesse.analyze_vibrations(stored(*STRUCTURES, level="B3LYP"), engine, quiet=True)


def test_one_failure_does_not_stop_the_others_and_the_ledger_continues(tmp_path: Path) -> None:
    output = tmp_path / "hessians.h5"
    engine = Counting(fails="m3")
    report = hesse.analyze_vibrations(STRUCTURES, engine, output=output, quiet=True)
    assert [result.structure.id for result in report] == ["m4", "m6"]
    assert [(f.id, "no convergence" in f.reason) for f in report.failures] == [("m3", True)]
    rows = report.rows()
    assert [row["id"] for row in rows] == ["m4", "m3", "m6"]
    assert rows[1]["frequencies"] is None
    assert "no convergence" in rows[1]["reason"]
    assert rows[0]["reason"] == ""
    json.dumps(rows, allow_nan=False)
    assert ledger_path(output).exists()
    again = Counting()
    repeated = hesse.analyze_vibrations(STRUCTURES, again, output=output, retry_failed=True, quiet=True)
    assert again.calls == 1
    assert len(repeated) == 3
    assert repeated.n_reused == 2
    np.testing.assert_array_equal(repeated[0].frequencies, report[0].frequencies)
    new = hesse.read_dataset(output)
    assert new.ids == ("m4", "m3", "m6")
    assert new.metadata["engine"] == "counting"
    # The file of new Hessians is an input like any other.
    np.testing.assert_allclose(hesse.analyze_vibrations(output)[2].frequencies, repeated[2].frequencies)


def test_if_nothing_works_all_are_failures() -> None:
    report = hesse.analyze_vibrations(STRUCTURES[:1], Counting(fails="m4"), quiet=True)
    assert len(report) == 0
    assert "no convergence" in report.failures[0].reason


def test_frozen_atoms_are_left_out_and_the_journal_continues(tmp_path: Path) -> None:
    output = tmp_path / "part.h5"
    engine = Counting()
    report = hesse.analyze_vibrations(STRUCTURES, engine, atoms=[0, 3], output=output, quiet=True)
    assert [f.id for f in report.failures] == ["m3"]  # has no atom 3
    assert "there is no atom 3" in report.failures[0].reason
    for result, structure in zip(report, (STRUCTURES[0], STRUCTURES[2]), strict=True):
        np.testing.assert_allclose(result.frequencies, expected(structure, atoms=[0, 3]), atol=0.5)
        assert result.hessian.shape == (2, 3, 2, 3)
        assert result.hessian_error is not None
    calls = engine.calls
    again = hesse.analyze_vibrations(STRUCTURES, engine, atoms=[0, 3], output=output, quiet=True)
    assert engine.calls == calls
    assert again.n_reused == 2
    np.testing.assert_array_equal(again[1].frequencies, report[1].frequencies)
    hesse.analyze_vibrations(STRUCTURES, engine, atoms=[0, 2], output=output, quiet=True)
    assert engine.calls == calls + 3


def test_constraints_of_ase_atoms_differ_between_structures() -> None:
    frames = [to_ase(structure) for structure in STRUCTURES]
    frames[0].set_constraint(FixAtoms([1, 2]))
    frames[2].set_constraint(FixAtoms([0]))
    report = hesse.analyze_vibrations(frames, Counting(), quiet=True)
    moving = [None if result.atoms is None else result.atoms.tolist() for result in report]
    assert moving == [[0, 3], None, [1, 2, 3, 4, 5]]
    with pytest.raises(ConfigError, match="frozen, but a relaxation"):
        hesse.analyze_vibrations(frames, Counting(), minimize=True, quiet=True)


def test_structures_are_relaxed_first(tmp_path: Path) -> None:
    output = tmp_path / "relaxed.h5"
    engine = Counting()
    options: dict[str, Any] = {"minimize": True, "fmax": 1e-4, "output": output, "quiet": True}
    report = hesse.analyze_vibrations(stored(*STRUCTURES), engine, steps=2000, **options)
    assert not report.failures
    assert all(result.fmax is not None and result.fmax < 1e-4 for result in report)
    assert journal_path(output).exists()
    calls = engine.calls
    again = hesse.analyze_vibrations(stored(*STRUCTURES), engine, steps=2000, **options)
    assert engine.calls == calls
    np.testing.assert_array_equal(again[2].structure.positions, report[2].structure.positions)
    short = hesse.analyze_vibrations(STRUCTURES, engine, steps=1, **options)
    assert len(short.failures) == 3
    assert "not relaxed after 1 steps" in short.failures[0].reason
    with pytest.raises(RequestError, match="only an engine can relax"):
        hesse.analyze_vibrations(stored(*STRUCTURES), minimize=True)


def test_models_compute_many_at_once_and_continue(tmp_path: Path) -> None:
    model = oracles.Morse()
    output = tmp_path / "model.h5"
    clash = Structure([1, 1, 6], [[0, 0, 0], [0.1, 0, 0], [0, 2, 0]], id="clash")
    structures = [*STRUCTURES, clash]
    report = hesse.analyze_vibrations(structures, model, output=output, quiet=True)
    assert [f.id for f in report.failures] == ["clash"]
    assert "0.100 Å apart" in report.failures[0].reason
    for result, structure in zip(report, STRUCTURES, strict=True):
        single = hesse.vibrations(structure, model)
        np.testing.assert_allclose(result.frequencies, single.frequencies, atol=1e-5)
        assert result.level == single.level
        assert result.energy == pytest.approx(single.energy)
        assert result.hessian_error == pytest.approx(single.hessian_error, abs=1e-10)
    assert hesse.read_dataset(output).metadata["level"] == report[0].level
    again = hesse.analyze_vibrations(structures, model, output=output, quiet=True)
    assert again.n_reused == 3
    np.testing.assert_array_equal(again[0].frequencies, report[0].frequencies)
    np.testing.assert_array_equal(again[0].hessian_error, report[0].hessian_error)
    relaxed = hesse.analyze_vibrations(structures, model, minimize=True, fmax=1e-3, steps=2000, quiet=True)
    assert [f.id for f in relaxed.failures] == ["clash"]
    assert all(result.fmax is not None and result.fmax < 1e-3 for result in relaxed)
    short = hesse.analyze_vibrations(STRUCTURES, model, minimize=True, steps=1, quiet=True)
    assert "not relaxed" in short.failures[0].reason
    part = hesse.analyze_vibrations(STRUCTURES[:1], model, atoms=[0, 3], quiet=True)
    np.testing.assert_allclose(part[0].frequencies, expected(STRUCTURES[0], atoms=[0, 3]), atol=1e-4)


def test_one_structure_with_numbers_that_are_not_finite_does_not_spoil_its_batch() -> None:
    class Spoiled(oracles.Morse):
        """Not finite where there are three atoms."""

        def forward(self, batch: Any) -> torch.Tensor:
            energies = super().forward(batch)
            small = (batch.n_atoms == 3)[batch.structure_index]
            return energies * torch.where(small, torch.nan, 1.0)

    report = hesse.analyze_vibrations(STRUCTURES, Spoiled(), quiet=True)
    assert [f.id for f in report.failures] == ["m3"]
    assert len(report) == 2


def test_wrong_masses_and_isotopes_are_failures_of_their_structures() -> None:
    data = stored(*STRUCTURES)
    report = hesse.analyze_vibrations(data, isotopes={5: 1.0 + int(STRUCTURES[2].numbers[5])})
    assert [f.id for f in report.failures] == ["m4", "m3"]
    assert "there is no atom 5" in report.failures[0].reason
    with pytest.raises(ConfigError, match='"average" or "principal"'):
        hesse.analyze_vibrations(data, masses=[1.0, 2.0, 3.0])


def test_hessians_of_other_geometries_are_named() -> None:
    good, bad = stored(STRUCTURES[0]), stored(STRUCTURES[2])
    turned = STRUCTURES[2].with_positions(STRUCTURES[2].positions @ oracles.rotation(4).T, id="turned")
    mixed = Dataset.from_pairs([*good, (turned, bad.labels)], level="closed form")
    report = hesse.analyze_vibrations(mixed)
    assert len(report) == 1
    assert "not that of this geometry" in report.failures[0].reason


def test_thermochemistry_of_one_and_of_many() -> None:
    data = stored(*STRUCTURES)
    report = hesse.analyze_vibrations(data)
    settings = ThermoSettings(temperature=[300.0, 600.0], method="grimme")
    many = report.thermo(settings)
    assert [len(result) for result in many] == [2, 2, 2]
    listed = hesse.thermo(data, temperature=[300.0, 600.0], method="grimme")
    assert isinstance(listed, list)
    np.testing.assert_array_equal(listed[1].gibbs_correction, many[1].gibbs_correction)
    for source in (report[1], data[1], data[1:2]):
        one = hesse.thermo(source, temperature=[300.0, 600.0], method="grimme")
        assert not isinstance(one, list)
        np.testing.assert_allclose(one.gibbs_correction, many[1].gibbs_correction)
    atoms = hesse.thermo(to_ase(STRUCTURES[1]), Counting(), temperature=300.0, method="grimme")
    assert atoms.gibbs_correction[0] == pytest.approx(many[1].gibbs_correction[0], abs=1e-4)
    assert atoms.errors["gibbs"][0] / Hartree < 1e-4
    assert hesse.thermo([report[0], report[1]])[0].id == "m4"
    with pytest.raises(ExecutionError, match="1 of 3 structures failed, first m3"):
        hesse.thermo(STRUCTURES, Counting(fails="m3"))
    with pytest.raises(RequestError, match="vibrations are known here"):
        hesse.thermo(report[0], Counting())
    with pytest.raises(ConfigError, match="above absolute zero"):
        hesse.thermo(report[0], temperature=-1.0)
    with pytest.raises(RequestError, match="with several structures"):
        hesse.thermo(STRUCTURES, Counting(), hessian=np.zeros((4, 3, 4, 3)))
