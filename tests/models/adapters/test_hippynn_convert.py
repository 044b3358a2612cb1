"""Hesse's HIP-NN-TS against hippynn, the program of the authors of HIP-NN, with copied weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from hesse import units
from hesse.curvature import evaluate
from hesse.errors import ConfigError, RequestError, UnitError
from hesse.models import load_model, save_model
from hesse.models.adapters.hippynn import hipnn_from_hippynn
from hesse.structures import Request, collate
from hippynn_graphs import from_hippynn, hippynn, hippynn_graph, require_equal
from oracles import atom, crystal, linear, molecules

pytestmark = [
    pytest.mark.filterwarnings("ignore:Provided distances are underneath sensitivity range"),
    pytest.mark.filterwarnings("ignore:Using non-standard custom kernel implementation"),
]
every_order = pytest.mark.parametrize("l_max", [0, 1, 2])
MOLECULES = [*molecules([9, 5, 2], seed=3), linear(4), atom(8), *molecules([7], seed=8)]


@pytest.fixture(autouse=True)
def _plain_kernels() -> Iterator[None]:
    """hippynn's default kernels are compiled at the first call, for tens of seconds."""
    hippynn.set_custom_kernels("_pytorch_raw")
    yield
    hippynn.set_custom_kernels("pytorch")


@every_order
@pytest.mark.parametrize(
    "options", [{}, {"n_atom_layers": 0}, {"n_interaction_layers": 3}, {"sensitivity_type": "linear"}]
)
def test_everything_equals_hippynn(l_max: int, options: dict[str, Any]) -> None:
    """Energies, atomic energies, hierarchy, forces and products of molecules of several elements."""
    example = hippynn_graph(l_max, **options)
    copied = hipnn_from_hippynn(example.graph, energy_unit="ev")
    batch = collate(MOLECULES, copied.cutoff)
    probes = torch.randn(2, len(batch.numbers), 3, dtype=torch.float64)
    expected = from_hippynn(example.graph, MOLECULES, probes)
    labels = evaluate(copied, batch, Request(forces=True, probes=probes, atomic_energies=True))
    assert float(expected["hvp"].abs().max()) > 0.1
    require_equal(labels, expected)
    assert copied.elements == (1, 6, 8)


@every_order
def test_crystals_equal_hippynn(l_max: int) -> None:
    example = hippynn_graph(l_max, periodic=True)
    copied = hipnn_from_hippynn(example.energy, energy_unit="ev")
    structures = [crystal(0), crystal(1, size=3.1)]
    batch = collate(structures, copied.cutoff)
    probes = torch.randn(1, len(batch.numbers), 3, dtype=torch.float64)
    expected = from_hippynn(example.graph, structures, probes)
    labels = evaluate(copied, batch, Request(forces=True, probes=probes, atomic_energies=True))
    require_equal(labels, expected)


@every_order
def test_other_units_are_converted_into_the_weights(l_max: int) -> None:
    """A network in kcal/mol and bohr."""
    reach = {"dist_soft_min": 1.4, "dist_soft_max": 6.0, "dist_hard_max": 6.8}
    example = hippynn_graph(l_max, **reach)  # type: ignore[arg-type]
    copied = hipnn_from_hippynn(example.graph, energy_unit="kcal/mol", length_unit="bohr")
    energy, length = units.KCAL_PER_MOL, units.length_unit("bohr")
    assert copied.cutoff == pytest.approx(6.8 * length)
    batch = collate(MOLECULES, copied.cutoff)
    probes = torch.randn(1, len(batch.numbers), 3, dtype=torch.float64)
    expected = from_hippynn(example.graph, MOLECULES, probes, length=length)
    factors = {"energy": energy, "atomic_energies": energy, "forces": energy / length, "hvp": energy / length**2}
    expected = {name: value * factors.get(name, 1.0) for name, value in expected.items()}
    labels = evaluate(copied, batch, Request(forces=True, probes=probes, atomic_energies=True))
    require_equal(labels, expected)


def test_without_energies_per_element_the_references_are_zero() -> None:
    example = hippynn_graph(1, first_is_interacting=True)
    copied = hipnn_from_hippynn(example.graph, energy_unit="ev")
    batch = collate(MOLECULES, copied.cutoff)
    probes = torch.randn(1, len(batch.numbers), 3, dtype=torch.float64)
    expected = from_hippynn(example.graph, MOLECULES, probes)
    expected["regularizer"] = expected["regularizer"] + 1
    labels = evaluate(copied, batch, Request(forces=True, probes=probes, atomic_energies=True))
    assert copied.references.energies.tolist() == [0.0, 0.0, 0.0]
    require_equal(labels, expected)


def test_a_copy_keeps_the_dtype_and_can_be_saved(tmp_path: Any) -> None:
    example = hippynn_graph(1)
    copied = hipnn_from_hippynn(example.graph.float(), energy_unit="ev")
    assert {p.dtype for p in copied.parameters()} == {torch.float32}
    save_model(tmp_path / "copied.hesse", copied)
    loaded = load_model(tmp_path / "copied.hesse")
    batch = collate(MOLECULES, copied.cutoff)
    before, after = evaluate(copied, batch, Request()), evaluate(loaded, batch, Request())
    torch.testing.assert_close(after.energy, before.energy, rtol=0, atol=0)


def test_the_order_of_elements_does_not_matter() -> None:
    """The same weights under two orders of species give the same numbers."""
    example = hippynn_graph(0, species=(0, 1, 6, 8))
    batch = collate(MOLECULES, 3.6)
    sorted_ones = evaluate(hipnn_from_hippynn(example.graph, energy_unit="ev"), batch, Request())
    other = hippynn_graph(0, species=(0, 8, 1, 6))
    state = example.graph.state_dict()
    columns = torch.tensor([2, 0, 1])
    for name, value in state.items():
        per_species = ("layers.0.weight", "0.0.base_layer.selfint.weight", "0.0.adjust_layer.weight")
        if name.endswith(per_species):
            state[name] = value[:, columns]
        elif name.endswith("blocks.0.0.base_layer.int_weights"):
            state[name] = value[:, :, columns]
        elif name.endswith("species_map"):
            state[name] = other.graph.state_dict()[name]
    other.graph.load_state_dict(state)
    turned = evaluate(hipnn_from_hippynn(other.graph, energy_unit="ev"), batch, Request())
    torch.testing.assert_close(turned.energy, sorted_ones.energy, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"resnet": False}, "without residual connections"),
        ({"resnet": 5}, r"different widths \[5, 7\]"),
        ({"activation": torch.nn.Tanh}, r"the activation Tanh"),
        ({"n_features": (7, 6), "n_interaction_layers": None}, r"different widths \[6, 7\]"),
        ({"n_features": 3}, "as many features as elements"),
    ],
    ids=str,
)
def test_parts_without_counterpart_are_reported(options: dict[str, Any], what: str) -> None:
    with pytest.raises(RequestError, match=what):
        hipnn_from_hippynn(hippynn_graph(1, **options).graph, energy_unit="ev")


def test_other_refusals() -> None:
    example = hippynn_graph(1)
    with pytest.raises(UnitError, match="unknown energy unit"):
        hipnn_from_hippynn(example.graph, energy_unit="kcal")
    with pytest.raises(RequestError, match="expected a hippynn GraphModule"):
        hipnn_from_hippynn(example.network, energy_unit="ev")
    with pytest.raises(RequestError, match='no node called "energi"'):
        hipnn_from_hippynn(example.graph, energy_unit="ev", energy="energi")
    with pytest.raises(RequestError, match="more than the hierarchical energy"):
        hipnn_from_hippynn(example.energy.mol_energy + example.energy.mol_energy, energy_unit="ev")
    with pytest.raises(ConfigError, match="epsilon"):
        hipnn_from_hippynn(hippynn_graph(1, cusp_reg=0.0).graph, energy_unit="ev")
