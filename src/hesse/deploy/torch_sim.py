"""torch-sim: many systems simulated or optimized together (https://torchsim.github.io/torch-sim/)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hesse.engines import PotentialLike, as_potential
from hesse.runtime.devices import device_from_name
from hesse.runtime.dtypes import DTypeLike
from hesse.runtime.imports import import_optional

if TYPE_CHECKING:
    from hesse.deploy.torch_sim_class import TorchSimModel

__all__ = ["torch_sim_model"]


def torch_sim_model(
    potential: PotentialLike,
    *,
    dtype: DTypeLike | None = None,
    device: str | None = None,
    compute_stress: bool = True,
) -> TorchSimModel:
    """A potential as a model of torch-sim (`ModelInterface`), for molecules and crystals.

    Args:
        potential: as for `HesseCalculator`.
        dtype: float64 or float32, of torch or numpy or as text; default: that of the potential.
        device: "cpu", "cuda", ...; default: that of the potential, the CPU for files.
        compute_stress: whether to compute stresses of periodic systems, for cells that move.

    Returns:
        A model for `torch_sim.integrate`, `torch_sim.optimize` and `torch_sim.static`.

    Raises:
        MissingExtraError: torch-sim is not installed.
        HesseError: as `hesse.make_potential`.
    """
    import_optional("torch_sim", extra="torch-sim", purpose="a model of torch-sim")
    from hesse.deploy.torch_sim_class import TorchSimModel

    model = as_potential(potential, dtype=dtype, device=None if device is None else device_from_name(device))
    return TorchSimModel(model, compute_stress=compute_stress)
