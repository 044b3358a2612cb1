"""Thermochemistry against closed forms, textbook values and ASE's classes."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule
from ase.thermochemistry import HarmonicThermo, IdealGasThermo

import oracles
from hesse.errors import ConfigError, RequestError, UnknownOptionError
from hesse.harmonic.normal_modes import NormalModes, normal_modes
from hesse.harmonic.thermochemistry import ThermoSettings, moments_of_inertia, thermochemistry
from hesse.structures import Structure, from_ase, to_ase
from hesse.units import BOLTZMANN, INVERSE_CM, KCAL_PER_MOL

R = 8.314462618
AVOGADRO, PLANCK, LIGHT, KB = 6.02214076e23, 6.62607015e-34, 299792458.0, 1.380649e-23
JOULE_PER_MOL = 1.602176634e-19 * AVOGADRO


def modes_of(structure: Structure, frequencies: list[float]) -> NormalModes:
    """Modes with given frequencies; their vectors do not matter."""
    full = normal_modes(structure, np.zeros((len(structure), 3, len(structure), 3)))
    assert len(full) == len(frequencies)
    return NormalModes(np.array(frequencies), full.vectors, full.masses, full.n_rigid)


CO = Structure([6, 8], [[0, 0, 0], [1.128, 0, 0]], id="CO")
WATER = from_ase(molecule("H2O"), id="water")


def test_argon_has_the_entropy_of_sackur_and_tetrode() -> None:
    argon = Structure([18], [[0, 0, 0]])
    result = thermochemistry(argon, modes_of(argon, []), ThermoSettings(pressure=1e5))
    mass = 39.948e-3 / AVOGADRO
    states = (2 * np.pi * mass * KB * 298.15 / PLANCK**2) ** 1.5 * KB * 298.15 / 1e5
    assert result.entropy[0] * JOULE_PER_MOL == pytest.approx(R * (np.log(states) + 2.5), rel=1e-5)
    assert result.entropy[0] * JOULE_PER_MOL == pytest.approx(154.85, abs=0.01)  # CODATA key value
    assert result.enthalpy_correction == pytest.approx(2.5 * BOLTZMANN * 298.15)
    assert result.heat_capacity == pytest.approx(2.5 * BOLTZMANN)
    assert result.zpe == 0.0
    assert result.symmetry_number == 1


def test_a_diatomic_from_the_partition_functions_in_si_units() -> None:
    temperature, pressure, nu = 500.0, 2e5, 2170.0
    result = thermochemistry(
        CO, modes_of(CO, [nu]), ThermoSettings(temperature=temperature, pressure=pressure), energy=-10.0
    )
    m1, m2 = 12.011e-3 / AVOGADRO, 15.999e-3 / AVOGADRO
    inertia = m1 * m2 / (m1 + m2) * 1.128e-10**2
    x = PLANCK * LIGHT * 100 * nu / (KB * temperature)
    entropies = {
        "translation": np.log(
            (2 * np.pi * (m1 + m2) * KB * temperature / PLANCK**2) ** 1.5 * KB * temperature / pressure
        )
        + 2.5,
        "rotation": np.log(8 * np.pi**2 * inertia * KB * temperature / PLANCK**2) + 1,
        "vibration": x / np.expm1(x) - np.log(1 - np.exp(-x)),
        "electronic": 0.0,
    }
    for name, value in entropies.items():
        assert result.entropies[name][0] / BOLTZMANN == pytest.approx(value, abs=2e-5), name
    enthalpy = BOLTZMANN * temperature * (3.5 + x / 2 + x / np.expm1(x))
    assert result.enthalpy_correction[0] == pytest.approx(enthalpy, rel=1e-6)
    assert result.enthalpy is not None
    assert result.gibbs is not None
    assert result.enthalpy[0] == pytest.approx(enthalpy - 10.0)
    assert result.gibbs[0] == pytest.approx(enthalpy - 10.0 - temperature * result.entropy[0])
    assert result.heat_capacity[0] / BOLTZMANN == pytest.approx(3.5 + x**2 * np.exp(x) / np.expm1(x) ** 2, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "geometry", "sigma", "spin"),
    [("H2O", "nonlinear", 2, 0.0), ("CO2", "linear", 2, 0.0), ("NO2", "nonlinear", 2, 0.5), ("O", "monatomic", 1, 1.0)],
)
def test_molecules_agree_with_ase(name: str, geometry: str, sigma: int, spin: float) -> None:
    atoms = molecule(name)
    atoms.info["multiplicity"] = round(2 * spin + 1)
    structure = from_ase(atoms)
    n_modes = {"nonlinear": 3, "linear": 4, "monatomic": 0}[geometry]
    frequencies = [300.0 + 650.0 * k for k in range(n_modes)]
    result = thermochemistry(
        structure, modes_of(structure, frequencies), ThermoSettings(temperature=[150.0, 900.0]), energy=1.5
    )
    assert result.symmetry_number == sigma
    reference = IdealGasThermo(
        np.array(frequencies) * INVERSE_CM, geometry, potentialenergy=1.5, atoms=to_ase(structure),
        symmetrynumber=sigma, spin=spin,
    )  # fmt: skip
    assert result.enthalpy is not None
    assert result.gibbs is not None
    for k, temperature in enumerate((150.0, 900.0)):
        assert result.enthalpy[k] == pytest.approx(reference.get_enthalpy(temperature, verbose=False), abs=1e-7)
        assert result.entropy[k] == pytest.approx(reference.get_entropy(temperature, 101325.0, verbose=False), rel=1e-6)
        assert result.gibbs[k] == pytest.approx(reference.get_gibbs_energy(temperature, 101325.0, verbose=False))


def test_crystals_and_partly_frozen_structures_only_vibrate() -> None:
    crystal = oracles.crystal(1)
    hessian = oracles.Morse().exact(oracles.molecule(3, 1)).hessian + 9.0 * np.eye(9).reshape(3, 3, 3, 3)
    for structure, atoms in ((crystal, None), (oracles.molecule(3, 1), [0, 2])):
        modes = normal_modes(structure, hessian, atoms=atoms)
        assert modes.n_imaginary == 0
        result = thermochemistry(structure, modes, energy=0.0)
        reference = HarmonicThermo(modes.frequencies * INVERSE_CM)
        assert result.gibbs is not None
        assert result.gibbs[0] == pytest.approx(reference.get_helmholtz_energy(298.15, verbose=False))
        assert result.enthalpy_correction[0] == pytest.approx(reference.get_internal_energy(298.15, verbose=False))
        assert result.pressure is None
        assert result.symmetry_number is None
        assert result.rows()[0]["pressure"] is None


def test_pressure_and_concentration() -> None:
    modes = modes_of(WATER, [1600.0, 3700.0, 3800.0])
    one = thermochemistry(WATER, modes, ThermoSettings(temperature=[298.15, 400.0]))
    high = thermochemistry(WATER, modes, ThermoSettings(temperature=[298.15, 400.0], pressure=1013250.0))
    assert one.entropy - high.entropy == pytest.approx(BOLTZMANN * np.log(10))
    molar = thermochemistry(WATER, modes, ThermoSettings(temperature=[298.15, 400.0], concentration=1.0))
    assert molar.pressure == pytest.approx(1000.0 * R * np.array([298.15, 400.0]), rel=1e-6)
    # The usual 1.89 kcal/mol from 1 atm to 1 mol/L
    assert (molar.gibbs_correction - one.gibbs_correction)[0] / KCAL_PER_MOL == pytest.approx(1.894, abs=1e-3)


def test_symmetry_degeneracy_and_scale() -> None:
    modes = modes_of(WATER, [1600.0, 3700.0, 3800.0])
    usual = thermochemistry(WATER, modes)
    other = thermochemistry(WATER, modes, ThermoSettings(symmetry=1, degeneracy=3))
    assert other.entropy - usual.entropy == pytest.approx(BOLTZMANN * np.log(6))
    scaled = thermochemistry(WATER, modes, ThermoSettings(scale=0.96))
    assert scaled.zpe == pytest.approx(0.96 * usual.zpe)
    assert usual.zpe == pytest.approx(4550.0 * INVERSE_CM)


def test_methods_for_soft_modes() -> None:
    """At the cutoff the weights are one half; far above it all methods agree, far below it they do what they say."""
    modes = modes_of(WATER, [5.0, 100.0, 3800.0])
    kt = BOLTZMANN * 298.15

    def entropy(method: str) -> float:
        return float(thermochemistry(WATER, modes, ThermoSettings(method=method)).entropies["vibration"][0]) / BOLTZMANN

    def oscillator(nu: float) -> float:
        x = INVERSE_CM * nu / kt
        return float(x / np.expm1(x) - np.log(1 - np.exp(-x)))

    def rotor(nu: float) -> float:
        moment = PLANCK / (8 * np.pi**2 * nu * 100 * LIGHT)
        moment = moment * 1e-44 / (moment + 1e-44)
        return float(0.5 + np.log(np.sqrt(8 * np.pi**3 * moment * KB * 298.15 / PLANCK**2)))

    assert entropy("rrho") == pytest.approx(oscillator(5.0) + oscillator(100.0) + oscillator(3800.0), rel=1e-5)
    assert entropy("truhlar") == pytest.approx(2 * oscillator(100.0) + oscillator(3800.0), rel=1e-5)
    grimme = rotor(5.0) + 0.5 * (oscillator(100.0) + rotor(100.0)) + oscillator(3800.0)
    assert entropy("grimme") == pytest.approx(grimme, rel=1e-4)
    head_gordon = thermochemistry(WATER, modes, ThermoSettings(enthalpy="head-gordon")).energies["vibration"][0]

    def energy(nu: float) -> float:
        return INVERSE_CM * nu * (0.5 + 1 / np.expm1(INVERSE_CM * nu / kt))

    assert head_gordon == pytest.approx(0.5 * kt + 0.5 * (energy(100.0) + 0.5 * kt) + energy(3800.0), rel=1e-4)


def test_imaginary_modes_are_left_out_or_inverted() -> None:
    modes = modes_of(WATER, [-20.0, 1600.0, 3700.0])
    left_out = thermochemistry(WATER, modes)
    assert left_out.n_imaginary == 1
    assert left_out.table().endswith("1 imaginary mode is left out")
    assert left_out.zpe == pytest.approx(2650.0 * INVERSE_CM)
    inverted = thermochemistry(WATER, modes, ThermoSettings(invert_below=30.0))
    assert inverted.n_imaginary == 0
    assert "imaginary" not in inverted.table()
    assert inverted.zpe == pytest.approx(2660.0 * INVERSE_CM)
    assert inverted.entropy > left_out.entropy


def test_low_temperatures_have_their_limits() -> None:
    crystal = oracles.crystal(1)
    modes = normal_modes(crystal, 9.0 * np.eye(9).reshape(3, 3, 3, 3))
    result = thermochemistry(crystal, modes, ThermoSettings(temperature=[1e-3, 0.1]))
    assert result.entropy == pytest.approx([0.0, 0.0], abs=1e-12)
    assert result.enthalpy_correction == pytest.approx(result.zpe)


def test_moments_of_inertia_agree_with_ase() -> None:
    assert moments_of_inertia(WATER, WATER.atomic_masses) == pytest.approx(to_ase(WATER).get_moments_of_inertia())


def test_rows_and_table() -> None:
    modes = modes_of(WATER, [1600.0, 3700.0, 3800.0])
    result = thermochemistry(WATER, modes, ThermoSettings(temperature=[298.15, 400.0]), energy=-5.0, hessian_error=0.05)
    rows = result.rows()
    assert [row["temperature"] for row in rows] == [298.15, 400.0]
    assert {"id", "temperature", "pressure", "method", "zpe", "enthalpy", "entropy", "gibbs"} <= rows[0].keys()
    assert rows[0]["gibbs"] == pytest.approx(rows[0]["gibbs_correction"] - 5.0)
    assert rows[0]["gibbs_error"] > 0
    assert "symmetry number 2" in result.table()
    assert "±" in result.table()
    unknown = thermochemistry(WATER, modes).rows()[0]
    assert unknown["gibbs"] is None
    assert unknown["gibbs_error"] is None
    assert len(thermochemistry(WATER, modes)) == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"temperature": -5.0}, ConfigError, "above absolute zero, got -5"),
        ({"temperature": [300.0, 0.0]}, ConfigError, "above absolute zero, got 0"),
        ({"temperature": "warm"}, ConfigError, "expected numbers of K, got 'warm'"),
        ({"temperature": []}, ConfigError, "one or several numbers"),
        ({"pressure": 0.0}, ConfigError, "pressure: expected a number above zero, got 0"),
        ({"pressure": "high"}, ConfigError, "pressure: expected a number"),
        ({"pressure": 1e5, "concentration": 1.0}, ConfigError, "not both"),
        ({"cutoff": -1.0}, ConfigError, "cutoff: expected a number of at least zero"),
        ({"scale": 0.0}, ConfigError, "scale"),
        ({"symmetry": 0}, ConfigError, "1 or more"),
        ({"symmetry": 1.5}, ConfigError, "whole number"),
        ({"degeneracy": 0}, ConfigError, "1 or more"),
        ({"method": "grime"}, UnknownOptionError, 'Did you mean "grimme"'),
        ({"enthalpy": "head"}, UnknownOptionError, "method of enthalpies"),
    ],
)
def test_replies(options: dict[str, object], error: type[RequestError], message: str) -> None:
    with pytest.raises(error, match=message):
        ThermoSettings(**options)  # type: ignore[arg-type]
