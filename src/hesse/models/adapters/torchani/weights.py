"""Copies of TorchANI's networks in Hesse's own ANI: the same energies, faster to train on curvature."""

from __future__ import annotations

from typing import Any

import torch
from ase.data import chemical_symbols
from jaxtyping import Float
from torch import Tensor, nn

from hesse.errors import RequestError
from hesse.models.adapters.torchani.package import torchani_module
from hesse.models.ani import Ani, AniConfig, environment_width
from hesse.models.compose import Ensemble
from hesse.units import energy_unit

__all__ = ["ani_from_torchani"]

HARTREE = energy_unit("hartree")


def ani_from_torchani(original: nn.Module) -> Ani | Ensemble:
    """A TorchANI model as Hesse's own: an `Ani`, or an `Ensemble` of one for each of its active members.

    Energies turn from Hartree to eV; self energies become references; constants, widths and the type of the weights
    are kept. TorchANI orders elements its own way, Hesse by atomic number: columns are put in order.

    Raises:
        MissingExtraError: torchani is not installed.
        RequestError: the model has parts that `Ani` lacks (pair potentials, shared layers, other activations or
            cutoffs): use `TorchAniPotential`, which takes it as it is.
    """
    torchani_nn = torchani_module("torchani.nn")
    _check(original)
    parts: Any = original
    container = parts.potentials["nnp"].neural_networks
    single = type(container) is not torchani_nn.Ensemble
    members = [container] if single else [container.members[k] for k in container.active_members_idxs]
    copies = [_copy(parts, member) for member in members]
    return copies[0] if single else Ensemble(copies)


def _refusal(what: str) -> RequestError:
    return RequestError(
        f"hesse.models.Ani has no {what}: use TorchAniPotential(model), which takes the TorchANI model as it is"
    )


def _check(original: Any) -> None:
    arch = torchani_module("torchani.arch")
    aev = torchani_module("torchani.aev")
    torchani_nn = torchani_module("torchani.nn")
    if not isinstance(original, arch._ANI):
        raise RequestError(f"expected a model of TorchANI 2 (torchani.arch.ANI), got a {type(original).__name__}")
    others = [name for name, part in original.potentials.items() if name != "nnp" and part._enabled]
    if others:
        raise _refusal(f"pair potential like {', '.join(others)}")
    computer, container = original.potentials["nnp"].aev_computer, original.potentials["nnp"].neural_networks
    if type(computer.radial) is not aev.ANIRadial or type(computer.angular) is not aev.ANIAngular:
        raise _refusal("environment vectors other than the standard ones")
    members = container.members if type(container) is torchani_nn.Ensemble else [container]
    for member in members:
        if type(member) is not torchani_nn.ANINetworks:
            raise _refusal(f"networks like {type(member).__name__}")
        for network in member.atomics.values():
            if type(network) is not torchani_nn.AtomicNetwork or network.final_layer.out_features != 1:
                raise _refusal("networks other than layers one after another with one output")


def _copy(original: Any, member: Any) -> Ani:
    symbols = [chemical_symbols[int(z)] for z in original.atomic_numbers]
    numbers = tuple(int(z) for z in original.atomic_numbers)
    networks = {symbol: member.atomics[symbol] for symbol in symbols}
    config = _config(original.potentials["nnp"].aev_computer, networks)
    energies = original.energy_shifter.self_energies.detach().to("cpu", torch.float64)
    shifted = original.energy_shifter._enabled
    copy = Ani(config, numbers, HARTREE * energies if shifted else None)
    weight = next(iter(networks.values())).final_layer.weight
    copy = copy.to(device=weight.device, dtype=weight.dtype)
    columns = _columns(config, numbers).to(weight.device)
    with torch.no_grad():
        for symbol, network in networks.items():
            theirs = [*network.layers, network.final_layer]
            ours = [layer for layer in copy.networks[symbol].children() if isinstance(layer, nn.Linear)]
            for position, (mine, their) in enumerate(zip(ours, theirs, strict=True)):
                scale = HARTREE if position == len(ours) - 1 else 1.0
                mine.weight.copy_(scale * (their.weight[:, columns] if position == 0 else their.weight))
                if their.bias is not None:
                    mine.bias.copy_(scale * their.bias)
    return copy


def _config(computer: Any, networks: dict[str, Any]) -> AniConfig:
    cutoffs = torchani_module("torchani.cutoffs")
    torchani_nn = torchani_module("torchani.nn")
    known = {"cosine": cutoffs.CutoffCosine(), "exponential": cutoffs.CutoffSmooth()}
    function: Any = next((name for name, f in known.items() if f.is_same(computer.radial.cutoff_fn)), None)
    if function is None:
        raise _refusal(f"cutoff like {type(computer.radial.cutoff_fn).__name__}")
    activations = {"celu": torchani_nn.TightCELU, "gelu": nn.GELU}
    used = {type(network.activation) for network in networks.values()}
    activation: Any = next((name for name, kind in activations.items() if used == {kind}), None)
    if activation is None:
        raise _refusal(f"activation like {', '.join(sorted(kind.__name__ for kind in used))}")
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


def _columns(config: AniConfig, numbers: tuple[int, ...]) -> Tensor:
    """Where each entry of Hesse's AEV stands in TorchANI's, whose elements are `numbers` in that order."""
    order = sorted(range(len(numbers)), key=lambda k: numbers[k])
    n, radial = len(numbers), len(config.radial_shifts)
    angular = len(config.angular_shifts) * len(config.sections)
    places: list[Float[Tensor, "block"]] = [torch.arange(radial) + radial * k for k in order]
    for first in range(n):
        for second in range(first, n):
            low, high = sorted((order[first], order[second]))
            pair = low * (2 * n - low - 1) // 2 + high
            places.append(radial * n + angular * pair + torch.arange(angular))
    columns = torch.cat(places)
    assert len(columns) == environment_width(config, n)
    return columns
