"""Relaxation to known minima."""

from __future__ import annotations

import numpy as np
import pytest

import closed_form_engines
import oracles
from hesse.engines import XtbEngine
from hesse.errors import ConfigError, EngineError, UnknownOptionError
from hesse.pes import minimize
from hesse.structures import Structure, from_ase


@pytest.mark.parametrize("optimizer", ["bfgs", "lbfgs", "fire"])
def test_three_morse_atoms_end_in_a_triangle(optimizer):
    start = Structure([6, 6, 6], [[0, 0, 0], [1.3, 0.1, 0], [0.5, 1.0, 0.2]], id="three", tag="start", group="g")
    result = minimize(start, closed_form_engines.own_engine(), fmax=1e-4, optimizer=optimizer)
    assert result.converged
    assert result.fmax < 1e-4
    assert result.energy == pytest.approx(0.0, abs=1e-6)
    assert len(result.history) == result.steps + 1
    assert result.history.energies[[0, -1]] == pytest.approx([oracles.Morse().exact(start).energy, result.energy])
    assert result.history.fmax[-1] == result.fmax
    x = result.structure.positions
    assert [np.linalg.norm(x[i] - x[j]) for i, j in ((0, 1), (0, 2), (1, 2))] == pytest.approx([1.1] * 3, abs=1e-4)
    assert (result.structure.id, result.structure.tag, result.structure.group) == ("three", "start", "g")


def test_water_relaxes_to_the_gfn2_geometry():
    pytest.importorskip("tblite.interface", reason="tblite is not installed")
    from ase.build import molecule

    result = minimize(from_ase(molecule("H2O")), XtbEngine(), fmax=1e-3)
    o, h1, h2 = result.structure.positions
    angle = np.degrees(np.arccos((h1 - o) @ (h2 - o) / np.linalg.norm(h1 - o) / np.linalg.norm(h2 - o)))
    # Bannwarth et al. 2019: GFN2 bonds of water near 0.96 Å, angle near 107°.
    assert np.linalg.norm(h1 - o) == pytest.approx(0.96, abs=0.01)
    assert angle == pytest.approx(107.0, abs=1.5)


def test_reaching_the_limit_of_steps_is_reported():
    result = minimize(oracles.molecule(5, 3), closed_form_engines.own_engine(), steps=2, fmax=1e-4)
    assert not result.converged
    assert result.steps == 2
    assert result.fmax > 1e-4


def test_invalid_arguments_and_failing_engines():
    structure = oracles.molecule(3, 1)
    engine = closed_form_engines.own_engine()
    with pytest.raises(ConfigError, match="fmax"):
        minimize(structure, engine, fmax=0.0)
    with pytest.raises(UnknownOptionError, match="bfgs"):
        minimize(structure, engine, optimizer="bfsg")
    with pytest.raises(EngineError, match="not finite"):
        minimize(structure, closed_form_engines.ClosedForm(oracles.Morse(), noise=float("inf")))
