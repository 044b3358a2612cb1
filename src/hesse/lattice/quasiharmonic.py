"""The quasi-harmonic approximation: thermal expansion from phonons at several volumes.

The Helmholtz energy E(V) + F(V, T) is fitted at each temperature by the equation of state of Vinet et al., J. Phys.
Condens. Matter 1, 1941 (1989), whose minimum gives volume and bulk modulus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.errors import ConfigError, EngineError, RequestError
from hesse.lattice.phonons_result import DEFAULT_MESH, MeshLike, Phonons
from hesse.lattice.relaxation import GPA
from hesse.lattice.thermal import as_temperatures
from hesse.runtime.short_repr import ShortRepr

__all__ = ["QuasiHarmonic", "fit_vinet", "quasiharmonic", "quasiharmonic_functions", "vinet"]

_MIN_VOLUMES = 5
_STEP = 2.0
"""K; thermal expansion is the derivative over this difference of temperatures."""


@dataclass(frozen=True, eq=False, repr=False)
class QuasiHarmonic(ShortRepr):
    """Thermal expansion at zero pressure, per primitive cell.

    Attributes:
        temperatures: K.
        volume: Å³.
        bulk_modulus: isothermal, GPa.
        expansion: volumetric thermal expansion coefficient, 1/K.
        gibbs: Gibbs energy at zero pressure, eV.
        heat_capacity_v: C_V at the volume of each temperature, eV/K.
        heat_capacity_p: C_P = C_V + α² B V T, eV/K.
        volumes: those of the phonons, Å³.
        residual: root mean square residual of the fits, eV.
    """

    temperatures: Float[Array, "temperatures"]
    volume: Float[Array, "temperatures"]
    bulk_modulus: Float[Array, "temperatures"]
    expansion: Float[Array, "temperatures"]
    gibbs: Float[Array, "temperatures"]
    heat_capacity_v: Float[Array, "temperatures"]
    heat_capacity_p: Float[Array, "temperatures"]
    volumes: Float[Array, "volumes"]
    residual: float

    def rows(self) -> list[dict[str, float]]:
        """The numbers as rows.

        Returns:
            One row per temperature.
        """
        names = ("volume", "bulk_modulus", "expansion", "gibbs", "heat_capacity_v", "heat_capacity_p")
        return [
            {"temperature": float(t)} | {name: float(getattr(self, name)[k]) for name in names}
            for k, t in enumerate(self.temperatures)
        ]


def vinet(volume: ArrayLike, energy: float, minimum: float, bulk: float, slope: float) -> Float[Array, "volumes"]:
    """The equation of state of Vinet et al.

    Args:
        volume: Å³.
        energy: at the minimum, eV.
        minimum: volume there, Å³.
        bulk: bulk modulus there, eV/Å³.
        slope: its derivative with respect to pressure.

    Returns:
        Energies, eV.
    """
    stretch = 1.0 - np.cbrt(np.asarray(volume, dtype=float) / minimum)
    xi = 1.5 * (slope - 1.0)
    return energy + 9.0 * bulk * minimum / xi**2 * (1.0 + (xi * stretch - 1.0) * np.exp(xi * stretch))


def fit_vinet(volumes: Float[Array, "volumes"], energies: Float[Array, "volumes"]) -> tuple[Float[Array, "4"], float]:
    """Fit the equation of state.

    Args:
        volumes: Å³.
        energies: eV.

    Returns:
        Energy, volume and bulk modulus at the minimum and its derivative; and the root mean square residual, eV.

    Raises:
        EngineError: no minimum within the volumes.
    """
    from scipy.optimize import least_squares

    a, b, c = np.polyfit(volumes, energies, 2)
    start = -b / (2.0 * a) if a > 0 else float(volumes[energies.argmin()])
    first = np.array([c - b**2 / (4.0 * a) if a > 0 else energies.min(), start, max(2.0 * a * start, 1e-3), 4.0])
    span = max(float(np.ptp(energies)), 1e-6)
    fit = least_squares(
        lambda x: (vinet(volumes, *x) - energies) / span, first, x_scale=np.abs(first) + 1e-6, xtol=1e-14, ftol=1e-14
    )
    values = np.asarray(fit.x)
    if not (fit.success and volumes.min() <= values[1] <= volumes.max() and values[2] > 0):
        raise EngineError(
            f"the energies at volumes from {volumes.min():.4g} to {volumes.max():.4g} Å³ have no minimum among them "
            f"(the fit ends at {values[1]:.4g} Å³): use other volumes, or lower temperatures"
        )
    return values, float(np.sqrt(np.mean((vinet(volumes, *values) - energies) ** 2)))


def quasiharmonic_functions(
    volumes: ArrayLike,
    energies: ArrayLike,
    free_energies: ArrayLike,
    heat_capacities: ArrayLike,
    temperatures: ArrayLike,
) -> QuasiHarmonic:
    """Thermal expansion from tables of free energies.

    Args:
        volumes: Å³ per primitive cell, at least five.
        energies: of the static lattice, eV, `[volumes]`.
        free_energies: of the phonons, eV, `[temperatures, volumes]`.
        heat_capacities: C_V, eV/K, `[temperatures, volumes]`.
        temperatures: K, ascending; expansion coefficients are differences between neighbors.

    Returns:
        The functions of temperature.

    Raises:
        RequestError: too few volumes, or tables that do not fit each other.
        ConfigError: temperatures that are none.
        EngineError: a free energy without a minimum.
    """
    v, e = np.asarray(volumes, dtype=float), np.asarray(energies, dtype=float)
    kelvins = as_temperatures(temperatures)
    free, capacity = np.asarray(free_energies, dtype=float), np.asarray(heat_capacities, dtype=float)
    shape = (len(kelvins), len(v))
    if v.ndim != 1 or e.shape != v.shape or free.shape != shape or capacity.shape != shape:
        raise RequestError(
            f"expected energies of {len(v)} volumes and tables of shape {shape}, got {e.shape}, {free.shape} and "
            f"{capacity.shape}"
        )
    if len(v) < _MIN_VOLUMES:
        raise RequestError(f"the quasi-harmonic approximation needs at least {_MIN_VOLUMES} volumes, got {len(v)}")
    if len(kelvins) > 1 and (np.diff(kelvins) <= 0).any():
        raise ConfigError("temperature: expected ascending numbers for thermal expansion")
    fits = [fit_vinet(v, e + row) for row in free]
    values = np.array([fit for fit, _ in fits])
    minima, bulk = values[:, 1], values[:, 2]
    expansion = np.gradient(minima, kelvins) / minima if len(kelvins) > 1 else np.full(1, np.nan)
    order = np.argsort(v)
    at_minimum = np.array([np.interp(x, v[order], row[order]) for x, row in zip(minima, capacity, strict=True)])
    return QuasiHarmonic(
        kelvins,
        minima,
        bulk / GPA,
        expansion,
        values[:, 0],
        at_minimum,
        at_minimum + expansion**2 * bulk * minima * kelvins,
        v,
        float(np.sqrt(np.mean([residual**2 for _, residual in fits]))),
    )


def quasiharmonic(
    phonons: Sequence[Phonons], temperatures: ArrayLike = 300.0, mesh: MeshLike = DEFAULT_MESH
) -> QuasiHarmonic:
    """Thermal expansion from phonons at several volumes.

    Args:
        phonons: at least five, of the same crystal, with energies (as `hesse.phonons` computes them).
        temperatures: K, ascending.
        mesh: see `Phonons.mesh`.

    Returns:
        The functions of temperature.

    Raises:
        RequestError: too few volumes, or phonons without energies.
        EngineError: imaginary modes, or a free energy without a minimum.
    """
    kelvins = as_temperatures(temperatures)
    missing = [p.structure.id for p in phonons if p.energy is None]
    if missing:
        raise RequestError(f"phonons without energies ({missing[0]}): those from files have none")
    # Expansion is a derivative: two more temperatures beside each that was asked for.
    fine = np.unique(np.concatenate([np.maximum(kelvins - _STEP / 2, 0.0), kelvins, kelvins + _STEP / 2]))
    cells = [len(p.structure) / len(p.primitive) for p in phonons]
    tables = [p.thermal(fine, mesh) for p in phonons]
    imaginary = [p.structure.id for p, t in zip(phonons, tables, strict=True) if t.imaginary_fraction > 0]
    if imaginary:
        raise EngineError(
            f"{len(imaginary)} of {len(phonons)} volumes have imaginary modes (such as {imaginary[0]}): free energies "
            "of harmonic phonons do not exist there. Use volumes nearer to the minimum"
        )
    result = quasiharmonic_functions(
        [abs(float(np.linalg.det(p.primitive.cell))) for p in phonons],
        [float(p.energy or 0.0) / n for p, n in zip(phonons, cells, strict=True)],
        np.array([t.free_energy for t in tables]).T,
        np.array([t.heat_capacity for t in tables]).T,
        fine,
    )
    keep = np.searchsorted(fine, kelvins)
    per_temperature = {
        name: getattr(result, name)[keep]
        for name in (
            "temperatures",
            "volume",
            "bulk_modulus",
            "expansion",
            "gibbs",
            "heat_capacity_v",
            "heat_capacity_p",
        )
    }
    return QuasiHarmonic(**per_temperature, volumes=result.volumes, residual=result.residual)
