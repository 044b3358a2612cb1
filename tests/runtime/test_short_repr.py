"""Results print in a few lines, however large their arrays are."""

from __future__ import annotations

from ase import Atoms
from ase.build import bulk
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
