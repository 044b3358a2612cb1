"""What adapters of hippynn read in its graphs: where the energy is, what it is computed from, and the files."""

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
"""What hippynn's training leaves in a folder: the model as it was at the start, and its best parameters."""

PAIR_OUTPUTS = ("pair_dist", "pair_first", "pair_second", "pair_coord")
"""What pair finders give that Hesse's neighbors can give as well."""


def import_hippynn() -> ModuleType:
    """The package. What it warns of while it is imported (old torch functions, missing compiled kernels) is known, and
    of no consequence here.

    Raises:
        MissingExtraError: it is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_optional("hippynn", extra="hippynn", purpose="a hippynn model")


def find_energy_node(model: Any, name: str | None = None) -> tuple[nn.Module, Any]:
    """The graph that a user means, and the node in it that holds the energy, of single atoms where it has those.

    Args:
        model: a `GraphModule`, a `Predictor` of one, or a node (a graph of its own is made for it).
        name: of the energy's node, in the graph or in the database; None for the node given, or the only energy.

    Raises:
        RequestError: something else, no energy, or several.
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
    """The node called `name`, or the only energy that is no part of another one."""
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
            f"expected one energy in the graph, found {names}. Name the node that is the whole energy: energy=..."
        )
    return totals[0]


def _atomic_energy_node(node: Any) -> Any:
    """Where the energies of single atoms are, for an energy that is made of them; otherwise the energy itself."""
    hippynn = import_hippynn()
    parent = node.parents[0] if len(node.parents) == 1 else None
    if isinstance(parent, hippynn.graphs.nodes.tags.Energies) and node is parent.main_output:
        node = parent  # the energy of a molecule was named
    if isinstance(node, hippynn.nodes.targets.AtomizationEnergyNode):
        raise RequestError(
            f'the energy "{node.name}" subtracts atoms in vacuum, which are evaluated outside of the batch. Convert it '
            "first, as hippynn's own interfaces do: energy.create_henergy_equivalent()"
        )
    return node.atom_energies if "atom_energies" in _output_names(node) else node.main_output


@dataclass(frozen=True, eq=False)
class ExecutionPlan:
    """How a graph computes its energy from a batch.

    Attributes:
        target: the node that holds the energy.
        steps: nodes with their parents, in the order of their evaluation.
        inputs: nodes that stand for "species", "positions" or "cell".
        pairs: nodes that stand for what a pair finder gives, with its cutoff in the graph's own unit of length.
    """

    target: Any
    steps: tuple[tuple[Any, tuple[Any, ...]], ...]
    inputs: dict[Any, str]
    pairs: dict[Any, tuple[str, float]]

    def nodes(self, kind: type) -> list[Any]:
        """The nodes of one kind among the steps."""
        return [node for node, _ in self.steps if isinstance(node, kind)]


def make_plan(graph: Any, target: Any) -> ExecutionPlan:
    """The plan of `target`. Pair finders, and what only they need, are left out: their results are given.

    Raises:
        RequestError: the energy needs something else than species, positions, cell and pairs below a cutoff.
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
                raise RequestError(f'the energy needs the input "{node.name}": none of species, positions and cell')
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
    """Which of `PAIR_OUTPUTS` a node is, and the cutoff of the pair finder above it."""
    finder = node.parents[0]
    name = _output_names(finder)[node.index].removeprefix("out_")
    if name not in PAIR_OUTPUTS:
        raise RequestError(f'the energy needs "{node.name}" of a pair finder, which only hippynn itself can give')
    cutoff = getattr(finder, "dist_hard_max", None) or getattr(finder.torch_module, "hard_dist_cutoff", None)
    if cutoff is None:
        raise RequestError(
            f'the pair finder "{finder.name}" has no cutoff: an energy of all pairs, however far apart, cannot be '
            "computed from lists of neighbors. Give it a cutoff (ScreenedCoulombEnergyNode, dist_hard_max=...)"
        )
    return name, float(cutoff)


def load_graph(path: str | Path, *, trust_pickle: bool) -> Any:
    """What a file holds, on the CPU: a graph saved whole (`torch.save(graph, path)`), or the parameters that hippynn's
    training left (`best_model.pt`, or a checkpoint), beside which `experiment_structure.pt` must lie.

    Raises:
        RequestError: the file was not declared trusted, or is the structure of an experiment without its parameters.
        FileFormatError: missing, damaged, or something else.
        MissingExtraError: hippynn is not installed.
    """
    path = Path(path)
    check_input_file(path, "hippynn file")
    check_trusted(path, trust_pickle, "hippynn")
    import_hippynn()
    content = _load_pickle(path)
    if isinstance(content, dict) and "training_modules" in content:
        raise RequestError(
            f"{path}: this file holds the model as it was before training. Name the file with its parameters instead, "
            f"which lies beside it: {STATE_FILE}"
        )
    if not isinstance(content, dict):
        return content
    state = content.get("model", content)
    structure = path.with_name(STRUCTURE_FILE)
    check_input_file(structure, f"structure of the experiment that {path.name} holds the parameters of")
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
    except Exception as error:  # a damaged pickle can raise anything
        raise FileFormatError(f"{path}: not a file that hippynn can read ({type(error).__name__}: {error})") from error


def _output_names(node: Any) -> tuple[str, ...]:
    names = getattr(node, "_output_names", ())
    return names if isinstance(names, tuple) else ()
