"""NequIP and Allegro models as potentials: NequIP's calculator says the same, before and after training; its tools
read what was saved; wrong input.

MACE and NequIP need different releases of e3nn, so these tests run in an environment of their own (`make peers`).
"""

from __future__ import annotations

import copy
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("nequip", reason="the adapter of NequIP needs nequip (make peers)")

from nequip_models import COMMON, checkpoint, nequip_calculator, nequip_model, weights

import hesse
from hesse.curvature import evaluate
from hesse.engines import make_potential
from hesse.errors import FileFormatError, RequestError, UnknownElementError, WriteError
from hesse.models.adapters.nequip import NequipPotential
from hesse.models.adapters.nequip.nequip_files import _nequip_defaults, _suppress_warnings, import_nequip
from hesse.structures import Request, Structure, collate, to_ase
from oracles import Morse, atom, crystal, labeled, linear, molecules

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
OPEN = [*molecules([6, 4], seed=1), linear(3)]
ALONE = [
    atom(8),
    Structure([8, 1], [[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]], id="far"),
]  # some are refused by NequIP's neighbor lists
ZBL = {"_target_": "nequip.nn.pair_potential.ZBL", "units": "metal", "chemical_species": ["H", "C", "O"]}
KINDS: dict[str, dict[str, Any]] = {
    "NequIP": {},
    "a cutoff per pair of types": {"per_edge_type_cutoff": {"H": 2.5, "C": {"O": 3.0}}},
    "trainable tables": {"bessel_trainable": True, "per_type_energy_scales_trainable": True},
    "with repulsion": {"pair_potential": ZBL},
    "Allegro": {"kind": "allegro"},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def close(got: Any, expected: Any, tolerance: float = 1e-8) -> None:
    one, other = (torch.as_tensor(value, dtype=torch.float64) for value in (got, expected))
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def theirs(model: Any, structure: Structure) -> Any:
    """Atoms with NequIP's calculator, which uses its own neighbor lists and derivatives."""
    atoms = to_ase(structure)
    with (
        _nequip_defaults(),
        _suppress_warnings(),
    ):  # its structures have the default type, which its programs set to float64
        atoms.calc = nequip_calculator(model)
        atoms.get_potential_energy()
    return atoms


def build(kind: str) -> Any:
    if kind == "Allegro":
        pytest.importorskip("allegro", reason="models of Allegro need nequip-allegro")
    return nequip_model(**KINDS[kind])


# --- the same numbers ------------------------------------------------------------------------------------------------


@every_kind
def test_open_structures_of_several_sizes_equal_nequip(kind: str) -> None:
    model = build(kind)
    potential = NequipPotential(model)
    batch = collate(OPEN, potential.cutoff)
    probes = torch.randn(2, len(batch.numbers), 3, dtype=torch.float64)
    result = evaluate(potential, batch, Request(forces=True, probes=probes))
    start, step = 0, 1e-4
    for k, structure in enumerate(OPEN):
        rows = slice(start, start := start + len(structure))
        atoms = theirs(model, structure)
        close(result.energy[k], atoms.get_potential_energy())  # type: ignore[index]
        close(result.forces[rows], atoms.get_forces())  # type: ignore[index]
        ends = [
            theirs(model, Structure(structure.numbers, structure.positions + s * probes[0, rows].numpy()))
            for s in (step, -step)
        ]
        close(result.hvp[0, rows], -(ends[0].get_forces() - ends[1].get_forces()) / (2 * step), 1e-4)  # type: ignore[index]


@every_kind
def test_products_equal_those_through_nequips_own_forces(kind: str) -> None:
    """`H v` as the derivative of the forces that NequIP computes itself, in training mode."""
    model = build(kind).train()
    potential = NequipPotential(model)
    structure = OPEN[0]
    batch = collate([structure], potential.cutoff)
    probes = torch.randn(1, len(structure), 3, dtype=torch.float64)
    result = evaluate(potential, batch, Request(probes=probes)).hvp
    with _nequip_defaults(), _suppress_warnings():
        calculator = nequip_calculator(model)
        data = calculator.atoms_to_data(to_ase(structure))
        data["pos"] = data["pos"].requires_grad_(True)
        leaf = data["pos"]
        forces = model(data)["forces"]
    (product,) = torch.autograd.grad(-forces, leaf, probes[0])
    close(result[0], product)  # type: ignore[index]


@every_kind
def test_crystals_equal_nequip_including_stress(kind: str) -> None:
    """Cells smaller than the cutoff, atoms that interact with their own images, atoms outside the cell."""
    model = build(kind)
    potential = NequipPotential(model)
    structures = [crystal(0), crystal(3, size=3.2, atoms=1), OPEN[1]]
    result = evaluate(potential, collate(structures, potential.cutoff), Request(forces=True, stress=True))
    start = 0
    for k, structure in enumerate(structures[:2]):
        atoms = theirs(model, structure)
        close(result.energy[k], atoms.get_potential_energy())  # type: ignore[index]
        close(result.forces[start : start + len(structure)], atoms.get_forces())  # type: ignore[index]
        close(result.stress[k], atoms.get_stress(voigt=False))  # type: ignore[index]
        start += len(structure)


@every_kind
def test_isolated_atoms_have_the_energy_of_their_type(kind: str) -> None:
    potential = NequipPotential(build(kind))
    for structures in (ALONE, [ALONE[0]], [*OPEN, *ALONE]):
        batch = collate(structures, potential.cutoff)
        result = evaluate(potential, batch, Request(forces=True, hessian=True, atomic_energies=True))
        alone = batch.neighbor_mask.sum(1) == 0
        close(
            result.atomic_energies[alone], [COMMON["per_type_energy_shifts"][s] for s in symbols(batch.numbers[alone])]
        )  # type: ignore[index]
        assert all(bool(t.isfinite().all()) for t in (result.forces, result.hessian))  # type: ignore[union-attr]


def symbols(numbers: torch.Tensor) -> list[str]:
    return [{1: "H", 6: "C", 8: "O"}[int(z)] for z in numbers]


def test_third_derivatives_reach_the_parameters() -> None:
    """Of |H v|² by every parameter, several probes at once, against finite differences."""
    potential = NequipPotential(nequip_model(**KINDS["trainable tables"]))
    batch = collate([OPEN[1]], potential.cutoff)
    probes = torch.randn(2, len(batch.numbers), 3, dtype=torch.float64)

    def loss() -> torch.Tensor:
        labels = evaluate(potential, batch, Request(probes=probes), create_graph=True)
        return labels.hvp.square().sum()  # type: ignore[union-attr]

    loss().backward()
    for parameter in potential.parameters():
        slope = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        direction = torch.randn_like(parameter)
        values = []
        with torch.no_grad():
            for sign in (1, -1):
                parameter.add_(sign * 1e-5 * direction)
                values.append(loss().item())
                parameter.sub_(sign * 1e-5 * direction)
        measured, said = (values[0] - values[1]) / 2e-5, (slope * direction).sum().item()
        assert said == pytest.approx(measured, rel=1e-4, abs=1e-5 * (1 + abs(values[0])))


def test_units_are_converted() -> None:
    model = nequip_model()
    plain, other = NequipPotential(model), NequipPotential(model, energy_unit="hartree", length_unit="bohr")
    bohr, hartree = 0.529177210903, 27.211386245988
    assert other.cutoff == pytest.approx(4.0 * bohr)
    structure = molecules([4], seed=3)[0]
    small = Structure(structure.numbers, structure.positions * bohr)
    ours = evaluate(other, collate([small], other.cutoff), Request(forces=True))
    expected = evaluate(plain, collate([structure], plain.cutoff), Request(forces=True))
    close(ours.energy, hartree * expected.energy, 1e-6)  # type: ignore[operator]
    close(ours.forces, hartree / bohr * expected.forces, 1e-6)  # type: ignore[operator]


@pytest.mark.parametrize("kind", ["NequIP", "trainable tables", "Allegro"])
def test_conversion_to_another_dtype(kind: str) -> None:
    """Weights in float32, NequIP's constants in float64; and back."""
    double = NequipPotential(build(kind))
    single = copy.deepcopy(double).to(dtype=torch.float32)
    own = NequipPotential(nequip_model(**{**KINDS[kind], "dtype": "float32"}))
    own.load_state_dict(double.state_dict())
    assert {n: t.dtype for n, t in single.state_dict().items()} == {n: t.dtype for n, t in own.state_dict().items()}
    batch = collate(OPEN, double.cutoff)
    expected = evaluate(double, batch, Request(forces=True))
    for potential in (single, own):
        result = evaluate(potential, batch, Request(forces=True))
        close(result.energy, expected.energy, 1e-6)
        close(result.forces, expected.forces, 1e-4)
    close(single.to(dtype=torch.float64)(batch).sum(), expected.energy.sum(), 1e-6)  # type: ignore[union-attr]


def test_types_with_other_names() -> None:
    model = nequip_model(type_names=["Hx", "C1", "O2"], per_type_energy_shifts={"Hx": 1.0, "C1": 2.0, "O2": 3.0})
    with pytest.raises(RequestError, match='type "Hx" is not a chemical symbol'):
        NequipPotential(model)
    potential = NequipPotential(model, types={"H": "Hx", "C": "C1", "O": "O2"})
    result = evaluate(potential, collate([atom(8), atom(1)], potential.cutoff), Request())
    close(result.energy, [3.0, 1.0])
    with pytest.raises(RequestError, match='type "O2" is not a chemical symbol'):
        NequipPotential(model, types={"H": "Hx", "C": "C1"})


def test_references_are_shifted_in_the_model() -> None:
    potential = NequipPotential(nequip_model())
    batch = collate([OPEN[0]], potential.cutoff)
    before = evaluate(potential, batch, Request()).energy
    potential.shift_reference_energies({1: 0.5, 8: -2.0})
    counts = [int((OPEN[0].numbers == z).sum()) for z in (1, 8)]
    expected = before.item() + 0.5 * counts[0] - 2.0 * counts[1]  # type: ignore[union-attr]
    assert evaluate(potential, batch, Request()).energy.item() == pytest.approx(expected, abs=1e-9)  # type: ignore[union-attr]
    assert theirs(potential.original, OPEN[0]).get_potential_energy() == pytest.approx(expected, abs=1e-9)
    with pytest.raises(UnknownElementError, match="holds N"):
        potential.shift_reference_energies({7: 1.0})
    with pytest.raises(RequestError, match="per_type_energy_shifts"):
        NequipPotential(nequip_model(per_type_energy_shifts=0.0)).shift_reference_energies({1: 1.0})


# --- training and files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["NequIP", "Allegro"])
def test_a_trained_model_goes_back_to_nequip(kind: str, tmp_path: Path) -> None:
    model = build(kind)
    data = labeled(Morse(), OPEN[:2], hessian=True)
    config = hesse.TrainConfig(
        steps=4, dtype="float64", optimizer={"learning_rate": 3e-3}, weights={"energy": 1, "forces": 1, "hvp": 1},
        probe={"source": "fresh"}, reference_energies="fit", allow_shared_structures=True,
    )  # fmt: skip
    given = NequipPotential(model)
    result = hesse.train(data, data, config, output=tmp_path / "run", potential=given, quiet=True)
    assert result.model_file == tmp_path / "run" / "model.nequip.zip"
    labels = evaluate(result.potential, collate(OPEN[:1], given.cutoff), Request(forces=True))
    atoms = theirs(result.model_file, OPEN[0])
    close(labels.energy[0], atoms.get_potential_energy())  # type: ignore[index]
    close(labels.forces, atoms.get_forces())
    assert np.abs(theirs(model, OPEN[0]).get_forces() - atoms.get_forces()).max() > 1e-4  # it was trained
    again = NequipPotential.from_file(result.model_file, trust_pickle=True)
    twice = hesse.train(data, data, config, output=tmp_path / "again", potential=again, quiet=True)
    labels = evaluate(twice.potential, collate(OPEN[:1], given.cutoff), Request(forces=True))
    close(labels.forces, theirs(twice.model_file, OPEN[0]).get_forces())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of NequIP's own training."""
    folder = tmp_path_factory.mktemp("nequip")
    settings = {key: value for key, value in COMMON.items() if key != "kind"}
    return checkpoint(
        folder, {"_target_": "nequip.model.NequIPGNNModel", "model_dtype": "float32", "num_features": 4, **settings}
    )


def test_checkpoints_of_nequips_training_use_averaged_weights(trained: Path, tmp_path: Path) -> None:
    potential = make_potential(f"nequip:{trained}?trust=pickle")
    with _nequip_defaults(), _suppress_warnings():
        model = import_nequip("nequip.model.saved_models.load_utils").load_saved_model(str(trained))
    close(weights(potential), weights(model), 1e-12)
    result = evaluate(potential, collate(OPEN[:1], potential.cutoff), Request(forces=True))
    atoms = theirs(trained, OPEN[0])
    close(result.energy[0], atoms.get_potential_energy(), 1e-6)  # type: ignore[index]
    close(result.forces, atoms.get_forces(), 1e-4)
    potential.save(tmp_path / "a.nequip.zip")  # type: ignore[operator]
    close(theirs(tmp_path / "a.nequip.zip", OPEN[0]).get_forces(), atoms.get_forces(), 1e-6)


def test_nequips_training_continues_from_a_saved_package(tmp_path: Path) -> None:
    """The checkpoint it writes can be read; its classes are those of the package."""
    NequipPotential(nequip_model()).save(tmp_path / "a.nequip.zip")
    file = checkpoint(
        tmp_path, {"_target_": "nequip.model.ModelFromPackage", "package_path": str(tmp_path / "a.nequip.zip")}
    )
    potential = NequipPotential.from_file(file, trust_pickle=True)
    result = evaluate(potential, collate(OPEN[:1], potential.cutoff), Request(forces=True))
    potential.save(tmp_path / "b.nequip.zip")
    for source in (file, tmp_path / "b.nequip.zip"):
        close(result.forces, theirs(source, OPEN[0]).get_forces())


@pytest.mark.long
def test_nequip_compiles_a_saved_package(tmp_path: Path) -> None:
    potential = NequipPotential(nequip_model())
    potential.save(tmp_path / "a.nequip.zip")
    command = [Path(sys.executable).parent / "nequip-compile", "a.nequip.zip", "a.nequip.pt2"]
    done = subprocess.run(
        [*command, "--mode", "aotinductor", "--device", "cpu", "--target", "ase"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    calculators = import_nequip("nequip.integrations.ase")
    atoms = to_ase(OPEN[0])
    with _nequip_defaults(), _suppress_warnings():
        atoms.calc = calculators.NequIPCalculator.from_compiled_model(
            str(tmp_path / "a.nequip.pt2"), device="cpu", chemical_species_to_atom_type_map=True
        )
        forces = atoms.get_forces()
    close(evaluate(potential, collate(OPEN[:1], potential.cutoff), Request(forces=True)).forces, forces)


def test_copies_and_state_dicts_are_complete() -> None:
    potential = NequipPotential(nequip_model())
    twin = copy.deepcopy(potential)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.1)
    batch = collate(OPEN, potential.cutoff)
    assert not torch.allclose(twin(batch), potential(batch))
    twin.load_state_dict(potential.state_dict())
    close(twin(batch), potential(batch), 1e-14)
    assert all(m.do_derivatives for m in potential.modules() if hasattr(m, "do_derivatives"))


def test_loading_leaves_parameters_trainable_and_global_state_unchanged(tmp_path: Path) -> None:
    """NequIP sets the default dtype and seeds of the process; they are restored."""
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index, union-attr] # noqa: NPY002
    NequipPotential(nequip_model()).requires_grad_(False).save(tmp_path / "a.nequip.zip")
    again = NequipPotential.from_file(tmp_path / "a.nequip.zip", trust_pickle=True)
    assert all(p.requires_grad for p in again.parameters())
    assert torch.get_default_dtype() == torch.float32
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # type: ignore[index] # noqa: NPY002
    assert random.getstate() == states[2]


# --- wrong input -----------------------------------------------------------------------------------------------------


def test_invalid_files(tmp_path: Path) -> None:
    for name in ("x.ckpt", "x.nequip.zip"):
        file = tmp_path / name
        with pytest.raises(RequestError, match="trust_pickle=True"):
            NequipPotential.from_file(file)
        with pytest.raises(FileFormatError, match="there is no such model file of NequIP"):
            NequipPotential.from_file(file, trust_pickle=True)
        file.write_bytes(b"not a pickle")
        with pytest.raises(FileFormatError, match="neither a checkpoint"):
            NequipPotential.from_file(file, trust_pickle=True)
    torch.save({"weights": torch.ones(3)}, tmp_path / "x.ckpt")
    with pytest.raises(FileFormatError, match="neither a checkpoint"):
        NequipPotential.from_file(tmp_path / "x.ckpt", trust_pickle=True)
    potential = NequipPotential(nequip_model())
    with pytest.raises(WriteError, match=r"with the suffix \.nequip\.zip"):
        potential.save(tmp_path / "a.pt")
    with pytest.raises(WriteError, match="there is no folder"):
        potential.save(tmp_path / "nowhere" / "a.nequip.zip")


def test_models_that_are_refused() -> None:
    with pytest.raises(RequestError, match=r"NequipPotential\.from_file"):
        NequipPotential("some.file")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="got a Linear"):
        NequipPotential(torch.nn.Linear(2, 2))
    with pytest.raises(RequestError, match='compile_mode="eager"'):
        NequipPotential(nequip_model(compile_mode="compile"))
    potential = NequipPotential(nequip_model())
    nitrogen = Structure([7], [[0.0, 0.0, 0.0]])
    with pytest.raises(UnknownElementError, match="N"):
        evaluate(potential, collate([nitrogen], potential.cutoff), Request())
    with pytest.raises(IndexError):
        potential(collate([nitrogen], potential.cutoff))
