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
from hesse.models.adapters.adapter import Adapter, check_not_path, check_trusted
from hesse.models.adapters.layouts import edge_list
from hesse.models.reference_energies import ReferenceEnergies
from hesse.runtime.filesystem import atomic_write, check_input_file
from hesse.runtime.imports import import_optional
from hesse.structures import Batch

__all__ = ["MacePotential"]

ACCELERATORS = {"cuequivariance_torch": "cueq", "openequivariance": "oeq"}
"""Packages of fast kernels that a MACE model can be built on, and their names in MACE's converters."""


class MacePotential(Adapter):
    """A MACE model (`MACE` or `ScaleShiftMACE`) on e3nn's operations.

    Pairs come from the neighbor matrix of the batch, so that molecules and crystals can share a batch. The atomic
    energies E0 of the selected head are kept in float64, whatever the dtype of the network.

    Args:
        original: the model, as loaded from MACE's `.model` file by `torch.load`.
        head: name of the head to use; None for the only one, or the one named "default".

    Attributes:
        head: name of the head in use.

    Raises:
        MissingExtraError: mace-torch is not installed.
        RequestError: not a MACE model of energies, a model built on kernels without third derivatives, or a compiled
            model.
        UnknownOptionError: the model has no head of that name.
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
        """Load a `.model` file onto the CPU.

        Args:
            path: the file.
            head: name of the head to use, as for the class.
            trust_pickle: True if the file may run code; MACE's files are pickles.

        Returns:
            The potential, with trainable parameters.

        Raises:
            FileFormatError: the file is missing, or not a MACE file.
            RequestError: `trust_pickle` is False, or the class refuses the model.
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
            potential.requires_grad_(True)  # saved with frozen parameters, for evaluation only
        return potential

    def forward(self, batch: Batch) -> Float[Tensor, "atoms"]:
        """See `Potential.forward`. Energies are in float64."""
        pairs = edge_list(batch, self.cutoff)
        # MACE calls requires_grad_ on its positions, in place: this must not reach positions of the caller.
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
        """See `Potential.shift_reference_energies`. Changes E0 of the head in use, in the MACE model too."""
        self.references.shift_reference_energies(shifts)
        self._restore_atomic_energies()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MacePotential:
        super()._apply(fn, recurse)
        self._restore_atomic_energies()
        return self

    def _restore_atomic_energies(self) -> None:
        """Copy the float64 reference energies into the model, whose own may have been converted to another dtype."""
        order = [self.elements.index(int(z)) for z in self.original.atomic_numbers]
        self._atomic_energies()[self._head_index].copy_(self.references.energies[order])

    def save(self, path: str | Path) -> None:
        """See `Adapter.save`. MACE's calculator, converters and fine-tuning read the file."""
        original = copy.deepcopy(self.original).cpu()
        original.zero_grad(set_to_none=True)
        with atomic_write(path) as temporary:
            torch.save(original, temporary)

    def _atomic_energies(self) -> Float[Tensor, "heads elements"]:
        """E0 of the MACE model, one row per head; a view of its buffer."""
        table: Tensor = self.original.atomic_energies_fn.atomic_energies
        return table.reshape(-1, table.shape[-1])


@contextmanager
def _zero_atomic_energies(original: Any) -> Iterator[None]:
    """Set E0 = 0 during an evaluation: added in float32, they would cost the digits that matter in chemistry."""
    block = original.atomic_energies_fn
    saved = block.atomic_energies
    block.atomic_energies = torch.zeros_like(saved)
    try:
        yield
    finally:
        block.atomic_energies = saved


@contextmanager
def _suppress_warnings() -> Iterator[None]:
    """Suppress warnings of e3nn and TorchScript while MACE is loaded; users cannot act on them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
        warnings.filterwarnings("ignore", message="The TorchScript type system")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        yield


def _import_mace(name: str) -> ModuleType:
    """Import a module of MACE. The package is imported first: it prepares e3nn for recent PyTorch."""
    with _suppress_warnings():
        import_optional("mace", extra="mace", purpose="a MACE model")
        return import_optional(name, extra="mace", purpose="a MACE model")


def _head_names(original: Any) -> list[str]:
    """Names of the heads; models of older releases have one unnamed head."""
    return list(getattr(original, "heads", None) or ["Default"])


def _choose_head(original: Any, requested: str | None) -> str:
    names = _head_names(original)
    if requested is not None:
        return check_choice(requested, names, "head of this MACE model")
    default = names if len(names) == 1 else [name for name in names if name.lower() == "default"]
    if len(default) != 1:
        raise RequestError(
            f'this MACE model has the heads {", ".join(names)}: name the one to use, head="{names[0]}" (on the command '
            f"line ?head={names[0]} after the file name)"
        )
    return default[0]


def _checked_model(original: Any) -> Any:
    check_not_path(original, "MacePotential")
    if isinstance(original, torch.jit.ScriptModule):
        raise RequestError(
            "this MACE model was compiled to TorchScript (for LAMMPS?) and cannot be trained: give the .model file it "
            "was made from"
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
                f"this MACE model runs on the kernels of {accelerator}, which may lack third derivatives. Convert it "
                f"with MACE's tool (python -m mace.cli.convert_{accelerator}_e3nn old.model --output_model new.model) "
                "and give the new file; the trained one can be converted back."
            )
    extra_inputs: Mapping[str, Any] = getattr(original, "embedding_specs", None) or {}
    if extra_inputs:
        raise RequestError(
            f"this MACE model needs {', '.join(extra_inputs)} in addition to positions and elements, which batches do "
            "not hold: use it through CallablePotential, with these fixed in the function"
        )
    return original
