"""GFN-xTB against the ASE calculator of tblite, against itself at tighter settings, and its failures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.build import molecule as g2

from hesse.engines import FiniteDifferences, XtbEngine, XtbSettings
from hesse.errors import ConfigError, EngineError, RequestError, UnknownOptionError
from hesse.structures import Request, Structure, from_ase

pytest.importorskip("tblite.interface", reason="tblite is not installed")

BOTH = Request(forces=True)


def rattled(name, amplitude=0.05, seed=0):
    atoms = g2(name)
    atoms.positions += amplitude * np.random.default_rng(seed).normal(size=atoms.positions.shape)
    return from_ase(atoms, id=name)


@pytest.mark.parametrize("method", ["gfn2", "gfn1"])
def test_energies_and_forces_agree_with_the_calculator_of_tblite(method):
    from tblite.ase import TBLite

    structure = rattled("CH3OH")
    atoms = g2("CH3OH")
    atoms.positions = structure.positions
    atoms.calc = TBLite(method={"gfn2": "GFN2-xTB", "gfn1": "GFN1-xTB"}[method], accuracy=1e-5, verbosity=0)
    labels = XtbEngine(method).compute(structure, BOTH)
    assert labels.energy.item() == pytest.approx(atoms.get_potential_energy(), abs=1e-7)
    assert labels.forces.numpy() == pytest.approx(atoms.get_forces(), abs=1e-6)


def test_charge_and_multiplicity_reach_the_program():
    water = g2("H2O")
    neutral = from_ase(water)
    cation = Structure(neutral.numbers, neutral.positions, charge=1, multiplicity=2)
    triplet = Structure(neutral.numbers, neutral.positions, multiplicity=3)
    energies = {s: XtbEngine().compute(s, BOTH).energy.item() for s in (neutral, cation, triplet)}
    assert energies[cation] - energies[neutral] > 10.0  # eV; GFN2 ionizes water at 15
    assert energies[triplet] - energies[neutral] > 3.0
    with pytest.raises(RequestError, match=r"9 electrons.*multiplicity 1"):
        XtbEngine().compute(Structure(neutral.numbers, neutral.positions, charge=1), BOTH)


def test_nothing_is_printed(capfd):
    XtbEngine().compute(rattled("H2O"), BOTH)
    assert capfd.readouterr() == ("", "")


def test_a_point_does_not_depend_on_earlier_points():
    structure = rattled("CH3NO2")
    surface = XtbEngine().energy_function(structure)
    first = surface(structure.positions)
    surface(structure.positions + 0.3 * np.random.default_rng(0).normal(size=structure.positions.shape))
    again = surface(structure.positions)
    assert again.energy == first.energy
    assert np.array_equal(again.forces, first.forces)


@pytest.mark.parametrize(
    ("is_richardson", "gradients", "largest"), [(False, 2, 2e-4), (True, 4, 2e-5)], ids=["two", "four"]
)
def test_errors_of_products_are_estimated_within_a_factor_of_three(is_richardson, gradients, largest):
    """Against sixth-order differences at tighter convergence; gradients counted (more: benchmarks/label_errors.py)."""
    engine, tight = XtbEngine(differences=FiniteDifferences(richardson=is_richardson)), XtbEngine(accuracy=1e-8)
    rng = np.random.default_rng(0)
    ratios = []
    for seed, name in enumerate(
        ("H2O", "CH3OH", "HCN", "CO2", "CH3NO2", "C2H4", "NH3", "H2CO", "SO2", "C6H6", "CH3Cl", "PH3", "HCOOH", "N2O")
    ):
        structure = rattled(name, 0.05, seed)
        probe = rng.choice([-1.0, 1.0], size=structure.positions.shape)
        surface = tight.energy_function(structure)

        def slope(h, surface=surface, x=structure.positions, v=probe):
            return (surface(x - h * v).forces - surface(x + h * v).forces) / (2 * h)

        exact = (64 * slope(2e-3) - 20 * slope(4e-3) + slope(8e-3)) / 45
        calls = []
        counted = XtbEngine.energy_function(engine, structure)
        engine.energy_function = lambda s, calls=calls, counted=counted: lambda x: calls.append(1) or counted(x)
        labels = engine.compute(structure, Request(forces=True, probes=torch.from_numpy(probe[None])))
        assert len(calls) == 1 + gradients
        true = np.sqrt(np.mean((labels.hvp[0].numpy() - exact) ** 2))
        assert true < largest
        ratios.append(float(labels.hvp_error[0, 0]) / true)
    assert np.mean([1 / 3 < r < 3 for r in ratios]) >= 0.9, np.round(ratios, 2)


def test_loose_convergence_biases_curvature():
    """The reason of the tight default: at tblite's default threshold the error is four orders of magnitude larger."""
    structure = rattled("CH3NO2", 0.03)
    probe = torch.from_numpy(np.random.default_rng(1).choice([-1.0, 1.0], size=(1, 7, 3)))
    loose, fine, finest = (
        XtbEngine(accuracy=a, differences=FiniteDifferences(step=1e-3, richardson=True))
        .compute(structure, Request(probes=probe))
        .hvp.numpy()
        for a in (1.0, 1e-5, 1e-6)
    )
    assert np.abs(fine - finest).max() < 2e-6
    assert np.abs(loose - finest).max() > 100 * np.abs(fine - finest).max()


def test_stress_of_a_crystal_is_the_strain_derivative():
    atoms = bulk("C", "diamond", a=3.6)
    atoms.rattle(0.03, seed=1)
    crystal = from_ase(atoms)
    engine = XtbEngine("gfn1")
    labels = engine.compute(crystal, Request(forces=True, stress=True))
    assert labels.stress is not None
    volume, step = atoms.get_volume(), 2e-4
    for a, b in ((0, 0), (0, 1)):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += sign * step / 2
            strain[b, a] += sign * step / 2
            moved = Structure(crystal.numbers, crystal.positions @ strain, cell=crystal.cell @ strain, pbc=crystal.pbc)
            energies.append(engine.compute(moved, Request()).energy.item())
        slope = (energies[0] - energies[1]) / (2 * step) / volume
        assert labels.stress[0, a, b].item() == pytest.approx(slope, rel=1e-3, abs=1e-4)


def test_failures_name_the_structure():
    with pytest.raises(EngineError, match=r'"H2O".*converge'):
        XtbEngine(max_iterations=2).compute(rattled("H2O"), BOTH)
    with pytest.raises(RequestError, match="86"):
        XtbEngine().compute(Structure([92], [[0, 0, 0]]), BOTH)
    with pytest.raises(UnknownOptionError, match="gfn2"):
        XtbEngine("gfn-2")
    with pytest.raises(ConfigError, match=r'XtbSettings: option "accuracy" = 0\.0: expected more than 0'):
        XtbEngine(accuracy=0.0)
    with pytest.raises(ConfigError, match="option \"accuracy\" = 'tight': expected a number"):
        XtbEngine(accuracy="tight")
    with pytest.raises(UnknownOptionError, match=r'no option "acuracy"\. Did you mean "accuracy"'):
        XtbEngine(acuracy=0.1)
    with pytest.raises(RequestError, match="got both"):
        XtbEngine("gfn2", XtbSettings(), accuracy=0.1)
    assert XtbEngine("gfn2", XtbSettings(accuracy=0.1)).settings == XtbEngine(accuracy=0.1).settings
