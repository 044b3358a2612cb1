"""Frequencies and zero-point energies against closed forms and against ASE."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.constraints import FixAtoms, FixBondLength
from ase.io import read
from ase.units import Hartree
from ase.vibrations import VibrationsData

import closed_form_engines
import hesse
import oracles
from hesse.datasets import Dataset
from hesse.engines import FiniteDifferences
from hesse.errors import (
    EngineError,
    FileFormatError,
    HarmonicWarning,
    InconsistentLabelsError,
    LabelShapeError,
    MissingLabelError,
    RequestError,
)
from hesse.structures import Properties, Structure, to_ase
from hesse.units import HBAR, INVERSE_CM

PAIR = Structure([6, 8], [[0, 0, 0], [1.2, 0, 0]], id="pair")


def test_a_diatomic_has_the_frequency_of_its_force_constant():
    """From ω = √(k/μ) with CODATA constants, independent of the units of Hesse."""
    result = hesse.vibrations(PAIR, closed_form_engines.own_engine(), minimize=True, fmax=1e-6)
    force_constant = oracles.Morse().exact(result.structure).hessian[0, 0, 0, 0]
    reduced = 12.011 * 15.999 / (12.011 + 15.999) * 1.66053906660e-27
    omega = np.sqrt(force_constant * 1.602176634e-19 * 1e20 / reduced)
    assert result.frequencies == pytest.approx([omega / (2 * np.pi * 2.99792458e10)], rel=1e-5)
    assert result.zpe == pytest.approx(0.5 * 1.054571817e-34 * omega / 1.602176634e-19, rel=1e-5)
    assert result.linear
    assert result.n_imaginary == 0
    assert result.fmax < 1e-6
    assert result.level == "closed form"
    assert "zero-point energy" in result.table()


def test_a_saddle_point_has_an_imaginary_mode():
    engine = closed_form_engines.own_engine()
    result = hesse.vibrations(hesse.saddle(oracles.rhombus(0), engine), engine)
    assert result.n_imaginary == 1
    assert result.frequencies[0] < 0
    assert not result.linear
    assert f"{-result.frequencies[0]:.1f}i" in result.table()
    real = result.frequencies[1:]
    assert result.zpe == pytest.approx(real.sum() / 2 / 8065.544, rel=1e-5)


def test_water_agrees_with_ase():
    pytest.importorskip("tblite.interface", reason="tblite is not installed")
    result = hesse.vibrations(molecule("H2O"), "gfn2", minimize=True, fmax=1e-3)
    data = VibrationsData(result.to_ase(), result.hessian)
    assert result.frequencies == pytest.approx(data.get_frequencies().real[-3:], abs=0.5)
    assert result.to_ase().get_potential_energy() == result.energy


def test_a_relaxation_that_does_not_converge_is_an_error():
    with pytest.raises(EngineError, match=r'"pair": not relaxed after 1 steps.*more steps'):
        hesse.vibrations(PAIR, closed_form_engines.own_engine(), minimize=True, steps=1)


def test_a_known_hessian_is_used() -> None:
    engine = closed_form_engines.HessianFails()
    top = oracles.rhombus(1)
    exact = oracles.Morse().exact(top).hessian
    given = hesse.vibrations(top, engine, hessian=exact)
    np.testing.assert_allclose(given.frequencies, hesse.vibrations(top, engine.engine).frequencies, atol=0.5)
    np.testing.assert_array_equal(given.hessian, exact)
    with pytest.raises(LabelShapeError, match=r"Use .reshape\(4, 3, 4, 3\)"):
        hesse.vibrations(top, engine, hessian=exact.reshape(12, 12))
    with pytest.raises(RequestError, match="relaxed"):
        hesse.vibrations(top, engine, hessian=exact, minimize=True)


def relaxed(seed: int = 3, n: int = 5) -> Structure:
    return hesse.minimize(oracles.molecule(n, seed), closed_form_engines.own_engine(), fmax=1e-6, steps=2000).structure


def test_stored_hessians_need_no_engine(tmp_path: Path) -> None:
    structure = relaxed()
    exact = oracles.Morse().exact(structure)
    labels = Properties.single(
        len(structure), energy=exact.energy, forces=-exact.gradient, hessian=exact.hessian, hessian_error=1e-4
    )
    data = Dataset.from_pairs([(structure, labels)], level="closed form")
    hesse.write_dataset(tmp_path / "one.h5", data)
    expected = hesse.normal_modes(structure, exact.hessian).frequencies
    for source in (data, tmp_path / "one.h5", data.to_ase()[0]):
        result = hesse.vibrations(source)
        np.testing.assert_allclose(result.frequencies, expected, atol=1e-6)
        assert result.level == "closed form"
        assert result.energy == pytest.approx(exact.energy)
        assert result.frequency_errors is not None
        assert result.zpe_error is not None
        assert result.zpe_error < 1e-4
    with pytest.raises(MissingLabelError, match="no Hessian: give an engine"):
        hesse.vibrations(structure)
    with pytest.raises(RequestError, match="one structure, got 2"):
        hesse.vibrations([oracles.molecule(3, 1), oracles.molecule(3, 2)])
    with pytest.raises(RequestError, match="only an engine can relax"):
        hesse.vibrations(data, minimize=True)


def test_vibrations_data_of_ase() -> None:
    structure = relaxed()
    hessian = oracles.Morse().exact(structure).hessian
    whole = hesse.vibrations(VibrationsData(to_ase(structure), hessian))
    np.testing.assert_allclose(whole.frequencies, hesse.normal_modes(structure, hessian).frequencies)
    assert whole.energy is None
    assert whole.fmax is None
    assert "not known" in whole.table()
    order = [4, 1]
    part = hesse.vibrations(VibrationsData(to_ase(structure), hessian[order][:, :, order], indices=order))
    expected = hesse.normal_modes(structure, hessian, atoms=order).frequencies
    np.testing.assert_allclose(part.frequencies, expected)
    again = hesse.vibrations(part.to_vibrations_data())
    np.testing.assert_allclose(again.frequencies, expected)


def test_frozen_atoms_cost_no_gradients() -> None:
    structure, engine = relaxed(n=6), closed_form_engines.own_engine()
    whole = hesse.vibrations(structure, engine)
    calls = engine.calls
    part = hesse.vibrations(structure, engine, atoms=[2, 5])
    assert engine.calls - calls == 1 + 2 * 6
    block = whole.hessian[[2, 5]][:, :, [2, 5]]
    np.testing.assert_allclose(part.hessian, block, atol=1e-5)
    assert part.hessian_error is not None
    assert part.hessian_error < 1e-3
    atoms = to_ase(structure)
    atoms.set_constraint(FixAtoms([0, 1, 3, 4]))
    constrained = hesse.vibrations(atoms, engine)
    np.testing.assert_allclose(constrained.frequencies, part.frequencies)
    assert constrained.atoms is not None
    assert constrained.atoms.tolist() == [2, 5]
    assert "4 of 6 atoms are frozen" in constrained.table()
    assert constrained.row()["atoms"] == [2, 5]
    with pytest.raises(RequestError, match="relax it before"):
        hesse.vibrations(atoms, engine, minimize=True)
    atoms.set_constraint([FixBondLength(0, 1)])
    with pytest.raises(RequestError, match=r"FixBondLengths? are not known"):
        hesse.vibrations(atoms, engine)
    atoms.set_constraint(FixAtoms(range(6)))
    with pytest.raises(RequestError, match="all atoms are frozen"):
        hesse.vibrations(atoms, engine)


def test_a_hessian_of_another_geometry_is_refused() -> None:
    engine, structure = closed_form_engines.own_engine(), relaxed()
    hessian = oracles.Morse().exact(structure).hessian
    moved = structure.with_positions(structure.positions @ oracles.rotation(2).T)
    with pytest.raises(InconsistentLabelsError, match=r"its Hessian is not that of this geometry.*rotational sum rule"):
        hesse.vibrations(moved, engine, hessian=hessian)
    stored = Properties.single(len(moved), forces=-oracles.Morse().exact(moved).gradient, hessian=hessian)
    with pytest.raises(InconsistentLabelsError, match="not that of this geometry"):
        hesse.vibrations(Dataset.from_pairs([(moved, stored)]))


def test_isotopes_and_masses() -> None:
    engine = closed_form_engines.own_engine()
    average = hesse.vibrations(PAIR, engine).frequencies[0]
    heavy = hesse.vibrations(PAIR, engine, isotopes={0: "13C"}).frequencies[0]
    reduced = [m * 15.999 / (m + 15.999) for m in (12.011, 13.00335484)]
    assert heavy / average == pytest.approx(np.sqrt(reduced[0] / reduced[1]), rel=1e-6)
    principal = hesse.vibrations(PAIR, engine, masses="principal")
    assert principal.modes.masses == pytest.approx([12.0, 15.99491462])
    with pytest.raises(RequestError, match="no isotope of C"):
        hesse.vibrations(PAIR, engine, isotopes={0: "heavy"})
    with pytest.raises(RequestError, match="positive masses"):
        hesse.vibrations(PAIR, engine, masses=[0.0, 16.0])


@pytest.mark.filterwarnings("default::hesse.errors.HarmonicWarning")
def test_what_may_mislead_is_told() -> None:
    engine = closed_form_engines.own_engine()
    with pytest.warns(HarmonicWarning, match='"pair": the largest force is .* not a stationary point'):
        far = hesse.vibrations(PAIR, engine)
    assert "warning: the largest force" in far.table()
    structure = relaxed()
    hessian = oracles.Morse().exact(structure).hessian
    modes = hesse.normal_modes(structure, hessian)
    soft = modes.vectors[0] * np.sqrt(modes.masses)[:, None]
    # Move the softest mode to 20i cm⁻¹.
    shift = -((20.0 * INVERSE_CM / HBAR) ** 2) - modes.eigenvalues[0]
    hessian = hessian + shift * np.einsum("ia,jb->iajb", soft, soft)
    labels = Properties.single(len(structure), hessian=hessian, hessian_error=0.05)
    with pytest.warns(HarmonicWarning) as told:
        result = hesse.vibrations(Dataset.from_pairs([(structure, labels)]))
    texts = " ".join(str(warning.message) for warning in told)
    assert "1 imaginary mode near zero (20.0i cm⁻¹)" in texts
    assert "the estimated error of the Hessian (0.05 eV/Å²) makes" in texts
    assert "±" in result.table()
    flagged = hesse.vibrations(Dataset.from_pairs([(structure, labels.replace(suspect=torch.tensor([True])))]))
    assert "flagged suspect" in flagged.warnings()[0]
    assert result.row()["warnings"] == result.warnings()
    tight = hesse.vibrations(relaxed(), engine)
    assert tight.warnings() == []


def test_files_of_modes_are_read_by_others(tmp_path: Path) -> None:
    cclib_io = pytest.importorskip("cclib.io")
    structure = replace(relaxed(), charge=1, multiplicity=2)
    exact = oracles.Morse().exact(structure)
    labels = Properties.single(len(structure), energy=-500.0, forces=-exact.gradient, hessian=exact.hessian)
    result = hesse.vibrations(Dataset.from_pairs([(structure, labels)], level="closed form"))
    for name in ("modes.log", "modes.molden", "modes.xyz", "modes.json"):
        result.write(tmp_path / name)
    data = cclib_io.ccread(str(tmp_path / "modes.log"))
    np.testing.assert_allclose(data.vibfreqs, result.frequencies, atol=6e-5)
    np.testing.assert_allclose(data.vibdisps, result.modes.unit_displacements, atol=6e-6)
    np.testing.assert_allclose(data.vibrmasses, result.modes.reduced_masses, atol=6e-5)
    np.testing.assert_allclose(data.atomcoords[-1], structure.positions, atol=1e-7)
    assert (data.charge, data.mult, data.natom) == (1, 2, len(structure))
    assert data.scfenergies[-1] == pytest.approx(-500.0, abs=1e-4)  # cclib has another Hartree
    assert data.zpve == pytest.approx(result.zpe / Hartree, abs=1e-6)
    assert data.freeenergy == pytest.approx((-500.0 + hesse.thermo(result).gibbs_correction[0]) / Hartree, abs=1e-5)
    frames = read(tmp_path / "modes.xyz", index=":")
    assert len(frames) == 20 * len(result.frequencies)
    np.testing.assert_allclose(frames[0].positions, structure.positions, atol=1e-7)
    displacement = frames[25].positions - structure.positions
    assert np.linalg.norm(displacement, axis=1).max() == pytest.approx(0.3, abs=1e-6)
    direction = result.modes.unit_displacements[1]
    np.testing.assert_allclose(displacement / np.linalg.norm(displacement), direction, atol=1e-6)
    assert frames[25].info["frequency_cm"] == pytest.approx(result.frequencies[1], abs=1e-3)
    stored = VibrationsData.read(tmp_path / "modes.json")
    np.testing.assert_allclose(stored.get_hessian(), exact.hessian)
    text = (tmp_path / "modes.molden").read_text(encoding="utf-8")
    sections = dict(re.findall(r"\[([A-Z-]+)\][^\n]*\n([^\[]*)", text))
    np.testing.assert_allclose([float(nu) for nu in sections["FREQ"].split()], result.frequencies, atol=1e-6)
    vectors = [line.split() for line in sections["FR-NORM-COORD"].splitlines() if "vibration" not in line]
    np.testing.assert_allclose(
        np.array(vectors, dtype=float).reshape(-1, len(structure), 3), result.modes.unit_displacements, atol=1e-8
    )
    with pytest.raises(FileFormatError, match=r"written as \.molden"):
        result.write(tmp_path / "modes.pdf")


def test_linear_molecules_and_atoms_are_written_too(tmp_path: Path) -> None:
    cclib_io = pytest.importorskip("cclib.io")
    result = hesse.vibrations(PAIR, closed_form_engines.own_engine(), minimize=True)
    result.write(tmp_path / "pair.log")
    data = cclib_io.ccread(str(tmp_path / "pair.log"))
    np.testing.assert_allclose(data.vibfreqs, result.frequencies, atol=6e-5)
    atom = hesse.vibrations(oracles.atom(8), closed_form_engines.own_engine())
    for suffix in ("log", "molden", "xyz"):
        atom.write(tmp_path / f"atom.{suffix}")
    assert "Frequencies" not in (tmp_path / "atom.log").read_text(encoding="utf-8")
    assert len(atom.frequencies) == 0
    assert "zero-point energy 0.0000" in atom.table()


def test_error_bars_hold_for_finite_differences() -> None:
    """Errors of a coarse step are largest in stiff bonds; the bars of all modes together must have the right size."""
    ratios = []
    for seed in range(6):
        structure = relaxed(seed, n=4)
        engine = closed_form_engines.ClosedForm(oracles.Morse(), FiniteDifferences(step=0.04))
        result = hesse.vibrations(structure, engine)
        exact = hesse.normal_modes(structure, oracles.Morse().exact(structure).hessian)
        assert result.frequency_errors is not None
        ratios.append(np.abs(result.frequencies - exact.frequencies) / result.frequency_errors)
        assert result.zpe_error is not None
        assert abs(result.zpe - exact.zero_point_energy) < 4 * result.zpe_error
    assert 0.3 < np.sqrt(np.mean(np.concatenate(ratios) ** 2)) < 1.6
    assert np.concatenate(ratios).max() < 4.0


@pytest.mark.filterwarnings("ignore::DeprecationWarning:goodvibes")
def test_goodvibes_reads_the_text(tmp_path: Path) -> None:
    thermo = pytest.importorskip("goodvibes.thermo")
    structure = relaxed()
    exact = oracles.Morse().exact(structure)
    labels = Properties.single(len(structure), energy=-500.0, forces=-exact.gradient, hessian=exact.hessian)
    result = hesse.vibrations(Dataset.from_pairs([(structure, labels)], level="closed form"))
    result.write(tmp_path / "modes.log")
    per_liter = 101.325 / (8.3144621 * 298.15)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read_back = thermo.calc_bbe(
            str(tmp_path / "modes.log"), QS="grimme", QH=True, cutoff=100.0, H_FREQ_CUTOFF=100.0, temp=298.15,
            conc=per_liter, scale_fac=1.0,
        )  # fmt: skip
    ours = hesse.thermo(result, method="grimme", enthalpy="head-gordon")
    assert ours.gibbs is not None
    assert read_back.qh_gibbs_free_energy == pytest.approx(ours.gibbs[0] / Hartree, abs=1e-6)
    assert read_back.zpe == pytest.approx(result.zpe / Hartree, abs=1e-7)


def test_a_hessian_of_another_frame_is_refused_without_forces() -> None:
    atoms = molecule("CH3OH")
    hessian = hesse.compute(atoms, "gfn2", hessian=True).hessian_of(0).numpy()
    assert hesse.vibrations(atoms, hessian=hessian).n_imaginary >= 0
    turned = atoms.copy()
    turned.rotate(40, (1, 2, 3))
    with pytest.raises(InconsistentLabelsError, match="not that of this geometry"):
        hesse.vibrations(turned, hessian=hessian)
