"""MACE models as potentials, trained in place and saved as MACE saves them.

    from hesse.models.adapters.mace import MacePotential
    potential = MacePotential.from_file("my.model", trust_pickle=True)

Curvature is only a loss: the architecture stays as it is, so the trained file runs wherever MACE's files run.
Source of the architecture: Batatia et al., Advances in Neural Information Processing Systems 35 (2022) 11423.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hesse.errors import FileFormatError, RequestError, check_choice
from hesse.models.adapters.adapter import Adapter, check_trusted
from hesse.models.adapters.layouts import edge_list
from hesse.models.reference_energies import ReferenceEnergies
from hesse.runtime.filesystem import atomic_write, check_input_file
from hesse.runtime.imports import import_optional
from hesse.structures import Batch

__all__ = ["MacePotential"]

ACCELERATORS = {"cuequivariance_torch": "cueq", "openequivariance": "oeq"}
"""Packages of fast kernels that a MACE model can be built on, and what MACE's converters call them."""


class MacePotential(Adapter):
    """A MACE model (`MACE` or `ScaleShiftMACE`) on e3nn's operations.

    Pairs come from the batch's neighbor matrix; open and periodic structures go together, each with its own cell. The
    atomic energies E0 of the chosen head are kept in float64, whatever type the network has.

    Args:
        original: the model, as `torch.load` of MACE's `.model` file gives it.
        head: which of the model's heads to use; None for the only one, or the one named "default".

    Attributes:
        head: the name of the head in use.

    Raises:
        MissingExtraError: mace-torch is not installed.
        RequestError: not a MACE model of energies, one built on kernels without third derivatives, or one that was
            compiled.
        UnknownOptionError: no such head.
    """

    suffix = ".model"

    def __init__(self, original: nn.Module, *, head: str | None = None) -> None:
        super().__init__()
        self.original: Any = _checked_model(original)
        self.cutoff = float(original.r_max)  # type: ignore[arg-type]
        self.head = _choose_head(original, head)
        self._head_index = _head_names(original).index(self.head)
        numbers, energies = self.original.atomic_numbers, self._atomic_energies()[self._head_index].detach()
        self.references = ReferenceEnergies(tuple(numbers.tolist()), energies.to("cpu", torch.float64))
        self.references.to(energies.device)
        self.elements = self.references.elements

    @classmethod
    def from_file(cls, path: str | Path, *, head: str | None = None, trust_pickle: bool = False) -> MacePotential:
        """The model in a `.model` file.

        Args:
            path: the file; one written on another device is brought to the CPU.
            head: see the class.
            trust_pickle: whether the file may run code: MACE's files are pickles.

        Raises:
            FileFormatError: missing, or no file of MACE.
            RequestError: not trusted, and what the class raises.
            MissingExtraError: mace-torch is not installed.
        """
        path = Path(path)
        check_input_file(path, "MACE model file")
        check_trusted(path, trust_pickle, "MACE")
        _import_mace("mace")
        try:
            with _suppress_warnings():
                original = torch.load(path, map_location="cpu", weights_only=False)
        except Exception as error:
            raise FileFormatError(f"{path}: not a readable MACE file ({type(error).__name__}: {error})") from error
        potential = cls(original, head=head)
        if not any(parameter.requires_grad for parameter in potential.parameters()):
            potential.requires_grad_(True)  # written by something that only evaluates
        return potential

    def forward(self, batch: Batch) -> Float[Tensor, "atoms"]:
        """Energies of the atoms, eV, float64."""
        pairs = edge_list(batch, self.cutoff)
        # MACE asks for gradients of the positions it gets, in place: not of the caller's, where they are not wanted.
        positions = batch.positions if batch.positions.requires_grad else batch.positions.detach()
        one_hot = batch.numbers[:, None] == self.original.atomic_numbers
        ends = batch.n_atoms.cumsum(0)
        inputs = {
            "positions": positions,
            "node_attrs": one_hot.to(positions.dtype),
            "edge_index": torch.stack([pairs.centers, pairs.neighbors]),
            "shifts": pairs.translations,
            "unit_shifts": pairs.cell_shifts,
            "cell": batch.cell.reshape(-1, 3),
            "batch": batch.structure_index,
            "ptr": torch.cat([ends.new_zeros(1), ends]),
            "head": torch.full_like(batch.n_atoms, self._head_index),
        }
        with _zero_atomic_energies(self.original):
            outputs = self.original(inputs, compute_force=False)
        return outputs["node_energy"].to(torch.float64) + self.references(batch)

    def shift_reference_energies(self, shifts: Mapping[int, float]) -> None:
        """See `Potential.shift_reference_energies`: the model's E0 of the head in use are shifted."""
        self.references.shift_reference_energies(shifts)
        self._restore_atomic_energies()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MacePotential:
        super()._apply(fn, recurse)
        self._restore_atomic_energies()
        return self

    def _restore_atomic_energies(self) -> None:
        """Put the float64 references into the model, whose own have perhaps been through another type."""
        order = [self.elements.index(int(z)) for z in self.original.atomic_numbers]
        self._atomic_energies()[self._head_index].copy_(self.references.energies[order])

    def save(self, path: str | Path) -> None:
        """Write the whole model as MACE writes it, for its calculator, its converters and its fine-tuning.

        Raises:
            WriteError: the file cannot be written; what stood there is unharmed.
        """
        original = copy.deepcopy(self.original).cpu()
        original.zero_grad(set_to_none=True)
        with atomic_write(path) as aside:
            torch.save(original, aside)

    def _atomic_energies(self) -> Float[Tensor, "heads elements"]:
        """The model's own E0, one row per head; a view of its buffer."""
        table: Tensor = self.original.atomic_energies_fn.atomic_energies
        return table.reshape(-1, table.shape[-1])


@contextmanager
def _zero_atomic_energies(original: Any) -> Iterator[None]:
    """The model with E0 = 0 while it is evaluated: in float32 they would leave no digits for chemistry."""
    block = original.atomic_energies_fn
    saved = block.atomic_energies
    block.atomic_energies = torch.zeros_like(saved)
    try:
        yield
    finally:
        block.atomic_energies = saved


@contextmanager
def _suppress_warnings() -> Iterator[None]:
    """What e3nn and TorchScript say while MACE is loaded is nothing a user could act on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
        warnings.filterwarnings("ignore", message="The TorchScript type system")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        yield


def _import_mace(name: str) -> ModuleType:
    """A module of MACE. The package comes first: it sets what e3nn needs to be imported with a recent PyTorch."""
    with _suppress_warnings():
        import_optional("mace", extra="mace", purpose="a MACE model")
        return import_optional(name, extra="mace", purpose="a MACE model")


def _head_names(original: Any) -> list[str]:
    """Names of a model's heads; models of older releases have one without a name."""
    return list(getattr(original, "heads", None) or ["Default"])


def _choose_head(original: Any, requested: str | None) -> str:
    names = _head_names(original)
    if requested is not None:
        return check_choice(requested, names, "head of this MACE model")
    default = names if len(names) == 1 else [name for name in names if name.lower() == "default"]
    if len(default) != 1:
        raise RequestError(
            f'this MACE model has the heads {", ".join(names)}: say which to use, head="{names[0]}" (on the command '
            f"line ?head={names[0]} behind the file's name)"
        )
    return default[0]


def _checked_model(original: Any) -> Any:
    if isinstance(original, torch.jit.ScriptModule):
        raise RequestError(
            "this MACE model was compiled to TorchScript (for LAMMPS?), which holds no trainable network: give the "
            ".model file it was made from"
        )
    models = _import_mace("mace.modules.models")
    if not isinstance(original, nn.Module) or type(original).forward not in (
        models.MACE.forward,
        models.ScaleShiftMACE.forward,
    ):
        raise RequestError(
            f"expected a MACE model of energies (MACE, ScaleShiftMACE), got a {type(original).__name__}. Models with "
            "dipoles, long-range charges, or wrapped by other code can be used through CallablePotential."
        )
    for module in original.modules():
        accelerator = ACCELERATORS.get(type(module).__module__.partition(".")[0])
        if accelerator is not None:
            raise RequestError(
                f"this MACE model runs on the kernels of {accelerator}, which are not assured to have third derivatives. "
                f"Convert it with MACE's own tool (python -m mace.cli.convert_{accelerator}_e3nn old.model --output_model "
                "new.model) and give the new file; the trained one can be converted back."
            )
    extra_inputs: Mapping[str, Any] = getattr(original, "embedding_specs", None) or {}
    if extra_inputs:
        raise RequestError(
            f"this MACE model asks for {', '.join(extra_inputs)} beside positions and elements, which batches do not hold: "
            "use it through CallablePotential, with these fixed in the function"
        )
    return original
