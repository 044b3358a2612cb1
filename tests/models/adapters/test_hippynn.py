"""hippynn's graphs as potentials: its numbers, its files, and training on curvature."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from hesse import units
from hesse.curvature import evaluate
from hesse.datasets import Dataset
from hesse.engines import make_potential
from hesse.errors import FileFormatError, HesseError, RequestError, UnitError, UnknownElementError, UnknownOptionError
from hesse.losses import weighted_loss
from hesse.models import SumPotential, load_weights
from hesse.models.adapters.hippynn import HippynnPotential, hipnn_from_hippynn
from hesse.models.adapters.hippynn.hippynn_potential import sum_messages
from hesse.structures import Properties, Request, Structure, collate
from hesse.structures.structure import to_ase
from hesse.training import TrainConfig, train
from hippynn_graphs import from_hippynn, hippynn, hippynn_graph, require_equal
from oracles import atom, crystal, linear, molecules

pytestmark = [
    pytest.mark.filterwarnings("ignore:Provided distances are underneath sensitivity range"),
    pytest.mark.filterwarnings("ignore:Using non-standard custom kernel implementation"),
]
every_order = pytest.mark.parametrize("l_max", [0, 1, 2])
MOLECULES = [*molecules([9, 5, 2], seed=3), linear(4), atom(8), *molecules([7], seed=8)]
EVERYTHING = {"forces": True, "hessian": True, "atomic_energies": True}


@pytest.fixture(autouse=True)
def _plain_kernels() -> Iterator[None]:
    """hippynn's default kernels are compiled at the first call, for tens of seconds."""
    hippynn.set_custom_kernels("_pytorch_raw")
    yield
    hippynn.set_custom_kernels("pytorch")


@every_order
def test_everything_equals_hippynn(l_max: int) -> None:
    example = hippynn_graph(l_max)
    potential = HippynnPotential(example.graph, energy_unit="ev")
    assert potential.elements == (1, 6, 8)
    assert potential.cutoff == 3.6
    batch = collate(MOLECULES, 5.0)  # more neighbors than the graph needs
    probes = torch.randn(3, len(batch.numbers), 3, dtype=torch.float64)
    expected = from_hippynn(example.graph, MOLECULES, probes)
    require_equal(evaluate(potential, batch, Request(probes=probes, **EVERYTHING)), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("periodic", [False, True])
def test_molecules_and_crystals_share_a_batch_whatever_the_pair_finder(periodic: bool) -> None:
    """A graph built for molecules also works for crystals, and the reverse."""
    example = hippynn_graph(1, periodic=periodic)
    potential = HippynnPotential(example.graph, energy_unit="ev")
    crystals = [crystal(0), crystal(1, size=3.1)]
    batch = collate([MOLECULES[0], *crystals], potential.cutoff)
    probes = torch.randn(2, len(batch.numbers), 3, dtype=torch.float64)
    labels = evaluate(potential, batch, Request(probes=probes, stress=True, **EVERYTHING))  # type: ignore[arg-type]
    structures: list[Structure] = crystals if periodic else [MOLECULES[0]]
    atoms = slice(9, None) if periodic else slice(0, 9)
    expected = from_hippynn(example.graph, structures, probes[:, atoms])
    rows = slice(1, None) if periodic else slice(0, 1)
    for name, cut in (("energy", rows), ("forces", atoms), ("atomic_energies", atoms)):
        torch.testing.assert_close(getattr(labels, name)[cut], expected[name], rtol=0, atol=1e-10)
    assert labels.hvp is not None
    torch.testing.assert_close(labels.hvp[:, atoms], expected["hvp"], rtol=0, atol=1e-10)
    # hippynn has no stress of batches to compare with; the copied network is independent of hippynn's code.
    copied = hipnn_from_hippynn(example.graph, energy_unit="ev")
    same = evaluate(copied, batch, Request(stress=True))
    torch.testing.assert_close(labels.stress, same.stress, rtol=0, atol=1e-10, equal_nan=True)


def test_units_are_converted() -> None:
    reach = {"dist_soft_min": 1.4, "dist_soft_max": 6.0, "dist_hard_max": 6.8}
    example = hippynn_graph(1, **reach)  # type: ignore[arg-type]
    potential = HippynnPotential(example.graph, energy_unit="kcal/mol", length_unit="bohr")
    energy, length = units.KCAL_PER_MOL, units.length_unit("bohr")
    assert potential.cutoff == pytest.approx(6.8 * length)
    batch = collate(MOLECULES, potential.cutoff)
    probes = torch.randn(1, len(batch.numbers), 3, dtype=torch.float64)
    expected = from_hippynn(example.graph, MOLECULES, probes, length=length)
    factors = {"energy": energy, "atomic_energies": energy, "forces": energy / length, "hvp": energy / length**2}
    expected = {name: value * factors.get(name, 1.0) for name, value in expected.items()}
    require_equal(evaluate(potential, batch, Request(probes=probes, **EVERYTHING)), expected)  # type: ignore[arg-type]


def test_native_kernels_give_the_same_numbers() -> None:
    example = hippynn_graph(1)
    batch = collate(MOLECULES[:2], 3.6)
    request = Request(probes=torch.randn(3, len(batch.numbers), 3, dtype=torch.float64), **EVERYTHING)  # type: ignore[arg-type]
    plain = evaluate(HippynnPotential(example.graph, energy_unit="ev"), batch, request)
    hippynn.set_custom_kernels("_pytorch_raw_wrapped")  # hippynn's kernels, but not compiled
    own = HippynnPotential(example.graph, energy_unit="ev", kernels="own")
    assert not own.supports_vmap
    for graph in (False, True):
        labels = evaluate(own, batch, request, create_graph=graph)
        for name in ("energy", "forces", "hvp", "hessian"):
            torch.testing.assert_close(getattr(labels, name), getattr(plain, name), rtol=0, atol=1e-11)
    own.supports_vmap = True
    with pytest.raises(RuntimeError, match="vmap"):  # the reason for `supports_vmap = False`
        evaluate(own, batch, request)


@pytest.mark.parametrize("counts", [[3, 0, 2, 5], [0, 0, 1], [0, 0], [4]])
def test_sums_of_messages_equal_hippynn(counts: list[int]) -> None:
    first = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    second = torch.randint(len(counts), first.shape)
    sensitivities = torch.randn(len(first), 4, dtype=torch.float64)
    features = torch.randn(len(counts), 3, dtype=torch.float64)
    expected = hippynn.custom_kernels.env_pytorch.envsum(sensitivities, features, first, second)
    torch.testing.assert_close(sum_messages(sensitivities, features, first, second), expected, rtol=0, atol=1e-14)


def test_atoms_without_neighbors() -> None:
    example = hippynn_graph(2)
    potential = HippynnPotential(example.graph, energy_unit="ev")
    structures = [atom(1), atom(8)]
    batch = collate(structures, potential.cutoff)
    labels = evaluate(potential, batch, Request(probes=torch.randn(2, 2, 3, dtype=torch.float64), **EVERYTHING))  # type: ignore[arg-type]
    expected = example.graph(torch.tensor([[1], [8]]), torch.zeros(2, 1, 3, dtype=torch.float64))[0][:, 0]
    torch.testing.assert_close(labels.energy, expected.detach(), rtol=0, atol=1e-12)
    for value in (labels.forces, labels.hvp, labels.hessian):
        assert value is not None
        assert float(value.abs().max()) == 0.0


def test_an_energy_without_atomic_energies() -> None:
    example = hippynn_graph(1)
    twice = example.energy.mol_energy + example.energy.mol_energy
    potential = HippynnPotential(twice, energy_unit="ev")
    assert not potential.has_atomic_energies
    single = HippynnPotential(example.energy, energy_unit="ev")
    batch = collate(MOLECULES, 3.6)
    request = Request(forces=True, hessian=True)
    double, once = evaluate(potential, batch, request), evaluate(single, batch, request)
    for name in ("energy", "forces", "hessian"):
        torch.testing.assert_close(getattr(double, name), 2 * getattr(once, name), rtol=0, atol=1e-10)


def test_charges_and_screened_coulomb_energies() -> None:
    """A network plus charges, pairs with another cutoff, and the sum of two atomic energies."""
    example = hippynn_graph(0, periodic=False)
    charges = hippynn.targets.HChargeNode("charges", example.energy.parents[0])
    far = hippynn.pairs.OpenPairIndexer("far", (example.inputs[1], example.inputs[0]), dist_hard_max=5.2)
    coulomb = hippynn.physics.ScreenedCoulombEnergyNode(
        "coulomb",
        (charges, far),
        energy_conversion=14.4,
        cutoff_distance=5.2,
        screening=hippynn.layers.physics.QScreening(p_value=4),
    )
    total = hippynn.physics.CombineEnergyNode("total", (example.energy, coulomb))
    outputs = [total.mol_energy, total.atom_energies, example.energy.hierarchicality]
    graph = hippynn.GraphModule(example.inputs, outputs).double()
    with torch.no_grad():
        for layer in charges.torch_module.layers:
            layer.weight.normal_()
    potential = HippynnPotential(graph, energy_unit="ev")
    assert potential.cutoff == 5.2
    batch = collate(MOLECULES, potential.cutoff)
    probes = torch.randn(2, len(batch.numbers), 3, dtype=torch.float64)
    expected = from_hippynn(graph, MOLECULES, probes)
    alone = evaluate(HippynnPotential(example.graph, energy_unit="ev"), batch, Request())
    assert alone.energy is not None
    assert float((expected["energy"] - alone.energy).abs().max()) > 0.1
    require_equal(evaluate(potential, batch, Request(probes=probes, **EVERYTHING)), expected)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:HIP-HOP-NN is still in a beta state")
@pytest.mark.parametrize("group_norm", [False, True])
def test_hip_hop_networks(group_norm: bool) -> None:
    """Networks with higher tensor invariants, which Hesse's HIP-NN does not have."""
    example = hippynn_graph(0)
    size = {"n_features": 5, "n_sensitivities": 6, "n_interaction_layers": 1, "n_atom_layers": 1}
    reach = {"dist_soft_min": 0.75, "dist_soft_max": 3.2, "dist_hard_max": 3.6}
    invariants = {"l_max": 2, "n_max": 3, "group_norm": group_norm}
    settings = {"possible_species": [0, 8, 1, 6], **invariants, **size, **reach}
    network = hippynn.network_nodes.HipHopnn("hop", tuple(example.inputs), module_kwargs=settings)
    energy = hippynn.targets.HEnergyNode("energy", network, db_name="T")
    graph = hippynn.GraphModule(
        example.inputs, [energy.mol_energy, energy.atom_energies, energy.hierarchicality]
    ).double()
    potential = HippynnPotential(graph, energy_unit="ev")
    assert potential.supports_vmap is not group_norm
    batch = collate(MOLECULES, potential.cutoff)
    probes = torch.randn(2, len(batch.numbers), 3, dtype=torch.float64)
    expected = from_hippynn(graph, MOLECULES, probes)
    require_equal(evaluate(potential, batch, Request(probes=probes, **EVERYTHING)), expected)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"no interactions .'HOPInteractionLayer'."):
        hipnn_from_hippynn(graph, energy_unit="ev")


# --- training and files ----------------------------------------------------------------------------------------------


def labels_of(potential: HippynnPotential, structures: list[Structure]) -> Properties:
    batch = collate(structures, potential.cutoff)
    probes = torch.randn(2, len(batch.numbers), 3, dtype=torch.float64)
    return evaluate(potential, batch, Request(forces=True, probes=probes))


def test_trained_on_curvature_saved_and_read_by_hippynn(tmp_path: Path) -> None:
    teacher = HippynnPotential(hippynn_graph(1, seed=1).graph, energy_unit="kcal/mol")
    example = hippynn_graph(1, seed=2)
    before = copy.deepcopy(example.graph.state_dict())
    potential = HippynnPotential(example.graph, energy_unit="kcal/mol")
    batch, labels = collate(MOLECULES, 3.6), labels_of(teacher, MOLECULES)
    optimizer = torch.optim.Adam([p for p in potential.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        got = evaluate(potential, batch, Request(forces=True, probes=labels.probes), create_graph=True)
        loss = weighted_loss(got, labels, {"energy": 1.0, "forces": 1.0, "hvp": 1.0})[0]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
    moved = {n for n, v in example.graph.state_dict().items() if torch.is_tensor(v) and not torch.equal(v, before[n])}
    assert {n for n, p in example.graph.named_parameters() if p.requires_grad} == moved, "trained in place, all of it"

    potential.save(tmp_path / "trained.pt")
    graph = torch.load(tmp_path / "trained.pt", weights_only=False)
    expected = evaluate(potential, batch, Request(forces=True))
    predictor = hippynn.Predictor.from_graph(graph)
    assert expected.energy is not None
    for i, structure in enumerate(MOLECULES[:3]):
        answer = predictor(Z=torch.tensor(structure.numbers)[None], R=torch.tensor(structure.positions)[None])
        assert float(answer["T"]) * units.KCAL_PER_MOL == pytest.approx(float(expected.energy[i]), abs=1e-10)
    again = HippynnPotential.from_file(tmp_path / "trained.pt", trust_pickle=True, energy_unit="kcal/mol")
    torch.testing.assert_close(evaluate(again, batch, Request()).energy, expected.energy, rtol=0, atol=0)
    text = f"hippynn:{tmp_path / 'trained.pt'}?trust=pickle,energy_unit=kcal/mol"
    torch.testing.assert_close(evaluate(make_potential(text), batch, Request()).energy, expected.energy)


def test_training_a_graph_in_a_run(tmp_path: Path) -> None:
    """With fitted references, averaged weights, resumed checkpoints, and files for hippynn and for Hesse."""
    example = hippynn_graph(1, seed=2, spread=0.05)
    before = copy.deepcopy(example.graph.state_dict())
    teacher = hippynn_graph(1, seed=1, spread=0.05)
    data = Dataset(tuple(MOLECULES), labels_of(HippynnPotential(teacher.graph, energy_unit="ev"), MOLECULES))
    config = TrainConfig.model_validate(
        {
            "steps": 6,
            "dtype": "float64",
            "reference_energies": "fit",
            "checkpoint_every": 2,
            "optimizer": {"ema_decay": 0.9},
        }
    )
    potential = HippynnPotential(example.graph, energy_unit="ev")
    result = train(data, None, config, output=tmp_path / "whole", potential=potential, quiet=True)
    assert all(torch.equal(v, before[n]) for n, v in example.graph.state_dict().items() if torch.is_tensor(v))
    assert isinstance(result.potential, HippynnPotential)
    assert result.model_file == tmp_path / "whole" / "model.pt"
    batch = collate(MOLECULES, potential.cutoff)
    trained = evaluate(result.potential, batch, Request()).energy
    read = HippynnPotential.from_file(result.model_file, trust_pickle=True, energy_unit="ev")
    torch.testing.assert_close(evaluate(read, batch, Request()).energy, trained, rtol=0, atol=0)
    trainable = [n for n, p in example.graph.named_parameters() if p.requires_grad]
    assert [n for n, p in read.original.named_parameters() if p.requires_grad] == trainable, "hippynn can train it on"
    again = train(data, None, config, output=tmp_path / "whole", potential=potential, quiet=True)  # from its checkpoint
    torch.testing.assert_close(evaluate(again.potential, batch, Request()).energy, trained, rtol=0, atol=0)
    load_weights(tmp_path / "whole" / "model.safetensors", potential)
    torch.testing.assert_close(evaluate(potential, batch, Request()).energy, trained, rtol=0, atol=0)


def test_weight_files_hold_tensors_only() -> None:
    """hippynn keeps ε in the state of its modules; it is left out of weight files and restored from the graph."""
    sharp = HippynnPotential(hippynn_graph(1, cusp_reg=1e-3).graph, energy_unit="ev")
    blunt = HippynnPotential(hippynn_graph(1, seed=5, cusp_reg=1e-1).graph, energy_unit="ev")
    state = SumPotential([sharp]).state_dict()
    assert all(torch.is_tensor(value) for value in state.values())
    SumPotential([blunt]).load_state_dict(state)
    interactions = [m for m in blunt.original.modules() if hasattr(m, "cusp_reg")]
    assert [m.cusp_reg for m in interactions] == [1e-1, 1e-1]
    first = next(m for m in sharp.original.modules() if hasattr(m, "cusp_reg"))
    assert torch.equal(interactions[0].int_weights, first.int_weights)
    assert "cusp_reg" in str(sharp.original.state_dict()), "the graph's own state is as hippynn writes it"


def test_hippynns_calculator_runs_the_saved_graph(tmp_path: Path) -> None:
    from hippynn.interfaces.ase_interface import calculator_from_model

    potential = HippynnPotential(hippynn_graph(2).graph, energy_unit="kcal/mol")
    potential.save(tmp_path / "model.pt")
    graph = torch.load(tmp_path / "model.pt", weights_only=False)
    for structure in (MOLECULES[0], crystal(0)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about missing charges
            calculator = calculator_from_model(graph)
            calculator.to(torch.float64)
            atoms = to_ase(structure)
            atoms.calc = calculator
            energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        labels = evaluate(potential, collate([structure], potential.cutoff), Request(forces=True))
        assert labels.energy is not None
        assert labels.forces is not None
        assert energy == pytest.approx(float(labels.energy[0]), abs=1e-9)
        np.testing.assert_allclose(forces, labels.forces.numpy(), rtol=0, atol=1e-9)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a training with hippynn: three epochs on random numbers."""
    folder = tmp_path_factory.mktemp("experiment")
    hippynn.set_custom_kernels("_pytorch_raw")
    example = hippynn_graph(1, spread=0.0)
    energy = example.energy.main_output
    loss = hippynn.graphs.loss.MSELoss.of_node(energy)
    rng = np.random.default_rng(0)
    arrays = {
        "Z": np.tile([8, 1, 1, 6], (24, 1)),
        "R": np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.3]]) + 0.1 * rng.normal(size=(24, 4, 3)),
        "T": rng.normal(size=(24, 1)),
    }
    with warnings.catch_warnings(), hippynn.active_directory(str(folder)):
        warnings.simplefilter("ignore")
        modules, info = hippynn.experiment.assembly.assemble_for_training(loss, {"loss": loss})
        modules.model.double()
        database = hippynn.Database(
            arrays, **info, seed=1, test_size=0.2, valid_size=0.2, quiet=True, num_workers=0, allow_unfound=True
        )
        settings = hippynn.experiment.SetupParams(max_epochs=3, learning_rate=1e-2, batch_size=6, stopping_key="loss")
        hippynn.setup_and_train(training_modules=modules, database=database, setup_params=settings)
    return folder


@pytest.mark.parametrize("name", ["best_model.pt", "best_checkpoint.pt"])
def test_files_of_hippynns_training_are_read(experiment: Path, name: str) -> None:
    potential = HippynnPotential.from_file(experiment / name, trust_pickle=True, energy_unit="ev")
    with warnings.catch_warnings(), hippynn.active_directory(str(experiment)):
        warnings.simplefilter("ignore")
        graph = hippynn.load_model_from_cwd(model_device="cpu")
    structures = molecules([5, 4], elements=(1, 6, 8))
    expected = HippynnPotential(graph, energy_unit="ev")
    batch = collate(structures, potential.cutoff)
    request = Request(forces=True)
    torch.testing.assert_close(evaluate(potential, batch, request).forces, evaluate(expected, batch, request).forces)
    # Parameters trained further can be written back for hippynn.
    potential.shift_reference_energies({1: 0.5})
    torch.save(potential.original.state_dict(), experiment / "again.pt")
    again = HippynnPotential.from_file(experiment / "again.pt", trust_pickle=True, energy_unit="ev")
    torch.testing.assert_close(evaluate(again, batch, request).energy, evaluate(potential, batch, request).energy)


def test_shifting_reference_energies() -> None:
    potential = HippynnPotential(hippynn_graph(0).graph, energy_unit="kcal/mol")
    batch = collate(MOLECULES, potential.cutoff)
    before = evaluate(potential, batch, Request()).energy
    potential.shift_reference_energies({8: 10.0, 1: -0.5})
    after = evaluate(potential, batch, Request()).energy
    assert before is not None
    assert after is not None
    counts = [10.0 * (s.numbers == 8).sum() - 0.5 * (s.numbers == 1).sum() for s in MOLECULES]
    np.testing.assert_allclose(after - before, counts, atol=1e-10)
    with pytest.raises(UnknownElementError, match="holds N"):
        potential.shift_reference_energies({7: 1.0})
    without = HippynnPotential(hippynn_graph(0, first_is_interacting=True).graph, energy_unit="ev")
    with pytest.raises(RequestError, match="holds no energies per element"):
        without.shift_reference_energies({1: 1.0})


def test_copies_do_not_share_weights_and_pickle() -> None:
    potential = HippynnPotential(hippynn_graph(1).graph, energy_unit="ev")
    batch = collate(MOLECULES, potential.cutoff)
    expected = evaluate(potential, batch, Request()).energy
    copied = copy.deepcopy(potential)
    thawed = pickle.loads(pickle.dumps(potential))
    with torch.no_grad():
        for parameter in potential.parameters():
            if parameter.is_floating_point():
                parameter.mul_(1.5)
    for other in (copied, thawed):
        torch.testing.assert_close(evaluate(other, batch, Request()).energy, expected, rtol=0, atol=0)
    changed = evaluate(potential, batch, Request()).energy
    assert changed is not None
    assert expected is not None
    assert float((changed - expected).abs().min()) > 0.1


def test_single_precision_runs_in_single_precision() -> None:
    example = hippynn_graph(1)
    wide = HippynnPotential(example.graph, energy_unit="ev")
    batch = collate(MOLECULES, wide.cutoff)
    probes = torch.randn(2, len(batch.numbers), 3, dtype=torch.float64)
    expected = evaluate(wide, batch, Request(forces=True, probes=probes))
    labels = evaluate(wide.float(), batch, Request(forces=True, probes=probes))
    assert labels.forces is not None
    assert labels.forces.dtype == torch.float32
    for name in ("energy", "forces", "hvp"):
        a, b = getattr(labels, name).double(), getattr(expected, name)
        assert 0 < float((a - b).abs().max()) < 3e-5 * float(b.abs().max()), name


# --- refusals --------------------------------------------------------------------------------------------------------


def test_unknown_elements_are_reported() -> None:
    potential = HippynnPotential(hippynn_graph(0).graph, energy_unit="ev")
    structure = Structure([1, 9], [[0.0, 0, 0], [0.95, 0, 0]], id="fluoride")
    with pytest.raises(UnknownElementError, match='"fluoride" holds F'):
        evaluate(potential, collate([structure], 3.6), Request())


def broken(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 no archive")


def a_list(path: Path) -> None:
    torch.save([1, 2], path)


def a_state_without_its_experiment(path: Path) -> None:
    torch.save(hippynn_graph(0).graph.state_dict(), path)


@pytest.mark.parametrize(
    ("write", "error", "message"),
    [
        (broken, FileFormatError, "not a file that hippynn can read"),
        (a_list, RequestError, "got a list"),
        (a_state_without_its_experiment, FileFormatError, r"experiment_structure.pt: there is no such"),
        (lambda path: None, FileFormatError, "there is no such hippynn file"),
    ],
)
def test_invalid_files(tmp_path: Path, write: Callable[[Path], None], error: type[HesseError], message: str) -> None:
    write(tmp_path / "model.pt")
    with pytest.raises(error, match=message):
        HippynnPotential.from_file(tmp_path / "model.pt", trust_pickle=True, energy_unit="ev")


def test_files_need_trust_and_a_unit(tmp_path: Path, experiment: Path) -> None:
    file = tmp_path / "model.pt"
    HippynnPotential(hippynn_graph(0).graph, energy_unit="ev").save(file)
    with pytest.raises(RequestError, match=r"run code .* trust_pickle=True"):
        HippynnPotential.from_file(file, energy_unit="ev")
    with pytest.raises(RequestError, match=r"do not state their unit of energy"):
        make_potential(f"hippynn:{file}?trust=pickle")
    with pytest.raises(UnitError, match="unknown energy unit"):
        make_potential(f"hippynn:{file}?trust=pickle,energy_unit=kcal")
    with pytest.raises(RequestError, match=r"before training.*best_model.pt"):
        HippynnPotential.from_file(experiment / "experiment_structure.pt", trust_pickle=True, energy_unit="ev")


def test_graphs_that_are_refused() -> None:
    with pytest.raises(RequestError, match=r"HippynnPotential\.from_file"):
        HippynnPotential("model.pt", energy_unit="ev")
    example = hippynn_graph(1)
    with pytest.raises(RequestError, match="expected a hippynn GraphModule"):
        HippynnPotential(example.network, energy_unit="ev")
    with pytest.raises(UnknownOptionError, match="choice of kernels"):
        HippynnPotential(example.graph, energy_unit="ev", kernels="cuda")  # type: ignore[arg-type]
    second = hippynn.targets.HEnergyNode("another", example.energy.parents[0])
    graph = hippynn.GraphModule(example.inputs, [example.energy.mol_energy, second.mol_energy])
    with pytest.raises(RequestError, match=r'"another".*energy=\.\.\.'):
        HippynnPotential(graph, energy_unit="ev")
    assert HippynnPotential(graph, energy_unit="ev", energy="another").has_atomic_energies
    assert HippynnPotential(graph, energy_unit="ev", energy="T").has_atomic_energies
    charges = hippynn.targets.HChargeNode("charges", example.energy.parents[0])
    every_pair = hippynn.pairs.OpenPairIndexer("all", (example.inputs[1], example.inputs[0]), dist_hard_max=None)
    coulomb = hippynn.physics.CoulombEnergyNode("coulomb", (charges, every_pair), energy_conversion=14.4)
    with pytest.raises(RequestError, match="has no cutoff"):
        HippynnPotential(coulomb, energy_unit="ev")
    several = hippynn.targets.HEnergyNode("two", example.energy.parents[0], module_kwargs={"n_target": 2})
    potential = HippynnPotential(several, energy_unit="ev").double()
    with pytest.raises(HesseError, match=r"shape \(9, 2\), expected \(9, 1\)"):
        evaluate(potential, collate(MOLECULES[:1], 3.6), Request())
    atomization = hippynn.targets.AtomizationEnergyNode("atomization", hippynn_graph(0).energy.parents[0])
    with pytest.raises(RequestError, match="create_henergy_equivalent"):
        HippynnPotential(atomization, energy_unit="ev")
