"""TorchANI models as potentials: the same numbers, open and periodic; trained in place; files."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("torchani", reason="the adapter of torchani needs it")

from torchani_models import torchani_labels, torchani_model

from hesse.curvature import evaluate
from hesse.engines import make_potential
from hesse.errors import FileFormatError, RequestError, UnknownElementError, UnknownOptionError
from hesse.models.adapters.torchani import TorchAniPotential
from hesse.models.adapters.torchani.torchani_files import import_torchani
from hesse.structures import Request, Structure, collate
from hesse.units import energy_unit
from oracles import atom, crystal, linear, molecules

HARTREE = energy_unit("hartree")
HCO = ("H", "O", "C")
SMALL: dict[str, Any] = {"symbols": HCO, "radial_cutoff": 4.0, "angular_cutoff": 2.8, "radial_shifts": 5, "sections": 3}
OPEN = [*molecules([7, 4]), atom(8), linear(3)]
KINDS: dict[str, dict[str, Any]] = {
    "networks": {},
    "ensemble": {"ensemble_size": 2},
    "with repulsion": {"repulsion": True, "cutoff_fn": "smooth", "activation": "gelu", "bias": False},
    "with dispersion": {"dispersion": True, "lot": "b973c-def2mtzvp", "dispersion_cutoff": 5.0},
    "shared layers": {"container": "SingleNN", "container_ctor": "default"},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def build(**options: Any) -> Any:
    return torchani_model(**{**SMALL, **options})


def close(got: torch.Tensor | None, expected: torch.Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def compare(model: Any, structures: list[Structure]) -> None:
    potential = TorchAniPotential(model)
    batch = collate(structures, potential.cutoff)
    probes = torch.randn(1, len(batch.numbers), 3, dtype=torch.float64)
    labels = evaluate(potential, batch, Request(forces=True, probes=probes))
    theirs = torchani_labels(model, structures, probes[0])
    close(labels.energy, theirs["energy"])
    close(labels.forces, theirs["forces"])
    close(labels.hvp[0], theirs["hvp"])  # type: ignore[index]


# --- the same numbers ------------------------------------------------------------------------------------------------


@every_kind
def test_open_structures_of_several_sizes_equal_torchani(kind: str) -> None:
    compare(build(**KINDS[kind]), OPEN)


@every_kind
def test_a_crystal_equals_torchani(kind: str) -> None:
    """Cells smaller than the cutoff, atoms that interact with their own images, atoms outside the cell."""
    compare(build(**KINDS[kind]), [crystal(0)])
    compare(build(**KINDS[kind]), [crystal(3, size=3.2, atoms=1)])


def test_open_and_periodic_structures_share_a_batch() -> None:
    potential = TorchAniPotential(build())
    structures = [OPEN[0], crystal(0), crystal(1, size=4.4), atom(1)]
    request = Request(forces=True, hessian=True)
    together = evaluate(potential, collate(structures, potential.cutoff), request)
    for i, structure in enumerate(structures):
        alone = evaluate(potential, collate([structure], potential.cutoff), request)
        assert together.energy is not None
        assert together.forces is not None
        close(together.energy[i : i + 1], alone.energy)  # type: ignore[arg-type]
        close(together.forces[together.atom_slice(i)], alone.forces)  # type: ignore[arg-type]
        close(together.hessian_of(i), alone.hessian_of(0))


def test_stress_equals_finite_differences() -> None:
    potential, unit = TorchAniPotential(build()), crystal(0)
    labels = evaluate(potential, collate([unit], potential.cutoff), Request(stress=True))
    step, energies = 1e-4, []
    for sign in (1, -1):
        stretch = np.eye(3)
        stretch[0, 1] = stretch[1, 0] = sign * step / 2
        moved = Structure(unit.numbers, unit.positions @ stretch, cell=unit.cell @ stretch, pbc=unit.pbc)
        energies.append(float(evaluate(potential, collate([moved], potential.cutoff), Request()).energy))  # type: ignore[arg-type]
    slope = (energies[0] - energies[1]) / (2 * step) / abs(np.linalg.det(unit.cell))
    assert float(labels.stress[0, 0, 1]) == pytest.approx(slope, rel=1e-5)  # type: ignore[index]


def test_energies_of_atoms_equal_torchani() -> None:
    model = build()
    potential, structure = TorchAniPotential(model), OPEN[0]
    labels = evaluate(potential, collate([structure], potential.cutoff), Request(atomic_energies=True))
    species = torch.from_numpy(structure.numbers.copy())[None]
    theirs = model((species, torch.from_numpy(structure.positions.copy())[None]), atomic=True).energies[0]
    close(labels.atomic_energies, HARTREE * theirs.detach())


def test_total_energies_keep_their_digits_in_single_precision() -> None:
    model = build()
    energies = model.energy_shifter.self_energies.clone()
    potential = TorchAniPotential(model).float()
    with torch.no_grad():
        for parameter in potential.original.parameters():
            parameter.zero_()
    labels = evaluate(potential, collate([Structure([8], [[0.0, 0, 0]])], potential.cutoff), Request())
    assert float(labels.energy) == pytest.approx(HARTREE * float(energies[1]), rel=1e-15)  # type: ignore[arg-type]
    assert torch.equal(potential.original.energy_shifter.self_energies, energies)


def test_disabled_self_energies_stay_disabled() -> None:
    model = build()
    with_them = TorchAniPotential(model)
    batch = collate([OPEN[0]], with_them.cutoff)
    before = evaluate(with_them, batch, Request()).energy
    model.set_enabled("energy_shifter", False)
    after = evaluate(TorchAniPotential(model), batch, Request()).energy
    energies = {1: -0.5, 8: -1.5, 6: -2.5}
    offset = HARTREE * sum(energies[int(z)] for z in OPEN[0].numbers)
    assert float(before - after) == pytest.approx(offset)  # type: ignore[operator]
    assert not model.energy_shifter._enabled


def test_shifted_reference_energies_change_the_model() -> None:
    model = build()
    potential = TorchAniPotential(model)
    batch = collate([OPEN[0]], potential.cutoff)
    before = evaluate(potential, batch, Request()).energy
    potential.shift_reference_energies({6: 2.0})
    after = evaluate(potential, batch, Request()).energy
    carbons = int((OPEN[0].numbers == 6).sum())
    assert float(after - before) == pytest.approx(2.0 * carbons)  # type: ignore[operator]
    compare(model, OPEN[:1])
    with pytest.raises(UnknownElementError):
        potential.shift_reference_energies({7: 1.0})


# --- training --------------------------------------------------------------------------------------------------------


@every_kind
def test_parameter_gradients_of_a_curvature_loss_equal_finite_differences(kind: str) -> None:
    """Differentiated three times: twice in positions, once in parameters."""
    potential = TorchAniPotential(build(**{**KINDS[kind], "activation": "gelu"}))
    batch = collate(OPEN[1:], potential.cutoff)
    probes = torch.randn(1, len(batch.numbers), 3, dtype=torch.float64)

    def loss() -> torch.Tensor:
        return evaluate(potential, batch, Request(probes=probes), create_graph=True).hvp.square().sum()  # type: ignore[union-attr]

    parameters = list(potential.parameters())
    gradients = torch.autograd.grad(loss(), parameters, materialize_grads=True)
    directions = [torch.randn_like(p) for p in parameters]
    predicted = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
    values = []
    for step in (1e-5, -2e-5):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(step * direction)
        values.append(float(loss().detach()))
    assert (values[0] - values[1]) / 2e-5 == pytest.approx(predicted, rel=1e-4)


def test_several_directions_at_once_equal_one_after_another() -> None:
    potential = TorchAniPotential(build(repulsion=True, cutoff_fn="smooth"))
    batch = collate(OPEN, potential.cutoff)
    probes = torch.randn(3, len(batch.numbers), 3, dtype=torch.float64)
    together = evaluate(potential, batch, Request(probes=probes)).hvp
    for k in range(3):
        alone = evaluate(potential, batch, Request(probes=probes[k : k + 1])).hvp
        close(together[k], alone[0])  # type: ignore[index]


def test_the_users_own_model_is_trained_and_copies_are_independent() -> None:
    model = build()
    potential = TorchAniPotential(model)
    twin = copy.deepcopy(potential)
    batch = collate(OPEN, potential.cutoff)
    before = model.state_dict()["potentials.nnp.neural_networks.atomics.H.final_layer.weight"].clone()
    optimizer = torch.optim.SGD(potential.parameters(), lr=1e-4)
    evaluate(potential, batch, Request(forces=True), create_graph=True).forces.square().sum().backward()  # type: ignore[union-attr]
    optimizer.step()
    assert not torch.equal(model.neural_networks.atomics["H"].final_layer.weight, before)
    assert torch.equal(twin.original.neural_networks.atomics["H"].final_layer.weight, before)


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["networks", "ensemble", "with repulsion"])
def test_saved_files_are_loaded_by_torchani_and_by_hesse(kind: str, tmp_path: Path) -> None:
    model = build(**KINDS[kind])
    potential = TorchAniPotential(model)
    potential.shift_reference_energies({1: 0.7})
    path = tmp_path / "model.pt"
    potential.save(path)
    again = build(seed=9, **KINDS[kind])
    again.load_state_dict(torch.load(path, weights_only=True))
    batch = collate([*OPEN, crystal(0)], potential.cutoff)
    expected = potential(batch)
    close(TorchAniPotential(again)(batch), expected, 1e-13)
    loaded = TorchAniPotential.from_file(path)
    close(loaded(batch), expected, 1e-13)
    assert all(p.requires_grad and p.dtype == torch.float64 for p in loaded.parameters())
    close(make_potential(f"torchani:{path}")(batch), expected, 1e-13)
    loaded.save(path)
    close(TorchAniPotential.from_file(path)(batch), expected, 1e-13)


def test_state_dicts_of_published_models_are_read_by_name(tmp_path: Path) -> None:
    """With tensor names of TorchANI 2, and the older ones that it still reads."""
    arch = import_torchani("torchani.arch")
    assembler = arch.Assembler()
    assembler.set_symbols(("H", "C", "N", "O"))
    assembler.set_global_cutoff_fn("cosine")
    assembler.set_aev_computer(radial="ani1x", angular="ani1x")
    assembler.set_atomic_networks(ctor="ani1x")
    assembler.set_self_energies({"H": -0.6, "C": -38.1, "N": -54.7, "O": -75.2})
    model = assembler.assemble(2)
    potential = TorchAniPotential(model)
    batch = collate(OPEN, potential.cutoff, dtype=torch.float32)
    today = model.state_dict()
    older = {name.removeprefix("potentials.nnp."): value for name, value in today.items()}
    older = {name.replace("members.", "").replace("atomics.", ""): value for name, value in older.items()}
    older = {re.sub(r"layers\.(\d)", lambda m: str(2 * int(m[1])), name): value for name, value in older.items()}
    older = {name.replace("final_layer", "6"): value for name, value in older.items()}
    assert "neural_networks.1.H.0.weight" in older
    for states in (today, older):
        torch.save(dict(states), tmp_path / "ani1x_state_dict.pt")
        loaded = TorchAniPotential.from_file(tmp_path / "ani1x_state_dict.pt", architecture="ani1x")
        close(loaded(batch), potential(batch), 1e-9)
    with pytest.raises(FileFormatError, match="do not fit") as refused:
        TorchAniPotential.from_file(tmp_path / "ani1x_state_dict.pt", architecture="ani2x")
    assert len(str(refused.value)) < 500


def test_pickled_models_need_trust(tmp_path: Path) -> None:
    model, path = build(dispersion=True, lot="b973c-def2mtzvp", dispersion_cutoff=5.0), tmp_path / "whole.pt"
    torch.save(model, path)
    with pytest.raises(RequestError, match="trust_pickle=True"):
        TorchAniPotential.from_file(path)
    batch = collate(OPEN, 5.0)
    close(TorchAniPotential.from_file(path, trust_pickle=True)(batch), TorchAniPotential(model)(batch), 1e-13)


def test_non_standard_models_are_saved_for_torchani_only(tmp_path: Path) -> None:
    kind = KINDS["shared layers"]
    potential, path = TorchAniPotential(build(**kind)), tmp_path / "shared.pt"
    potential.save(path)
    again = build(seed=9, **kind)
    again.load_state_dict(torch.load(path, weights_only=True))
    batch = collate(OPEN, potential.cutoff)
    close(TorchAniPotential(again)(batch), potential(batch), 1e-13)
    with pytest.raises(RequestError, match=r'architecture="ani2x"'):
        TorchAniPotential.from_file(path)


def test_invalid_files(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with pytest.raises(FileFormatError, match="no such TorchANI model file"):
        TorchAniPotential.from_file(path)
    for content in (b"", b"not a model", b"\x89HDF", b"PK\x03\x04 truncated"):
        path.write_bytes(content)
        for trust in (False, True):
            with pytest.raises(FileFormatError, match=r"not a (readable )?TorchANI"):
                TorchAniPotential.from_file(path, trust_pickle=trust)
    for value in ({}, {"a": 1}, [torch.zeros(3)], torch.zeros(2)):
        torch.save(value, path)
        with pytest.raises(FileFormatError, match="neither a state dict nor a model"):
            TorchAniPotential.from_file(path)
    torch.save({"a": torch.zeros(3)}, path)
    with pytest.raises(RequestError, match="neither cutoffs nor activations"):
        TorchAniPotential.from_file(path)
    with pytest.raises(UnknownOptionError, match='Did you mean "ani2x"'):
        TorchAniPotential.from_file(path, architecture="ani-2x")
    TorchAniPotential(build()).save(path)
    whole = path.read_bytes()
    for cut in (10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises((FileFormatError, RequestError)):
            TorchAniPotential.from_file(path)


@pytest.mark.parametrize(
    "note",
    ["", "[]", "{", '{"symbols": ["H"]}', '{"symbols": ["Zz"], "radial_cutoff": 4, "angular_cutoff": 3, '
     '"cutoff_function": "cosine", "activation": "celu"}', 7],
)  # fmt: skip
def test_damaged_descriptions_are_reported(note: Any, tmp_path: Path) -> None:
    states = build().state_dict()
    states._metadata[""]["hesse"] = note
    torch.save(states, tmp_path / "x.pt")
    with pytest.raises(FileFormatError, match="description of the model is damaged"):
        TorchAniPotential.from_file(tmp_path / "x.pt")


# --- refusals --------------------------------------------------------------------------------------------------------


def test_other_objects_are_refused() -> None:
    with pytest.raises(RequestError, match=r"TorchAniPotential\.from_file"):
        TorchAniPotential("some.file")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"expected a model of TorchANI 2 .* got a Linear"):
        TorchAniPotential(torch.nn.Linear(2, 2))


def test_models_converted_for_inference_are_refused() -> None:
    with pytest.raises(RequestError, match="converted for inference"):
        TorchAniPotential(build(ensemble_size=2).to_infer_model())


def test_potentials_without_a_cutoff_are_refused() -> None:
    with pytest.raises(RequestError, match="without a cutoff"):
        TorchAniPotential(build(repulsion=True, repulsion_cutoff=False))


def test_unknown_elements_are_reported() -> None:
    potential = TorchAniPotential(build())
    structure = Structure([7, 1], [[0.0, 0, 0], [1.0, 0, 0]], id="imine-3")
    with pytest.raises(UnknownElementError, match='structure "imine-3" holds N'):
        evaluate(potential, collate([structure], potential.cutoff), Request())


def test_single_precision_files_keep_the_digits_of_total_energies(tmp_path: Path) -> None:
    potential = TorchAniPotential(build()).float()
    potential.shift_reference_energies({8: -2041.9816003861418})
    potential.save(tmp_path / "x.pt")
    loaded = TorchAniPotential.from_file(tmp_path / "x.pt")
    assert next(loaded.parameters()).dtype == torch.float32
    torch.testing.assert_close(loaded.references.energies, potential.references.energies, rtol=1e-15, atol=0)
