"""The class behind `hesse.deploy.torch_sim_model`. Imported by it only, because it needs torch-sim."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch_sim.models.interface import ModelInterface
from torch_sim.state import SimState

from hesse.curvature import check_finite, evaluate
from hesse.potential import Potential, dtype_and_device
from hesse.structures import Batch, Request, batch_from_pairs
from hesse.structures.pairs import neighbor_pairs

__all__ = ["TorchSimModel"]


class TorchSimModel(ModelInterface):
    """Energies, forces and stresses of all systems of a torch-sim state in one pass.

    Args:
        potential: in the dtype and on the device in which the simulation runs.
        compute_stress: whether to compute stresses; they are zero in systems that are not periodic.

    Attributes:
        potential: the potential.
    """

    def __init__(self, potential: Potential, *, compute_stress: bool) -> None:
        super().__init__()
        self.potential = potential.eval()
        self._dtype, self._device = dtype_and_device(potential)
        self._compute_forces, self._compute_stress = True, compute_stress

    def forward(self, state: SimState, **kwargs: object) -> dict[str, Tensor]:
        """Compute the systems of a state.

        Args:
            state: positions in Å, cells as columns.
            **kwargs: not used.

        Returns:
            `energy` (eV, `[systems]`), `forces` (eV/Å, `[atoms, 3]`) and, if requested, `stress` (eV/Å³,
            `[systems, 3, 3]`), in the dtype of the model.

        Raises:
            UnknownElementError: an element that the potential does not support.
            EngineError: a result that is not finite.
        """
        if isinstance(state, dict):
            state = SimState(**state, masses=torch.ones_like(state["positions"][:, 0]))
        batch = self._batch(state)
        periodic = bool(batch.pbc.all())
        request = Request(forces=True, stress=self._compute_stress and periodic)
        labels = evaluate(self.potential, batch, request)
        check_finite(batch, labels)
        assert labels.energy is not None
        assert labels.forces is not None
        results = {"energy": labels.energy.to(self._dtype), "forces": labels.forces.to(self._dtype)}
        if self._compute_stress:
            zeros = torch.zeros(len(batch), 3, 3, dtype=self._dtype, device=self._device)
            results["stress"] = zeros if labels.stress is None else labels.stress.to(self._dtype)
        return results

    def _batch(self, state: SimState) -> Batch:
        """The state with its neighbors, which are searched anew, on the CPU."""
        positions, cell = state.positions.detach(), state.row_vector_cell.detach()
        n_atoms = torch.bincount(state.system_idx, minlength=state.n_systems)
        pbc = np.broadcast_to(np.asarray(state.pbc, dtype=bool), (state.n_systems, 3))
        if not pbc.any():
            cell = torch.zeros_like(cell)  # the box around a molecule is no lattice
        pairs = neighbor_pairs(
            positions.cpu().double().numpy(),
            n_atoms.cpu().numpy(),
            cell.cpu().double().numpy(),
            pbc,
            self.potential.cutoff,
        ).to(positions.device)
        first = torch.repeat_interleave((n_atoms.cumsum(0) - n_atoms)[state.system_idx], pairs.counts)
        return batch_from_pairs(
            numbers=state.atomic_numbers.long(),
            positions=positions,
            n_atoms=n_atoms,
            cell=cell,
            pbc=torch.tensor(pbc, device=positions.device),
            pair_counts=pairs.counts,
            pair_starts=pairs.starts,
            pair_neighbors=pairs.neighbors + first,
            pair_shifts=pairs.cell_shifts,
            rng_keys=torch.zeros_like(n_atoms),
            ids=tuple(f"system {i}" for i in range(state.n_systems)),
            cutoff=self.potential.cutoff,
        )
