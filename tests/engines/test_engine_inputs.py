"""Engines and potentials from names, paths and objects; properties of any structures with any of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.lj import LennardJones

import closed_form_engines
import hesse
import oracles
from hesse.engines import AseEngine, PotentialEngine, as_engine, as_potential, compute, make_engine, make_potential
from hesse.errors import LabelShapeError, RequestError
from hesse.models import HipnnConfig, build_model, save_model


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    save_model(tmp_path / "small.hesse", build_model(HipnnConfig(), (1, 6, 8)).double())
    return tmp_path / "small.hesse"


def test_one_grammar_names_engines_and_potentials(model):
    for name in (str(model), model):
        assert as_engine(name).level.startswith("model:small.hesse@")
        assert as_potential(name).elements == (1, 6, 8)
    assert make_engine(str(model)).level.startswith("model:small.hesse@")
    assert make_potential(str(model)).elements == (1, 6, 8)
    for function in (make_engine, make_potential):
        with pytest.raises(RequestError, match=f"named by its path alone: write {model}"):
            function(f"model:{model}")
    with pytest.raises(RequestError, match='"gfn2" is an engine, not a potential'):
        make_potential("gfn2")
    with pytest.raises(RequestError, match="is an engine, not a potential"):
        as_potential("pyscf:hf/sto-3g")


def test_objects_become_engines_and_potentials():
    potential, engine = oracles.Morse(), closed_form_engines.own_engine()
    assert as_engine(engine) is engine
    assert isinstance(as_engine(potential), PotentialEngine)
    assert isinstance(as_engine(LennardJones()), AseEngine)
    assert as_potential(potential) is potential
    assert as_potential(as_engine(potential)) is potential
    assert as_potential(hesse.HesseCalculator(potential)) is potential
    with pytest.raises(RequestError, match=r"expected a potential: .*adapters"):
        as_potential(torch.nn.Linear(1, 1))


def test_an_engine_without_a_name_identifies_its_weights(model):
    first, second = (PotentialEngine(build_model(HipnnConfig(), (1, 8))) for _ in range(2))
    assert first.level.startswith("model:Hipnn@")
    assert first.settings["weights_digest"] != second.settings["weights_digest"]
    again = PotentialEngine(as_potential(model)).settings
    assert again == PotentialEngine(as_potential(model)).settings
    assert again["dtype"] == "float64"


@pytest.mark.parametrize(
    "engine", [closed_form_engines.own_engine(), PotentialEngine(oracles.Morse())], ids=["forces", "potential"]
)
def test_engines_compute_energy_and_forces_of_atoms(engine):
    atoms = Atoms("CO", [[0, 0, 0], [0, 0, 1.3]])
    labels = engine.compute(atoms)
    exact = oracles.Morse().exact(hesse.from_ase(atoms))
    assert labels.energy.item() == pytest.approx(exact.energy)
    assert labels.forces.numpy() == pytest.approx(-exact.gradient)
    assert labels.hessian is None


@pytest.mark.parametrize(
    "engine", [closed_form_engines.own_engine(), oracles.Morse(), "ase:closed_form_engines:morse"],
    ids=["engine", "potential", "name"],
)  # fmt: skip
def test_compute_gives_the_labels_of_the_closed_form(engine):
    structures = [oracles.molecule(3, 1, name="a"), oracles.molecule(4, 2, name="b")]
    rng = np.random.default_rng(0)
    probes = rng.normal(size=(2, 7, 3))
    result = compute(structures, engine, forces=True, hessian=True, probes=probes)
    for i, (structure, atoms) in enumerate(zip(structures, (slice(0, 3), slice(3, 7)), strict=True)):
        exact = oracles.Morse().exact(structure)
        assert float(result.energy[i]) == pytest.approx(exact.energy)
        assert result.forces[atoms].numpy() == pytest.approx(-exact.gradient, abs=1e-10)
        assert result.hessian_of(i).numpy() == pytest.approx(exact.hessian, abs=5e-3)
        expected = np.einsum("iajb,kjb->kia", exact.hessian, probes[:, atoms])
        assert result.hvp[:, atoms].numpy() == pytest.approx(expected, abs=5e-3)
    drawn = compute(structures, engine, probes=2)
    assert drawn.hvp.shape == (2, 7, 3)
    assert torch.equal(drawn.probes, compute(structures[:], engine, probes=hesse.Rademacher(2)).probes)


def test_wrong_directions_get_a_reply():
    structure, engine = oracles.molecule(3, 1), closed_form_engines.own_engine()
    with pytest.raises(LabelShapeError, match=r"expected \[probes, 3, 3\]"):
        compute(structure, engine, probes=np.zeros((4, 3)))
    for probes in (True, -1, "many"):
        with pytest.raises(RequestError, match="probes: expected a whole number of directions"):
            compute(structure, engine, probes=probes)
    with pytest.raises(RequestError, match="leave out atomic_energies"):
        compute(structure, engine, atomic_energies=True)
