"""Force constants of a crystal from any engine: one Hessian-vector product per symmetry-distinct displacement.

The force constants of a crystal are the rows of the Hessian of its supercell that belong to the atoms of the primitive
cell. A row follows from a displacement of one atom, and the space group relates displacements: aluminum needs one,
whatever the size of the supercell, and no crystal needs more than three per atom of the primitive cell. The dense
matrix of the supercell is never formed.

A potential gives `H v` exactly. Other engines take the difference of two gradients with a step that suits their noise,
and estimate its error. Displacements of a given length are phonopy's usual method: their error is of the order of the
anharmonicity times the displacement, or its square where both signs are taken.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.engines import Engine, PotentialEngine
from hesse.errors import ConfigError, EngineError, check_numbers
from hesse.lattice.kept_results import KeptResults
from hesse.lattice.supercells import phonopy_errors, structure_of, widths
from hesse.runtime.progress import track
from hesse.structures import Request, Structure

__all__ = ["ForceConstantsReport", "compute_force_constants", "finish_force_constants"]

_TOGETHER = 6
"""Number of products of a potential in one call, so that the progress of large supercells is shown and kept; the graph
of the potential is made once for each call."""
_RECORDED_DISPLACEMENT = 0.01
"""Å; displacement that products are stored with in phonopy's files, whose forces are exactly linear in it."""
_MAX_DISPLACEMENT = 0.5
"""Å."""
_MAX_SYMFC_ATOMS = 300
"""Supercells up to this number of atoms are symmetrized by symfc's projector, larger ones by phonopy's iteration, whose
memory grows less."""


@dataclass(frozen=True)
class ForceConstantsReport:
    """How force constants were computed, and how well they obey their symmetries before these are imposed.

    Attributes:
        method: "products", "displacements of D Å", or the file that they came from.
        n_displacements: number of directions along which the crystal was displaced.
        n_columns: number of directions without symmetry: three per atom of the primitive cell.
        space_group: symbol of the space group of the supercell; empty where symmetry was not used.
        sum_rule: largest element of the sums over all neighbors, which vanish as a rigid translation costs no energy,
            eV/Å².
        asymmetry: root mean square change of the force constants when space group, sum rule and the symmetry of second
            derivatives are imposed, over their root mean square.
        error: estimated error of the products, root mean square, eV/Å²; None where none is estimated.
        boundary: largest force constant between atoms that are farther apart than 0.9 times half the width of the
            supercell, over the largest between different atoms.
        half_width: half the smallest width of the supercell, Å.
        cutoff: cutoff of the potential, Å; None for other engines.
        seconds: wall time.
    """

    method: str
    n_displacements: int
    n_columns: int
    space_group: str
    sum_rule: float
    asymmetry: float
    error: float | None
    boundary: float
    half_width: float
    cutoff: float | None
    seconds: float


def compute_force_constants(
    record: Any,
    engine: Engine,
    *,
    displacement: float | None = None,
    id: str = "supercell",
    cache: str | Path | None = None,
    quiet: bool = True,
) -> ForceConstantsReport:
    """Compute force constants and set them in phonopy's record, in its compact form, symmetrized.

    Args:
        record: `phonopy.Phonopy`, in eV and Å.
        engine: the engine.
        displacement: Å; finite displacements of this length in place of Hessian-vector products.
        id: name of the supercell, for messages.
        cache: a folder that keeps products and forces as they come, so that the same call continues.
        quiet: show no progress.

    Returns:
        Number of displacements, violations of the symmetries, and estimated errors.

    Raises:
        ConfigError: a displacement that is not a small positive number.
        EngineError: the engine failed.
    """
    start = time.monotonic()
    supercell = structure_of(record.supercell, id)
    supercell.check_no_overlap()
    if displacement is None:
        length = _RECORDED_DISPLACEMENT
    else:
        check_numbers(displacement=displacement)
        length = float(displacement)
        if not 0 < length <= _MAX_DISPLACEMENT:
            raise ConfigError(f"displacement: expected a positive number of Å up to {_MAX_DISPLACEMENT}, got {length}")
    with phonopy_errors("phonopy cannot choose displacements"):
        record.generate_displacements(distance=length, is_plusminus=False if displacement is None else "auto")
    moves = np.zeros((len(record.dataset["first_atoms"]), len(supercell), 3))
    for k, entry in enumerate(record.dataset["first_atoms"]):
        moves[k, entry["number"]] = entry["displacement"]
    error, results = None, KeptResults(cache, engine, supercell)
    if displacement is None:
        products, error = _products(supercell, engine, moves / length, results, quiet)
        forces, method = -length * products, "products"
    else:
        forces, method = _displaced_forces(supercell, engine, moves, results, quiet), f"displacements of {length:g} Å"
    with phonopy_errors(f'structure "{id}": phonopy cannot compute the force constants', EngineError):
        record.forces = forces
        record.produce_force_constants(calculate_full_force_constants=False, show_drift=False)
    cutoff = engine.potential.cutoff if isinstance(engine, PotentialEngine) else None
    return finish_force_constants(record, method, len(moves), error=error, cutoff=cutoff, start=start)


def _products(
    supercell: Structure, engine: Engine, directions: Float[Array, "k n 3"], kept: KeptResults, quiet: bool
) -> tuple[Float[Array, "k n 3"], float | None]:
    """`H v` along directions (eV/Å²), and their root mean square error."""
    results, squares = [], list[float]()
    together = _TOGETHER if isinstance(engine, PotentialEngine) else 1
    with track(f"Hessian-vector products with {engine.level}", len(directions), quiet=quiet) as advance:
        for first in range(0, len(directions), together):
            part = directions[first : first + together]

            def products(part: Array = part) -> dict[str, Array]:
                labels = engine.compute(supercell, Request(probes=torch.as_tensor(part)))
                assert labels.hvp is not None
                arrays = {"products": labels.hvp.numpy()}
                if labels.hvp_error is not None:
                    arrays["errors"] = labels.hvp_error.double().numpy().ravel()
                return arrays

            stored = kept.get("products", part, products)
            results.append(stored["products"])
            squares += (stored.get("errors", np.empty(0)) ** 2).tolist()
            advance(len(part))
    return np.concatenate(results), float(np.sqrt(np.mean(squares))) if squares else None


def _displaced_forces(
    supercell: Structure, engine: Engine, moves: Float[Array, "k n 3"], kept: KeptResults, quiet: bool
) -> Float[Array, "k n 3"]:
    """Forces of displaced supercells less those of the supercell itself, eV/Å."""
    forces = []
    with track(f"displaced supercells with {engine.level}", len(moves) + 1, quiet=quiet) as advance:
        for move in (np.zeros_like(moves[0]), *moves):

            def of_one(move: Array = move) -> dict[str, Array]:
                structure = supercell.with_positions(supercell.positions + move, id=supercell.id)
                labels = engine.compute(structure, Request(forces=True))
                assert labels.forces is not None
                return {"forces": labels.forces.numpy()}

            forces.append(kept.get("forces", move, of_one)["forces"])
            advance()
    return np.array(forces[1:]) - forces[0]


def finish_force_constants(
    record: Any,
    method: str,
    n_displacements: int,
    *,
    error: float | None = None,
    cutoff: float | None = None,
    start: float | None = None,
    symmetrize: bool = True,
) -> ForceConstantsReport:
    """Check the compact force constants of a record, and impose their symmetries.

    Args:
        record: `phonopy.Phonopy` with compact force constants.
        method: how they were computed.
        n_displacements: number of displacements.
        error: estimated error, in the units of the record.
        cutoff: cutoff of the potential, Å.
        start: time at which the work began, of `time.monotonic`.
        symmetrize: False checks only.

    Returns:
        The report.
    """
    start = time.monotonic() if start is None else start
    before = np.array(record.force_constants)
    with phonopy_errors("phonopy cannot impose the symmetries of the force constants", EngineError):
        # symfc refuses supercells of one atom, whose force constants vanish.
        projector = 1 < len(record.supercell) <= _MAX_SYMFC_ATOMS
        record.symmetrize_force_constants(show_drift=False, use_symfc_projector=projector)
        after = np.array(record.force_constants)
        if not symmetrize:
            record.force_constants = before
    size = float(np.sqrt(np.mean(after**2))) or 1.0
    unused = type(record.symmetry.dataset).__name__ == "NosymDataset"
    group = "" if unused else str(record.symmetry.get_international_table())
    return ForceConstantsReport(
        method,
        n_displacements,
        3 * len(record.primitive),
        group,
        float(np.abs(before.sum(axis=1)).max()),
        float(np.sqrt(np.mean((after - before) ** 2))) / size,
        error,
        _boundary(record, after),
        0.5 * float(widths(record.supercell.cell).min()),
        cutoff,
        time.monotonic() - start,
    )


def _boundary(record: Any, constants: Float[Array, "m n 3 3"]) -> float:
    """Largest force constant near the boundary of the supercell, over the largest between different atoms."""
    cell, sites = record.supercell, record.primitive.p2s_map
    half = 0.5 * float(widths(cell.cell).min())
    vectors, multiplicity = record.primitive.get_smallest_vectors()
    lengths = np.linalg.norm(vectors @ record.primitive.cell, axis=1)[multiplicity[..., 1]]  # [atoms, primitive atoms]
    sizes = np.abs(constants).max(axis=(2, 3)).T / multiplicity[..., 0]  # of one of the nearest images
    sizes[sites, np.arange(len(sites))] = 0.0
    far = sizes[lengths > 0.9 * half]
    return float(far.max() / sizes.max()) if far.size and sizes.max() > 0 else 0.0
