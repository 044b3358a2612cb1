"""State dicts of TorchANI models, with what is needed to build the model again.

A state dict holds the numbers but neither cutoffs nor activations. `save` writes these into the version notes that
PyTorch keeps beside every state dict (`_metadata`), where TorchANI does not look: the file stays a plain state dict.
"""

from __future__ import annotations

import json
import pickle
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from hesse.errors import FileFormatError, RequestError, require_choice
from hesse.models.adapters.torchani.package import torchani_module

__all__ = ["attach_description", "model_of_states", "read_states"]

NOTE = "hesse"
PUBLISHED = {"ani1x": ("1x", "HCNO"), "ani1ccx": ("1x", "HCNO"), "ani2x": ("2x", ("H", "C", "N", "O", "S", "F", "Cl"))}
"""Published models whose state dicts can be read: family of constants, and elements in the order of their tensors."""


class Architecture(BaseModel):
    """What a state dict of a usual TorchANI model does not say."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    symbols: tuple[str, ...] = Field(min_length=1, max_length=118)
    radial_cutoff: float = Field(gt=0)
    angular_cutoff: float = Field(gt=0)
    cutoff_function: str = Field(pattern="^(cosine|smooth)$")
    activation: str = Field(pattern="^(celu|gelu)$")
    repulsion_cutoff: float | None = Field(None, gt=0)


def attach_description(states: dict[str, Tensor], original: Any) -> None:
    """Note in a state dict how its model is built, where that is of a usual make; otherwise leave it as it is."""
    architecture = _architecture(original)
    if architecture is not None:
        states._metadata[""][NOTE] = architecture.model_dump_json()  # type: ignore[attr-defined]


def _architecture(original: Any) -> Architecture | None:
    aev = torchani_module("torchani.aev")
    cutoffs = torchani_module("torchani.cutoffs")
    torchani_nn = torchani_module("torchani.nn")
    computer, container = original.potentials["nnp"].aev_computer, original.potentials["nnp"].neural_networks
    members = list(container.members) if type(container) is torchani_nn.Ensemble else [container]
    networks = [network for member in members for network in getattr(member, "atomics", {}).values()]
    activations = {type(network.activation) for network in networks}
    repulsion = dict(original.potentials.items()).get("repulsion_xtb")
    usual = (
        type(computer.radial) is aev.ANIRadial
        and type(computer.angular) is aev.ANIAngular
        and all(type(member) is torchani_nn.ANINetworks for member in members)
        and len(activations) == 1
        and activations <= {torchani_nn.TightCELU, nn.GELU}
        and type(original).__name__ == "ANI"
        and set(original.potentials) <= {"nnp", "repulsion_xtb"}
        and all(part._enabled for part in [*original.potentials.values(), original.energy_shifter])
    )
    functions = {name: getattr(cutoffs, f"Cutoff{name.title()}")() for name in ("cosine", "smooth")}
    name = next((n for n, f in functions.items() if f.is_same(computer.radial.cutoff_fn)), None)
    if not usual or name is None or (repulsion is not None and not functions[name].is_same(repulsion.cutoff_fn)):
        return None
    return Architecture(
        symbols=tuple(original.symbols),
        radial_cutoff=computer.radial.cutoff,
        angular_cutoff=computer.angular.cutoff,
        cutoff_function=name,
        activation="celu" if activations == {torchani_nn.TightCELU} else "gelu",
        repulsion_cutoff=None if repulsion is None else repulsion.cutoff,
    )


def read_states(path: Path) -> Mapping[str, Tensor] | None:
    """The state dict in a file, read without running code; None where the file holds something else (a pickle).

    Raises:
        FileFormatError: not a file of PyTorch, or damaged.
    """
    with path.open("rb") as handle:
        if not handle.read(4).startswith((b"PK", b"\x80")):  # a zip archive, or the older form
            raise FileFormatError(f"{path}: not a TorchANI model file (PyTorch did not write it)")
    try:
        states = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" in str(error).lower() or "Unsupported" in str(error):
            return None
        raise FileFormatError(f"{path}: not a readable TorchANI file ({error})") from error
    except Exception as error:
        raise FileFormatError(f"{path}: not a readable TorchANI file ({type(error).__name__}: {error})") from error
    if not isinstance(states, Mapping) or not states or not all(isinstance(v, Tensor) for v in states.values()):
        raise FileFormatError(f"{path}: a file of PyTorch, but neither a state dict nor a model of TorchANI")
    return states


def model_of_states(path: Path, states: Mapping[str, Tensor], architecture: str | None) -> Any:
    """The TorchANI model whose state dict this is. Raises FileFormatError, RequestError, UnknownOptionError."""
    note = getattr(states, "_metadata", {}).get("", {}).get(NOTE)
    if architecture is not None:
        require_choice(architecture, PUBLISHED, "architecture of TorchANI")
        model = _published(architecture, states)
    elif note is None:
        raise RequestError(
            f"{path}: a state dict, which tells neither cutoffs nor activations. If it is that of a published model, "
            f'say which: architecture="ani2x" (known: {", ".join(PUBLISHED)}; on the command line ?architecture=ani2x '
            "behind the file's name). Otherwise build the model with torchani, load the state dict, and give "
            "TorchAniPotential(model)."
        )
    else:
        model = _noted(path, note, states)
    types = {value.dtype for name, value in states.items() if name.endswith("weight")}
    if len(types) == 1:
        model = model.to(dtype=types.pop())
    try:
        model.load_state_dict(dict(states))
    except (RuntimeError, KeyError, IndexError, ValueError) as error:
        reason = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise FileFormatError(f"{path}: its tensors do not fit its architecture: {reason}") from error
    # Copied into a float32 model they would have lost digits.
    model.energy_shifter.self_energies = states["energy_shifter.self_energies"].clone()
    return model


def _members(states: Mapping[str, Tensor]) -> int:
    """How many networks the ensemble of a state dict has, in today's names or those of TorchANI 1."""
    found = (re.search(r"neural_networks\.(?:members\.)?(\d+)\.", name) for name in states)
    return 1 + max((int(match.group(1)) for match in found if match), default=0)


def _published(architecture: str, states: Mapping[str, Tensor]) -> Any:
    arch = torchani_module("torchani.arch")
    family, symbols = PUBLISHED[architecture]
    assembler = arch.Assembler()
    assembler.set_symbols(tuple(symbols))
    assembler.set_global_cutoff_fn("cosine")
    assembler.set_aev_computer(radial=f"ani{family}", angular=f"ani{family}", strategy="pyaev")
    assembler.set_atomic_networks(ctor=f"ani{family}")
    assembler.set_zeros_as_self_energies()  # the state dict brings them
    return assembler.assemble(_members(states))


def _noted(path: Path, note: Any, states: Mapping[str, Tensor]) -> Any:
    """The model that `save` described, with widths and constants read off the tensors."""
    arch, aev = torchani_module("torchani.arch"), torchani_module("torchani.aev")
    torchani_nn, potentials = torchani_module("torchani.nn"), torchani_module("torchani.potentials")
    sae = torchani_module("torchani.sae")
    try:
        told = Architecture.model_validate(json.loads(note))
        computer = "potentials.nnp.aev_computer."
        value = {
            name: [float(x) for x in states[f"{computer}{name}"].reshape(-1)]
            for name in ("radial.eta", "radial.shifts", "angular.eta", "angular.zeta", "angular.shifts",
                         "angular.sections")
        }  # fmt: skip
        radial = aev.ANIRadial(
            value["radial.eta"][0], value["radial.shifts"], told.radial_cutoff, cutoff_fn=told.cutoff_function
        )
        angular = aev.ANIAngular(
            value["angular.eta"][0], value["angular.zeta"][0], value["angular.shifts"], value["angular.sections"],
            told.angular_cutoff, cutoff_fn=told.cutoff_function,
        )  # fmt: skip
        members = _members(states)
        names = [f"members.{k}." for k in range(members)] if _is_ensemble(states) else [""]
        containers = [
            torchani_nn.ANINetworks(
                {s: _atomic_network(torchani_nn, states, f"{name}atomics.{s}.", told) for s in told.symbols}
            )
            for name in names
        ]
        extra = {}
        if told.repulsion_cutoff is not None:
            extra["repulsion_xtb"] = potentials.RepulsionXTB(
                told.symbols, cutoff=told.repulsion_cutoff, cutoff_fn=told.cutoff_function
            )
        return arch.ANI(
            symbols=told.symbols,
            aev_computer=aev.AEVComputer(radial, angular, len(told.symbols)),
            neural_networks=torchani_nn.Ensemble(containers) if _is_ensemble(states) else containers[0],
            energy_shifter=sae.SelfEnergy(told.symbols, [0.0] * len(told.symbols)),
            potentials=extra,
        )
    except (ValidationError, ValueError, KeyError, IndexError, TypeError, AssertionError, RecursionError) as error:
        raise FileFormatError(f"{path}: its description of the model is damaged ({error})") from error


def _is_ensemble(states: Mapping[str, Tensor]) -> bool:
    return any(".neural_networks.members." in name for name in states)


def _atomic_network(torchani_nn: Any, states: Mapping[str, Tensor], name: str, told: Architecture) -> Any:
    """The network of one element, as wide as its tensors."""
    start = f"potentials.nnp.neural_networks.{name}"
    weights = {n.removeprefix(start): v for n, v in states.items() if n.startswith(start) and n.endswith(".weight")}
    layers = [weights[f"layers.{k}.weight"] for k in range(len(weights) - 1)]
    final = weights["final_layer.weight"]
    sizes = [(layers[0] if layers else final).shape[1], *(w.shape[0] for w in layers), final.shape[0]]
    return torchani_nn.AtomicNetwork(sizes, activation=told.activation, bias=f"{start}final_layer.bias" in states)
