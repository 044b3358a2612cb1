"""CHGNet models as potentials: agreement with CHGNet's own calculator, before and after training; files; wrong input.

These tests run in an environment of their own (`make peers`).
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("chgnet", reason="the adapter of CHGNet needs chgnet (make peers)")

from universal_models import chgnet_calculator, chgnet_model

import hesse
from hesse.curvature import evaluate
from hesse.engines import make_engine, make_potential
from hesse.errors import ChargeStateWarning, FileFormatError, RequestError, UnknownElementError, WriteError
from hesse.models.adapters.checkpoints import PUBLISHED, checkpoint_file
from hesse.models.adapters.chgnet import ChgnetPotential, _import_chgnet
from hesse.structures import Request, Structure, collate, to_ase
from oracles import Morse, atom, crystal, labeled, molecules

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:No Pauling electronegativity", "ignore:Converting a tensor with requires_grad"),
]
ALL = Request(forces=True, stress=True)
CRYSTALS = [crystal(0), crystal(3, size=3.2, atoms=1), crystal(1, size=5.0, atoms=4, elements=(11, 17))]
SPREAD = crystal(2, size=4.4, atoms=1)  # pairs, but no angle
every_weight = pytest.mark.parametrize("weights", PUBLISHED["chgnet"])


def close(got: Any, expected: Any, tolerance: float = 1e-8) -> None:
    one, other = (torch.as_tensor(value, dtype=torch.float64) for value in (got, expected))
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def small(**options: Any) -> ChgnetPotential:
    return ChgnetPotential(chgnet_model(**options))


def published(weights: str) -> ChgnetPotential:
    return ChgnetPotential.from_file(weights).to(torch.float64)


# --- the same numbers ------------------------------------------------------------------------------------------------


@every_weight
def test_published_weights_equal_chgnet_in_one_batch(weights: str) -> None:
    """Cells smaller than the cutoff, atoms that are their own neighbors, structures with and without angles."""
    potential, calculator = published(weights), chgnet_calculator(weights)
    structures = [*CRYSTALS, SPREAD]
    result = evaluate(potential, collate(structures, potential.cutoff), ALL)
    start = 0
    for k, structure in enumerate(structures):
        atoms = to_ase(structure)
        atoms.calc = calculator
        # Their E0 and sums of energies are float32.
        close(result.energy[k], atoms.get_potential_energy(), 1e-6)  # type: ignore[index]
        close(result.forces[start : start + len(structure)], atoms.get_forces())  # type: ignore[index]
        close(result.stress[k], atoms.get_stress(voigt=False), 1e-7)  # type: ignore[index]
        start += len(structure)


@every_weight
def test_products_equal_those_through_chgnets_own_graph(weights: str) -> None:
    """`H v` as the derivative of the forces that CHGNet computes, with its own neighbors, bonds and angles."""
    potential, calculator = published(weights), chgnet_calculator(weights)
    model, models = calculator.model, _import_chgnet("chgnet.model.model")
    structure = CRYSTALS[0]
    probes = torch.randn(2, len(structure), 3, dtype=torch.float64)
    result = evaluate(potential, collate([structure], potential.cutoff), Request(probes=probes)).hvp
    adaptor = _import_chgnet("pymatgen.io.ase").AseAtomsAdaptor
    graph = model.graph_converter(adaptor.get_structure(to_ase(structure)))
    batched = models.BatchedGraph.from_graphs([graph], model.bond_basis_expansion, model.angle_basis_expansion)
    forces = model._compute(batched, compute_force=True)["f"][0]
    for k, probe in enumerate(probes):
        (product,) = torch.autograd.grad(-forces, batched.atom_positions, probe, retain_graph=True)
        close(result[k], product)  # type: ignore[index]


def test_molecules_and_isolated_atoms() -> None:
    potential = published("0.3.0")
    structures = [*molecules([5, 3], seed=2), atom(8), Structure([8, 1], [[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]], id="far")]
    batch = collate(structures, potential.cutoff)
    result = evaluate(potential, batch, Request(forces=True, hessian=True, atomic_energies=True))
    for k, structure in enumerate(structures):
        atoms = to_ase(structure)
        atoms.set_cell([40.0, 40.0, 40.0])
        atoms.pbc = True
        atoms.calc = chgnet_calculator("0.3.0")
        if len(structure) > 2:
            close(result.energy[k], atoms.get_potential_energy(), 1e-6)  # type: ignore[index]
    close(result.atomic_energies[-3], result.atomic_energies[-2], 1e-10)  # type: ignore[index]
    assert bool(result.hessian.isfinite().all())  # type: ignore[union-attr]


def test_every_structure_is_that_of_a_batch_of_one() -> None:
    """0.2.0 adds biases to bonds as soon as a structure has an angle: a batch must not decide that."""
    potential = published("0.2.0")
    structures = [SPREAD, *CRYSTALS, SPREAD]
    together = evaluate(potential, collate(structures, potential.cutoff), ALL)
    start = 0
    for k, structure in enumerate(structures):
        alone = evaluate(potential, collate([structure], potential.cutoff), ALL)
        close(together.energy[k], alone.energy[0], 1e-12)  # type: ignore[index]
        close(together.forces[start : start + len(structure)], alone.forces, 1e-12)  # type: ignore[index]
        start += len(structure)


@pytest.mark.parametrize("readout", [{}, {"mlp_first": False}, {"composition_model": None}])
def test_other_settings_equal_chgnet(readout: dict[str, Any]) -> None:
    model = chgnet_model(**readout)
    potential = ChgnetPotential(model)
    result = evaluate(potential, collate(CRYSTALS, potential.cutoff), ALL)
    assert potential.has_atomic_energies == ("mlp_first" not in readout)
    if readout.get("composition_model", "") is None:
        assert float(potential.references.energies.abs().max()) == 0
        return
    atoms = to_ase(CRYSTALS[0])
    atoms.calc = chgnet_calculator(model)
    close(result.energy[0], atoms.get_potential_energy(), 1e-6)  # type: ignore[index]
    close(result.forces[: len(atoms)], atoms.get_forces())  # type: ignore[index]


def test_products_are_slopes_and_third_derivatives_reach_the_parameters() -> None:
    potential = small()
    structure = CRYSTALS[2]
    batch = collate([structure], potential.cutoff)
    probes = torch.randn(1, len(structure), 3, dtype=torch.float64)

    def loss() -> torch.Tensor:
        labels = evaluate(potential, batch, Request(probes=probes), create_graph=True)
        return labels.hvp.square().sum()  # type: ignore[union-attr]

    ends = [
        evaluate(potential, collate([structure.with_positions(structure.positions + s * probes[0].numpy())], 5.0), ALL)
        for s in (1e-5, -1e-5)
    ]
    slope = -(ends[0].forces - ends[1].forces) / 2e-5  # type: ignore[operator]
    close(evaluate(potential, batch, Request(probes=probes)).hvp[0], slope, 1e-5)  # type: ignore[index]
    loss().backward()
    for name, parameter in potential.named_parameters():
        if not parameter.requires_grad:
            continue
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        direction, values = torch.randn_like(parameter), []
        with torch.no_grad():
            for sign in (1, -1):
                parameter.add_(sign * 1e-5 * direction)
                values.append(loss().item())
                parameter.sub_(sign * 1e-5 * direction)
        measured, said = (values[0] - values[1]) / 2e-5, (gradient * direction).sum().item()
        assert said == pytest.approx(measured, rel=1e-4, abs=1e-5 * (1 + abs(values[0]))), name


# --- training and files ----------------------------------------------------------------------------------------------


def test_a_trained_model_goes_back_to_chgnet(tmp_path: Path) -> None:
    model = chgnet_model()
    data = labeled(Morse(), molecules([4, 5], seed=1), hessian=True)
    config = hesse.TrainConfig(
        steps=4, dtype="float64", optimizer={"learning_rate": 3e-3}, weights={"energy": 1, "forces": 1, "hvp": 1},
        probe={"source": "fresh"}, reference_energies="fit", allow_shared_structures=True,
    )  # fmt: skip
    given = ChgnetPotential(model)
    before = evaluate(given, collate(CRYSTALS[:1], given.cutoff), ALL).forces
    result = hesse.train(data, data, config, output=tmp_path / "run", potential=given, quiet=True)
    assert result.model_file == tmp_path / "run" / "model.pth.tar"
    labels = evaluate(result.potential, collate(CRYSTALS[:1], given.cutoff), ALL)
    theirs = _import_chgnet("chgnet.model.model").CHGNet.from_file(str(result.model_file))
    atoms = to_ase(CRYSTALS[0])
    atoms.calc = chgnet_calculator(theirs)
    close(labels.energy[0], atoms.get_potential_energy(), 1e-4)  # type: ignore[index]
    close(labels.forces, atoms.get_forces(), 1e-4)
    assert float((labels.forces - before).abs().max()) > 1e-4  # type: ignore[operator]
    again = make_potential(f"chgnet:{result.model_file}", dtype=torch.float64)
    close(evaluate(again, collate(CRYSTALS[:1], again.cutoff), ALL).forces, labels.forces, 1e-4)


def test_saved_weights_are_the_same_model(tmp_path: Path) -> None:
    for weights in ("0.2.0", "0.3.0"):
        potential = published(weights)
        potential.save(tmp_path / "a.pth.tar")
        again = make_potential(f"chgnet:{tmp_path / 'a.pth.tar'}", dtype=torch.float64)
        batch = collate([*CRYSTALS, SPREAD], potential.cutoff)
        close(again(batch), potential(batch), 1e-12)
        assert again.original.version == potential.original.version  # type: ignore[union-attr]
    with pytest.raises(WriteError, match="there is no folder"):
        potential.save(tmp_path / "nowhere" / "a.pth.tar")


def test_reference_energies_are_float64_and_shifted_in_the_model() -> None:
    potential = small()
    batch = collate([CRYSTALS[2]], potential.cutoff)
    before = evaluate(potential, batch, Request()).energy.item()  # type: ignore[union-attr]
    potential.shift_reference_energies({11: 0.5, 17: -2.0})
    after = evaluate(potential, batch, Request()).energy.item()  # type: ignore[union-attr]
    assert after - before == pytest.approx(2 * 0.5 - 2 * 2.0, abs=1e-9)
    single = copy.deepcopy(potential).float()
    assert single.references.energies.dtype == torch.float64
    close(single.double().references.energies, potential.references.energies, 1e-14)
    table = single.original.composition_model.fc.weight[0]
    close(table[[10, 16]], potential.references.energies[[potential.elements.index(z) for z in (11, 17)]], 1e-6)
    with pytest.raises(UnknownElementError, match="holds Po"):
        potential.shift_reference_energies({84: 1.0})


# --- names and wrong input -------------------------------------------------------------------------------------------


def test_names_levels_elements_and_charges() -> None:
    engine = make_engine("chgnet:R2SCAN")
    file = checkpoint_file("chgnet", "r2scan")
    assert engine.level.startswith("chgnet:R2SCAN@")
    assert make_engine(f"chgnet:{file}").level.partition("@")[2] == engine.level.partition("@")[2]
    assert make_engine("chgnet:0.3.0").level.partition("@")[2] != engine.level.partition("@")[2]
    polonium = Structure([84], [[0.0, 0.0, 0.0]], cell=3.3 * np.eye(3), pbc=(True, True, True), id="Po")
    with pytest.raises(UnknownElementError, match='"Po" holds Po'):
        hesse.compute(polonium, engine)
    ion = Structure([11], [[0.0, 0.0, 0.0]], charge=1, id="ion")
    with pytest.warns(ChargeStateWarning, match='"ion" has charge 1'):
        hesse.compute(ion, engine)


def test_models_and_files_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"ChgnetPotential\.from_file"):
        ChgnetPotential("some.file")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="got a Linear"):
        ChgnetPotential(torch.nn.Linear(2, 2))
    torch.save({"weights": torch.ones(3)}, tmp_path / "x.pth.tar")
    with pytest.raises(FileFormatError, match="not a file of CHGNet"):
        ChgnetPotential.from_file(tmp_path / "x.pth.tar")
    model = chgnet_model()
    model.composition_model = _import_chgnet("chgnet.model.composition_model").CompositionModel()
    with pytest.raises(RequestError, match="of the kind CompositionModel"):
        ChgnetPotential(model)
