"""State dicts of TorchANI models, with the information needed to rebuild the model. TorchANI is imported on demand.

A state dict holds the weights but neither cutoffs nor activations. `embed_architecture` adds these to the version
metadata that PyTorch attaches to every state dict (`_metadata`) and TorchANI ignores; it stays a plain state dict.
"""

from __future__ import annotations

import json
import pickle
import re
import textwrap
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from hesse.errors import FileFormatError, RequestError, check_choice
from hesse.runtime.imports import import_optional

__all__ = ["embed_architecture", "import_torchani", "model_from_state_dict", "read_state_dict"]


def import_torchani(name: str) -> ModuleType:
    """Import a module of TorchANI.

    Args:
        name: full name of the module.

    Returns:
        The module.

    Raises:
        MissingExtraError: torchani is not installed.
    """
    with warnings.catch_warnings():
        # It warns that its CUDA extensions are not built; they lack second derivatives and are not used here.
        warnings.filterwarnings("ignore", message="The extensions")
        return import_optional(name, extra="torchani", purpose="a TorchANI model")


METADATA_KEY = "hesse"
"""Key of the architecture in the metadata of a state dict."""
PUBLISHED = {"ani1x": ("1x", "HCNO"), "ani1ccx": ("1x", "HCNO"), "ani2x": ("2x", ("H", "C", "N", "O", "S", "F", "Cl"))}
"""Published models whose state dicts can be read: family of constants, and elements in the order of the tensors."""


class Architecture(BaseModel):
    """Settings of a standard TorchANI model that its state dict does not contain."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    symbols: tuple[str, ...] = Field(min_length=1, max_length=118)
    radial_cutoff: float = Field(gt=0)
    angular_cutoff: float = Field(gt=0)
    cutoff_function: str = Field(pattern="^(cosine|smooth)$")
    activation: str = Field(pattern="^(celu|gelu)$")
    repulsion_cutoff: float | None = Field(None, gt=0)


def embed_architecture(state_dict: dict[str, Tensor], original: Any) -> None:
    """Add the architecture of a model to its state dict, for `model_from_state_dict`.

    Models with non-standard parts cannot be described; their state dict is not changed.

    Args:
        state_dict: state dict of the model, changed in place.
        original: the TorchANI model.
    """
    architecture = _describe_architecture(original)
    if architecture is not None:
        state_dict._metadata[""][METADATA_KEY] = architecture.model_dump_json()  # type: ignore[attr-defined]


def _describe_architecture(original: Any) -> Architecture | None:
    aev = import_torchani("torchani.aev")
    cutoffs = import_torchani("torchani.cutoffs")
    torchani_nn = import_torchani("torchani.nn")
    computer, container = original.potentials["nnp"].aev_computer, original.potentials["nnp"].neural_networks
    members = list(container.members) if type(container) is torchani_nn.Ensemble else [container]
    networks = [network for member in members for network in getattr(member, "atomics", {}).values()]
    activations = {type(network.activation) for network in networks}
    repulsion = dict(original.potentials.items()).get("repulsion_xtb")
    is_standard = (
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
    if not is_standard or name is None or (repulsion is not None and not functions[name].is_same(repulsion.cutoff_fn)):
        return None
    return Architecture(
        symbols=tuple(original.symbols),
        radial_cutoff=computer.radial.cutoff,
        angular_cutoff=computer.angular.cutoff,
        cutoff_function=name,
        activation="celu" if activations == {torchani_nn.TightCELU} else "gelu",
        repulsion_cutoff=None if repulsion is None else repulsion.cutoff,
    )


def read_state_dict(path: Path) -> Mapping[str, Tensor] | None:
    """Read a state dict without running code.

    Args:
        path: the file.

    Returns:
        The state dict; None if the file is a pickle of something else.

    Raises:
        FileFormatError: not a PyTorch file, damaged, or neither a state dict nor a model.
    """
    with path.open("rb") as handle:
        if not handle.read(4).startswith((b"PK", b"\x80")):  # zip archive, or the older format
            raise FileFormatError(f"{path}: not a TorchANI model file (PyTorch did not write it)")
    try:
        state_dict = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" in str(error).lower() or "Unsupported" in str(error):
            return None
        raise FileFormatError(f"{path}: not a readable TorchANI file ({error})") from error
    except Exception as error:
        raise FileFormatError(f"{path}: not a readable TorchANI file ({type(error).__name__}: {error})") from error
    if (
        not isinstance(state_dict, Mapping)
        or not state_dict
        or not all(isinstance(v, Tensor) for v in state_dict.values())
    ):
        raise FileFormatError(f"{path}: a file of PyTorch, but neither a state dict nor a model of TorchANI")
    return state_dict


def model_from_state_dict(path: Path, state_dict: Mapping[str, Tensor], architecture: str | None) -> Any:
    """Build a TorchANI model and load its state dict.

    Args:
        path: file of the state dict, named in error messages.
        state_dict: its tensors.
        architecture: name of a published model, a key of `PUBLISHED`; None if the file describes its architecture.

    Returns:
        The model on the CPU, with the dtype of the weights.

    Raises:
        RequestError: `architecture` is None, and the file does not describe its architecture.
        UnknownOptionError: no published model of that name.
        FileFormatError: the tensors do not fit the architecture, or its description is damaged.
    """
    description = getattr(state_dict, "_metadata", {}).get("", {}).get(METADATA_KEY)
    if architecture is not None:
        check_choice(architecture, PUBLISHED, "architecture of TorchANI")
        model = _published_model(architecture, state_dict)
    elif description is None:
        raise RequestError(
            f"{path}: a state dict, which holds neither cutoffs nor activations. If it is that of a published model, "
            f'name it: architecture="ani2x" (known: {", ".join(PUBLISHED)}; on the command line ?architecture=ani2x '
            "after the file name). Otherwise build the model with torchani, load the state dict, and give "
            "TorchAniPotential(model)."
        )
    else:
        model = _described_model(path, description, state_dict)
    dtypes = {value.dtype for name, value in state_dict.items() if name.endswith("weight")}
    if len(dtypes) == 1:
        model = model.to(dtype=dtypes.pop())
    try:
        model.load_state_dict(dict(state_dict))
    except (RuntimeError, KeyError, IndexError, ValueError) as error:
        reason = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise FileFormatError(f"{path}: its tensors do not fit its architecture: {reason}") from error
    # In float64: load_state_dict rounds them to float32 if the model is in float32.
    model.energy_shifter.self_energies = state_dict["energy_shifter.self_energies"].clone()
    return model


def _count_members(state_dict: Mapping[str, Tensor]) -> int:
    """Number of networks in the ensemble of a state dict, with tensor names of TorchANI 2 or 1."""
    matches = (re.search(r"neural_networks\.(?:members\.)?(\d+)\.", name) for name in state_dict)
    return 1 + max((int(match.group(1)) for match in matches if match), default=0)


def _published_model(architecture: str, state_dict: Mapping[str, Tensor]) -> Any:
    arch = import_torchani("torchani.arch")
    family, symbols = PUBLISHED[architecture]
    assembler = arch.Assembler()
    assembler.set_symbols(tuple(symbols))
    assembler.set_global_cutoff_fn("cosine")
    assembler.set_aev_computer(radial=f"ani{family}", angular=f"ani{family}", strategy="pyaev")
    assembler.set_atomic_networks(ctor=f"ani{family}")
    assembler.set_zeros_as_self_energies()  # they come with the state dict
    return assembler.assemble(_count_members(state_dict))


def _described_model(path: Path, description: Any, state_dict: Mapping[str, Tensor]) -> Any:
    """Build a model from the description in its file, with widths and constants taken from the tensors."""
    arch, aev = import_torchani("torchani.arch"), import_torchani("torchani.aev")
    torchani_nn, potentials = import_torchani("torchani.nn"), import_torchani("torchani.potentials")
    sae = import_torchani("torchani.sae")
    try:
        architecture = Architecture.model_validate(json.loads(description))
        computer = "potentials.nnp.aev_computer."
        constants = {
            name: [float(x) for x in state_dict[f"{computer}{name}"].reshape(-1)]
            for name in ("radial.eta", "radial.shifts", "angular.eta", "angular.zeta", "angular.shifts",
                         "angular.sections")
        }  # fmt: skip
        radial = aev.ANIRadial(
            constants["radial.eta"][0],
            constants["radial.shifts"],
            architecture.radial_cutoff,
            cutoff_fn=architecture.cutoff_function,
        )
        angular = aev.ANIAngular(
            constants["angular.eta"][0],
            constants["angular.zeta"][0],
            constants["angular.shifts"],
            constants["angular.sections"],
            architecture.angular_cutoff,
            cutoff_fn=architecture.cutoff_function,
        )
        members = _count_members(state_dict)
        names = [f"members.{k}." for k in range(members)] if _is_ensemble(state_dict) else [""]
        containers = [
            torchani_nn.ANINetworks(
                {
                    s: _atomic_network(torchani_nn, state_dict, f"{name}atomics.{s}.", architecture)
                    for s in architecture.symbols
                }
            )
            for name in names
        ]
        pair_potentials = {}
        if architecture.repulsion_cutoff is not None:
            pair_potentials["repulsion_xtb"] = potentials.RepulsionXTB(
                architecture.symbols, cutoff=architecture.repulsion_cutoff, cutoff_fn=architecture.cutoff_function
            )
        return arch.ANI(
            symbols=architecture.symbols,
            aev_computer=aev.AEVComputer(radial, angular, len(architecture.symbols)),
            neural_networks=torchani_nn.Ensemble(containers) if _is_ensemble(state_dict) else containers[0],
            energy_shifter=sae.SelfEnergy(architecture.symbols, [0.0] * len(architecture.symbols)),
            potentials=pair_potentials,
        )
    except (ValidationError, ValueError, KeyError, IndexError, TypeError, AssertionError, RecursionError) as error:
        raise FileFormatError(f"{path}: its description of the model is damaged ({error})") from error


def _is_ensemble(state_dict: Mapping[str, Tensor]) -> bool:
    return any(".neural_networks.members." in name for name in state_dict)


def _atomic_network(torchani_nn: Any, state_dict: Mapping[str, Tensor], name: str, architecture: Architecture) -> Any:
    """Network of one element, with the widths of its tensors."""
    prefix = f"potentials.nnp.neural_networks.{name}"
    weights = {
        n.removeprefix(prefix): v for n, v in state_dict.items() if n.startswith(prefix) and n.endswith(".weight")
    }
    layers = [weights[f"layers.{k}.weight"] for k in range(len(weights) - 1)]
    final = weights["final_layer.weight"]
    sizes = [(layers[0] if layers else final).shape[1], *(w.shape[0] for w in layers), final.shape[0]]
    return torchani_nn.AtomicNetwork(
        sizes, activation=architecture.activation, bias=f"{prefix}final_layer.bias" in state_dict
    )
