"""The calculator compared with `evaluate`, and used by ASE and phonopy."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.filters import FrechetCellFilter
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from ase.mep import NEB
from ase.optimize import BFGS, FIRE
from ase.vibrations import Vibrations, VibrationsData

import hesse
import oracles
from hesse import Hipnn, HipnnConfig, Properties, Request, collate, from_ase, save_model, to_ase
from hesse.curvature import evaluate
from hesse.deploy import ForceField, HesseCalculator, StressUndefinedError
from hesse.errors import (
    ConfigError,
    EngineError,
    ExtrapolationWarning,
    FileFormatError,
    GeometryError,
    LabelShapeError,
    RequestError,
    UnknownElementError,
)
from hesse.harmonic.normal_modes import normal_modes
from hesse.structures import TrainingEnvironments

CONFIG = HipnnConfig(features=8, sensitivities=5, blocks=1, onsite_layers=1, cutoff=4.5, longest=4.0)


@pytest.fixture
def potential() -> Hipnn:
    torch.manual_seed(1)
    return Hipnn(CONFIG, (1, 6, 8)).double()


@pytest.fixture
def morse() -> oracles.Morse:
    return oracles.Morse(depth=2.0, width=1.6, r0=1.3, cutoff=5.0)


def expected(potential: hesse.Potential, atoms: Atoms, **requested: bool) -> Properties:
    return evaluate(potential, collate([from_ase(atoms)], potential.cutoff), Request(**requested))


def voigt(stress: torch.Tensor) -> np.ndarray:
    return stress.numpy()[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


def test_results_of_a_crystal_equal_evaluate(potential: Hipnn) -> None:
    atoms = to_ase(oracles.crystal(0))
    atoms.calc = HesseCalculator(potential)
    reference = expected(potential, atoms, forces=True, stress=True, hessian=True, atomic_energies=True)
    assert atoms.get_potential_energy() == pytest.approx(float(reference.energy[0]), abs=1e-12)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    np.testing.assert_allclose(atoms.get_potential_energies(), reference.atomic_energies.numpy(), atol=1e-12)
    np.testing.assert_allclose(atoms.get_forces(), reference.forces.numpy(), atol=1e-12)
    np.testing.assert_allclose(atoms.get_stress(), voigt(reference.stress[0]), atol=1e-13)
    np.testing.assert_allclose(atoms.get_stress(voigt=False), reference.stress[0].numpy(), atol=1e-13)
    np.testing.assert_allclose(atoms.calc.get_hessian(atoms), reference.hessian_of(0).numpy(), atol=1e-11)


def test_products_of_one_and_of_several_directions(potential: Hipnn) -> None:
    atoms = to_ase(oracles.molecule(7, 0))
    calculator = HesseCalculator(potential)
    hessian = calculator.get_hessian(atoms)
    assert hessian.shape == (7, 3, 7, 3)
    directions = np.random.default_rng(0).normal(size=(4, 7, 3))
    products = calculator.hvp(directions, atoms)
    np.testing.assert_allclose(products, np.einsum("iajb,kjb->kia", hessian, directions), atol=1e-11)
    np.testing.assert_allclose(calculator.hvp(directions[2], atoms), products[2], atol=1e-12)
    np.testing.assert_allclose(calculator.hvp(directions[2].tolist()), products[2], atol=1e-12)


def test_curvature_follows_the_atoms(potential: Hipnn) -> None:
    """Products use the current geometry, however the atoms were moved."""
    atoms = to_ase(oracles.molecule(6, 0))
    atoms.calc = HesseCalculator(potential)
    direction = np.random.default_rng(0).normal(size=(6, 3))
    for step in range(4):
        atoms.rattle(0.05, seed=step)
        if step % 2:
            atoms.get_forces()
        elif step:
            atoms.calc.get_property("energy", atoms, allow_calculation=False)
        reference = expected(potential, atoms, forces=True, hessian=True)
        product = np.einsum("iajb,jb->ia", reference.hessian_of(0).numpy(), direction)
        np.testing.assert_allclose(atoms.calc.hvp(direction, atoms), product, atol=1e-11)
        np.testing.assert_allclose(atoms.calc.hvp(direction), product, atol=1e-11)
        np.testing.assert_allclose(atoms.get_forces(), reference.forces.numpy(), atol=1e-12)


def test_the_skin_does_not_change_dynamics(potential: Hipnn) -> None:
    ends = []
    for skin in (0.0, 0.6):
        atoms = to_ase(oracles.crystal(3, size=5.0, atoms=4))
        atoms.calc = HesseCalculator(potential, skin=skin)
        speeds = np.random.default_rng(0).normal(size=(4, 3)) * np.sqrt(300 * units.kB / atoms.get_masses())[:, None]
        atoms.set_velocities(speeds)
        dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
        start = atoms.get_total_energy()
        for _ in range(60):
            dynamics.run(1)
            atoms.wrap()
        assert atoms.get_total_energy() == pytest.approx(start, abs=2e-3)
        ends.append(atoms)
    np.testing.assert_allclose(ends[0].positions, ends[1].positions, atol=1e-9)
    assert ends[0].calc.neighbor_list.n_builds == ends[0].calc.neighbor_list.n_batches
    assert ends[1].calc.neighbor_list.n_builds < 20


def test_after_one_request_the_stress_is_computed_with_the_forces(potential: Hipnn) -> None:
    atoms = to_ase(oracles.crystal(0))
    atoms.calc = HesseCalculator(potential)
    atoms.get_forces()
    assert "stress" not in atoms.calc.results
    atoms.get_stress()
    atoms.rattle(0.01)
    atoms.get_forces()
    batches = atoms.calc.neighbor_list.n_batches
    np.testing.assert_allclose(atoms.get_stress(), voigt(expected(potential, atoms, stress=True).stress[0]), atol=1e-13)
    assert atoms.calc.neighbor_list.n_batches == batches
    atoms.pbc = False
    atoms.get_forces()
    assert "stress" not in atoms.calc.results


@pytest.mark.parametrize("pbc", [False, (True, True, False)])
def test_stress_without_a_volume_is_an_error_of_hesse_and_of_ase(potential: Hipnn, pbc: bool) -> None:
    atoms = to_ase(oracles.crystal(0))
    atoms.pbc = pbc
    atoms.calc = HesseCalculator(potential)
    with pytest.raises(PropertyNotImplementedError, match="three periodic directions"):
        atoms.get_stress()
    with pytest.raises(GeometryError) as reply:
        atoms.get_stress()
    assert type(reply.value) is StressUndefinedError, "a public name, which a traceback shows"


def test_from_a_file_in_both_dtypes(potential: Hipnn, tmp_path: Path) -> None:
    save_model(tmp_path / "model.hesse", potential)
    atoms = to_ase(oracles.molecule(6, 1))
    exact = expected(potential, atoms, forces=True).forces.numpy()
    for path, dtype, tolerance in (
        (tmp_path / "model.hesse", None, 1e-12),
        (str(tmp_path / "model.hesse"), "float32", 1e-4),
    ):
        atoms.calc = HesseCalculator.from_file(path, dtype=dtype)
        assert HesseCalculator(path, dtype=dtype).dtype == atoms.calc.dtype
        assert atoms.calc.dtype == (torch.float64 if dtype is None else torch.float32)
        forces = atoms.get_forces()
        assert forces.dtype == np.float64
        np.testing.assert_allclose(forces, exact, atol=tolerance)
        assert atoms.calc.hvp(np.ones((6, 3)), atoms).dtype == np.float64


@pytest.mark.parametrize(
    "wide", ["float64", torch.float64, np.float64, np.dtype("float64"), np.zeros(1).dtype], ids=str
)
def test_types_of_numpy_and_torch_and_their_names(potential: Hipnn, tmp_path: Path, wide: Any) -> None:
    save_model(tmp_path / "a.hesse", potential.to(torch.float32))
    assert HesseCalculator(potential, dtype=wide).dtype is torch.float64
    assert HesseCalculator.from_file(tmp_path / "a.hesse", dtype=wide).dtype is torch.float64
    assert ForceField(potential, oracles.molecule(3, 0), dtype=wide).calculator.dtype is torch.float64
    for load in (hesse.load_model, hesse.make_potential):
        assert next(load(tmp_path / "a.hesse", dtype=wide).parameters()).dtype is torch.float64


@pytest.mark.parametrize("wrong", ["float16", torch.float16, np.float16, np.int64, int, float, 64, "torch"], ids=str)
def test_other_types_get_a_reply(potential: Hipnn, tmp_path: Path, wrong: Any) -> None:
    save_model(tmp_path / "a.hesse", potential)
    for use in (
        lambda: HesseCalculator(potential, dtype=wrong),
        lambda: hesse.load_model(tmp_path / "a.hesse", dtype=wrong),
        lambda: hesse.make_potential(tmp_path / "a.hesse", dtype=wrong),
    ):
        with pytest.raises(RequestError, match='expected dtype "float32" or "float64"'):
            use()


def test_another_dtype_uses_a_copy(potential: Hipnn) -> None:
    calculator = HesseCalculator(potential, dtype=torch.float32)
    assert next(potential.parameters()).dtype == torch.float64
    assert next(calculator.potential.parameters()).dtype == torch.float32
    assert HesseCalculator(potential).potential is potential
    assert HesseCalculator(HesseCalculator(potential)).potential is potential


def test_atomic_energies_only_if_the_potential_has_them(morse: oracles.Morse) -> None:
    morse.has_atomic_energies = False
    atoms = to_ase(oracles.molecule(4, 0))
    atoms.calc = HesseCalculator(morse)
    atoms.get_potential_energy()
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_potential_energies()


# --- in the hands of others ------------------------------------------------------------------------------------------


def test_relaxation_vibrations_and_exact_modes_agree(morse: oracles.Morse, tmp_path: Path) -> None:
    atoms = to_ase(oracles.molecule(5, 2, elements=(6,)))
    del atoms.info["structure_id"]
    atoms.calc = HesseCalculator(morse)
    BFGS(atoms, logfile=None).run(fmax=1e-4, steps=300)
    assert abs(atoms.get_forces()).max() < 1e-4
    ours = atoms.calc.get_hessian(atoms)
    np.testing.assert_allclose(ours, morse.exact(from_ase(atoms)).hessian, atol=1e-9)
    theirs = Vibrations(atoms, name=str(tmp_path / "vib"), delta=1e-3)
    theirs.run()
    np.testing.assert_allclose(ours, theirs.get_vibrations().get_hessian(), atol=1e-3)
    energies = VibrationsData.from_2d(atoms, ours.reshape(15, 15)).get_energies()
    modes = normal_modes(from_ase(atoms), ours)
    lowest = np.sort(np.abs(energies.real))[6:] / units.invcm
    np.testing.assert_allclose(lowest, modes.frequencies, rtol=1e-3, atol=0.5)


COPPER = {"depth": 0.34, "width": 1.36, "r0": 2.87, "cutoff": 6.0}


def test_cells_relax() -> None:
    atoms = bulk("Cu", "fcc", a=3.7, cubic=True)
    atoms.rattle(0.05, seed=0)
    atoms.calc = HesseCalculator(oracles.Morse(**COPPER))
    FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=5e-3, steps=200)
    assert abs(atoms.get_stress()).max() < 1e-3
    assert abs(atoms.get_forces()).max() < 1e-2


def test_langevin_dynamics_runs(potential: Hipnn) -> None:
    atoms = molecule("CH3CH2OH")
    atoms.calc = HesseCalculator(potential)
    with warnings.catch_warnings():  # newer releases of ASE ask for `rng`
        warnings.simplefilter("ignore", FutureWarning)
        Langevin(atoms, 0.5 * units.fs, temperature_K=300, friction=0.02, rng=np.random.default_rng(0)).run(20)
    assert np.isfinite(atoms.get_potential_energy())


def test_neb_finds_the_saddle(morse: oracles.Morse) -> None:
    """Four equal atoms: from one tetrahedron to its mirror image, over the flat rhombus."""
    start = Atoms("C4", positions=[[0.6, 0, 0.4], [-0.6, 0, 0.4], [0, 0.6, -0.4], [0, -0.6, -0.4]])
    start.calc = HesseCalculator(morse)
    BFGS(start, logfile=None).run(fmax=0.01, steps=200)
    end = start.copy()
    end.positions *= [1, 1, -1]
    images = [start, *(start.copy() for _ in range(3)), end]
    for image in images[1:]:
        image.calc = HesseCalculator(morse)  # one calculator for each image, one potential for all
    band = NEB(images, climb=True, method="improvedtangent")
    band.interpolate()
    for image in images[1:-1]:
        image.positions[:2] *= 0.8  # the square between them is a stationary point of second order
    FIRE(band, logfile=None).run(fmax=0.05, steps=300)
    energies = [image.get_potential_energy() for image in images]
    assert energies[2] == max(energies)
    assert energies[2] > energies[0] + 0.1
    top = images[2]
    assert normal_modes(from_ase(top), top.calc.get_hessian(top)).n_imaginary == 1


def test_phonopy_gets_force_constants() -> None:
    phonopy = pytest.importorskip("phonopy", reason="phonopy is an optional reader")
    from phonopy.structure.atoms import PhonopyAtoms

    close = oracles.Morse(**COPPER)
    unit = bulk("Cu", "fcc", a=3.5, cubic=True)
    work = phonopy.Phonopy(
        PhonopyAtoms(
            symbols=unit.get_chemical_symbols(), cell=unit.cell[:], scaled_positions=unit.get_scaled_positions()
        ),
        supercell_matrix=np.eye(3),
        primitive_matrix=np.eye(3),
    )
    work.generate_displacements(distance=0.01)
    calculator, forces = HesseCalculator(close), []
    for cell in work.supercells_with_displacements:
        atoms = Atoms(cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True)
        atoms.calc = calculator
        forces.append(atoms.get_forces())
    assert calculator.neighbor_list.n_builds == 1, "displaced supercells share a list"
    work.forces = forces
    work.produce_force_constants()
    perfect = work.supercell
    atoms = Atoms(perfect.symbols, cell=perfect.cell, scaled_positions=perfect.scaled_positions, pbc=True)
    exact = calculator.get_hessian(atoms).transpose(0, 2, 1, 3)
    np.testing.assert_allclose(work.force_constants, exact, atol=0.02)


def test_copies_work(potential: Hipnn) -> None:
    atoms = to_ase(oracles.molecule(5, 0))
    atoms.calc = HesseCalculator(potential)
    forces = atoms.get_forces()
    other = copy.deepcopy(atoms)
    other.rattle(0.1)
    other.get_forces()
    np.testing.assert_array_equal(atoms.get_forces(), forces)


# --- wrong input -----------------------------------------------------------------------------------------------------


def test_invalid_arguments(potential: Hipnn, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="expected a potential"):
        HesseCalculator(torch.nn.Linear(2, 2))
    with pytest.raises(RequestError, match="directions first"):
        HesseCalculator(potential).hvp(molecule("H2O"), np.ones((3, 3)))
    with pytest.raises(FileFormatError):
        HesseCalculator.from_file(tmp_path / "model.hesse")
    with pytest.raises(RequestError, match="float64"):
        HesseCalculator(potential, dtype=torch.float16)
    with pytest.raises(RequestError, match="float64"):
        HesseCalculator.from_file("model.hesse", dtype="single")
    with pytest.raises(ConfigError, match="device"):
        HesseCalculator(potential, device="gpu")
    with pytest.raises(ConfigError, match="skin"):
        HesseCalculator(potential, skin=-1.0)


def test_invalid_requests(potential: Hipnn) -> None:
    calculator = HesseCalculator(potential)
    with pytest.raises(UnknownElementError, match="knows"):
        calculator.get_property("energy", Atoms("Fe2", positions=[[0, 0, 0], [0, 0, 2]]))
    with pytest.raises(GeometryError, match="apart"):
        calculator.get_property("forces", Atoms("H2", positions=[[0, 0, 0], [0, 0, 0]]))
    with pytest.raises(RequestError, match="no atoms yet"):
        HesseCalculator(potential).get_hessian()
    atoms = to_ase(oracles.molecule(5, 0))
    for wrong in (
        np.ones(15),
        np.ones((4, 3)),
        np.ones((0, 5, 3)),
        np.ones((1, 1, 5, 3)),
        np.full((5, 3), np.nan),
        "x",
    ):
        with pytest.raises(LabelShapeError, match="directions"):
            calculator.hvp(wrong, atoms)


def test_results_that_are_not_finite_are_errors(potential: Hipnn) -> None:
    with torch.no_grad():
        potential.readouts[0].weight.fill_(torch.nan)
    atoms = to_ase(oracles.molecule(5, 0))
    calculator = HesseCalculator(potential)
    for _ in range(2):  # the result is not cached
        with pytest.raises(EngineError, match="finite"):
            calculator.get_property("energy", atoms)
    with pytest.raises(EngineError, match="finite"):
        calculator.get_hessian(atoms)
    with pytest.raises(EngineError, match="finite"):
        calculator.hvp(np.ones((5, 3)), atoms)


def test_a_geometry_outside_the_training_data_is_told_once() -> None:
    model = oracles.Morse()
    tetrahedron = 0.42 * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    rng = np.random.default_rng(0)
    data = [hesse.Structure([6] * 4, tetrahedron + rng.normal(0, 0.02, (4, 3)), id=str(i)) for i in range(30)]
    assert HesseCalculator(model).extrapolation is None
    model.training_environments = TrainingEnvironments.from_structures(data)
    atoms = Atoms("C4", tetrahedron, calculator=HesseCalculator(model))
    atoms.get_forces()
    assert not atoms.calc.extrapolation.outside
    atoms.positions *= 1.5
    with pytest.warns(ExtrapolationWarning, match="C4 is outside the training data"):
        atoms.get_potential_energy()
    assert atoms.calc.extrapolation.outside
    atoms.positions *= 1.02
    atoms.get_potential_energy()  # a second warning would be an error here
    assert atoms.calc.extrapolation.grade > 1.0
