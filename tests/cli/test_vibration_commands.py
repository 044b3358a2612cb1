"""The verbs `vibrations` and `thermo`."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.constraints import FixAtoms
from ase.io import read, write
from ase.vibrations import VibrationsData

import hesse as library
import oracles
from commands_in_process import hesse
from hesse.datasets import Dataset, write_dataset
from hesse.errors import ConfigError, ExecutionError, FileFormatError, HesseError, RequestError
from hesse.structures import Properties, Structure, to_ase

MORSE = ("--engine", "ase:closed_form_engines:morse", "--quiet")
KILLER = ("--engine", "ase:closed_form_engines:killer", "--workers", "1", "--quiet")


def stored(count: int) -> Dataset:
    """Structures held together by springs at rest, with Hessians."""
    pairs = []
    for k in range(count):
        structure = replace(oracles.molecule(4, k), id=f"mol/{k}")
        hessian = np.zeros((4, 3, 4, 3))
        for i, j in itertools.combinations(range(4), 2):
            unit = structure.positions[j] - structure.positions[i]
            unit /= np.linalg.norm(unit)
            spring = 20.0 * np.outer(unit, unit)
            for a, b, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
                hessian[a, :, b] += sign * spring
        pairs.append((structure, Properties.single(4, energy=-3.0 * k, hessian=hessian, hessian_error=0.02)))
    return Dataset.from_pairs(pairs, level="closed form")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "one.h5", stored(1))
    write_dataset(tmp_path / "many.h5", stored(12))
    return tmp_path


def rows(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def test_one_stored_hessian_gives_a_table_and_files(folder: Path) -> None:
    kinds = [part for kind in ("molden", "movie", "gaussian", "ase", "picture") for part in ("--write", kind)]
    done = hesse("vibrations", "one.h5", "--json", "v.json", "--out", "out", *kinds, folder=folder)
    assert done.exit_code == 0, done.stderr
    assert "mol/0, closed form" in done.stdout
    assert "zero-point energy" in done.stdout
    assert "out: 5 files of modes" in done.stdout
    (row,) = rows(folder / "v.json")
    assert {"id", "frequencies", "n_imaginary", "zpe", "linear", "level"} <= row.keys()
    structure, labels = library.read_dataset(folder / "one.h5")[0]
    expected = library.normal_modes(structure, labels.hessian_of(0).numpy())
    assert row["frequencies"] == pytest.approx(expected.frequencies)
    assert (row["id"], row["n_imaginary"], row["linear"], row["level"]) == ("mol/0", 0, False, "closed form")
    assert row["zpe"] == pytest.approx(expected.zero_point_energy)
    assert row["zpe_error"] > 0
    names = sorted(path.name for path in (folder / "out").iterdir())
    assert names == ["mol_0.json", "mol_0.log", "mol_0.molden", "mol_0.svg", "mol_0.xyz"]
    assert "<svg" in (folder / "out" / "mol_0.svg").read_text(encoding="utf-8")
    assert len(read(folder / "out" / "mol_0.xyz", index=":")) == 20 * 6
    assert isinstance(VibrationsData.read(folder / "out" / "mol_0.json"), VibrationsData)


def test_many_give_lines(folder: Path) -> None:
    done = hesse("vibrations", "many.h5", "--json", "v.json", folder=folder)
    assert done.stdout.count("modes, lowest") == 10
    assert "... and 2 more" in done.stdout
    assert "12 of 12 structures, 12 from Hessians in many.h5" in done.stdout
    assert len(rows(folder / "v.json")) == 12
    uncertain = [line for line in done.stderr.splitlines() if "the estimated error" in line]
    assert len(uncertain) == 1
    assert "(the first of 2 structures" in uncertain[0]
    limited = hesse("vibrations", "many.h5", "--limit", 2, folder=folder)
    assert limited.stdout.count("zero-point energy") == 2


@pytest.mark.slow
def test_an_engine_computes_what_is_missing_and_the_others_go_on(folder: Path) -> None:
    """Sodium makes the engine raise; the second run continues from the ledger."""
    bad = Structure([11, 6], [[0, 0, 0], [0, 0, 1.4]], id="bad")
    write(folder / "in.extxyz", [to_ase(oracles.molecule(3, 1, name="a")), to_ase(bad), to_ase(oracles.linear(3))])
    done = hesse("vibrations", "in.extxyz", *KILLER, "--out", "out", "--json", "v.json", folder=folder)
    assert done.exit_code == 0
    assert "bad: failed: EngineError: " in done.stderr
    assert "2 of 3 structures" in done.stdout
    first = rows(folder / "v.json")
    assert [row["frequencies"] is None for row in first] == [False, True, False]
    assert "no convergence" in first[1]["reason"]
    assert first[2]["linear"]
    assert (folder / "out" / "hessians.h5.ledger.sqlite").exists()
    again = hesse("vibrations", "in.extxyz", *KILLER, "--out", "out", "--json", "v.json", folder=folder)
    assert "2 from an earlier run" in again.stdout
    assert rows(folder / "v.json")[0]["frequencies"] == first[0]["frequencies"]
    thermo = hesse("thermo", "in.extxyz", *KILLER, "--out", "out", "--json", "t.json", folder=folder)
    assert thermo.exit_code == 0
    assert [row.get("gibbs") is None for row in rows(folder / "t.json")] == [False, True, False]


def test_frozen_atoms_of_a_file_and_of_a_list(folder: Path) -> None:
    atoms = to_ase(oracles.molecule(5, 2, name="part"))
    atoms.set_constraint(FixAtoms([0, 1, 2]))
    write(folder / "part.extxyz", atoms)
    by_file = hesse("vibrations", "part.extxyz", *MORSE, "--atoms", "free", "--json", "a.json", folder=folder)
    assert "3 of 5 atoms are frozen" in by_file.stdout
    by_list = hesse("vibrations", "part.extxyz", *MORSE, "--atoms", "3-4", "--json", "b.json", folder=folder)
    assert by_list.exit_code == 0
    first, second = rows(folder / "a.json")[0], rows(folder / "b.json")[0]
    assert first["frequencies"] == second["frequencies"]
    assert first["atoms"] == [3, 4]
    hesse("vibrations", "part.extxyz", *MORSE, "--atoms", "3,4", "--out", "out", "--write", "ase", folder=folder)
    again = hesse("vibrations", "out/part.json", "--json", "c.json", folder=folder)
    assert again.exit_code == 0
    assert rows(folder / "c.json")[0]["frequencies"] == pytest.approx(first["frequencies"])
    write(folder / "all.extxyz", to_ase(oracles.molecule(3, 1)))
    with pytest.raises(RequestError, match="freezes no atoms"):
        hesse("vibrations", "all.extxyz", *MORSE, "--atoms", "free", folder=folder)
    with pytest.raises(RequestError, match="has no constraints that are read"):
        hesse("vibrations", "one.h5", "--atoms", "free", folder=folder)


def test_relaxation_isotopes_and_masses(folder: Path) -> None:
    write(folder / "pair.extxyz", to_ase(Structure([6, 8], [[0, 0, 0], [1.3, 0, 0]], id="pair")))
    options = ("--minimize", "--fmax", 1e-4, "--json", "v.json")
    hesse("vibrations", "pair.extxyz", *MORSE, *options, folder=folder)
    light = rows(folder / "v.json")[0]
    assert light["fmax"] < 1e-4
    assert light["warnings"] == []
    hesse("vibrations", "pair.extxyz", *MORSE, *options, "--isotope", "0=13C", "--masses", "principal", folder=folder)
    heavy = rows(folder / "v.json")[0]
    reduced = [a * b / (a + b) for a, b in ((12.011, 15.999), (13.003355, 15.994915))]
    assert heavy["frequencies"][0] / light["frequencies"][0] == pytest.approx(
        np.sqrt(reduced[0] / reduced[1]), rel=1e-5
    )
    far = hesse("vibrations", "pair.extxyz", *MORSE, folder=folder)
    assert "warning: the largest force is" in far.stdout


def test_thermo(folder: Path) -> None:
    temperatures = ("--temperature", 200, "--temperature", 400)
    done = hesse("thermo", "one.h5", *temperatures, "--method", "grimme", "--json", "t.json", folder=folder)
    assert "symmetry number 1" in done.stdout
    assert "± " in done.stdout
    table = rows(folder / "t.json")
    assert [row["temperature"] for row in table] == [200.0, 400.0]
    assert {"id", "temperature", "pressure", "method", "zpe", "enthalpy", "entropy", "gibbs"} <= table[0].keys()
    reference = library.thermo(folder / "one.h5", temperature=[200.0, 400.0], method="grimme")
    assert not isinstance(reference, list)
    assert reference.gibbs is not None
    assert [row["gibbs"] for row in table] == pytest.approx(reference.gibbs)
    more = ("--symmetry", 2, "--degeneracy", 3, "--concentration", 1, "--enthalpy", "head-gordon", "--scale", 0.95)
    other = hesse("thermo", "one.h5", *more, "--json", "t.json", folder=folder)
    assert other.exit_code == 0
    assert rows(folder / "t.json")[0]["symmetry_number"] == 2
    assert rows(folder / "t.json")[0]["enthalpy_method"] == "head-gordon"
    many = hesse("thermo", "many.h5", folder=folder)
    assert "12 of 12 structures" in many.stdout


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("vibrations", "one.h5", "--write", "molden"), RequestError, "--out DIR"),
        (("vibrations", "one.h5", "--out", "many.h5"), RequestError, "is a file; expected a folder"),
        (("vibrations", "one.h5", "--json", "one.h5"), RequestError, "ends in .json"),
        (("vibrations", "none.h5"), FileFormatError, "there is no such file"),
        (("vibrations", "one.h5", "--atoms", "2-"), RequestError, "expected indices from 0"),
        (("vibrations", "one.h5", "--atoms", "3-1"), RequestError, "no range of atoms"),
        (("vibrations", "one.h5", "--atoms", "7"), RequestError, "no atom 7; its atoms are 0 to 3"),
        (("vibrations", "one.h5", "--isotope", "2.014"), RequestError, "expected ATOM=MASS"),
        (("vibrations", "one.h5", "--isotope", "0=300"), RequestError, "no isotope of"),
        (("vibrations", "one.h5", "--isotope", "0=0"), RequestError, "no isotope of"),
        (("vibrations", "one.h5", "--masses", "heavy"), RequestError, "average, principal"),
        (("vibrations", "one.h5", "--minimize"), RequestError, "only an engine can relax"),
        (("vibrations", "one.h5", "--minimize", "--atoms", "1", *MORSE), ConfigError, "frozen"),
        (("vibrations", "one.h5", *MORSE), RequestError, "holds Hessians of closed form, but the engine is"),
        (("thermo", "one.h5", "--temperature", -5), ConfigError, "above absolute zero"),
        (("thermo", "one.h5", "--symmetry", "C2v"), ConfigError, "a whole number or auto"),
        (("thermo", "one.h5", "--pressure", 0), ConfigError, "pressure"),
        (("thermo", "one.h5", "--pressure", 1, "--concentration", 1), ConfigError, "not both"),
    ],
)
def test_replies(arguments: tuple[Any, ...], error: type[HesseError], message: str, folder: Path) -> None:
    before = (folder / "one.h5").read_bytes()
    with pytest.raises(error, match=message):
        hesse(*arguments, folder=folder)
    assert (folder / "one.h5").read_bytes() == before


def test_without_any_hessian_the_execution_failed(folder: Path) -> None:
    write(folder / "plain.extxyz", [to_ase(oracles.molecule(3, 1)), to_ase(oracles.molecule(3, 2))])
    with pytest.raises(
        ExecutionError,
        match=r"no vibrations of any of 2 structures.*, such as --engine gfn2",
    ):
        hesse("vibrations", "plain.extxyz", "--json", "v.json", folder=folder)
    assert len(rows(folder / "v.json")) == 2


def test_the_progress_names_hessians_for_every_kind_of_engine(folder: Path) -> None:
    write(folder / "plain.extxyz", [to_ase(oracles.molecule(3, 1))])
    for engine in ("ase:closed_form_engines:morse", "python:closed_form_engines:model"):
        done = hesse("vibrations", "plain.extxyz", "--engine", engine, folder=folder)
        assert "Hessians with " in done.stderr
        assert "labeling" not in done.stderr
