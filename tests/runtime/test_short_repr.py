"""Results print in a few lines, however large their arrays are."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

import hesse
from hesse.models import HesseNetConfig, build_model
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import collate


def test_results_print_in_a_line() -> None:
    atoms: Atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.02, seed=0)
    relaxed = hesse.minimize(atoms, EMT())
    results = {
        relaxed: "converged=True",
        hesse.run_md(atoms, EMT(), temperature=300, steps=30, stride=1): "completed=True",
        hesse.vibrations(relaxed, EMT()): "level='EMT@",
        hesse.lowest_modes(relaxed, EMT(), 2): "vectors=array[2, 4, 3]",
    }
    for result, words in results.items():
        text = repr(result)
        assert words in text
        assert len(text) < 500, text
        assert "\n" not in text


def test_results_made_of_others_print_in_a_line_and_their_tables_on_request() -> None:
    atoms: Atoms = molecule("CO")
    modes = hesse.vibrations(atoms, EMT(), minimize=True)
    gas = hesse.thermo(modes, temperature=[298.15, 500.0])
    assert not isinstance(gas, list)
    many = hesse.analyze_vibrations([atoms], EMT(), minimize=True, quiet=True)
    ramp = hesse.run_replicas([atoms], EMT(), seeds=1, time=0.002, workers=0, quiet=True)
    for result, words in {modes: "modes=NormalModes(...)", gas: "rotation", many: "(1 item)", ramp: "(1 item)"}.items():
        text = repr(result)
        assert words in text
        assert len(text) < 500, text
        assert "array(" not in text
    assert str(modes) == modes.table()
    assert str(gas) == gas.table()


def exported_dataclasses() -> set[type]:
    """All dataclasses in `__all__` of a package of Hesse."""
    packages = [m.name for m in pkgutil.walk_packages(hesse.__path__, "hesse.") if m.ispkg]
    modules = [hesse, *map(importlib.import_module, packages)]
    members = (getattr(module, name) for module in modules for name in getattr(module, "__all__", ()))
    return {m for m in members if inspect.isclass(m) and dataclasses.is_dataclass(m)}


def test_no_dataclass_prints_arrays() -> None:
    classes = exported_dataclasses()
    assert len(classes) > 100
    arrays = re.compile(r"\b(Float|Int|Bool|Shaped|ndarray|Tensor)\b")
    long = [
        f"{c.__name__}.{field.name}"
        for c in classes
        if hasattr(c.__repr__, "__wrapped__")  # made by the decorator
        for field in dataclasses.fields(c)
        if field.repr and arrays.search(str(field.type).replace("Callable", ""))
        if not str(field.type).startswith("Callable")
    ]
    assert long == []


def test_evaluation_prints_its_table() -> None:
    data = hesse.label([molecule("H2O")], "gfn2", hessian=True, workers=0, quiet=True).dataset
    evaluation = hesse.evaluate(build_model(HesseNetConfig(), (1, 8)), data)
    lines = str(evaluation).splitlines()
    assert lines[0].endswith(": 1 structures")
    assert lines[1].split()[:2] == ["property", "RMSE"]
    assert "\n" not in repr(evaluation)
    assert len(repr(evaluation)) < 300


def test_arrays_and_tensors_print_their_shape() -> None:
    batch = collate([hesse.as_structure(molecule("H2O"))], cutoff=3.0)
    assert "positions=tensor[3, 3]" in repr(batch)
    frames = np.zeros((2, 3))

    @dataclasses.dataclass(repr=False)
    class Some(ShortRepr):
        frames: np.ndarray
        scalar: torch.Tensor

    assert repr(Some(frames, torch.tensor(1.0))).endswith("Some(frames=array[2, 3], scalar=tensor(1.))")
