"""Conversion of HIP-NN models trained with hippynn to Hesse's own HIP-NN, with the same numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hesse import units
from hesse.errors import ConfigError, RequestError
from hesse.models.adapters.hippynn.hippynn_graph import find_energy_node, import_hippynn, make_plan
from hesse.models.hipnn import Hipnn, HipnnConfig

__all__ = ["hipnn_from_hippynn"]


def hipnn_from_hippynn(
    model: Any, *, energy_unit: str, length_unit: str = "angstrom", energy: str | None = None
) -> Hipnn:
    """Copy a trained hippynn model to a `Hipnn` in eV and Å, with the published cutoff and hippynn's ε.

    Weights are rescaled so that energies, forces and all higher derivatives equal those of the original in the new
    units. Two things differ if training continues: the centers of the sensitivity functions are parametrized as inverse
    distances, and reference energies of elements are fitted, not trained. If the original has no energies per element
    (`first_is_interacting`) they are zero, and the hierarchicality of the copy is larger by 1.

    Args:
        model: a `GraphModule`, a `Predictor`, or an energy node (`HEnergyNode`).
        energy_unit: unit of its energies.
        length_unit: unit of its coordinates.
        energy: name of the energy node, needed if the graph has several energies.

    Returns:
        The copy, with the dtype and device of the original's parameters.

    Raises:
        RequestError: the energy is not that of one HIP-NN-TS (l = 0, 1, 2) with a hierarchical energy, or a part of it
            has no counterpart, which the message names. `HippynnPotential` supports such models.
        UnitError: an unknown unit.
        MissingExtraError: hippynn is not installed.
    """
    electronvolt, angstrom = units.energy_unit(energy_unit), units.length_unit(length_unit)
    network, readout, species = _find_network(model, energy)
    config = _hipnn_config(network, angstrom)
    elements = [int(z) for z in species if int(z) != 0]
    order = sorted(range(len(elements)), key=elements.__getitem__)
    if config.features == len(elements) and order != list(range(len(elements))):
        raise RequestError(
            f"the network has as many features as elements, and its elements are not sorted ({elements}): its first "
            "layer then adds element codes to features in an order that Hesse's HIP-NN cannot represent. Use "
            "HippynnPotential"
        )
    weight = next(network.parameters())
    copied = Hipnn(config, tuple(elements[k] for k in order)).to(device=weight.device, dtype=weight.dtype)
    layers = list(readout.layers)
    target: Any = copied
    with torch.no_grad():
        if not readout.first_is_interacting:
            copied.references.energies.copy_(layers.pop(0).weight[0, order] * electronvolt)
        for block, (source_layers, last) in enumerate(zip(network.blocks, layers, strict=True)):
            _copy_interaction(target.interactions[block], source_layers[0], angstrom, order if block == 0 else None)
            for target_layer, source_layer in zip(target.onsite[block], source_layers[1:], strict=True):
                target_layer.layer.load_state_dict(source_layer.base_layer.state_dict())
                target_layer.after.load_state_dict(source_layer.res_layer.state_dict())
            target.readouts[block].weight.copy_(last.weight * electronvolt)
            target.readouts[block].bias.zero_()
            if last.bias is not None:
                target.readouts[block].bias.copy_(last.bias * electronvolt)
    return copied


def _find_network(model: Any, energy: str | None) -> tuple[Any, Any, Any]:
    """Network, hierarchical energy and species of a graph whose energy consists of these only."""
    hippynn = import_hippynn()
    graph, target = find_energy_node(model, energy)
    execution_plan = make_plan(graph, target)
    networks = execution_plan.nodes(hippynn.graphs.nodes.tags.Network)
    encoders = execution_plan.nodes(hippynn.graphs.nodes.tags.Encoder)
    readout: Any = target.parents[0] if target.parents else None
    is_hierarchical_energy = isinstance(readout, hippynn.nodes.targets.HEnergyNode) and readout.parents[0] in networks
    if not is_hierarchical_energy or len(networks) != 1 or len(encoders) != 1:
        raise RequestError(
            f'"{target.name}" is more than the hierarchical energy (HEnergyNode) of one network: use HippynnPotential, '
            "which supports it"
        )
    return networks[0].torch_module, readout.torch_module, encoders[0].species_set


def _hipnn_config(network: Any, angstrom: float) -> HipnnConfig:
    """Configuration of the same architecture, including initial centers and widths of the sensitivity functions."""
    layers = import_hippynn().layers.hiplayers
    orders: Any = {layers.InteractLayer: 0, layers.InteractLayerVec: 1, layers.InteractLayerQuad: 2}
    interactions = list(network.interaction_layers)
    kinds = {type(layer) for layer in interactions}
    sensitivities = {type(layer.sensitivity) for layer in interactions}
    cutoffs = {type(layer.sensitivity.cutoff).__name__ for layer in interactions}
    widths = {*network.feature_sizes[1:], *network.nf_middle}
    cusp_regularizations = {layer.cusp_reg for layer in interactions if hasattr(layer, "cusp_reg")}
    activation = network.activation
    plain_softplus = type(activation) is nn.Softplus and activation.beta == 1 and activation.threshold == 20
    unsupported = [
        text
        for wrong, text in (
            (len(kinds) != 1 or not kinds <= set(orders), f"interactions {sorted(k.__name__ for k in kinds)}"),
            (
                not sensitivities <= {layers.InverseSensitivityModule, layers.GaussianSensitivityModule},
                f"sensitivities {sorted(s.__name__ for s in sensitivities)}",
            ),
            (cutoffs != {"CosCutoff"}, f"cutoff functions {sorted(cutoffs)}"),
            (not network.resnet, "layers without residual connections (resnet=False)"),
            (len(widths) != 1, f"layers of different widths {sorted(widths)}"),
            (not plain_softplus, f"the activation {activation}"),
            (len(cusp_regularizations) > 1, f"different cusp_reg per layer {sorted(cusp_regularizations)}"),
        )
        if wrong
    ]
    if unsupported:
        raise RequestError(
            f"Hesse's HIP-NN has no {', no '.join(unsupported)}: keep the model as it is (HippynnPotential)"
        )
    cutoff = float(network.dist_hard_max) * angstrom
    order = orders[kinds.pop()]
    try:
        return HipnnConfig(
            l_max=order,
            features=widths.pop(),
            sensitivities=network.n_sensitivities,
            blocks=network.ni,
            onsite_layers=network.n_layers_per_block,
            cutoff=cutoff,
            shortest=float(network.dist_soft_min) * angstrom,
            longest=min(float(network.dist_soft_max) * angstrom, cutoff),
            sharpness=1.0,
            cutoff_function="cosine",
            epsilon=cusp_regularizations.pop() if cusp_regularizations else HipnnConfig().epsilon,
        )
    except ConfigError as error:
        raise ConfigError(f"this network has no counterpart: {error}") from None


def _copy_interaction(target: Any, source: Any, angstrom: float, species_order: list[int] | None) -> None:
    """Copy one interaction block. `species_order` sorts the elements, if the input is the code of the element."""
    target_layer, source_layer = target.layer, source.base_layer
    columns = slice(None) if species_order is None else torch.tensor(species_order)
    # exp(-σ²(1/r - 1/μ)²/2) does not change when r and μ are divided by a length and σ is multiplied by it.
    target_layer.sensitivity.inverse_mu.copy_(1.0 / (source_layer.sensitivity.mu[0] * angstrom))
    target_layer.sensitivity.sigma.copy_(source_layer.sensitivity.sigma[0] * angstrom)
    target_layer.weight.copy_(source_layer.int_weights.transpose(1, 2)[:, columns])
    target_layer.self_term.weight.copy_(source_layer.selfint.weight[:, columns])
    target_layer.self_term.bias.copy_(source_layer.selfint.bias)
    if target_layer.l_max >= 1:
        target_layer.scales[0].copy_(source_layer.vecscales)
    if target_layer.l_max >= 2:
        target_layer.scales[1].copy_(source_layer.quadscales)
    target.after.load_state_dict(source.res_layer.state_dict())
    if source.needs_size_adjust:
        target.adjust.weight.copy_(source.adjust_layer.weight[:, columns])
