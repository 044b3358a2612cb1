"""Frequencies and thermochemistry of published outputs: what the programs printed, and what GoodVibes 4.4.0 makes of it
(`goodvibes_4_4_0.json`: enthalpy by Head-Gordon and Gibbs energy minus electronic energy, Hartree, at 1 atm)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from ase.units import Hartree

from hesse.datasets import read_dataset
from hesse.harmonic.normal_modes import NormalModes, normal_modes
from hesse.harmonic.thermochemistry import ThermoSettings, thermochemistry
from hesse.structures import Structure
from hesse.units import KCAL_PER_MOL

GOODVIBES = json.loads((Path(__file__).parent / "goodvibes_4_4_0.json").read_text(encoding="utf-8"))
LINEAR_BUT_ASYMMETRIC = "starred_rotational_constant.log"
"""CCH, of which Gaussian says that it is an asymmetric top, with 3 instead of 4 vibrations."""


def last_hessian(path: Path) -> tuple[Structure, NormalModes] | None:
    dataset = read_dataset(path, check=False)
    if dataset.labels.hessian is None:
        return None
    last = len(dataset) - 1
    structure = dataset.structures[last]
    return structure, normal_modes(structure, dataset.labels.hessian_of(last).numpy(), masses="principal")


@pytest.mark.parametrize("name", GOODVIBES)
def test_goodvibes(name: str, shared_data: Path) -> None:
    if not (shared_data / "qc_freq" / name).exists():
        pytest.skip("this file is absent")
    result = last_hessian(shared_data / "qc_freq" / name)
    assert result is not None
    structure, modes = result
    reference = GOODVIBES[name]
    for key in reference.keys() - {"symmetry"}:
        method, temperature = key.split("/")
        settings = ThermoSettings(
            temperature=float(temperature), method=method, enthalpy="head-gordon", symmetry=reference["symmetry"]
        )
        numbers = thermochemistry(structure, modes, settings)
        ours = np.array([numbers.enthalpy_correction[0], numbers.gibbs_correction[0]]) / Hartree
        assert ours == pytest.approx(reference[key], abs=1e-6)


def test_gaussian(shared_data: Path) -> None:
    """Every Gaussian output with a Hessian and thermochemistry: frequencies, zero-point energy, entropy, Gibbs energy,
    with the symmetry number that the output states."""
    count = 0
    for path in sorted(p for p in (shared_data / "qc_freq").rglob("*") if p.suffix in (".log", ".out")):
        text = path.read_text(encoding="utf-8", errors="replace")
        zpe = re.findall(r"Zero-point correction= +([\d.]+)", text)
        if not zpe or path.name == LINEAR_BUT_ASYMMETRIC:
            continue
        result = last_hessian(path)
        if result is None:
            continue
        structure, modes = result
        printed = [float(nu) for line in re.findall(r"Frequencies -- (.*)", text) for nu in line.split()]
        assert modes.frequencies == pytest.approx(printed[-len(modes) :], abs=3e-3), path.name
        temperature, pressure = re.findall(r"Temperature +([\d.]+) Kelvin. +Pressure +([\d.]+) Atm", text)[-1]
        (sigma,) = re.findall(r"Rotational symmetry number +(\d+)", text)[-1:]
        settings = ThermoSettings(
            temperature=float(temperature), pressure=float(pressure) * 101325.0, symmetry=int(sigma)
        )
        numbers = thermochemistry(structure, modes, settings)
        assert numbers.zpe / Hartree == pytest.approx(float(zpe[-1]), abs=1e-6), path.name
        entropy = re.findall(r"\n Total +[-\d.]+ +[-\d.]+ +([-\d.]+)\n", text)[-1]
        assert 1000 * numbers.entropy[0] / KCAL_PER_MOL == pytest.approx(float(entropy), abs=1e-3), path.name
        gibbs = re.findall(r"Thermal correction to Gibbs Free Energy= +([-\d.]+)", text)[-1]
        assert numbers.gibbs_correction[0] / Hartree == pytest.approx(float(gibbs), abs=1e-6), path.name
        enthalpy = re.findall(r"Thermal correction to Enthalpy= +([-\d.]+)", text)[-1]
        assert numbers.enthalpy_correction[0] / Hartree == pytest.approx(float(enthalpy), abs=1e-6), path.name
        count += 1
    assert count > 30


def test_a_linear_molecule_stays_linear(shared_data: Path) -> None:
    (path,) = (shared_data / "qc_freq").rglob(LINEAR_BUT_ASYMMETRIC)
    result = last_hessian(path)
    assert result is not None
    assert result[1].n_rigid == 5
    assert result[1].frequencies == pytest.approx([500.567, 500.569, 2148.386, 3528.258], abs=2e-3)


def test_checkpoints_have_the_frequencies_that_they_state(shared_data: Path) -> None:
    """Formatted checkpoint files with "Vib-E2" hold the frequencies of Gaussian."""
    count = 0
    for path in sorted((shared_data / "qc_freq").rglob("*.fchk")):
        match = re.search(r"Vib-E2 +R +N= +(\d+)\n((?: [ \dE+\-.]+\n)+)", path.read_text(encoding="utf-8"))
        result = last_hessian(path)
        if match is None or result is None:
            continue
        printed = [float(number) for number in match[2].split()][: len(result[1])]
        assert result[1].frequencies == pytest.approx(printed, abs=3e-3), path.name
        count += 1
    assert count > 0
