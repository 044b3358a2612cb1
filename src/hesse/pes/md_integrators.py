"""Integrators for many replicas at once: velocity Verlet (NVE) and the BAOAB splitting of Langevin dynamics (NVT).

BAOAB (Leimkuhler and Matthews, Appl. Math. Res. eXpress 2013, 34) moves in the order kick, drift, noise, drift, kick.
Without noise it is velocity Verlet. Its configurations have the right distribution up to the square of the time step,
with a small factor: exactly the right one in a harmonic potential. Noise and friction act on motions relative to the
center of mass only, which stays where it is.

The heat that the noise brings is counted. Total energy less heat is constant for an exact integration, so that its
drift shows the error of the time step, or of forces that are not a gradient, with a thermostat too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hesse.units import BOLTZMANN

__all__ = ["MovingReplicas", "integrate_step", "remove_drift"]

ForceFunction = Callable[[Float[Tensor, "atoms 3"]], tuple[Float[Tensor, "replicas"], Float[Tensor, "atoms 3"]]]


@dataclass
class MovingReplicas:
    """Positions and velocities of replicas, all atoms end to end; changed in place.

    Attributes:
        positions: Å.
        velocities: Å per internal unit of time (√(eV/u)).
        forces: eV/Å.
        energies: potential energies, eV.
        masses: u.
        index: the replica of each atom.
        heat: energy that the noise has brought, eV.
    """

    positions: Float[Tensor, "atoms 3"]
    velocities: Float[Tensor, "atoms 3"]
    forces: Float[Tensor, "atoms 3"]
    energies: Float[Tensor, "replicas"]
    masses: Float[Tensor, "atoms 1"]
    index: Int[Tensor, "atoms"]
    heat: Float[Tensor, "replicas"]

    def kinetic_energies(self) -> Float[Tensor, "replicas"]:
        """Kinetic energy of each replica.

        Returns:
            eV, `[replicas]`.
        """
        by_atom = 0.5 * (self.masses * self.velocities.square()).sum(-1)
        return torch.zeros_like(self.energies).index_add_(0, self.index, by_atom)

    def conserved_energies(self) -> Float[Tensor, "replicas"]:
        """Total energy less the heat of the thermostat: constant for an exact integration.

        Returns:
            eV, `[replicas]`.
        """
        return self.energies + self.kinetic_energies() - self.heat


def remove_drift(
    velocities: Float[Tensor, "atoms 3"], masses: Float[Tensor, "atoms 1"], index: Int[Tensor, "atoms"], count: int
) -> Float[Tensor, "atoms 3"]:
    """Velocities relative to the center of mass of each replica.

    Args:
        velocities: any unit.
        masses: u.
        index: the replica of each atom.
        count: number of replicas.

    Returns:
        Velocities without motion of the centers of mass, `[atoms, 3]`.
    """
    sums = velocities.new_zeros(count, 4).index_add_(0, index, torch.cat([masses * velocities, masses], dim=1))
    return velocities - (sums[:, :3] / sums[:, 3:])[index]


def integrate_step(
    state: MovingReplicas,
    forces: ForceFunction,
    time_step: float,
    *,
    friction: float = 0.0,
    temperature: float | Float[Tensor, "atoms 1"] = 0.0,
    noise: Float[Tensor, "atoms 3"] | None = None,
) -> None:
    """Move all replicas by one time step.

    Args:
        state: the replicas, changed in place.
        forces: energies (eV) and forces (eV/Å) as a function of positions.
        time_step: internal unit of time.
        friction: per internal unit of time, of Langevin dynamics.
        temperature: K, of Langevin dynamics: one, or that of each atom.
        noise: standard normal numbers for Langevin dynamics; None for velocity Verlet.
    """
    half = 0.5 * time_step
    velocities = state.velocities + half * state.forces / state.masses
    if noise is None:
        state.positions = state.positions + time_step * velocities
    else:
        positions = state.positions + half * velocities
        damping = math.exp(-friction * time_step)
        width = (BOLTZMANN * temperature * (1.0 - damping**2) / state.masses) ** 0.5
        kicks = remove_drift(width * noise, state.masses, state.index, len(state.energies))
        after = damping * velocities + kicks
        gained = 0.5 * (state.masses * (after.square() - velocities.square())).sum(-1)
        state.heat = state.heat.index_add(0, state.index, gained)
        velocities = after
        state.positions = positions + half * velocities
    state.energies, state.forces = forces(state.positions)
    state.velocities = velocities + half * state.forces / state.masses
