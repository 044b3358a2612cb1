"""CHGNet models as potentials, trained in place and saved as CHGNet saves them.

    from hesse.models.adapters.chgnet import ChgnetPotential
    potential = ChgnetPotential.from_file("0.3.0")

Source of the architecture: Deng et al., Nature Machine Intelligence 5 (2023) 1031.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hesse.errors import FileFormatError, RequestError
from hesse.models.adapters.adapter import Adapter, check_not_path
from hesse.models.adapters.checkpoints import checkpoint_file, read_checkpoint
from hesse.models.adapters.layouts import EdgeList, edge_list
from hesse.models.reference_energies import ReferenceEnergies
from hesse.runtime.filesystem import atomic_write
from hesse.runtime.imports import import_optional
from hesse.structures import Batch

__all__ = ["ChgnetPotential"]

NOT_IN_DATA = (84, 85, 86, 87, 88)
"""Elements of CHGNet's tables that its published training data do not hold: Po, At, Rn, Fr, Ra."""

NOT_FITTED = 0.5
"""eV; their E0 in the published weights are smaller, as they were initialized."""


class ChgnetPotential(Adapter):
    """A CHGNet model: energies, from which forces, stress and curvature follow; magnetic moments are not computed.

    Pairs come from the neighbor matrix of the batch, so that molecules and crystals can share a batch; bonds and angles
    are formed from them as CHGNet forms them. The atomic energies E0 are kept in float64, whatever the dtype of the
    network. Elements are those that the E0 of the model were fitted to.

    Args:
        original: the model (`chgnet.model.CHGNet`).

    Raises:
        MissingExtraError: chgnet is not installed.
        RequestError: not a CHGNet model, or one whose energy of the composition is a network.
    """

    suffix = ".pth.tar"
    training_charges = (0,)

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.original: Any = _checked_model(original)
        for module in self.original.modules():
            if type(module) is nn.LayerNorm:
                module.__class__ = _LayerNorm
        converter = self.original.graph_converter
        self.cutoff = float(converter.atom_graph_cutoff)
        self._bond_cutoff = float(converter.bond_graph_cutoff)
        self.has_atomic_energies = bool(self.original.mlp_first)
        numbers, energies = self._composition_energies()
        self.references = ReferenceEnergies(numbers, energies.detach().to("cpu", torch.float64))
        self.references.to(energies.device)
        self.elements = self.references.elements
        # With biases, bonds without angles are updated too if there is an angle anywhere in the structure.
        self._angles_matter = any(
            name.endswith("bias") and ".mlp_out." in name
            for name, _ in self.original.bond_conv_layers.named_parameters()
        )

    @classmethod
    def from_file(cls, path: str | Path, *, trust_pickle: bool = False) -> ChgnetPotential:
        """Load published weights or a file of CHGNet's training (`.pth.tar`) onto the CPU.

        Args:
            path: `0.3.0`, `0.2.0` or `r2scan`, which are part of the package, or a file.
            trust_pickle: True if the file may run code. Files of CHGNet hold plain data and do not need it.

        Returns:
            The potential, with trainable parameters.

        Raises:
            UnknownOptionError: neither published weights nor a file.
            FileFormatError: the file is missing, or not a file of CHGNet.
            RequestError: it holds objects that could run code, or the class refuses the model.
            MissingExtraError: chgnet is not installed.
        """
        file = checkpoint_file("chgnet", path)
        models = _import_chgnet("chgnet.model.model")
        content = read_checkpoint(file, "chgnet", trust_pickle=trust_pickle)
        try:
            settings, weights = dict(content["model"]["model_args"]), content["model"]["state_dict"]
            # 0.2.0 was written when these layers had biases without saying so.
            settings.setdefault("mlp_out_bias", any(".mlp_out." in k and k.endswith("bias") for k in weights))
            with redirect_stdout(StringIO()):
                original = models.CHGNet(**settings)
            original.load_state_dict(weights)
        except Exception as error:
            raise FileFormatError(f"{file}: not a file of CHGNet ({type(error).__name__}: {error})") from error
        return cls(original)

    def forward(self, batch: Batch) -> Float[Tensor, "atoms"]:
        """See `Potential.forward`. Energies are in float64. Without site energies in the model, every atom gets an
        equal share of the energy of its structure."""
        graph = _Graph.from_pairs(edge_list(batch, self.cutoff), batch, self._bond_cutoff)
        with_angles = torch.zeros_like(batch.n_atoms, dtype=torch.bool)
        with_angles[batch.structure_index[graph.angles[:, 0]]] = True
        if not self._angles_matter or bool(with_angles.all()) or not bool(with_angles.any()):
            energies = self._site_energies(graph)
        else:
            energies = batch.positions.new_zeros(len(batch.numbers))
            for group in (with_angles, ~with_angles):
                atoms = group[batch.structure_index]
                energies = energies.index_put((atoms.nonzero()[:, 0],), self._site_energies(graph.select(atoms)))
        return energies.to(torch.float64) + self.references(batch)

    def _site_energies(self, graph: _Graph) -> Float[Tensor, "atoms"]:
        """Energies of the atoms without E0, computed by the layers of the model."""
        model, owners = self.original, graph.owners
        lengths = graph.lengths.index_select(0, graph.directed_of_bond)
        encoder = model.bond_basis_expansion
        directions = graph.vectors / graph.lengths[:, None]
        first, second = (directions.index_select(0, graph.angles[:, k]) for k in (1, 2))
        batched = _import_chgnet("chgnet.model.model").BatchedGraph(
            atomic_numbers=graph.numbers,
            bond_bases_ag=encoder.rbf_expansion_ag(lengths),
            bond_bases_bg=encoder.rbf_expansion_bg(lengths),
            angle_bases=model.angle_basis_expansion(first, second),
            batched_atom_graph=graph.ends,
            batched_bond_graph=torch.cat([graph.angles[:, :1], graph.bond_of_directed[graph.angles[:, 1:]]], 1),
            atom_owners=owners,
            directed2undirected=graph.bond_of_directed,
            atom_positions=(),
            strains=(),
            volumes=(),
        )
        outputs = model._compute(batched, return_site_energies=self.has_atomic_energies)
        if self.has_atomic_energies:
            return torch.cat(list(outputs["site_energies"]))
        totals = outputs["e"] if model.is_intensive else outputs["e"] / outputs["atoms_per_graph"]
        return totals.index_select(0, owners)

    def shift_reference_energies(self, shifts: Mapping[int, float]) -> None:
        """See `Potential.shift_reference_energies`. Changes E0 in the CHGNet model too."""
        self.references.shift_reference_energies(shifts)
        self._restore_reference_energies()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ChgnetPotential:
        super()._apply(fn, recurse)
        self._restore_reference_energies()
        return self

    def _restore_reference_energies(self) -> None:
        """Copy the float64 E0 into the model, whose own may have been converted to another dtype."""
        table = getattr(self.original.composition_model, "fc", None)
        if table is not None:
            rows = torch.tensor(self.elements, device=table.weight.device) - 1
            with torch.no_grad():
                table.weight[0, rows] = self.references.energies.to(table.weight.dtype)

    def _composition_energies(self) -> tuple[tuple[int, ...], Float[Tensor, "elements"]]:
        """Elements that the E0 of the model were fitted to, and these; all zero for a model without E0."""
        count = self.original.atom_embedding.embedding.num_embeddings
        table = getattr(self.original.composition_model, "fc", None)
        if table is None:
            return tuple(range(1, count + 1)), torch.zeros(count)
        energies = table.weight[0]
        absent = [z - 1 for z in NOT_IN_DATA if z <= count and abs(float(energies[z - 1])) < NOT_FITTED]
        fitted = torch.tensor([k for k in range(count) if k not in absent], device=energies.device)
        return tuple((fitted + 1).tolist()), energies[fitted]

    def save(self, path: str | Path) -> None:
        """See `Adapter.save`. `CHGNet.from_file` and its calculator read the file."""
        original = copy.deepcopy(self.original).cpu()
        with atomic_write(path) as temporary:
            torch.save({"model": original.as_dict()}, temporary)


class _LayerNorm(nn.LayerNorm):
    """Layer normalization made of elementary operations, because the fused one of PyTorch has wrong third derivatives:
    it takes mean and variance for constants there. CHGNet's layers are given this class; their state stays the same."""

    def forward(self, input: Tensor) -> Tensor:
        centered = input - input.mean(-1, keepdim=True)
        scaled = centered * (centered.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        return torch.addcmul(self.bias, scaled, self.weight)


@dataclass(frozen=True, eq=False)
class _Graph:
    """Directed pairs, bonds (a pair and its reverse are one) and angles of structures, as CHGNet defines them.

    Attributes:
        numbers: atomic numbers.
        owners: index of the structure of each atom.
        ends: center and neighbor of each directed pair.
        vectors: between them, Å.
        lengths: of the vectors, Å.
        bond_of_directed: index of the bond of each directed pair.
        directed_of_bond: index of one directed pair of each bond.
        angles: center, and two different directed pairs that start there and are shorter than the bond cutoff; in
            both orders.
    """

    numbers: Int[Tensor, "atoms"]
    owners: Int[Tensor, "atoms"]
    ends: Int[Tensor, "pairs 2"]
    vectors: Float[Tensor, "pairs 3"]
    lengths: Float[Tensor, "pairs"]
    bond_of_directed: Int[Tensor, "pairs"]
    directed_of_bond: Int[Tensor, "bonds"]
    angles: Int[Tensor, "angles 3"]

    @classmethod
    def from_pairs(cls, pairs: EdgeList, batch: Batch, bond_cutoff: float) -> _Graph:
        lengths = pairs.vectors.square().sum(-1).sqrt()  # never zero: atoms do not coincide
        bonds, first = _bonds(pairs, len(batch.numbers))
        ends = torch.stack([pairs.centers, pairs.neighbors], 1)
        angles = _angles(pairs.centers, lengths.detach() < bond_cutoff, len(batch.numbers))
        return cls(batch.numbers, batch.structure_index, ends, pairs.vectors, lengths, bonds, first, angles)

    def select(self, atoms: Bool[Tensor, "atoms"]) -> _Graph:
        """The part of these atoms, which are all atoms of some structures."""
        pairs, bonds = atoms[self.ends[:, 0]], atoms[self.ends[self.directed_of_bond, 0]]
        new_atom, new_pair, new_bond = (mask.cumsum(0) - 1 for mask in (atoms, pairs, bonds))
        angles = self.angles[atoms[self.angles[:, 0]]]
        return _Graph(
            self.numbers[atoms],
            torch.unique(self.owners[atoms], return_inverse=True)[1],
            new_atom[self.ends[pairs]],
            self.vectors[pairs],
            self.lengths[pairs],
            new_bond[self.bond_of_directed[pairs]],
            new_pair[self.directed_of_bond[bonds]],
            torch.cat([new_atom[angles[:, :1]], new_pair[angles[:, 1:]]], 1),
        )


def _bonds(pairs: EdgeList, n_atoms: int) -> tuple[Int[Tensor, "pairs"], Int[Tensor, "bonds"]]:
    """Index of the bond of each directed pair, and one directed pair of each bond."""
    shifts = pairs.cell_shifts.detach().round().to(torch.int64)
    reach = int(shifts.abs().max()) if len(shifts) else 0
    span = 2 * reach + 1

    def key(centers: Tensor, neighbors: Tensor, shifts: Tensor) -> Tensor:
        digits = (shifts + reach).unbind(1)
        return (((centers * n_atoms + neighbors) * span + digits[0]) * span + digits[1]) * span + digits[2]

    forward, backward = (
        key(pairs.centers, pairs.neighbors, shifts),
        key(pairs.neighbors, pairs.centers, -shifts),
    )
    keys, bond_of_directed = torch.unique(torch.minimum(forward, backward), return_inverse=True)
    directed = torch.arange(len(forward), device=forward.device)
    directed_of_bond = torch.zeros_like(keys).index_put((bond_of_directed,), directed)
    return bond_of_directed, directed_of_bond


def _angles(centers: Int[Tensor, "pairs"], is_short: Bool[Tensor, "pairs"], n_atoms: int) -> Int[Tensor, "angles 3"]:
    """Center and two different short pairs of each angle; pairs are sorted by center."""
    short = is_short.nonzero()[:, 0]
    counts = torch.bincount(centers[short], minlength=n_atoms)
    per_pair = counts[centers[short]]  # as many partners as the center has short pairs
    first = torch.repeat_interleave(torch.arange(len(short), device=short.device), per_pair)
    starts = (counts.cumsum(0) - counts)[centers[short]]
    position = torch.arange(len(first), device=short.device) - (per_pair.cumsum(0) - per_pair)[first]
    second = starts[first] + position
    different = first != second
    first, second = first[different], second[different]
    return torch.stack([centers[short[first]], short[first], short[second]], 1)


def _import_chgnet(name: str) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pymatgen; users cannot act on them
        return import_optional(name, extra="chgnet", purpose="a CHGNet model")


def _checked_model(original: Any) -> Any:
    check_not_path(original, "ChgnetPotential")
    models = _import_chgnet("chgnet.model.model")
    if not isinstance(original, models.CHGNet):
        raise RequestError(f"expected a CHGNet model (chgnet.model.CHGNet), got a {type(original).__name__}")
    reference: Any = original.composition_model
    if reference is not None and not isinstance(reference, _import_chgnet("chgnet.model.composition_model").AtomRef):
        raise RequestError(
            f"this CHGNet model adds an energy of the composition of the kind {type(reference).__name__}; supported "
            "are AtomRef (one energy per element) and none"
        )
    return original
