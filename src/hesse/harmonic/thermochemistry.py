"""Thermochemistry of an ideal gas of rigid rotors and (quasi-)harmonic oscillators, from frequencies and a geometry.

Molecules have translation, rotation, vibration and an electronic degeneracy. Crystals, and structures of which some
atoms are frozen, only vibrate. Soft modes are no harmonic oscillators; what is done with them is a choice:

- entropy `rrho`: all modes are harmonic oscillators;
- entropy `grimme`: between harmonic oscillator and free rotor, `w = 1/(1 + (ν₀/ν)⁴)`: S. Grimme, Chem. Eur. J. 18, 9955
  (2012);
- entropy `truhlar`: modes below ν₀ count as modes of ν₀: R. F. Ribeiro, A. V. Marenich, C. J. Cramer, D. G. Truhlar,
  J. Phys. Chem. B 115, 14556 (2011);
- enthalpy `head-gordon`: the vibrational energy of a mode (with its zero-point energy) goes over to the kT/2 of a free
  rotor with the same weight w: Y.-P. Li, J. Gomes, S. M. Sharada, A. T. Bell, M. Head-Gordon, J. Phys. Chem. C 119,
  1840 (2015).

`hesse.harmonic.thermo_result` holds the results. ASE's classes for the same models take one temperature at a time and
have no error bars; the tests compare with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, TypeAlias

import numpy as np
from ase import units
from jaxtyping import Float
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.errors import ConfigError, check_choice, check_numbers, check_whole_numbers
from hesse.harmonic.error_propagation import error_of_sum
from hesse.harmonic.normal_modes import NormalModes
from hesse.harmonic.symmetry_number import symmetry_number
from hesse.harmonic.thermo_result import Thermochemistry
from hesse.structures import Structure
from hesse.units import BOLTZMANN, HBAR, INVERSE_CM

__all__ = [
    "ENTHALPY_METHODS",
    "ENTROPY_METHODS",
    "STANDARD_PRESSURE",
    "ThermoSettings",
    "moments_of_inertia",
    "thermochemistry",
]

ENTROPY_METHODS: Final = ("rrho", "grimme", "truhlar")
ENTHALPY_METHODS: Final = ("rrho", "head-gordon")
STANDARD_PRESSURE: Final = 101325.0
"""Pa; 1 atm, as in most programs."""

_ROTOR_INERTIA: Final = 1e-44 * units.kg * units.m**2
"""u Å²; Grimme's average moment of inertia, which limits that of free rotors."""
_PASCAL: Final = float(units.Pascal)
"""eV/Å³."""
_LITER: Final = 1e27
"""Å³."""

Terms: TypeAlias = "Float[Array, 'temperatures modes']"


@dataclass(frozen=True)
class ThermoSettings:
    """How thermochemistry is computed.

    Attributes:
        temperature: K, one or several.
        pressure: Pa; 1 atm by default.
        concentration: mol/L, instead of the pressure: that of an ideal gas of this concentration (1 for solutions).
        method: entropy of the vibrations, see `ENTROPY_METHODS`.
        enthalpy: their energy, see `ENTHALPY_METHODS`.
        cutoff: cm⁻¹; ν₀ of the methods for soft modes.
        symmetry: rotational symmetry number; "auto" finds it.
        degeneracy: degeneracy of the electronic state; None takes the spin multiplicity of the structure.
        scale: factor for all frequencies.
        invert_below: cm⁻¹; imaginary modes of smaller magnitude count as real ones.

    Raises:
        ConfigError: a value out of range.
        UnknownOptionError: a method that does not exist.
    """

    temperature: ArrayLike = 298.15
    pressure: float | None = None
    concentration: float | None = None
    method: str = "rrho"
    enthalpy: str = "rrho"
    cutoff: float = 100.0
    symmetry: int | Literal["auto"] = "auto"
    degeneracy: int | None = None
    scale: float = 1.0
    invert_below: float = 0.0

    def __post_init__(self) -> None:
        check_choice(self.method, ENTROPY_METHODS, "method of entropies")
        check_choice(self.enthalpy, ENTHALPY_METHODS, "method of enthalpies")
        try:
            temperatures = np.atleast_1d(np.asarray(self.temperature, dtype=np.float64))
        except (TypeError, ValueError):
            raise ConfigError(f"temperature: expected numbers of K, got {self.temperature!r}") from None
        if temperatures.ndim != 1 or not temperatures.size:
            raise ConfigError(f"temperature: expected one or several numbers of K, got {self.temperature!r}")
        for value in temperatures:
            if not (np.isfinite(value) and value > 0):
                raise ConfigError(f"temperature: expected K above absolute zero, got {value:g}")
        object.__setattr__(self, "temperature", temperatures)
        if self.pressure is not None and self.concentration is not None:
            raise ConfigError("give either a pressure (Pa) or a concentration (mol/L), not both")
        positive = {"pressure": self.pressure, "concentration": self.concentration, "scale": self.scale}
        for name, number in positive.items():
            if number is not None:
                _check_number(name, number, zero_allowed=False)
        for name, number in {"cutoff": self.cutoff, "invert_below": self.invert_below}.items():
            _check_number(name, number, zero_allowed=True)
        if self.symmetry != "auto":
            check_whole_numbers(symmetry=self.symmetry)
        if self.degeneracy is not None:
            check_whole_numbers(degeneracy=self.degeneracy)
        if (self.symmetry != "auto" and self.symmetry < 1) or (self.degeneracy is not None and self.degeneracy < 1):
            raise ConfigError("symmetry number and electronic degeneracy are whole numbers, 1 or more")

    @property
    def temperatures(self) -> Float[Array, "temperatures"]:
        """K, `[temperatures]`."""
        return np.asarray(self.temperature, dtype=np.float64)

    def pressures(self) -> Float[Array, "temperatures"]:
        """Pressure at every temperature.

        Returns:
            Pa, `[temperatures]`.
        """
        if self.concentration is not None:
            per_volume = self.concentration * float(units.mol) / _LITER
            return per_volume * BOLTZMANN * self.temperatures / _PASCAL
        return np.full(len(self.temperatures), STANDARD_PRESSURE if self.pressure is None else float(self.pressure))


def _check_number(name: str, value: float, *, zero_allowed: bool) -> None:
    check_numbers(**{name: value})
    if not np.isfinite(value) or value < 0 or (value == 0 and not zero_allowed):
        raise ConfigError(f"{name}: expected a number {'of at least' if zero_allowed else 'above'} zero, got {value:g}")


def thermochemistry(
    structure: Structure,
    modes: NormalModes,
    settings: ThermoSettings | None = None,
    *,
    energy: float | None = None,
    hessian_error: float | None = None,
) -> Thermochemistry:
    """Compute enthalpies, entropies and Gibbs energies at one or several temperatures.

    Imaginary modes do not contribute: at a transition state this is right for the reaction mode.

    Args:
        structure: the geometry, with its spin multiplicity.
        modes: its normal modes; their masses are those of the rotation too.
        settings: temperatures, pressure and methods.
        energy: electronic energy, eV; None leaves totals unknown.
        hessian_error: root mean square error of the elements of the Hessian, eV/Å², for error bars; None for none.

    Returns:
        Energies in eV, entropies in eV/K, at every temperature.

    Raises:
        RequestError: an error of the Hessian that is negative.
    """
    settings = settings or ThermoSettings()
    temperatures, pressures = settings.temperatures, settings.pressures()
    kt = BOLTZMANN * temperatures
    is_gas = not structure.periodic and modes.atoms is None
    sigma, degeneracy = 1, settings.degeneracy or max(structure.multiplicity, 1)
    entropies: dict[str, Float[Array, "temperatures"]] = {}
    energies: dict[str, Float[Array, "temperatures"]] = {}
    if is_gas:
        mass = float(modes.masses.sum())
        density = (mass * kt / (2.0 * np.pi * HBAR**2)) ** 1.5 * kt / (pressures * _PASCAL)
        entropies["translation"], energies["translation"] = BOLTZMANN * (np.log(density) + 2.5), 1.5 * kt
        if settings.symmetry != "auto":
            sigma = settings.symmetry
        elif len(structure) > 1:
            sigma = symmetry_number(structure, masses=modes.masses)
        entropies["rotation"], energies["rotation"] = _rotation(structure, modes, kt, sigma)
    terms = _mode_terms(_scaled(modes.frequencies, settings), kt, settings)
    entropies["vibration"], energies["vibration"] = terms["entropy"].sum(-1), terms["energy"].sum(-1)
    entropies["electronic"] = np.full(len(kt), BOLTZMANN * np.log(degeneracy))
    capacity = terms["heat_capacity"].sum(-1)
    if is_gas:
        capacity = capacity + (energies["translation"] + energies["rotation"]) / temperatures + BOLTZMANN
    errors: dict[str, Float[Array, "temperatures"]] = {}
    if hessian_error is not None:
        for name in ("zpe", "energy", "entropy", "gibbs"):
            errors[name] = error_of_sum(modes, hessian_error, partial(_one_term, name, kt, settings))
    return Thermochemistry(
        id=structure.id,
        temperature=temperatures,
        pressure=pressures if is_gas else None,
        method=settings.method,
        enthalpy_method=settings.enthalpy,
        zpe=float(terms["zpe"][0].sum()),
        energy=energy,
        energies=energies,
        entropies=entropies,
        heat_capacity=capacity,
        symmetry_number=sigma if is_gas else None,
        degeneracy=degeneracy,
        n_imaginary=int((_scaled(modes.frequencies, settings) < 0).sum()),
        errors=errors,
    )


def _one_term(
    name: str, kt: Float[Array, "temperatures"], settings: ThermoSettings, frequencies: Float[Array, "modes"]
) -> Terms:
    return _mode_terms(_scaled(frequencies, settings), kt, settings)[name]


def _scaled(frequencies: Float[Array, "modes"], settings: ThermoSettings) -> Float[Array, "modes"]:
    inverted = np.where((frequencies < 0) & (frequencies > -settings.invert_below), np.abs(frequencies), frequencies)
    result: Float[Array, "modes"] = settings.scale * inverted
    return result


def _rotation(
    structure: Structure, modes: NormalModes, kt: Float[Array, "temperatures"], sigma: int
) -> tuple[Float[Array, "temperatures"], Float[Array, "temperatures"]]:
    """Entropy and energy of the classical rigid rotor."""
    if len(structure) == 1:
        return np.zeros_like(kt), np.zeros_like(kt)
    moments = moments_of_inertia(structure, modes.masses)
    if modes.n_rigid == 5:
        states = 2.0 * moments[-1] * kt / (HBAR**2 * sigma)
        return BOLTZMANN * (np.log(states) + 1.0), kt.copy()
    states = np.sqrt(np.pi * np.prod(2.0 * moments[:, None] * kt / HBAR**2, axis=0)) / sigma
    return BOLTZMANN * (np.log(states) + 1.5), 1.5 * kt


def moments_of_inertia(structure: Structure, masses: Float[Array, "n"]) -> Float[Array, "3"]:
    """Principal moments of inertia.

    Args:
        structure: the geometry.
        masses: u, `[n]`.

    Returns:
        u Å², in ascending order.
    """
    r = structure.positions - masses @ structure.positions / masses.sum()
    second = (masses[:, None] * r).T @ r
    moments: Float[Array, "3"] = np.linalg.eigvalsh(np.trace(second) * np.eye(3) - second)
    return moments


def _mode_terms(
    frequencies: Float[Array, "modes"], kt: Float[Array, "temperatures"], settings: ThermoSettings
) -> dict[str, Terms]:
    """Contributions of each mode at each temperature: energy (with its zero-point energy), entropy, heat capacity,
    zero-point energy, and energy minus temperature times entropy."""
    real = frequencies > 0
    nu = np.where(real, frequencies, 1.0)  # of imaginary modes any number: their terms become zero
    kt_column = kt[:, None]
    oscillator = _oscillator(nu, kt_column)
    zpe = np.broadcast_to(0.5 * INVERSE_CM * nu, oscillator["entropy"].shape)
    energy, entropy, capacity = zpe + oscillator["energy"], oscillator["entropy"], oscillator["heat_capacity"]
    weight = 1.0 / (1.0 + (settings.cutoff / nu) ** 4)
    if settings.method == "truhlar":
        entropy = _oscillator(np.maximum(nu, settings.cutoff), kt_column)["entropy"]
    elif settings.method == "grimme":
        inertia = HBAR**2 / (2.0 * INVERSE_CM * nu)
        inertia = inertia * _ROTOR_INERTIA / (inertia + _ROTOR_INERTIA)
        rotor = BOLTZMANN * (0.5 + 0.5 * np.log(2.0 * np.pi * inertia * kt_column / HBAR**2))
        entropy = weight * entropy + (1.0 - weight) * rotor
    if settings.enthalpy == "head-gordon":
        energy = weight * energy + (1.0 - weight) * 0.5 * kt_column
        capacity = weight * capacity + (1.0 - weight) * 0.5 * BOLTZMANN
    terms = {"energy": energy, "entropy": entropy, "heat_capacity": capacity, "zpe": zpe}
    terms["gibbs"] = energy - entropy * kt_column / BOLTZMANN
    return {name: np.where(real, term, 0.0) for name, term in terms.items()}


def _oscillator(nu: Float[Array, "modes"], kt: Float[Array, "temperatures 1"]) -> dict[str, Terms]:
    """Thermal energy, entropy and heat capacity of harmonic oscillators."""
    x = INVERSE_CM * nu / kt
    decay = np.exp(-x)
    occupation = decay / -np.expm1(-x)
    return {
        "energy": INVERSE_CM * nu * occupation,
        "entropy": BOLTZMANN * (x * occupation - np.log1p(-decay)),
        "heat_capacity": BOLTZMANN * x**2 * occupation * (1.0 + occupation),
    }
