"""OpenMM through openmmml: agreement with the ASE calculator, conserved energy, wrong elements."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule

from hesse import HesseCalculator
from moving_atoms import by_ase, ethanol, network, relative_error, silicon, tetrahedron, with_velocities
from oracles import Morse

pytest.importorskip("openmmml", reason="OpenMM needs the packages OpenMM and openmmml (make engines)")

import openmm
from openmm import app, unit
from openmmml import MLPotential

KJ = units.kJ / units.mol


def context_of(atoms: Atoms, potential: Any) -> openmm.Context:
    topology = app.Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    for number in atoms.numbers:
        element = app.Element.getByAtomicNumber(int(number))
        topology.addAtom(element.symbol, element, residue)
    if atoms.pbc.all():
        topology.setPeriodicBoxVectors([openmm.Vec3(*row) for row in atoms.cell / 10.0] * unit.nanometer)
    system = MLPotential("ase").createSystem(topology, calculator=HesseCalculator(potential), removeCMMotion=False)
    integrator = openmm.VerletIntegrator(0.5 * unit.femtosecond)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(atoms.positions * unit.angstrom)
    return context


@pytest.mark.parametrize("atoms", [ethanol(), silicon()], ids=["open", "cubic"])
def test_agreement_with_the_ase_calculator(atoms: Atoms) -> None:
    """The cubic cell of 5.4 Å is smaller than twice the cutoff, which OpenMM's own forces would refuse."""
    potential = network()
    state = context_of(atoms, potential).getState(getEnergy=True, getForces=True)
    energy, forces, _ = by_ase(potential, atoms)
    assert state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) * KJ == pytest.approx(energy, abs=1e-7)
    got = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.angstrom) * KJ
    assert relative_error(got, forces) < 1e-7


def test_energy_is_conserved() -> None:
    atoms = with_velocities(tetrahedron())
    context = context_of(atoms, Morse(cutoff=12.0))
    speeds = atoms.get_velocities() * units.fs * 1000
    context.setVelocities(speeds * unit.angstrom / unit.picosecond)
    totals = []
    for _ in range(20):
        context.getIntegrator().step(4)
        state = context.getState(getEnergy=True)
        total = state.getPotentialEnergy() + state.getKineticEnergy()
        totals.append(total.value_in_unit(unit.kilojoule_per_mole) * KJ)
    assert np.ptp(totals) < 1e-2  # leapfrog: the speeds are those of half a step


def test_an_element_that_the_model_does_not_know() -> None:
    """The reply of Hesse comes through OpenMM, before the first step."""
    with pytest.raises(Exception, match="holds S; HesseNet knows H, C, O, Si only"):
        context_of(molecule("SH2"), network()).getState(getEnergy=True)
