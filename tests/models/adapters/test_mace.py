"""MACE models as potentials: agreement with MACE's own calculator, before and after training; files; invalid input.

MACE and NequIP need different releases of e3nn, so these tests run in an environment of their own (`make peers`).
"""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("mace", reason="the adapter of MACE needs mace-torch (make peers)")

from mace_models import mace_calculator, mace_model, quiet

import hesse
from hesse.curvature import evaluate
from hesse.engines import make_potential
from hesse.errors import FileFormatError, RequestError, UnknownElementError, UnknownOptionError, WriteError
from hesse.models.adapters.mace import MacePotential
from hesse.structures import Request, Structure, collate, to_ase
from hesse.training import trainer
from oracles import Morse, atom, crystal, labeled, linear, molecules

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"),
]
OPEN = [*molecules([6, 4], seed=1), atom(8), linear(3)]
FAR = Structure([8, 1], [[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]], id="far")
KINDS: dict[str, dict[str, Any]] = {
    "ScaleShiftMACE": {"kind": "ScaleShiftMACE"},
    "MACE": {"kind": "MACE"},
    "with repulsion": {"pair_repulsion": True, "distance_transform": "Agnesi"},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def close(got: Any, expected: Any, tolerance: float = 1e-8) -> None:
    one, other = (torch.as_tensor(value, dtype=torch.float64) for value in (got, expected))
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def theirs(model: Any, structure: Structure, **options: Any) -> Any:
    """Atoms with MACE's calculator, which uses its own neighbor lists and derivatives."""
    atoms = to_ase(structure)
    atoms.calc = mace_calculator(copy.deepcopy(model), **options)
    return atoms


# --- the same numbers ------------------------------------------------------------------------------------------------


@every_kind
def test_open_structures_of_several_sizes_equal_mace(kind: str) -> None:
    model = mace_model(**KINDS[kind])
    potential = MacePotential(model)
    batch = collate([*OPEN, FAR], potential.cutoff)
    probes = torch.randn(2, len(batch.numbers), 3, dtype=torch.float64)
    result = evaluate(potential, batch, Request(forces=True, probes=probes, hessian=True, atomic_energies=True))
    parts = zip(batch.n_atoms.tolist(), result.forces.split(batch.n_atoms.tolist()), [*OPEN, FAR], strict=True)  # type: ignore[union-attr]
    start, entry = 0, 0
    for k, (n, forces, structure) in enumerate(parts):
        atoms = theirs(model, structure)
        close(result.energy[k], atoms.get_potential_energy())  # type: ignore[index]
        close(forces, atoms.get_forces())
        hessian = torch.as_tensor(np.array(atoms.calc.get_hessian(atoms))).reshape(3 * n, 3 * n)
        close(result.hessian[entry : entry + 9 * n * n].reshape(3 * n, 3 * n), hessian)  # type: ignore[index]
        products = probes[:, start : start + n].reshape(2, -1) @ hessian
        close(result.hvp[:, start : start + n].reshape(2, -1), products)  # type: ignore[index]
        start, entry = start + n, entry + 9 * n * n


@every_kind
def test_crystals_equal_mace_including_stress(kind: str) -> None:
    """Cells smaller than the cutoff, atoms that interact with their own images, atoms outside the cell."""
    model = mace_model(**KINDS[kind])
    potential = MacePotential(model)
    structures = [crystal(0), crystal(3, size=3.2, atoms=1), OPEN[1]]
    request = Request(forces=True, stress=True)
    result = evaluate(potential, collate(structures, potential.cutoff), request)
    start = 0
    for k, structure in enumerate(structures[:2]):
        atoms = theirs(model, structure)
        close(result.energy[k], atoms.get_potential_energy())  # type: ignore[index]
        close(result.forces[start : start + len(structure)], atoms.get_forces())  # type: ignore[index]
        close(result.stress[k], atoms.get_stress(voigt=False))  # type: ignore[index]
        start += len(structure)
    assert bool(result.stress[2].isnan().all())  # type: ignore[index]


def test_every_head_equals_mace() -> None:
    model = mace_model(heads=("dft", "xtb", "cc"))
    for head in model.heads:
        potential = MacePotential(model, head=head)
        result = evaluate(potential, collate([OPEN[0]], potential.cutoff), Request(forces=True))
        atoms = theirs(model, OPEN[0], head=head)
        close(result.energy[0], atoms.get_potential_energy())  # type: ignore[index]
        close(result.forces, atoms.get_forces())
    with pytest.raises(RequestError, match=r'heads dft, xtb, cc: name the one to use, head="dft".*\?head=dft'):
        MacePotential(model)
    with pytest.raises(UnknownOptionError, match='Did you mean "xtb"'):
        MacePotential(model, head="xtbb")
    assert MacePotential(mace_model(heads=("pt", "default"))).head == "default"


def test_products_are_the_slope_of_forces() -> None:
    """Evaluated several times, because TorchScript recompiles after the first calls."""
    potential = MacePotential(mace_model())
    structure = OPEN[0]
    probe = torch.randn(1, len(structure), 3, dtype=torch.float64)
    step = 1e-4
    ends = [Structure(structure.numbers, structure.positions + s * step * probe[0].numpy()) for s in (1, -1)]
    ahead, behind = (evaluate(potential, collate([s], potential.cutoff), Request(forces=True)).forces for s in ends)
    for _ in range(4):
        result = evaluate(potential, collate([structure], potential.cutoff), Request(probes=probe))
        close(result.hvp[0], -(ahead - behind) / (2 * step), 1e-5)  # type: ignore[index, operator]


def test_third_derivatives_reach_the_parameters() -> None:
    """Of |H v|² by every parameter, several probes at once, against finite differences."""
    potential = MacePotential(mace_model())
    batch = collate([OPEN[1]], potential.cutoff)
    probes = torch.randn(2, len(batch.numbers), 3, dtype=torch.float64)

    def loss() -> torch.Tensor:
        labels = evaluate(potential, batch, Request(probes=probes), create_graph=True)
        return labels.hvp.square().sum()  # type: ignore[union-attr]

    loss().backward()
    for parameter in potential.parameters():
        slope = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        direction = torch.randn_like(parameter)
        with torch.no_grad():
            values = []
            for sign in (1, -1):
                parameter.add_(sign * 1e-5 * direction)
                values.append(loss().item())
                parameter.sub_(sign * 1e-5 * direction)
        measured, said = (values[0] - values[1]) / 2e-5, (slope * direction).sum().item()
        assert said == pytest.approx(measured, rel=1e-4, abs=1e-5 * (1 + abs(values[0])))


def test_positions_of_the_caller_are_unchanged() -> None:
    potential = MacePotential(mace_model())
    batch = collate([OPEN[0]], potential.cutoff)
    potential(batch)
    assert not batch.positions.requires_grad


def test_float32_keeps_the_digits_of_large_references() -> None:
    double = MacePotential(mace_model())
    single = copy.deepcopy(double).to(dtype=torch.float32)
    batch = collate([OPEN[0]], double.cutoff)
    result, expected = (evaluate(p, batch, Request(forces=True)) for p in (single, double))
    assert single.references.energies.dtype == torch.float64
    assert abs(result.energy - expected.energy).item() < 1e-5  # type: ignore[operator] # of 10⁴ eV
    close(result.forces, expected.forces, 1e-4)


def test_reference_energies_survive_float32() -> None:
    """A model converted to float32 and back has its exact E0."""
    potential = MacePotential(mace_model())
    before = potential.original.atomic_energies_fn.atomic_energies.clone()
    assert not torch.equal(before, before.float().double())
    potential.float().double()
    assert torch.equal(potential.original.atomic_energies_fn.atomic_energies, before)


def test_references_are_shifted_in_the_model_too() -> None:
    potential = MacePotential(mace_model(heads=("a", "b")), head="b")
    batch = collate([OPEN[0]], potential.cutoff)
    before = evaluate(potential, batch, Request()).energy
    potential.shift_reference_energies({1: 0.5, 8: -2.0})
    counts = [int((OPEN[0].numbers == z).sum()) for z in (1, 8)]
    expected = before.item() + 0.5 * counts[0] - 2.0 * counts[1]  # type: ignore[union-attr]
    assert evaluate(potential, batch, Request()).energy.item() == pytest.approx(expected, abs=1e-9)  # type: ignore[union-attr]
    other = theirs(mace_model(heads=("a", "b")), OPEN[0], head="a").get_potential_energy()
    for head, energy in (("b", expected), ("a", other)):
        assert theirs(potential.original, OPEN[0], head=head).get_potential_energy() == pytest.approx(energy, abs=1e-9)
    with pytest.raises(UnknownElementError, match="holds N"):
        potential.shift_reference_energies({7: 1.0})


def test_elements_are_those_of_the_model() -> None:
    potential = MacePotential(mace_model(numbers=(1, 8)))
    assert potential.elements == (1, 8)
    with pytest.raises(UnknownElementError, match="C"):
        evaluate(potential, collate([linear(3)], potential.cutoff), Request())


# --- training and files ----------------------------------------------------------------------------------------------


def test_a_trained_model_goes_back_to_mace(tmp_path: Path) -> None:
    model = mace_model()
    potential = MacePotential(model)
    data = labeled(Morse(), OPEN[:2], hessian=True)
    config = hesse.TrainConfig(
        steps=4, dtype="float64", optimizer={"learning_rate": 3e-3}, weights={"energy": 1, "forces": 1, "hvp": 1},
        probe={"source": "fresh"}, reference_energies="fit", allow_shared_structures=True,
    )  # fmt: skip
    result = hesse.train(data, data, config, output=tmp_path / "run", potential=potential, quiet=True)
    assert result.model_file == tmp_path / "run" / "model.model"
    labels = evaluate(result.potential, collate(OPEN[:1], potential.cutoff), Request(forces=True))
    atoms = to_ase(OPEN[0])
    atoms.calc = mace_calculator(result.model_file)
    close(labels.energy[0], atoms.get_potential_energy())  # type: ignore[index]
    close(labels.forces, atoms.get_forces())
    moved = theirs(model, OPEN[0]).get_forces()
    assert np.abs(moved - atoms.get_forces()).max() > 1e-4  # it was trained, and the model of the caller is unchanged
    again = MacePotential.from_file(result.model_file, trust_pickle=True)
    assert all(p.requires_grad for p in again.parameters())
    close(evaluate(again, collate(OPEN[:1], again.cutoff), Request()).energy, labels.energy)


def test_an_interrupted_run_resumes_to_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = labeled(Morse(), OPEN[:2], hessian=True)
    config = hesse.TrainConfig(
        steps=4, dtype="float64", weights={"forces": 1, "hvp": 1}, probe={"source": "fresh"},
        checkpoint_every=2, validate_every=2, allow_shared_structures=True,
    )  # fmt: skip

    def train(name: str) -> Any:
        potential = MacePotential(mace_model())
        return hesse.train(data, data, config, output=tmp_path / name, potential=potential, quiet=True).potential

    whole = train("whole").state_dict()
    done = trainer.Trainer._step

    def interrupted(run: Any) -> dict[str, float]:
        if run.state.step == 2:
            raise KeyboardInterrupt
        return done(run)

    monkeypatch.setattr(trainer.Trainer, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train("parts")
    monkeypatch.setattr(trainer.Trainer, "_step", done)
    parts = train("parts").state_dict()
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name], rtol=0, atol=0)


def test_copies_and_state_dicts_are_complete() -> None:
    potential = MacePotential(mace_model())
    twin = copy.deepcopy(potential)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.1)
    batch = collate(OPEN, potential.cutoff)
    assert not torch.allclose(twin(batch), potential(batch))
    twin.load_state_dict(potential.state_dict())
    close(twin(batch), potential(batch), 1e-14)


def test_frozen_parts_stay_frozen_unless_all_are(tmp_path: Path) -> None:
    """Calculators freeze the models they load."""
    potential = MacePotential(mace_model())
    potential.original.node_embedding.requires_grad_(False)
    potential.save(tmp_path / "a.model")
    again = MacePotential.from_file(tmp_path / "a.model", trust_pickle=True)
    frozen = [name for name, parameter in again.named_parameters() if not parameter.requires_grad]
    assert frozen == ["original.node_embedding.linear.weight"]
    potential.requires_grad_(False).save(tmp_path / "b.model")
    again = MacePotential.from_file(tmp_path / "b.model", trust_pickle=True)
    assert all(parameter.requires_grad for parameter in again.parameters())


def test_mace_compiles_the_saved_file_for_lammps(tmp_path: Path) -> None:
    MacePotential(mace_model()).save(tmp_path / "a.model")
    with quiet():
        from e3nn.util import jit
        from mace.calculators import LAMMPS_MACE

        saved = torch.load(tmp_path / "a.model", weights_only=False)
        compiled = jit.compile(LAMMPS_MACE(saved))
    compiled.save(str(tmp_path / "a.pt"))
    with pytest.raises(RequestError, match="compiled to TorchScript"):
        MacePotential(torch.jit.load(str(tmp_path / "a.pt")))


def test_a_model_by_name(tmp_path: Path) -> None:
    potential = MacePotential(mace_model(heads=("a", "b")), head="b")
    file = tmp_path / "my.model"
    potential.save(file)
    result = make_potential(f"mace:{file}?trust=pickle,head=b")
    batch = collate(OPEN, potential.cutoff)
    close(result(batch), potential(batch), 1e-12)
    with pytest.raises(RequestError, match="trust=pickle"):
        make_potential(f"mace:{file}?head=b")


def test_the_guides_example_runs(tmp_path: Path) -> None:
    """As printed in docs/adapters.md, with fewer steps."""
    pytest.importorskip("tblite", reason="the guide labels with GFN2-xTB")
    examples = Path(__file__).parents[3] / "examples"
    program = (examples / "finetune_mace.py").read_text(encoding="utf-8")
    assert "steps=300" in program
    (tmp_path / "short.py").write_text(program.replace("steps=300", "steps=60"), encoding="utf-8")
    for script in (examples / "random_mace.py", tmp_path / "short.py"):
        done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    errors = dict(re.findall(r"(\w+): [\d.]+ -> ([\d.]+)", done.stdout))
    before = dict(re.findall(r"(\w+): ([\d.]+) -> ", done.stdout))
    assert set(errors) == {"energy", "forces", "hvp"}
    assert float(errors["energy"]) < 0.01 * float(before["energy"])
    assert float(errors["hvp"]) < 0.9 * float(before["hvp"])
    assert "run/model.model in MACE: -" in done.stdout


# --- wrong input -----------------------------------------------------------------------------------------------------


def test_invalid_files(tmp_path: Path) -> None:
    file = tmp_path / "x.model"
    with pytest.raises(FileFormatError, match="there is no such MACE model file"):
        MacePotential.from_file(file, trust_pickle=True)
    file.write_bytes(b"not a pickle")
    with pytest.raises(FileFormatError, match="not a readable MACE file"):
        MacePotential.from_file(file, trust_pickle=True)
    MacePotential(mace_model()).save(file)
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(FileFormatError, match="not a readable MACE file"):
        MacePotential.from_file(file, trust_pickle=True)
    torch.save({"weights": torch.ones(3)}, file)
    with pytest.raises(RequestError, match=r"expected a MACE model of energies .* got a dict"):
        MacePotential.from_file(file, trust_pickle=True)
    with pytest.raises(WriteError, match="there is no folder"):
        MacePotential(mace_model()).save(tmp_path / "nowhere" / "a.model")


def test_models_that_are_refused() -> None:
    with pytest.raises(RequestError, match=r"MacePotential\.from_file"):
        MacePotential("some.file")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="got a Linear"):
        MacePotential(torch.nn.Linear(2, 2))
    fast = mace_model()
    kernel = type("Linear", (torch.nn.Module,), {"__module__": "cuequivariance_torch.operations.linear"})
    fast.readouts.append(kernel())
    with pytest.raises(RequestError, match=r"mace\.cli.convert_cueq_e3nn"):
        MacePotential(fast)
    charged = mace_model()
    charged.embedding_specs = {"total_charge": {}}
    with pytest.raises(RequestError, match="needs total_charge"):
        MacePotential(charged)
