"""torch-sim: molecules and crystals in one batch, real runs of its integrators and optimizers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from hesse import from_ase, save_model
from hesse.deploy import torch_sim_model
from hesse.errors import EngineError, UnknownElementError
from moving_atoms import by_ase, ethanol, network, relative_error, silicon, tetrahedron
from oracles import Constant, Morse

pytest.importorskip("torch_sim", reason="torch-sim needs torch-sim-atomistic (make engines)")

import torch_sim
from torch_sim.models.interface import validate_model_outputs

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


def state_of(atoms: list[Atoms], dtype: torch.dtype = torch.float64) -> torch_sim.SimState:
    return torch_sim.initialize_state(atoms, CPU, dtype)


def test_the_interface_of_torch_sim() -> None:
    validate_model_outputs(torch_sim_model(Morse()), CPU, torch.float64)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize(
    "batch",
    [[ethanol(), molecule("H2O"), molecule("CH4")], [silicon(), silicon(cubic=False)]],
    ids=["open", "periodic"],
)
def test_agreement_with_the_ase_calculator(batch: list[Atoms], dtype: torch.dtype, tolerance: float) -> None:
    """Energies, forces and stresses of systems of different sizes; one cell is smaller than the cutoff."""
    potential = network(dtype=dtype)
    result = torch_sim_model(potential)(state_of(batch, dtype))
    first = 0
    for k, atoms in enumerate(batch):
        energy, forces, stress = by_ase(potential, atoms)
        assert float(result["energy"][k]) == pytest.approx(energy, rel=tolerance, abs=tolerance)
        assert relative_error(result["forces"][first : first + len(atoms)], forces) < tolerance
        expected = np.zeros((3, 3)) if stress is None else stress
        assert relative_error(result["stress"][k], expected) < tolerance
        first += len(atoms)


def test_forces_in_closed_form() -> None:
    potential = Morse()
    crystal = silicon()
    exact = potential.exact(from_ase(crystal))
    result = torch_sim_model(potential)(state_of([crystal]))
    assert float(result["energy"][0]) == pytest.approx(exact.energy)
    assert relative_error(result["forces"], -exact.gradient) < 1e-10
    assert exact.strain_slope is not None
    assert relative_error(result["stress"][0], exact.strain_slope / crystal.get_volume()) < 1e-10


def test_energy_is_conserved_in_every_system() -> None:
    model = torch_sim_model(Morse(cutoff=12.0))
    energies = []
    for steps in (1, 60):
        torch.manual_seed(0)
        final = torch_sim.integrate(
            [tetrahedron()] * 3,
            model,
            integrator=torch_sim.integrators.nve,
            n_steps=steps,
            temperature=300.0,
            timestep=0.00025,
            seed=3,
        )
        kinetic = torch_sim.quantities.calc_kinetic_energy(
            masses=final.masses, momenta=final.momenta, system_idx=final.system_idx
        )
        energies.append(final.energy + kinetic)
    assert float((energies[1] - energies[0]).abs().max()) < 1e-3
    assert float(energies[1].abs().min()) > 0.01


def test_an_optimizer_finds_the_minimum() -> None:
    model = torch_sim_model(Morse(cutoff=12.0), compute_stress=False)
    final = torch_sim.optimize([tetrahedron()] * 2, model, optimizer=torch_sim.optimizers.fire, max_steps=300)
    assert float(model(final)["forces"].abs().max()) < 0.1


def test_a_model_file(tmp_path: Path) -> None:
    potential = network()
    save_model(tmp_path / "model.hesse", potential)
    result = torch_sim_model(tmp_path / "model.hesse")(state_of([ethanol()]))
    assert float(result["energy"][0]) == pytest.approx(by_ase(potential, ethanol())[0], abs=1e-12)


def test_wrong_input() -> None:
    with pytest.raises(UnknownElementError, match=r'structure "system 1" holds S; HesseNet knows H, C, O, Si only'):
        torch_sim_model(network())(state_of([ethanol(), molecule("SH2")]))

    class Broken(Constant):
        def forward(self, batch):  # type: ignore[no-untyped-def]
            return batch.positions.sum(-1) * float("nan")

    with pytest.raises(EngineError, match="system 0"):
        torch_sim_model(Broken())(state_of([ethanol()]))
