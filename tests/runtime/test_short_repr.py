"""Results print in a few lines, however large their arrays are."""

from __future__ import annotations

from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

import hesse


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
