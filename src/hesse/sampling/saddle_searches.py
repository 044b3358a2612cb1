"""Saddle points of many guesses, over worker processes, with a journal by which an interrupted run is continued."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.datasets import Dataset, StructuresLike, as_structures
from hesse.engines import Engine, EngineLike, as_engine, engine_for_workers
from hesse.errors import ExtrapolationWarning, RequestError, check_positive
from hesse.pes import SaddleResult, atom_name, band_tangent, bond_name, extrapolation_columns, saddle
from hesse.sampling.collected_searches import collect_searches
from hesse.sampling.journaled_runs import in_workers, run_journaled
from hesse.sampling.reactions import ReactionResult
from hesse.sampling.search_journal import FinishedSearch, search_key
from hesse.structures import Structure

__all__ = ["highest_images", "search_saddles"]


def search_saddles(
    guesses: StructuresLike,
    engine: EngineLike,
    output: str | Path | None = None,
    *,
    modes: Sequence[Float[Array, "n 3"] | None] | None = None,
    workers: int | None = None,
    quiet: bool = False,
    **options: Any,
) -> ReactionResult:
    """Search a saddle point near each guess.

    Args:
        guesses: the structures.
        engine: a name or the path of a model; an object works in this process.
        output: file for the results, which is not written here: each finished search is kept in `OUTPUT.searches.jsonl`
            at once, and the same call does not repeat it. None keeps nothing.
        modes: a direction to follow for each guess, see `hesse.saddle` and `highest_images`.
        workers: number of processes of one thread each, 1 by default; 0 works in this process. A structure that kills
            its process becomes a failure.
        quiet: no progress.
        **options: those of `hesse.saddle`: method, mode (a number), fmax, steps, trust.

    Returns:
        The saddle points, with energies, forces and Hessians; the last geometries of searches that failed; and a row
        for each guess that tells how far its search went.

    Raises:
        InterruptedRunError: SIGINT or SIGTERM; the same call continues.
        HesseError: there is no such engine, a wrong option, or a journal that cannot be read or written.
    """
    check_positive(options, "fmax", "steps", "trust")
    spec, workers = engine_for_workers(engine, workers, None)
    starts, model = as_structures(guesses), as_engine(spec)
    directions = list(modes) if modes is not None else [None] * len(starts)
    tasks = list(zip(starts, directions, strict=True))
    keys = [
        search_key(start, model, options | ({} if mode is None else {"mode": np.round(mode, 10).tolist()}))
        for start, mode in tasks
    ]
    run = run_journaled(
        in_workers(_make_searcher, (spec, options), workers),
        tasks,
        keys,
        lambda i, result: _finished(starts[i], result),
        output=None if output is None else Path(output),
        title="saddle points",
        quiet=quiet,
    )
    return collect_searches(starts, run, spec, "saddle search")


def highest_images(bands: Dataset) -> tuple[list[Structure], list[Float[Array, "n 3"]]]:
    """The highest image of each path in a data set, and the direction of the path there.

    Args:
        bands: the images of paths in order, with energies; those of one path have one group.

    Returns:
        Structures with the ids of their groups, and directions of length one, `[n, 3]`.

    Raises:
        RequestError: no energies, or paths of fewer than three images.
    """
    if bands.labels.energy is None or not bool(bands.labels.mask("energy").all()):
        raise RequestError("the images of a path need energies: make them with hesse neb")
    energies = bands.labels.energy.numpy()
    groups: dict[str, list[int]] = {}
    for i, structure in enumerate(bands.structures):
        groups.setdefault(structure.group, []).append(i)
    starts, modes = [], []
    for group, members in groups.items():
        if len(members) < 3:
            raise RequestError(f'path "{group}": expected three or more images of one group, got {len(members)}')
        k = 1 + int(np.argmax(energies[members[1:-1]]))
        images = [bands.structures[members[k + step]] for step in (-1, 0, 1)]
        starts.append(replace(images[1], id=group or images[1].id))
        modes.append(band_tangent([s.positions for s in images], energies[[members[k + step] for step in (-1, 0, 1)]]))
    return starts, modes


SearchTask: TypeAlias = "tuple[Structure, Float[Array, 'n 3'] | None]"


def _make_searcher(spec: tuple[str | Engine, dict[str, Any]]) -> Callable[[SearchTask], SaddleResult]:
    engine = as_engine(spec[0])

    def search(task: SearchTask) -> SaddleResult:
        structure, mode = task
        given = {} if mode is None else {"mode": mode}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExtrapolationWarning)  # the rows tell it
            return saddle(structure, engine, **(given | spec[1]))

    return search


def _finished(start: Structure, result: SaddleResult) -> FinishedSearch:
    """The result as it is kept, with the row that tells of it."""
    moved = result.displacement
    row: dict[str, Any] = {"id": start.id, "converged": result.converged, "reason": result.reason}
    row |= {name: getattr(result, name) for name in ("energy", "fmax", "steps")}
    row["hessians"] = result.n_hessians
    if result.n_products:
        row["products"] = result.n_products
    modes = result.modes or result.lowest_modes
    if modes is not None and len(modes):
        row["imaginary"] = float(modes.frequencies[0])
        row["mode_atoms"] = [atom_name(start, i) for i in result.mode_atoms]
    row |= {"rmsd": moved.rmsd, "energy_change": result.energy_change}
    row["bonds_formed"] = [bond_name(start, bond) for bond in moved.formed]
    row["bonds_broken"] = [bond_name(start, bond) for bond in moved.broken]
    row |= extrapolation_columns(result.extrapolation)
    arrays = {"positions": result.structure.positions, "forces": np.asarray(result.forces)}
    if result.hessian is not None:
        arrays["hessian"] = np.asarray(result.hessian)
    return FinishedSearch(row, arrays)
