"""Graphs of hippynn: finding the energy node, planning its evaluation, and reading files."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from hesse.errors import FileFormatError, RequestError, did_you_mean
from hesse.models.adapters.adapter import check_trusted
from hesse.runtime.filesystem import check_input_file
from hesse.runtime.imports import import_optional

__all__ = ["PAIR_OUTPUTS", "ExecutionPlan", "find_energy_node", "import_hippynn", "load_graph", "make_plan"]

STRUCTURE_FILE, STATE_FILE = "experiment_structure.pt", "best_model.pt"
"""Files that hippynn's training writes: the model with its initial parameters, and the best parameters."""

PAIR_OUTPUTS = ("pair_dist", "pair_first", "pair_second", "pair_coord")
"""Outputs of pair finders that can also be computed from Hesse's neighbor matrix."""


def import_hippynn() -> ModuleType:
    """Import hippynn without its warnings (old torch functions, missing compiled kernels), which do not matter here.

    Returns:
        The package.

    Raises:
        MissingExtraError: it is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_optional("hippynn", extra="hippynn", purpose="a hippynn model")


def find_energy_node(model: Any, name: str | None = None) -> tuple[nn.Module, Any]:
    """Find the node of the energy in a model; the node of the atomic energies, if the graph has them.

    Args:
        model: a `GraphModule`, a `Predictor` of one, or a node (for which a graph is made).
        name: name of the energy node, in the graph or in the database; None for `model` itself, or the only energy.

    Returns:
        The graph, and the node in it.

    Raises:
        RequestError: another kind of model, no energy, or several without a name.
    """
    hippynn = import_hippynn()
    if isinstance(model, hippynn.Predictor):
        model = model.graph
    if isinstance(model, hippynn.GraphModule):
        return model, _atomic_energy_node(_find_energy(model, name))
    if not isinstance(model, hippynn.graphs.nodes.base.node_functions._BaseNode):
        raise RequestError(
            f"expected a hippynn GraphModule, Predictor or energy node, got a {type(model).__name__}. The module of a "
            "network alone knows neither its pair finder nor its energy: pass the graph that was trained."
        )
    target = _atomic_energy_node(model)
    outputs = list({model.main_output, target})
    nodes = hippynn.graphs.get_subgraph(outputs)
    inputs = [node for node in nodes if isinstance(node, hippynn.nodes.inputs.InputNode)]
    graph = hippynn.GraphModule(inputs, outputs)
    return graph, target if name is None else _atomic_energy_node(_find_energy(graph, name))


def _find_energy(graph: Any, name: str | None) -> Any:
    """The node with this name, or the only energy that is not a term of another one."""
    nodes = graph.forward_output_list
    if name is not None:
        matches = [node for node in nodes if name in (node.name, node.db_name)]
        if not matches:
            known = [text for node in nodes for text in (node.name, node.db_name) if text]
            raise RequestError(f'the graph has no node called "{name}". {did_you_mean(name, known)}')
        return matches[0]
    energies = [node for node in nodes if isinstance(node, import_hippynn().graphs.nodes.tags.Energies)]
    ancestors = {above for node in energies for above in node.get_all_parents()}
    totals = [node for node in energies if node not in ancestors]
    if len(totals) != 1:
        names = ", ".join(f'"{node.name}"' for node in totals) or "none"
        raise RequestError(
            f"expected one energy in the graph, found {names}. Name the node of the total energy: energy=..."
        )
    return totals[0]


def _atomic_energy_node(node: Any) -> Any:
    """The node of the atomic energies, if an energy is their sum; otherwise the node of the energy."""
    hippynn = import_hippynn()
    parent = node.parents[0] if len(node.parents) == 1 else None
    if isinstance(parent, hippynn.graphs.nodes.tags.Energies) and node is parent.main_output:
        node = parent  # the name was that of the sum over a molecule
    if isinstance(node, hippynn.nodes.targets.AtomizationEnergyNode):
        raise RequestError(
            f'the energy "{node.name}" subtracts atoms in vacuum, which are evaluated outside of the batch. Convert it '
            "first, as hippynn's own interfaces do: energy.create_henergy_equivalent()"
        )
    return node.atom_energies if "atom_energies" in _output_names(node) else node.main_output


@dataclass(frozen=True, eq=False)
class ExecutionPlan:
    """Order in which the nodes of a graph are evaluated to get its energy.

    Attributes:
        target: node of the energy.
        steps: nodes with their parents, in the order of evaluation.
        inputs: nodes that are inputs: "species", "positions" or "cell".
        pairs: nodes that are outputs of a pair finder: one of `PAIR_OUTPUTS`, and the cutoff in the graph's unit of
            length.
    """

    target: Any
    steps: tuple[tuple[Any, tuple[Any, ...]], ...]
    inputs: dict[Any, str]
    pairs: dict[Any, tuple[str, float]]

    def nodes(self, kind: type) -> list[Any]:
        """Select nodes by their class.

        Args:
            kind: class of nodes.

        Returns:
            The nodes of this class among the steps.
        """
        return [node for node, _ in self.steps if isinstance(node, kind)]


def make_plan(graph: Any, target: Any) -> ExecutionPlan:
    """Plan the evaluation of an energy. Pair finders and nodes used only by them are left out.

    Args:
        graph: a `GraphModule`.
        target: node of the energy in it.

    Returns:
        The plan.

    Raises:
        RequestError: the energy needs inputs other than species, positions, cell and pairs below a cutoff.
    """
    hippynn = import_hippynn()
    input_types = hippynn.nodes.inputs
    input_names = {
        input_types.SpeciesNode: "species",
        input_types.PositionsNode: "positions",
        input_types.CellNode: "cell",
    }
    inputs: dict[Any, str] = {}
    pairs: dict[Any, tuple[str, float]] = {}
    needed, pending = set(), [target]
    while pending:
        node = pending.pop()
        if node in needed or node in inputs or node in pairs:
            continue
        if isinstance(node, input_types.InputNode):
            if type(node) not in input_names:
                raise RequestError(f'the energy needs the input "{node.name}", which is not species, positions or cell')
            inputs[node] = input_names[type(node)]
        elif len(node.parents) == 1 and isinstance(node.parents[0], hippynn.graphs.nodes.tags.PairIndexer):
            pairs[node] = _pair_output(node)
        else:
            needed.add(node)
            pending.extend(node.parents)
    order = zip(graph.forward_output_list, graph.forward_inputs_list, strict=True)
    return ExecutionPlan(
        target, tuple((node, tuple(parents)) for node, parents in order if node in needed), inputs, pairs
    )


def _pair_output(node: Any) -> tuple[str, float]:
    """Name of a pair finder's output (one of `PAIR_OUTPUTS`), and the cutoff of the pair finder."""
    finder = node.parents[0]
    name = _output_names(finder)[node.index].removeprefix("out_")
    if name not in PAIR_OUTPUTS:
        raise RequestError(f'the energy needs "{node.name}" of a pair finder, which only hippynn itself can compute')
    cutoff = getattr(finder, "dist_hard_max", None) or getattr(finder.torch_module, "hard_dist_cutoff", None)
    if cutoff is None:
        raise RequestError(
            f'the pair finder "{finder.name}" has no cutoff: an energy of all pairs, however far apart, cannot be '
            "computed from lists of neighbors. Give it a cutoff (ScreenedCoulombEnergyNode, dist_hard_max=...)"
        )
    return name, float(cutoff)


def load_graph(path: str | Path, *, trust_pickle: bool) -> Any:
    """Load a graph onto the CPU.

    Args:
        path: a complete graph (`torch.save(graph, path)`), or the parameters that hippynn's training wrote
            (`best_model.pt`, or a checkpoint), with `experiment_structure.pt` in the same folder.
        trust_pickle: True if the file may run code; hippynn's files are pickles.

    Returns:
        The graph.

    Raises:
        RequestError: `trust_pickle` is False, or the file is `experiment_structure.pt`, which lacks the trained
            parameters.
        FileFormatError: missing, damaged, or another kind of file.
        MissingExtraError: hippynn is not installed.
    """
    path = Path(path)
    check_input_file(path, "hippynn file")
    check_trusted(path, trust_pickle, "hippynn")
    import_hippynn()
    content = _load_pickle(path)
    if isinstance(content, dict) and "training_modules" in content:
        raise RequestError(
            f"{path}: this file holds the model before training. Give the file with the trained parameters in the same "
            f"folder instead: {STATE_FILE}"
        )
    if not isinstance(content, dict):
        return content
    state = content.get("model", content)
    structure = path.with_name(STRUCTURE_FILE)
    check_input_file(structure, f"experiment structure to which the parameters in {path.name} belong")
    modules = _load_pickle(structure)
    try:
        graph = modules["training_modules"].model
        graph.load_state_dict(state)
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise FileFormatError(f"{path}: its parameters do not fit {structure}: {error}") from error
    return graph


def _load_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # a damaged pickle can raise any error
        raise FileFormatError(f"{path}: not a file that hippynn can read ({type(error).__name__}: {error})") from error


def _output_names(node: Any) -> tuple[str, ...]:
    names = getattr(node, "_output_names", ())
    return names if isinstance(names, tuple) else ()
