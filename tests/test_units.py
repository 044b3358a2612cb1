"""Units against the values of CODATA 2014."""

from __future__ import annotations

import math

import pytest

from hesse import units
from hesse.errors import UnitError


def test_values_are_codata_2014() -> None:
    elementary_charge, avogadro = 1.6021766208e-19, 6.022140857e23
    assert pytest.approx(27.21138602, rel=1e-8) == units.ENERGY_UNITS["hartree"]
    assert pytest.approx(27.21138602 / 2, rel=1e-8) == units.ENERGY_UNITS["rydberg"]
    assert pytest.approx(0.52917721067, rel=1e-9) == units.LENGTH_UNITS["bohr"]
    assert pytest.approx(1000 / elementary_charge / avogadro, rel=1e-8) == units.ENERGY_UNITS["kj/mol"]
    assert pytest.approx(4184 / elementary_charge / avogadro, rel=1e-8) == units.KCAL_PER_MOL
    assert pytest.approx(8.6173303e-5, rel=1e-8) == units.BOLTZMANN
    assert pytest.approx(1.239841974e-4, rel=1e-8) == units.INVERSE_CM
    assert units.ENERGY_UNITS["mev"] == 1e-3
    assert units.LENGTH_UNITS["nm"] == 10.0


def test_hbar_turns_mass_weighted_curvature_into_energy() -> None:
    """H2 has a force constant of 575 N/m and a reduced mass of half a hydrogen atom: ω̃ = 4401 cm⁻¹, as measured."""
    curvature = 575.0 / 16.021766208  # N/m in eV/Å²
    wavenumber = units.HBAR * math.sqrt(curvature / (1.00782503 / 2)) / units.INVERSE_CM
    assert wavenumber == pytest.approx(4401, rel=2e-3)


@pytest.mark.parametrize(("name", "value"), [("eV", 1.0), (" Hartree ", 27.21138602), ("kcal/MOL", 0.0433641)])
def test_names_ignore_case_and_blanks(name: str, value: float) -> None:
    assert units.energy_unit(name) == pytest.approx(value, rel=1e-6)


def test_lengths_by_name() -> None:
    assert units.length_unit("Å") == units.length_unit("Angstrom") == 1.0
    assert units.length_unit("BOHR") == pytest.approx(0.529177, rel=1e-6)


def test_unknown_units_get_the_nearest_name() -> None:
    with pytest.raises(UnitError, match=r'unknown energy unit "hartee"\. Did you mean "hartree"\?'):
        units.energy_unit("hartee")
    with pytest.raises(UnitError, match='unknown length unit "parsec"'):
        units.length_unit("parsec")
    with pytest.raises(UnitError, match="energy unit"):
        units.energy_unit("")
