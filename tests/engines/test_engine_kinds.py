"""ASE calculators and potentials as engines, engines as ASE calculators, and names of engines."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.lj import LennardJones

import closed_form_engines
import oracles
from hesse.engines import (
    AseEngine,
    EngineCalculator,
    FiniteDifferences,
    PotentialEngine,
    XtbEngine,
    make_engine,
)
from hesse.errors import (
    ConfigError,
    EngineError,
    FileFormatError,
    GeometryError,
    RequestError,
    UnknownElementError,
    UnknownOptionError,
)
from hesse.models import HipnnConfig, build_model, save_model
from hesse.structures import Request, Structure, from_ase, to_ase


def exact_hvp(structure, probes):
    hessian = oracles.Morse().exact(structure).hessian
    return np.einsum("iajb,kjb->kia", hessian, probes)


@pytest.fixture
def probes():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(2, 5, 3)))


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param(closed_form_engines.own_engine(), id="forces"),
        pytest.param(AseEngine(closed_form_engines.morse()), id="ase"),
        pytest.param(PotentialEngine(oracles.Morse(), "closed form"), id="potential"),
        pytest.param(make_engine("ase:closed_form_engines:morse"), id="text"),
        pytest.param(make_engine("ase:closed_form_engines:own_engine"), id="text-engine"),
    ],
)
def test_every_kind_of_engine_agrees_with_the_closed_form(engine, probes):
    structure = oracles.molecule(5, 1)
    exact = oracles.Morse().exact(structure)
    labels = engine.compute(structure, Request(forces=True, probes=probes, hessian=True))
    assert labels.energy.dtype == labels.hvp.dtype == torch.float64
    assert labels.energy.item() == pytest.approx(exact.energy, rel=1e-12)
    assert labels.forces.numpy() == pytest.approx(-exact.gradient, abs=1e-10)
    true = np.sqrt(np.mean((labels.hvp.numpy() - exact_hvp(structure, probes.numpy())) ** 2, axis=(1, 2)))
    assert (true < 5e-3).all()
    assert (true < 3 * labels.hvp_error[:, 0].numpy() + 1e-12).all()
    assert labels.hessian_of(0).numpy() == pytest.approx(exact.hessian, abs=5e-3)
    assert float(labels.hessian_error[0]) < 5e-3
    assert engine.level
    assert all(isinstance(value, str) for value in engine.settings.values())


def test_ase_stress_and_the_order_of_its_components():
    atoms = bulk("Cu", cubic=True, a=3.5)
    atoms.rattle(0.05, seed=0)
    shear = np.array([[1, 0.02, 0.01], [0.02, 1, 0], [0.01, 0, 1]])
    atoms.set_cell(atoms.cell.array @ shear, scale_atoms=True)
    atoms.calc = LennardJones(sigma=2.3, epsilon=0.2, rc=6.0)
    engine = AseEngine(LennardJones(sigma=2.3, epsilon=0.2, rc=6.0))
    crystal = from_ase(atoms)
    labels = engine.compute(crystal, Request(forces=True, stress=True))
    assert labels.stress[0].numpy() == pytest.approx(atoms.get_stress(voigt=False), abs=1e-12)
    back = to_ase(crystal)
    back.calc = EngineCalculator(engine, crystal)
    assert back.get_stress() == pytest.approx(atoms.get_stress(), abs=1e-12)
    assert back.get_forces() == pytest.approx(atoms.get_forces(), abs=1e-12)
    assert np.abs(back.get_stress()[3:]).min() > 1e-6, "without shear the order of components could not be tested"


def test_an_engine_is_an_ase_calculator():
    structure = oracles.molecule(4, 2)
    atoms = to_ase(structure)
    atoms.calc = EngineCalculator(closed_form_engines.own_engine(), structure)
    exact = oracles.Morse().exact(structure)
    assert atoms.get_potential_energy() == pytest.approx(exact.energy)
    assert atoms.get_forces() == pytest.approx(-exact.gradient)
    atoms.positions[0] += 0.1
    moved = oracles.Morse().exact(structure.with_positions(atoms.positions))
    assert atoms.get_forces() == pytest.approx(-moved.gradient)


def test_an_ase_calculator_that_fails_is_an_engine_error():
    from ase.calculators.emt import EMT

    with pytest.raises(EngineError, match=r'"odd".*EMT failed'):
        AseEngine(EMT()).compute(Structure([2, 2], [[0, 0, 0], [0, 0, 2.0]], id="odd"), Request())


def test_charges_are_refused_unless_the_calculator_reads_them():
    ion = Structure([1, 1], [[0, 0, 0], [0, 0, 1.0]], charge=1, multiplicity=2, id="ion")
    with pytest.raises(RequestError, match=r'"ion": charge 1, multiplicity 2.*reads_charge'):
        AseEngine(closed_form_engines.morse()).compute(ion, Request())
    assert AseEngine(closed_form_engines.morse(), reads_charge=True).compute(ion, Request()).energy is not None


def test_unknown_elements_and_overlapping_atoms_are_refused():
    potential = build_model(HipnnConfig(), (1, 8))
    engine = PotentialEngine(potential, "mine")
    with pytest.raises(UnknownElementError, match=r'"cyanide" holds C; mine knows H, O only'):
        engine.compute(Structure([6, 7], [[0, 0, 0], [0, 0, 1.2]], id="cyanide"), Request())
    with pytest.raises(GeometryError, match="apart"):
        engine.compute(Structure([1, 1], [[0, 0, 0], [0, 0, 0.1]]), Request())


def test_model_files_become_engines(tmp_path, probes):
    path = tmp_path / "small.hesse"
    potential = build_model(HipnnConfig(), (1, 6, 8)).double()
    save_model(path, potential)
    structure = oracles.molecule(5, 1)
    engine = make_engine(str(path))
    assert engine.level.startswith("model:small.hesse@")
    request = Request(forces=True, probes=probes)
    from_file = engine.compute(structure, request)
    torch.testing.assert_close(from_file.hvp, PotentialEngine(potential, "same").compute(structure, request).hvp)
    save_model(path, build_model(HipnnConfig(), (1, 6, 8)).double())
    assert make_engine(str(path)).settings["file_digest"] != engine.settings["file_digest"]
    with pytest.raises(FileFormatError, match="no such model file"):
        make_engine("nowhere.hesse")


@pytest.mark.parametrize(
    ("text", "error", "reply"),
    [
        ("gnf2", UnknownOptionError, "gfn2"),
        ("ase:", UnknownOptionError, "ase"),
        ("model:", RequestError, "named by its path alone: write PATH"),
        ("model:run/model.hesse", RequestError, "write run/model.hesse"),
        ("nothing-here", UnknownOptionError, "no engine"),
        ("pyscf:", UnknownOptionError, "pyscf:METHOD/BASIS"),
        ("gfn2?acuracy=0.1", UnknownOptionError, 'Did you mean "accuracy"'),
        ("gfn2?accuracy", RequestError, "expected name=value"),
        ("gfn2?accuracy=tight", ConfigError, '"gfn2?accuracy=tight": option "accuracy" = \'tight\': expected a number'),
        ("gfn2?max_iterations=2.5", ConfigError, "= '2.5': expected a whole number"),
        ("pyscf:hf/sto-3g?cartesian=maybe", ConfigError, "= 'maybe': expected yes or no"),
        ("pyscf:hf/sto-3g?hvp=analytical", UnknownOptionError, 'no hvp "analytical". Did you mean "analytic"?'),
        ("pyscf:hf/sto-3g?grid=10", ConfigError, "\"grid\" = '10': expected 9 or less"),
        ("pyscf:hf/sto-3g?hvp=auto", ConfigError, "with the number of probes planned per structure"),
        ("gfn2?accuracy=1,accuracy=2", RequestError, "given twice"),
        ("gfn2?accuracy=-1", ConfigError, "\"accuracy\" = '-1': expected more than 0"),
        ("gfn2?accuracy=inf", ConfigError, "expected a finite number"),
        ("ase:closed_form_engines", RequestError, "expected ase:package.module:factory"),
        ("ase:no_such_module:make", RequestError, "cannot import no_such_module"),
        ("ase:closed_form_engines:mores", RequestError, 'Did you mean "morse"'),
        ("ase:closed_form_engines:fails", RequestError, "no license"),
        ("ase:closed_form_engines:number", RequestError, "returned a int"),
    ],
)
def test_invalid_engine_names_get_a_reply(text, error, reply):
    with pytest.raises(error, match=re.escape(reply)):
        make_engine(text)


def test_settings_of_differences_reach_the_engine():
    pytest.importorskip("tblite.interface", reason="tblite is not installed")
    engine = make_engine("gfn1", differences=FiniteDifferences(step=2e-3, richardson=False))
    assert isinstance(engine, XtbEngine)
    assert engine.differences.step == 2e-3
    assert engine.settings["step"] == "0.002"
    assert engine.settings["differences"] == "central"


def test_parameters_of_a_calculator_are_part_of_the_settings():
    wide, narrow = (AseEngine(LennardJones(sigma=s)).settings["parameters"] for s in (2.0, 1.0))
    assert json.loads(wide)["sigma"] == 2.0
    assert wide != narrow
    assert wide == AseEngine(LennardJones(sigma=2.0)).settings["parameters"]
    strange = LennardJones()
    strange.parameters["model"] = object()
    assert "model" not in json.loads(AseEngine(strange).settings["parameters"])


def test_differences_that_an_engine_would_ignore_are_refused(tmp_path, monkeypatch):
    (tmp_path / "own_engine.py").write_text(
        "from ase.calculators.emt import EMT\n"
        "from hesse.engines import AseEngine\n"
        "def make():\n    return AseEngine(EMT())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert make_engine("ase:own_engine:make", differences=FiniteDifferences()).level.startswith("EMT@")
    with pytest.raises(RequestError, match="has its own differences"):
        make_engine("ase:own_engine:make", differences=FiniteDifferences(step=0.01))
