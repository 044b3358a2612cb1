"""Export to metatomic: one TorchScript file for LAMMPS, i-PI, GROMACS, ASE, torch-sim and others.

Interface: https://docs.metatensor.org/metatomic/
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path

from hesse._version import __version__
from hesse.deploy.traced import trace_potential
from hesse.engines import PotentialLike, as_potential
from hesse.errors import EngineError, first_line
from hesse.models import Ani, HesseNet, Hipnn, ReferenceEnergies, Zbl
from hesse.potential import Potential, dtype_and_device
from hesse.runtime.devices import device_from_name
from hesse.runtime.dtypes import DTypeLike
from hesse.runtime.filesystem import atomic_write, check_output_path
from hesse.runtime.imports import import_optional

__all__ = ["export_metatomic", "interaction_range"]


def export_metatomic(
    path: str | Path,
    potential: PotentialLike,
    *,
    dtype: DTypeLike | None = None,
    device: str | None = None,
    name: str = "Hesse model",
) -> None:
    """Write a potential as a metatomic file: energies per atom and structure, differentiable in positions and cell.

    The file runs on the kind of device on which it was recorded.

    Args:
        path: file to write (`model.pt`); replaced in one step if it exists.
        potential: as for `HesseCalculator`.
        dtype: float64 or float32, of torch or numpy or as text; default: that of the potential.
        device: "cpu", "cuda", ...; default: that of the potential, the CPU for files.
        name: name in the description of the file.

    Raises:
        MissingExtraError: metatomic is not installed.
        RequestError: the potential cannot be recorded as TorchScript; the message has the operation.
        EngineError: metatomic refuses the model.
        WriteError: the file cannot be written; an existing file is unchanged.
    """
    metatomic = import_optional("metatomic.torch", extra="metatomic", purpose="the export to metatomic")
    check_output_path(path)
    model = as_potential(potential, dtype=dtype, device=None if device is None else device_from_name(device))
    final_dtype, final_device = dtype_and_device(model)
    from hesse.deploy.metatomic_module import MetatomicModule

    capabilities = metatomic.ModelCapabilities(
        outputs={"energy": metatomic.ModelOutput(unit="eV", sample_kind=_sample_kind(model), explicit_gradients=[])},
        atomic_types=list(model.elements or range(1, 119)),
        interaction_range=interaction_range(model),
        length_unit="angstrom",
        supported_devices=[final_device.type],
        dtype=str(final_dtype).removeprefix("torch."),
    )
    metadata = metatomic.ModelMetadata(
        name=name, description=f"{type(model).__name__} of Hesse {__version__}, energies in eV, lengths in angstrom"
    )
    module = MetatomicModule(trace_potential(model), float(model.cutoff)).eval()
    with atomic_write(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch.jit
        try:
            metatomic.AtomisticModel(module, metadata, capabilities).save(str(temporary))
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"metatomic refuses the model: {first_line(error)}") from error


def interaction_range(potential: Potential) -> float:
    """Distance from which atoms can change the energy of an atom: the cutoff times the number of its steps.

    Programs that divide space among processes copy the atoms within this range.

    Args:
        potential: any potential.

    Returns:
        Å; infinity for kinds whose number of steps is not known.
    """
    if isinstance(potential, HesseNet):
        return potential.cutoff * potential.config.layers
    if isinstance(potential, Hipnn):
        return potential.cutoff * potential.config.blocks
    if isinstance(potential, Ani | ReferenceEnergies | Zbl):
        return potential.cutoff
    parts = getattr(potential, "parts", ())
    return max((interaction_range(part) for part in parts), default=math.inf)


def _sample_kind(potential: Potential) -> str:
    return "atom" if potential.has_atomic_energies else "system"
