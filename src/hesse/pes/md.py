"""Molecular dynamics with any engine: Newton's equations (NVE) and Langevin's (NVT), with the integrators of ASE.

NVE is velocity Verlet. Langevin is the scheme of Vanden-Eijnden and Ciccotti (Chem. Phys. Lett. 429, 310 (2006)),
second order in the time step. Every coordinate has the same friction, so that the center of mass moves independently of
all other motions and can be removed from the snapshots without changing the distribution of geometries.

A run ends early, with a reason and all results so far, when the engine fails, atoms collide, or a force or a bond
length exceeds its limit. It is a function of its settings and the structure alone: the seed determines velocities and
noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from ase import Atoms
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.datasets import StructuresLike, as_structure
from hesse.engines import EngineCalculator, EngineLike, as_engine
from hesse.errors import (
    ConfigError,
    EngineError,
    GeometryError,
    check_choice,
)
from hesse.harmonic.normal_modes import internal_basis
from hesse.pes.geometry_changes import collision_text
from hesse.pes.surface import atoms_with_results
from hesse.pes.training_range import extrapolation, warn_if_outside
from hesse.runtime.settings import check_fields, settings_from
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Extrapolation, Structure, bonded_pairs, closest_collision, to_ase
from hesse.units import BOLTZMANN, FEMTOSECOND

__all__ = ["MDResult", "MDSettings", "Snapshot", "run_md"]

ENSEMBLES = ("langevin", "nve")


@dataclass(frozen=True, kw_only=True)
class MDSettings:
    """Settings of a molecular dynamics run.

    Attributes:
        temperature: K. Initial velocities have the Maxwell-Boltzmann distribution at this temperature; Langevin
            dynamics keeps it.
        ensemble: "langevin" (NVT) or "nve".
        final_temperature: K; the target temperature of Langevin dynamics changes linearly to this one (a ramp). None:
            it is constant.
        time_step: fs.
        steps: number of steps.
        friction: fs⁻¹, of Langevin dynamics. 0.01 randomizes velocities within 0.1 ps, slowly enough to leave
            vibrations undisturbed.
        stride: steps between snapshots.
        equilibration: steps before the first snapshot.
        seed: of velocities and noise.
        rotation: False starts without angular momentum (molecules in NVE, where it is conserved).
        min_contact: the run ends when two atoms come closer than this fraction of the sum of their covalent radii.
        max_bond_stretch: the run ends when an initial bond exceeds this multiple of its initial length ("the molecule
            dissociates"). None: bonds may break.
        max_force: the run ends when a force exceeds this, eV/Å.

    Raises:
        ConfigError: a value out of range, or options that contradict each other.
        UnknownOptionError: an unknown ensemble.
    """

    temperature: float
    ensemble: Literal["langevin", "nve"] = "langevin"
    final_temperature: float | None = None
    time_step: float = 0.5
    steps: int = 2000
    friction: float = 0.01
    stride: int = 50
    equilibration: int = 0
    seed: int = 0
    rotation: bool = True
    min_contact: float = 0.6
    max_bond_stretch: float | None = None
    max_force: float = 100.0

    def __post_init__(self) -> None:
        check_fields(self)
        check_choice(self.ensemble, ENSEMBLES, "ensemble")
        positive = {
            "time step (fs)": self.time_step,
            "friction (1/fs)": self.friction,
            "closest approach": self.min_contact,
            "largest force (eV/Å)": self.max_force,
        }
        for name, value in positive.items():
            if not (np.isfinite(value) and value > 0):
                raise ConfigError(f"the {name} must be a positive number, got {value}")
        for kelvin in (self.temperature, self.final_temperature):
            if kelvin is not None and not (np.isfinite(kelvin) and kelvin >= 0):
                raise ConfigError(f"temperatures must be numbers of K, zero or more, got {kelvin}")
        if self.steps < 1 or self.stride < 1 or not 0 <= self.equilibration <= self.steps:
            raise ConfigError(
                f"expected at least one step, a stride of at least one, and an equilibration within the run, "
                f"got {self.steps}, {self.stride} and {self.equilibration}"
            )
        if self.max_bond_stretch is not None and not (np.isfinite(self.max_bond_stretch) and self.max_bond_stretch > 1):
            raise ConfigError(f"bonds may stretch to a multiple above 1 of their length, got {self.max_bond_stretch}")
        if self.ensemble == "nve" and self.final_temperature is not None:
            raise ConfigError('a final temperature needs a thermostat: ensemble "langevin"')
        if self.ensemble == "langevin" and not self.rotation:
            raise ConfigError('the noise of "langevin" makes molecules rotate again: rotation=False requires "nve"')


@dataclass(frozen=True, eq=False, repr=False)
class Snapshot(ShortRepr):
    """One geometry of a run.

    Attributes:
        structure: the geometry, with the center of mass of the start; its id is `{start}/{step}`.
        velocities: Å/fs, relative to the center of mass, `[n, 3]`.
        step: number of the step.
        energy: potential energy, eV.
        forces: eV/Å, `[n, 3]`.
    """

    structure: Structure
    velocities: Float[Array, "n 3"]
    step: int
    energy: float
    forces: Float[Array, "n 3"]

    def to_ase(self) -> Atoms:
        """Convert to ASE.

        Returns:
            The geometry with its velocities, whose calculator holds energy (eV) and forces (eV/Å).
        """
        atoms = atoms_with_results(self.structure, self.energy, self.forces)
        atoms.set_velocities(self.velocities / FEMTOSECOND)
        return atoms


@dataclass(frozen=True, eq=False, repr=False)
class MDResult(ShortRepr):
    """The result of a molecular dynamics run; index 0 of arrays over steps is the start.

    Attributes:
        times: fs.
        potential_energies: eV.
        kinetic_energies: eV, relative to the center of mass.
        temperatures: K, `2 K / (k f)` with kinetic energy `K` and `f` degrees of freedom.
        degrees_of_freedom: 3n−3, less the rotations where there are none.
        snapshots: geometries every `stride` steps from `equilibration` on.
        steps: number of steps taken.
        completed: whether all steps were taken.
        reason: the reason of an early end; empty otherwise.
        extrapolation: how far the snapshots are from the training data of a model, the farthest one; None for other
            engines, and for models that keep no summary of them.
    """

    times: Float[Array, "steps"]
    potential_energies: Float[Array, "steps"]
    kinetic_energies: Float[Array, "steps"]
    temperatures: Float[Array, "steps"]
    degrees_of_freedom: int
    snapshots: tuple[Snapshot, ...]
    steps: int
    completed: bool
    reason: str
    extrapolation: Extrapolation | None = None

    @property
    def total_energies(self) -> Float[Array, "steps"]:
        """Sum of potential and kinetic energy, eV. NVE conserves it up to the square of the time step."""
        return self.potential_energies + self.kinetic_energies

    @property
    def energy_drift(self) -> float:
        """Slope of the total energy, eV/ps, by least squares (0 for fewer than three points)."""
        if len(self.times) < 3:
            return 0.0
        return float(np.polyfit(self.times - self.times.mean(), self.total_energies, 1)[0] * 1000.0)

    def to_ase(self) -> list[Atoms]:
        """Convert the snapshots to ASE.

        Returns:
            Geometries with velocities, whose calculators hold energies (eV) and forces (eV/Å).
        """
        return [snapshot.to_ase() for snapshot in self.snapshots]


def run_md(
    structure: StructuresLike, engine: EngineLike, settings: MDSettings | None = None, **options: Any
) -> MDResult:
    """Run molecular dynamics.

    Args:
        structure: the start, one structure: ASE Atoms, a Structure, or the path of a file with one structure.
        engine: a name (`gfn2`), the path of a model, an Engine, a Potential or an ASE calculator.
        settings: temperature, ensemble, length and limits of the run.
        **options: the fields of `MDSettings` (`temperature=300, steps=1000`) in place of `settings`.

    Returns:
        Energies and temperatures of every step, and snapshots. A run that ended early has a `reason`.

    Raises:
        GeometryError: atoms of the start collide, or it is a single atom.
        EngineError: the engine failed at the start (a later failure ends the run and is its `reason`).
        RequestError: not one structure, not an engine, or not MDSettings.
        UnknownOptionError: an unknown option.
    """
    structure, engine = as_structure(structure), as_engine(engine)
    settings = settings_from(MDSettings, settings, options)
    contact = closest_collision(structure, settings.min_contact)
    if contact is not None:
        raise GeometryError(f'structure "{structure.id}": {collision_text(structure, contact)} at the start')
    rng = np.random.default_rng(settings.seed)
    atoms = to_ase(structure)
    atoms.calc = EngineCalculator(engine, structure)
    masses = atoms.get_masses()
    velocities, degrees_of_freedom = _thermal_velocities(structure, masses, settings, rng)
    atoms.set_velocities(velocities)
    recorder = _Recorder(structure, settings, masses, degrees_of_freedom)
    try:
        for step in _steps(atoms, settings, rng):
            recorder.add(step, atoms)
    except (EngineError, GeometryError) as error:
        if not recorder.times:
            raise
        recorder.reason = str(error)
    except _StoppedError as end:
        recorder.reason = str(end)
    outside = extrapolation(engine, *(snapshot.structure for snapshot in recorder.snapshots))
    warn_if_outside(outside, f'structure "{structure.id}": a snapshot of the run')
    return replace(recorder.result(), extrapolation=outside)


def _steps(atoms: Atoms, settings: MDSettings, rng: np.random.Generator) -> Iterator[int]:
    from ase.md.langevin import Langevin
    from ase.md.verlet import VelocityVerlet

    integrator: Langevin | VelocityVerlet
    start, end = settings.temperature, settings.final_temperature
    if settings.ensemble == "nve":
        integrator = VelocityVerlet(atoms, settings.time_step * FEMTOSECOND)
    else:
        integrator = Langevin(
            atoms,
            settings.time_step * FEMTOSECOND,
            temperature_K=settings.temperature,
            friction=settings.friction / FEMTOSECOND,
            fixcm=False,
            rng=rng,
        )
    for step, _ in enumerate(integrator.irun(settings.steps)):
        yield step
        if end is not None and isinstance(integrator, Langevin):
            integrator.set_temperature(temperature_K=start + (end - start) * (step + 1) / settings.steps)


def _thermal_velocities(
    structure: Structure, masses: Float[Array, "n"], settings: MDSettings, rng: np.random.Generator
) -> tuple[Float[Array, "n 3"], int]:
    """Maxwell-Boltzmann velocities (ASE's unit) without motion of the center of mass and, where requested, without
    rotation; and their degrees of freedom. Projecting a Gaussian gives the Gaussian of the remaining directions, so
    velocities are not rescaled to the temperature, which would narrow their distribution."""
    n = len(structure)
    if n == 1:
        raise GeometryError(f'structure "{structure.id}": a lone atom has no internal motion')
    mass_weighted = np.sqrt(BOLTZMANN * settings.temperature) * rng.standard_normal((n, 3))
    sqrt_masses = np.sqrt(masses)[:, None]
    if settings.rotation or structure.periodic:
        velocities = mass_weighted / sqrt_masses
        return velocities - masses @ velocities / masses.sum(), 3 * n - 3
    basis = internal_basis(structure, masses)
    return (basis.T @ (basis @ mass_weighted.ravel())).reshape(n, 3) / sqrt_masses, len(basis)


class _StoppedError(Exception):
    """A limit of the run was exceeded."""


class _Recorder:
    """Collects the results of a run and checks its limits."""

    def __init__(
        self, start: Structure, settings: MDSettings, masses: Float[Array, "n"], degrees_of_freedom: int
    ) -> None:
        self.start, self.settings, self.masses, self.degrees_of_freedom = start, settings, masses, degrees_of_freedom
        self.center = masses @ start.positions / masses.sum()
        self.bonds = bonded_pairs(start)
        self.initial_lengths = self._bond_lengths(start.positions)
        self.times: list[float] = []
        self.potential_energies: list[float] = []
        self.kinetic_energies: list[float] = []
        self.snapshots: list[Snapshot] = []
        self.reason = ""

    def add(self, step: int, atoms: Atoms) -> None:
        """Record one step. Raises _StoppedError, without recording it, when it exceeds a limit."""
        settings, masses = self.settings, self.masses
        positions = atoms.get_positions() - (masses @ atoms.positions / masses.sum() - self.center)
        structure = self.start.with_positions(positions, id=f"{self.start.id}/{step}")
        forces = np.array(atoms.get_forces())
        if step:
            self._check_bounds(structure, forces)
        velocities = atoms.get_velocities()
        velocities = velocities - masses @ velocities / masses.sum()
        energy = float(atoms.get_potential_energy())
        self.times.append(step * settings.time_step)
        self.potential_energies.append(energy)
        self.kinetic_energies.append(float(0.5 * np.sum(masses[:, None] * velocities**2)))
        if step >= settings.equilibration and (step - settings.equilibration) % settings.stride == 0:
            self.snapshots.append(Snapshot(structure, velocities * FEMTOSECOND, step, energy, forces))

    def result(self) -> MDResult:
        kinetic = np.array(self.kinetic_energies)
        return MDResult(
            np.array(self.times),
            np.array(self.potential_energies),
            kinetic,
            2.0 * kinetic / (BOLTZMANN * self.degrees_of_freedom),
            self.degrees_of_freedom,
            tuple(self.snapshots),
            len(self.times) - 1,
            not self.reason,
            self.reason,
        )

    def _check_bounds(self, structure: Structure, forces: Float[Array, "n 3"]) -> None:
        largest = float(np.linalg.norm(forces, axis=1).max())
        if not largest <= self.settings.max_force:
            raise _StoppedError(f"a force of {largest:.3g} eV/Å, more than {self.settings.max_force:g}")
        contact = closest_collision(structure, self.settings.min_contact)
        if contact is not None:
            raise _StoppedError(collision_text(structure, contact))
        if self.settings.max_bond_stretch is not None and len(self.bonds):
            ratios = self._bond_lengths(structure.positions) / self.initial_lengths
            k = int(ratios.argmax())
            if ratios[k] > self.settings.max_bond_stretch:
                i, j = self.bonds[k]
                length = ratios[k] * self.initial_lengths[k]
                raise _StoppedError(
                    f"the bond of atoms {i} and {j} ({self.initial_lengths[k]:.2f} Å) has stretched to {length:.2f} Å: "
                    "the molecule dissociates"
                )

    def _bond_lengths(self, positions: Float[Array, "n 3"]) -> Float[Array, "bonds"]:
        return np.linalg.norm(positions[self.bonds[:, 0]] - positions[self.bonds[:, 1]], axis=1)
