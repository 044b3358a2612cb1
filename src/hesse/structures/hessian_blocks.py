"""Hessians of many structures in one array: the `(n, 3, n, 3)` blocks of the structures that have one, flattened and
concatenated."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hesse.structures.batch import segment_ids, segment_indices, segment_offsets

__all__ = [
    "block_coordinates",
    "block_lengths",
    "blocks_from_rows",
    "multiply_blocks",
    "stacked_blocks",
    "symmetrize_blocks",
]

_CHUNK_ELEMENTS = 4_000_000
"""Largest number of elements in one stack of Hessians."""


def block_lengths(
    n_atoms: Int[Tensor, "structures"], mask: Bool[Tensor, "structures"] | None = None
) -> Int[Tensor, "structures"]:
    """Number of elements of each structure.

    Args:
        n_atoms: numbers of atoms.
        mask: which structures have a Hessian; None: all.

    Returns:
        9n², or 0 for structures without a Hessian.
    """
    full = 9 * n_atoms**2
    return full if mask is None else full * mask


def block_coordinates(
    n_atoms: Int[Tensor, "structures"], mask: Bool[Tensor, "structures"] | None = None, n_elements: int | None = None
) -> tuple[Int[Tensor, "elements"], Int[Tensor, "elements"], Int[Tensor, "elements"]]:
    """Position of each element.

    Args:
        n_atoms: numbers of atoms.
        mask: which structures have a Hessian; None: all.
        n_elements: number of elements, if known (an accelerator then need not be waited for).

    Returns:
        Row and column among the coordinates of its structure, and index of its structure.
    """
    lengths = block_lengths(n_atoms, mask)
    structure_index = segment_ids(lengths, n_elements)
    size = 3 * n_atoms[structure_index]
    index_in_block = (
        torch.arange(len(structure_index), device=structure_index.device) - segment_offsets(lengths)[structure_index]
    )
    return index_in_block // size, index_in_block % size, structure_index


def multiply_blocks(
    elements: Float[Tensor, "elements"],
    n_atoms: Int[Tensor, "structures"],
    mask: Bool[Tensor, "structures"] | None,
    vectors: Float[Tensor, "probes atoms 3"],
) -> Float[Tensor, "probes atoms 3"]:
    """Products of Hessians and vectors.

    Args:
        elements: the Hessians, eV/Å².
        n_atoms: numbers of atoms of all structures.
        mask: which structures have a Hessian; None: all.
        vectors: directions, `[probes, atoms, 3]`.

    Returns:
        eV/Å² times the unit of the vectors, `[probes, atoms, 3]`; NaN for structures without a Hessian.
    """
    flat = vectors.reshape(vectors.shape[0], -1)
    row, column, structure_index = block_coordinates(n_atoms, mask, len(elements))
    start = 3 * segment_offsets(n_atoms)[structure_index]
    product = flat.new_zeros(flat.shape).index_add(1, start + row, elements.to(flat.dtype) * flat[:, start + column])
    if mask is None:
        return product.reshape(vectors.shape)
    present = mask[segment_ids(n_atoms, vectors.shape[1])]
    return torch.where(present[:, None], product.reshape(vectors.shape), torch.nan)


def stacked_blocks(
    elements: Float[Tensor, "elements"],
    n_atoms: Int[Tensor, "structures"],
    mask: Bool[Tensor, "structures"] | None = None,
) -> Iterator[tuple[Int[Tensor, "some"], Int[Tensor, "some_elements"], Float[Tensor, "some 3n 3n"]]]:
    """Iterate over Hessians in stacks of equal size and bounded memory.

    Args:
        elements: the Hessians.
        n_atoms: numbers of atoms of all structures.
        mask: which structures have a Hessian; None: all.

    Yields:
        The indices of some structures of n atoms, the indices of their elements, and their Hessians
        `[structures, 3n, 3n]`. Structures without a Hessian do not occur.
    """
    starts = segment_offsets(block_lengths(n_atoms, mask))
    has_hessian = torch.ones_like(n_atoms, dtype=torch.bool) if mask is None else mask
    for n in n_atoms[has_hessian].unique().tolist():
        members = ((n_atoms == n) & has_hessian).nonzero()[:, 0]
        for chunk in members.split(max(1, _CHUNK_ELEMENTS // (9 * n * n))):
            index = segment_indices(starts[chunk], torch.full_like(chunk, 9 * n * n))
            yield chunk, index, elements[index].reshape(len(chunk), 3 * n, 3 * n)


def symmetrize_blocks(
    elements: Float[Tensor, "elements"],
    n_atoms: Int[Tensor, "structures"],
    mask: Bool[Tensor, "structures"] | None = None,
) -> Float[Tensor, "elements"]:
    """(H + Hᵀ)/2 of every Hessian. An exact Hessian is symmetric, so the antisymmetric part is noise.

    Args:
        elements: the Hessians.
        n_atoms: numbers of atoms of all structures.
        mask: which structures have a Hessian; None: all.

    Returns:
        The symmetric Hessians, in the same layout.
    """
    symmetric = torch.empty_like(elements)
    for _, index, matrices in stacked_blocks(elements, n_atoms, mask):
        symmetric[index] = (0.5 * (matrices + matrices.mT)).reshape(-1)
    return symmetric


def blocks_from_rows(
    n_atoms: Int[Tensor, "structures"],
    products: Callable[[Float[Tensor, "probes atoms 3"], bool], Float[Tensor, "probes atoms 3"]],
    *,
    dtype: torch.dtype,
    chunk: int | None,
) -> Float[Tensor, "elements"]:
    """Hessians of all structures of a batch from products with one-hot directions.

    Row c of all structures is computed in the same pass.

    Args:
        n_atoms: numbers of atoms.
        products: Hessian-vector products along directions `[probes, atoms, 3]`; the second argument is True in the last
            call, after which graphs can be freed.
        dtype: floating-point type of the directions.
        chunk: largest number of directions of one call; None: no limit.

    Returns:
        The Hessians, in the unit of the products.
    """
    rows = 3 * int(n_atoms.max())
    structure_of_atom = segment_ids(n_atoms)
    atom = torch.arange(len(structure_of_atom), device=n_atoms.device) - segment_offsets(n_atoms)[structure_of_atom]
    coordinate = 3 * atom[:, None] + torch.arange(3, device=n_atoms.device)
    step = rows if chunk is None else min(rows, chunk)
    chunks = []
    for start in range(0, rows, step):
        selected = torch.arange(start, min(start + step, rows), device=n_atoms.device)
        one_hot = (coordinate[None] == selected[:, None, None]).to(dtype)
        chunks.append(products(one_hot, start + step >= rows))
    row, column, structure_index = block_coordinates(n_atoms)
    return torch.cat(chunks).reshape(rows, -1)[row, 3 * segment_offsets(n_atoms)[structure_index] + column]
