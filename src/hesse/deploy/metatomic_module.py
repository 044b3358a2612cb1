"""The TorchScript module inside a metatomic file. Imported by `metatomic_export` only, because it needs metatomic.

TorchScript reads the source of this file: only what it knows may stand here.
"""

from typing import Dict, List, Optional  # noqa: UP035  TorchScript wants these

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import ModelOutput, NeighborListOptions, System

__all__ = ["MetatomicModule"]


class MetatomicModule(torch.nn.Module):
    """Energies of metatomic systems from a recorded potential.

    The neighbor lists of the engine become a neighbor matrix, in the order of the engine.

    Args:
        potential: the recording, see `hesse.deploy.traced`.
        cutoff: Å.
    """

    def __init__(self, potential: torch.jit.ScriptModule, cutoff: float) -> None:
        super().__init__()
        self.potential = potential
        self.options = NeighborListOptions(cutoff=cutoff, full_list=True, strict=True, requestor="hesse")

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:  # noqa: UP006
        """The list of all pairs within the cutoff, each in both directions.

        Returns:
            Its options.
        """
        return [self.options]

    def forward(
        self,
        systems: List[System],  # noqa: UP006
        outputs: Dict[str, ModelOutput],  # noqa: UP006
        selected_atoms: Optional[Labels] = None,  # noqa: UP045
    ) -> Dict[str, TensorMap]:  # noqa: UP006
        """Energies of systems or of their atoms.

        Args:
            systems: with the neighbor list of `requested_neighbor_lists`.
            outputs: "energy", per atom or per system.
            selected_atoms: atoms whose energies count; all if None.

        Returns:
            The energy in eV.
        """
        results: Dict[str, TensorMap] = {}  # noqa: UP006
        if "energy" not in outputs or len(systems) == 0:
            return results
        atomic, structure_index, atom_index = self.atomic_energies(systems)
        device = atomic.device
        if selected_atoms is not None:
            places = torch.stack([structure_index, atom_index], dim=1).to(torch.int32)
            chosen = Labels(["system", "atom"], places).select(selected_atoms)
            atomic = atomic.index_select(0, chosen)
            structure_index = structure_index.index_select(0, chosen)
            atom_index = atom_index.index_select(0, chosen)
        if outputs["energy"].sample_kind == "atom":
            values = atomic.unsqueeze(1)
            samples = Labels(["system", "atom"], torch.stack([structure_index, atom_index], dim=1).to(torch.int32))
        else:
            zeros = torch.zeros(len(systems), dtype=atomic.dtype, device=device)
            values = zeros.index_add(0, structure_index, atomic).unsqueeze(1)
            counter = torch.arange(len(systems), dtype=torch.int32, device=device)
            samples = Labels(["system"], counter.unsqueeze(1))
        zero = torch.zeros(1, 1, dtype=torch.int32, device=device)
        block = TensorBlock(
            values=values.to(systems[0].positions.dtype),
            samples=samples,
            components=torch.jit.annotate(List[Labels], []),  # noqa: UP006
            properties=Labels(["energy"], zero),
        )
        results["energy"] = TensorMap(Labels(["_"], zero), [block])
        return results

    def atomic_energies(self, systems: List[System]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # noqa: UP006
        """Energies of all atoms of all systems.

        Args:
            systems: with neighbor lists.

        Returns:
            Energies (eV, float64), the system of each atom, and its index within the system.
        """
        numbers: List[torch.Tensor] = []  # noqa: UP006
        positions: List[torch.Tensor] = []  # noqa: UP006
        cells: List[torch.Tensor] = []  # noqa: UP006
        periodic: List[torch.Tensor] = []  # noqa: UP006
        owners: List[torch.Tensor] = []  # noqa: UP006
        within: List[torch.Tensor] = []  # noqa: UP006
        pairs: List[torch.Tensor] = []  # noqa: UP006
        counts: List[int] = []  # noqa: UP006
        first_atom = 0
        for index, system in enumerate(systems):
            atoms = len(system)
            device = system.positions.device
            numbers.append(system.types.to(torch.int64))
            positions.append(system.positions)
            cells.append(system.cell)
            periodic.append(system.pbc)
            owners.append(torch.full((atoms,), index, dtype=torch.int64, device=device))
            within.append(torch.arange(atoms, device=device))
            listed = system.get_neighbor_list(self.options).samples.values.to(torch.int64)
            pairs.append(torch.cat([listed[:, :2] + first_atom, listed[:, 2:]], dim=1))
            counts.append(atoms)
            first_atom += atoms
        owner = torch.cat(owners)
        pair = torch.cat(pairs)
        pair = pair.index_select(0, torch.argsort(pair[:, 0], stable=True))
        neighbors, mask, shifts = self.neighbor_matrix(pair, first_atom)
        energies = self.potential(
            torch.cat(numbers),
            torch.cat(positions),
            torch.stack(cells),
            torch.stack(periodic),
            owner,
            torch.tensor(counts, device=owner.device),
            neighbors,
            mask,
            shifts.to(systems[0].positions.dtype),
        )
        return energies, owner, torch.cat(within)

    def neighbor_matrix(self, pair: torch.Tensor, atoms: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Arrange sorted pairs as a matrix with a row for each atom.

        Args:
            pair: center, neighbor, and three cell shifts of each pair, sorted by the center.
            atoms: number of atoms.

        Returns:
            Neighbors `[atoms, k]`, mask of the used entries, cell shifts `[atoms, k, 3]`.
        """
        center = pair[:, 0]
        count = torch.bincount(center, minlength=atoms)
        width = 1
        if pair.shape[0] > 0:
            width = int(count.max().item())
        start = torch.cumsum(count, 0) - count
        slot = torch.arange(pair.shape[0], device=pair.device) - start.index_select(0, center)
        own = torch.arange(atoms, device=pair.device).unsqueeze(1)
        neighbors = own.repeat(1, width).index_put([center, slot], pair[:, 1])
        mask = torch.arange(width, device=pair.device).unsqueeze(0) < count.unsqueeze(1)
        shifts = torch.zeros(atoms, width, 3, dtype=torch.int64, device=pair.device)
        return neighbors, mask, shifts.index_put([center, slot], pair[:, 2:])
