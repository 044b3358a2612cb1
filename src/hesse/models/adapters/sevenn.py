"""SevenNet models as potentials, trained in place and saved as checkpoints that SevenNet's tools read.

    from hesse.models.adapters.sevenn import SevennPotential
    potential = SevennPotential.from_file("7net-0")

Source of the architecture: Park et al., Journal of Chemical Theory and Computation 20 (2024) 4857; of models with
several fidelities: Kim et al., Journal of the American Chemical Society 147 (2025) 1042.
"""

from __future__ import annotations

import copy
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hesse.errors import FileFormatError, RequestError, check_choice
from hesse.models.adapters.adapter import Adapter, check_not_path
from hesse.models.adapters.checkpoints import checkpoint_file, read_checkpoint
from hesse.models.adapters.layouts import edge_list
from hesse.models.reference_energies import ReferenceEnergies
from hesse.runtime.filesystem import atomic_write
from hesse.runtime.imports import import_optional
from hesse.structures import Batch

__all__ = ["SevennPotential"]

RESCALE = "rescale_atomic_energy"
"""Name of the module that scales atomic energies and adds E0."""

NOT_USED = (RESCALE, "reduce_total_enegy", "force_output")
"""Modules of a model that are not called: E0 is added in float64, and forces come from the energies."""

WITHOUT_KERNELS = {"cuequivariance_config": {"use": False}, "use_flash_tp": False, "use_oeq": False}
"""Settings of checkpoints of models on e3nn's operations. SevenNet converts others when it builds them."""

KERNELS = ("cuequivariance_torch", "openequivariance", "flashTP_e3nn")
"""Packages of fast kernels that a SevenNet model can be built on."""


class SevennPotential(Adapter):
    """A SevenNet model on e3nn's operations.

    Pairs come from the neighbor matrix of the batch, so that molecules and crystals can share a batch. The atomic
    energies E0 are kept in float64, whatever the dtype of the network.

    Args:
        original: the model (`sevenn.nn.sequential.AtomGraphSequential`), as SevenNet's checkpoints build it.
        modal: level of theory to use, of a model that was trained on several ("PBE", "R2SCAN").
        config: settings of its checkpoint; needed to save the model.

    Attributes:
        modal: level of theory in use; None for a model with a single one.

    Raises:
        MissingExtraError: sevenn is not installed.
        RequestError: not a SevenNet model, one on kernels without third derivatives, or one of several levels of theory
            without a choice.
        UnknownOptionError: the model has no level of theory of that name.
    """

    suffix = ".pth"
    training_charges = (0,)
    _type_index: Int[Tensor, "numbers"]

    def __init__(
        self, original: nn.Module, *, modal: str | None = None, config: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.original: Any = _checked_model(original)
        self._config = None if config is None else dict(config)
        self.cutoff = float(self.original.cutoff)
        modals: Mapping[str, int] = self.original.modal_map or {}
        self.modal = _choose_modal(list(modals), modal)
        self._modal_index = modals.get(self.modal or "", 0)
        type_of_element = {int(z): int(k) for z, k in self.original.type_map.items() if 0 < int(z) < 119}
        # Unknown elements get an out-of-range type, so that they raise instead of taking another element's energy.
        type_index = torch.full((119,), len(self.original.type_map))
        for number, index in type_of_element.items():
            type_index[number] = index
        self.register_buffer("_type_index", type_index, persistent=False)
        numbers = tuple(sorted(type_of_element))
        shifts = self._table("shift")
        energies = shifts.expand(len(type_of_element)) if shifts.numel() == 1 else shifts[type_index[list(numbers)]]
        self.references = ReferenceEnergies(numbers, energies.detach().to("cpu", torch.float64))
        self.references.to(shifts.device)
        self.elements = self.references.elements

    @classmethod
    def from_file(cls, path: str | Path, *, modal: str | None = None, trust_pickle: bool = False) -> SevennPotential:
        """Load published weights or a checkpoint of SevenNet's training (`.pth`) onto the CPU.

        Args:
            path: `7net-0`, `7net-l3i5`, `7net-mf-0` or `7net-0_22may2024`, which are part of the package, or a file.
            modal: level of theory, as for the class.
            trust_pickle: True if the file may run code. Checkpoints of SevenNet hold plain data and do not need it.

        Returns:
            The potential, with trainable parameters.

        Raises:
            UnknownOptionError: neither published weights nor a file, or an unknown level of theory.
            FileFormatError: the file is missing, or not a checkpoint of SevenNet.
            RequestError: it holds objects that could run code, or the class refuses the model.
            MissingExtraError: sevenn is not installed.
        """
        file = checkpoint_file("sevenn", path)
        checkpoints = _import_sevenn("sevenn.checkpoint")
        content = read_checkpoint(file, "sevenn", trust_pickle=trust_pickle)
        try:
            checkpoint = checkpoints.SevenNetCheckpoint(file)
            with _suppress_warnings(), _reading(checkpoints, content), redirect_stdout(StringIO()):
                original, config = checkpoint.build_model(), {**checkpoint.config, **WITHOUT_KERNELS}
        except Exception as error:
            raise FileFormatError(f"{file}: not a checkpoint of SevenNet ({type(error).__name__}: {error})") from error
        return cls(original, modal=modal, config=config)

    def forward(self, batch: Batch) -> Float[Tensor, "atoms"]:
        """See `Potential.forward`. Energies are in float64."""
        pairs, types = edge_list(batch, self.cutoff), self._type_index.index_select(0, batch.numbers)
        data: dict[str, Any] = {
            "x": types,
            "atomic_numbers": batch.numbers,
            "edge_index": torch.stack([pairs.centers, pairs.neighbors]),
            "edge_vec": pairs.vectors,
            "batch": batch.structure_index,
            "num_atoms": batch.n_atoms,
        }
        if self.modal is not None:
            data["modal_type"] = torch.full_like(batch.n_atoms, self._modal_index)
        with _for_batches(self.original):
            for name, module in self.original.named_children():
                if name in NOT_USED:
                    continue
                data = module(data)
                for key in _one_hot_outputs(module):  # SevenNet makes them float32
                    data[key] = data[key].to(pairs.vectors.dtype)
        scale = self._table("scale")
        energies = data["scaled_atomic_energy"][:, 0]
        scaled = energies * (scale if scale.numel() == 1 else scale.index_select(0, types))
        return scaled.to(torch.float64) + self.references(batch)

    def shift_reference_energies(self, shifts: Mapping[int, float]) -> None:
        """See `Potential.shift_reference_energies`. Changes E0 of the level of theory in use, in the model too.

        Raises:
            RequestError: the model has one E0 for all elements.
        """
        if self._table("shift").numel() == 1:
            raise RequestError(
                "this SevenNet model has one atomic energy for all elements, which cannot be shifted for each of them: "
                'keep the references as they are (reference_energies: "keep")'
            )
        self.references.shift_reference_energies(shifts)
        self._restore_reference_energies()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SevennPotential:
        super()._apply(fn, recurse)
        self._restore_reference_energies()
        return self

    def _restore_reference_energies(self) -> None:
        """Copy the float64 E0 into the model, whose own may have been converted to another dtype."""
        table = self._table("shift")
        if table.numel() > 1:
            types = self._type_index[list(self.elements)]
            with torch.no_grad():
                table[types] = self.references.energies.to(table.dtype)

    def _table(self, name: str) -> Tensor:
        """`shift` or `scale` of the level of theory in use: one value per type, or a single one."""
        rescale = self.original.get_submodule(RESCALE)
        table: Tensor = getattr(rescale, name)
        return table[self._modal_index] if getattr(rescale, f"use_modal_wise_{name}", False) else table

    def save(self, path: str | Path) -> None:
        """See `Adapter.save`. SevenNet's calculator, its tools for LAMMPS and its training read the checkpoint.

        Raises:
            RequestError: the potential was made from a module without `config`.
            WriteError: the file cannot be written.
        """
        if self._config is None:
            raise RequestError(
                "a checkpoint of SevenNet holds the settings of the model, which a module does not know: make the "
                "potential with SevennPotential.from_file, or pass the settings, SevennPotential(model, config=...)"
            )
        scale = _import_sevenn("sevenn.nn.scale")
        original = copy.deepcopy(self.original).cpu()
        resolved = scale.get_resolved_shift_scale(
            original.get_submodule(RESCALE), original.type_map, original.modal_map or None
        )
        version = _import_sevenn("sevenn").__version__
        content = {
            "config": {**self._config, "shift": resolved[0], "scale": resolved[1], "version": version},
            "model_state_dict": original.state_dict(),
            "optimizer_state_dict": {},
            "scheduler_state_dict": {},
            "epoch": 0,
            "time": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
            "hash": uuid.uuid4().hex,
        }
        with atomic_write(path) as temporary:
            torch.save(content, temporary)


def _one_hot_outputs(module: Any) -> list[str]:
    """Keys under which a module stores one-hot encodings."""
    if not type(module).__name__.startswith("Onehot"):
        return []
    return [key for key in (module.key_output, module.key_additional_output) if key is not None]


@contextmanager
def _reading(checkpoints: Any, content: dict[str, Any]) -> Iterator[None]:
    """Context in which SevenNet's checkpoints hold `content`, which was read without running code, and load no file."""
    loader = checkpoints.torch_load
    checkpoints.torch_load = lambda *arguments, **options: content
    try:
        yield
    finally:
        checkpoints.torch_load = loader


@contextmanager
def _for_batches(original: Any) -> Iterator[None]:
    """Context in which the modules expect several structures; SevenNet's calculator sets them to expect one."""
    before = original.is_batch_data
    if before:
        yield
        return
    original.set_is_batch_data(True)
    try:
        yield
    finally:
        original.set_is_batch_data(before)


@contextmanager
def _suppress_warnings() -> Iterator[None]:
    """Suppress warnings of e3nn and SevenNet while a model is built; users cannot act on them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _import_sevenn(name: str) -> ModuleType:
    with _suppress_warnings():
        return import_optional(name, extra="sevenn", purpose="a SevenNet model")


def _choose_modal(names: list[str], requested: str | None) -> str | None:
    if requested is not None:
        if not names:
            raise RequestError(f'this SevenNet model has a single level of theory: leave out modal="{requested}"')
        by_lower = {name.lower(): name for name in names}
        return by_lower.get(requested.lower()) or check_choice(
            requested, names, "level of theory of this SevenNet model"
        )
    if len(names) > 1:
        raise RequestError(
            f'this SevenNet model has the levels of theory {", ".join(names)}: name the one to use, modal="{names[0]}" '
            f"(on the command line ?modal={names[0]} after its name)"
        )
    return names[0] if names else None


def _checked_model(original: Any) -> Any:
    check_not_path(original, "SevennPotential")
    if isinstance(original, torch.jit.ScriptModule):
        raise RequestError(
            "this SevenNet model was compiled to TorchScript (for LAMMPS?) and cannot be trained: give the checkpoint "
            "it was made from"
        )
    kind = _import_sevenn("sevenn.nn.sequential").AtomGraphSequential
    if not isinstance(original, kind) or RESCALE not in dict(original.named_children()):
        raise RequestError(
            f"expected a SevenNet model (AtomGraphSequential), got a {type(original).__name__}. Models wrapped by "
            "other code can be used through CallablePotential."
        )
    if original.type_map is None:
        raise RequestError("this SevenNet model does not tell its elements (type_map)")
    used = {type(module).__module__.partition(".")[0] for module in original.modules()} & set(KERNELS)
    if used:
        raise RequestError(
            f"this SevenNet model runs on the kernels of {min(used)}, which may lack third derivatives: build it "
            "without them (SevenNetCheckpoint.build_model converts it), or give its checkpoint to "
            "SevennPotential.from_file"
        )
    return original
