"""Structures and engines in every form that people have, results in ASE, and replies to wrong arguments."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

import closed_form_engines
import hesse
import oracles
from hesse.engines import PotentialEngine
from hesse.errors import FileFormatError, MissingLabelError, RequestError, UnknownOptionError

ENGINES = [
    pytest.param("ase:closed_form_engines:morse", id="name"),
    pytest.param(closed_form_engines.own_engine(), id="engine"),
    pytest.param(closed_form_engines.morse(), id="calculator"),
    pytest.param(oracles.Morse(), id="potential"),
    pytest.param(PotentialEngine(oracles.Morse()), id="potential-engine"),
]


@pytest.fixture
def atoms() -> Atoms:
    return Atoms("CO", [[0, 0, 0], [0, 0, 1.25]])


@pytest.mark.parametrize("engine", ENGINES)
def test_atoms_and_every_kind_of_engine(atoms, engine):
    result = hesse.minimize(atoms, engine, fmax=1e-4)
    assert result.converged
    relaxed = result.to_ase()
    assert relaxed.get_distance(0, 1) == pytest.approx(1.1, abs=1e-4)
    assert relaxed.get_potential_energy() == result.energy
    assert np.abs(relaxed.get_forces()).max() <= 1e-4


def test_files_of_one_structure(atoms, tmp_path):
    write(tmp_path / "one.xyz", atoms)
    result = hesse.minimize(tmp_path / "one.xyz", "ase:closed_form_engines:morse")
    assert result.converged
    write(tmp_path / "two.xyz", [atoms, atoms])
    with pytest.raises(RequestError, match="expected one structure, got 2"):
        hesse.minimize(tmp_path / "two.xyz", "ase:closed_form_engines:morse")


def test_paths_and_trajectories_become_atoms(atoms):
    engine = closed_form_engines.own_engine()
    top = hesse.saddle(oracles.rhombus(0), engine)
    assert top.to_ase().get_potential_energy() == top.energy
    path = hesse.irc(top, engine, hessian=top.hessian, steps=3)
    frames = path.to_ase()
    assert [a.info["path_length"] for a in frames] == [p.path_length for p in path.points]
    assert [a.get_potential_energy() for a in frames] == [p.energy for p in path.points]
    run = hesse.run_md(atoms, engine, hesse.MDSettings(temperature=300.0, ensemble="nve", steps=10, stride=5))
    last = run.to_ase()[-1]
    assert len(run.to_ase()) == 3
    assert last.get_kinetic_energy() == pytest.approx(run.kinetic_energies[-1])
    assert last.get_potential_energy() == run.potential_energies[-1]


@pytest.mark.parametrize(
    ("structure", "engine", "error", "reply"),
    [
        (3, "gfn2", RequestError, "expected structures: .*; got int"),
        ([1, 2], "gfn2", RequestError, "one item of the list is int"),
        ("nowhere.xyz", "gfn2", FileFormatError, "nowhere.xyz"),
        (oracles.molecule(3, 1), None, RequestError, "expected an engine: .*; got None"),
        (oracles.molecule(3, 1), 7, RequestError, "got an object of type int"),
        (oracles.molecule(3, 1), "gnf2", UnknownOptionError, "gfn2"),
        (oracles.molecule(3, 1), "nowhere.hesse", FileFormatError, "no such model file"),
    ],
)
@pytest.mark.parametrize("function", [hesse.minimize, hesse.saddle, hesse.irc, hesse.vibrations])
def test_wrong_arguments_get_a_reply(function, structure, engine, error, reply):
    if function is hesse.vibrations and engine is None:
        error, reply = MissingLabelError, "has no Hessian: give an engine that computes it"
    with pytest.raises(error, match=reply):
        function(structure, engine)


def test_settings_of_dynamics_are_named_in_the_reply(atoms):
    with pytest.raises(RequestError, match=r"MDSettings\(.*got int"):
        hesse.run_md(atoms, closed_form_engines.own_engine(), 300)
