"""Conversion of TorchANI models to Hesse's own ANI: the same energies, faster training on curvature."""

from __future__ import annotations

from typing import Any

import torch
from ase.data import chemical_symbols
from jaxtyping import Float
from torch import Tensor, nn

from hesse.errors import RequestError
from hesse.models.adapters.torchani.torchani_files import import_torchani
from hesse.models.ani import Ani, AniConfig, aev_length
from hesse.models.compose import Ensemble
from hesse.units import energy_unit

__all__ = ["ani_from_torchani"]

HARTREE = energy_unit("hartree")


def ani_from_torchani(original: nn.Module) -> Ani | Ensemble:
    """Copy a TorchANI model to an `Ani`, or an `Ensemble` with an `Ani` for each active member.

    Energies are converted from Hartree to eV; self energies become reference energies; constants, widths and the dtype
    of the weights are kept. The columns of the weights are reordered, because Hesse sorts elements by atomic number.

    Args:
        original: a `torchani.arch.ANI`.

    Returns:
        The copy, on the device of the original.

    Raises:
        MissingExtraError: torchani is not installed.
        RequestError: the model has parts that `Ani` lacks (pair potentials, shared layers, other activations or
            cutoffs). `TorchAniPotential` supports such models.
    """
    torchani_nn = import_torchani("torchani.nn")
    _check_supported(original)
    model: Any = original
    container = model.potentials["nnp"].neural_networks
    single = type(container) is not torchani_nn.Ensemble
    members = [container] if single else [container.members[k] for k in container.active_members_idxs]
    copies = [_copy_network(model, member) for member in members]
    return copies[0] if single else Ensemble(copies)


def _unsupported(feature: str) -> RequestError:
    return RequestError(
        f"hesse.models.Ani has no {feature}: use TorchAniPotential(model), which supports all TorchANI models"
    )


def _check_supported(original: Any) -> None:
    arch = import_torchani("torchani.arch")
    aev = import_torchani("torchani.aev")
    torchani_nn = import_torchani("torchani.nn")
    if not isinstance(original, arch._ANI):
        raise RequestError(f"expected a model of TorchANI 2 (torchani.arch.ANI), got a {type(original).__name__}")
    pair_potentials = [name for name, part in original.potentials.items() if name != "nnp" and part._enabled]
    if pair_potentials:
        raise _unsupported(f"pair potential like {', '.join(pair_potentials)}")
    computer, container = original.potentials["nnp"].aev_computer, original.potentials["nnp"].neural_networks
    if type(computer.radial) is not aev.ANIRadial or type(computer.angular) is not aev.ANIAngular:
        raise _unsupported("environment vectors other than the standard ones")
    members = container.members if type(container) is torchani_nn.Ensemble else [container]
    for member in members:
        if type(member) is not torchani_nn.ANINetworks:
            raise _unsupported(f"networks like {type(member).__name__}")
        for network in member.atomics.values():
            if type(network) is not torchani_nn.AtomicNetwork or network.final_layer.out_features != 1:
                raise _unsupported("networks other than layers one after another with one output")


def _copy_network(original: Any, member: Any) -> Ani:
    symbols = [chemical_symbols[int(z)] for z in original.atomic_numbers]
    numbers = tuple(int(z) for z in original.atomic_numbers)
    networks = {symbol: member.atomics[symbol] for symbol in symbols}
    config = _ani_config(original.potentials["nnp"].aev_computer, networks)
    energies = original.energy_shifter.self_energies.detach().to("cpu", torch.float64)
    shifted = original.energy_shifter._enabled
    copy = Ani(config, numbers, HARTREE * energies if shifted else None)
    weight = next(iter(networks.values())).final_layer.weight
    copy = copy.to(device=weight.device, dtype=weight.dtype)
    columns = _aev_columns(config, numbers).to(weight.device)
    with torch.no_grad():
        for symbol, network in networks.items():
            source_layers = [*network.layers, network.final_layer]
            target_layers = [layer for layer in copy.networks[symbol].children() if isinstance(layer, nn.Linear)]
            for position, (target, source) in enumerate(zip(target_layers, source_layers, strict=True)):
                scale = HARTREE if position == len(target_layers) - 1 else 1.0
                target.weight.copy_(scale * (source.weight[:, columns] if position == 0 else source.weight))
                if source.bias is not None:
                    target.bias.copy_(scale * source.bias)
    return copy


def _ani_config(computer: Any, networks: dict[str, Any]) -> AniConfig:
    cutoffs = import_torchani("torchani.cutoffs")
    torchani_nn = import_torchani("torchani.nn")
    cutoff_functions = {"cosine": cutoffs.CutoffCosine(), "exponential": cutoffs.CutoffSmooth()}
    function: Any = next((name for name, f in cutoff_functions.items() if f.is_same(computer.radial.cutoff_fn)), None)
    if function is None:
        raise _unsupported(f"cutoff like {type(computer.radial.cutoff_fn).__name__}")
    activations = {"celu": torchani_nn.TightCELU, "gelu": nn.GELU}
    used = {type(network.activation) for network in networks.values()}
    activation: Any = next((name for name, kind in activations.items() if used == {kind}), None)
    if activation is None:
        raise _unsupported(f"activation like {', '.join(sorted(kind.__name__ for kind in used))}")
    radial, angular = computer.radial, computer.angular
    hidden = {symbol: tuple(layer.out_features for layer in network.layers) for symbol, network in networks.items()}
    return AniConfig(
        radial_cutoff=radial.cutoff,
        angular_cutoff=angular.cutoff,
        cutoff_function=function,
        radial_eta=float(radial.eta),
        radial_shifts=tuple(radial.shifts.tolist()),
        angular_eta=float(angular.eta),
        angular_shifts=tuple(angular.shifts.tolist()),
        zeta=float(angular.zeta),
        sections=tuple(angular.sections.tolist()),
        hidden_of=hidden,
        activation=activation,
    )


def _aev_columns(config: AniConfig, numbers: tuple[int, ...]) -> Tensor:
    """Position of each entry of Hesse's AEV in TorchANI's, which orders elements as in `numbers`."""
    order = sorted(range(len(numbers)), key=lambda k: numbers[k])
    n, radial = len(numbers), len(config.radial_shifts)
    angular = len(config.angular_shifts) * len(config.sections)
    blocks: list[Float[Tensor, "block"]] = [torch.arange(radial) + radial * k for k in order]
    for first in range(n):
        for second in range(first, n):
            low, high = sorted((order[first], order[second]))
            pair = low * (2 * n - low - 1) // 2 + high
            blocks.append(radial * n + angular * pair + torch.arange(angular))
    columns = torch.cat(blocks)
    assert len(columns) == aev_length(config, n)
    return columns
