"""Phonons from dynamical matrices of Quantum ESPRESSO: force constants by the inverse Fourier transform."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from jaxtyping import Complex, Float, Int
from numpy import ndarray as Array

from hesse.errors import FileFormatError
from hesse.lattice.born import born_charges
from hesse.lattice.espresso_files import EspressoMatrices, read_matrices
from hesse.lattice.force_constants import finish_force_constants
from hesse.lattice.phonons_result import Phonons
from hesse.lattice.supercells import make_record

__all__ = ["read_espresso_phonons", "wave_vector_grid"]

_MAX_DENOMINATOR = 48
_IMAGINARY = 1e-3
"""Largest imaginary part of force constants over their largest element that rounding explains."""


def read_espresso_phonons(path: Path, *, born: str | Path | bool = True) -> Phonons:
    """Read phonons from the dynamical matrices of a regular grid of wave vectors.

    Args:
        path: one of the files, or their folder.
        born: a BORN file of phonopy, True for the charges in the files, False for none.

    Returns:
        The phonons, whose supercell belongs to the grid. Force constants are those of the files; Born charges are made
        neutral.

    Raises:
        FileFormatError: damaged, incomplete, or of different crystals.
        MissingExtraError: phonopy is not installed.
    """
    start = time.monotonic()
    data = read_matrices(path)
    grid, matrices = wave_vector_grid(data, path)
    record = make_record(
        data.structure, np.diag(grid), primitive="P", symmetry=True, masses=data.structure.atomic_masses
    )
    record.force_constants = _force_constants(record, grid, matrices, path)
    if isinstance(born, str | Path):
        record.nac_params = born_charges(record, born)
    elif born and data.born is not None and data.dielectric is not None:
        # An incomplete basis or mesh leaves a charge of the cell, which all its atoms share (as q2r.x does it).
        neutral = data.born - data.born.mean(axis=0)
        record.nac_params = born_charges(record, {"born": neutral, "dielectric": data.dielectric})
    method = f"dynamical matrices of {' × '.join(str(n) for n in grid)} wave vectors"
    report = finish_force_constants(record, method, 0, start=start, symmetrize=False)
    return Phonons(data.structure, "", report, record)


def wave_vector_grid(data: EspressoMatrices, path: Path) -> tuple[Int[Array, "3"], Complex[Array, "n1 n2 n3 m m"]]:
    """The regular grid of the wave vectors, and the matrices on it.

    Args:
        data: matrices of its wave vectors; one of q and −q is enough.
        path: where they come from, for messages.

    Returns:
        Numbers of wave vectors in the three directions, and matrices by the index of the wave vector.

    Raises:
        FileFormatError: they are no complete grid.
    """
    sizes = [
        next((n for n in range(1, _MAX_DENOMINATOR + 1) if np.abs(n * x - np.rint(n * x)).max() < 1e-3 * n), 0)
        for x in data.q.T
    ]
    if 0 in sizes:
        raise FileFormatError(
            f"{path}: wave vectors {np.round(data.q[:3], 4).tolist()}, ... are no regular grid (of up to "
            f"{_MAX_DENOMINATOR} in a direction), which force constants need"
        )
    grid = np.array(sizes)
    n_modes = data.matrices.shape[1]
    matrices = np.full((*grid, n_modes, n_modes), np.nan, dtype=complex)
    for sign in (-1, 1):  # D(−q) is the conjugate of D(q)
        for q, matrix in zip(data.q, data.matrices, strict=True):
            matrices[tuple(np.rint(sign * q * grid).astype(int) % grid)] = matrix if sign == 1 else matrix.conj()
    missing = np.argwhere(np.isnan(matrices[..., 0, 0])) / grid
    if len(missing):
        raise FileFormatError(
            f"{path}: the matrices of {len(missing)} of {grid.prod()} wave vectors of the grid "
            f"{' × '.join(map(str, sizes))} are missing, the first at {np.round(missing[0], 4).tolist()} in reciprocal "
            "lattice vectors: put all files of ph.x into one folder"
        )
    return grid, matrices


def _force_constants(
    record: object, grid: Int[Array, "3"], matrices: Complex[Array, "n1 n2 n3 m m"], path: Path
) -> Float[Array, "primitive supercell 3 3"]:
    """Φ(0 a, R b) = mean over the grid of D(q) exp(−i q·R), for the atoms of phonopy's supercell."""
    supercell, primitive = record.supercell, record.primitive  # type: ignore[attr-defined]
    n = len(primitive)
    by_cell = np.fft.fftn(matrices, axes=(0, 1, 2)) / grid.prod()
    if np.abs(by_cell.imag).max() > _IMAGINARY * np.abs(by_cell.real).max():
        raise FileFormatError(
            f"{path}: force constants are not real: matrices of q and −q do not belong together, or a file is damaged"
        )
    by_cell = by_cell.real.reshape(*grid, n, 3, n, 3)
    sites = list(primitive.p2s_map)
    own = [sites.index(k) for k in primitive.s2p_map]  # the atom of the primitive cell that each atom is an image of
    offsets = (supercell.positions - supercell.positions[primitive.s2p_map]) @ np.linalg.inv(primitive.cell)
    cells = np.rint(offsets).astype(int) % grid
    return np.stack([by_cell[i, j, k, :, :, b] for (i, j, k), b in zip(cells, own, strict=True)], axis=1)
