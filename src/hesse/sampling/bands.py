"""Elastic bands between many pairs of geometries, over worker processes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from hesse.engines import Engine, EngineLike, as_engine, engine_for_workers
from hesse.errors import ExtrapolationWarning, check_positive
from hesse.pes import NEBResult, bond_name, extrapolation_columns, neb
from hesse.sampling.journaled_runs import in_workers, run_journaled
from hesse.sampling.reaction_campaign import Pair
from hesse.sampling.reactions import ReactionResult, as_dataset_of
from hesse.sampling.samples import energy_labels
from hesse.sampling.sampling_result import SamplingFailure
from hesse.sampling.search_journal import FinishedSearch, search_key
from hesse.structures import Properties, Structure

__all__ = ["search_bands"]

Task: TypeAlias = tuple[Pair, Path | None]


def search_bands(
    pairs: Sequence[Pair],
    engine: EngineLike,
    output: str | Path | None = None,
    *,
    workers: int | None = None,
    quiet: bool = False,
    **options: Any,
) -> ReactionResult:
    """Find the path between each pair of geometries.

    Args:
        pairs: the ends, see `reaction_pairs`.
        engine: a name or the path of a model; an object works in this process.
        output: file for the results, which is not written here: each finished path is kept in `OUTPUT.searches.jsonl`
            at once, and the same call does not repeat it; the images of an interrupted one are kept in files beside
            it, from which the same call continues. None keeps nothing.
        workers: number of processes of one thread each, 1 by default; 0 works in this process.
        quiet: no progress.
        **options: those of `hesse.neb`: images, fmax, steps, climb, spring, relax_ends.

    Returns:
        The images of all paths (tag `neb`, the name of the pair as group) with energies and forces, also of paths that
        did not converge; and a row for each pair.

    Raises:
        InterruptedRunError: SIGINT or SIGTERM; the same call continues.
        HesseError: there is no such engine, a wrong option, or a journal that cannot be read or written.
    """
    check_positive(options, "images", "fmax", "steps", "spring")
    spec, workers = engine_for_workers(engine, workers, None)
    model = as_engine(spec)
    place = None if output is None else Path(output)
    keys = [search_key([p.reactant, p.product], model, options | {"task": "band", "name": p.id}) for p in pairs]
    files = [None if place is None else Path(f"{place}.band-{key[:12]}.extxyz") for key in keys]

    def finish(index: int, result: NEBResult) -> FinishedSearch:
        return _finished(pairs[index], result)

    run = run_journaled(
        in_workers(_make_worker, (spec, options), workers),
        list(zip(pairs, files, strict=True)),
        keys,
        finish,
        output=place,
        title="paths",
        quiet=quiet,
    )
    for index in run.found:
        if (file := files[index]) is not None:
            file.unlink(missing_ok=True)
    images: list[tuple[Structure, Properties]] = []
    rows: list[dict[str, Any]] = []
    failures: list[SamplingFailure] = []
    for i, pair in enumerate(pairs):
        search = run.found.get(i)
        if search is None:
            rows.append({"id": pair.id, "converged": False, "reason": run.errors[i]})
            failures.append(SamplingFailure(pair.id, run.errors[i]))
            continue
        rows.append(dict(search.row))
        images += _images(pair, search)
    return ReactionResult(
        as_dataset_of(images, spec, "elastic bands"), tuple(rows), tuple(failures), None, run.n_reused
    )


def _images(pair: Pair, search: FinishedSearch) -> list[tuple[Structure, Properties]]:
    arrays = search.arrays
    images = []
    for k, (x, energy, forces) in enumerate(
        zip(arrays["positions"], arrays["energies"], arrays["forces"], strict=True)
    ):
        moved = pair.reactant.with_positions(x, id=f"{pair.id}/neb/{k:02d}", tag="neb")
        named = replace(moved, group=pair.id)
        images.append((named, energy_labels(named, float(energy), forces)))
    return images


def _make_worker(spec: tuple[str | Engine, dict[str, Any]]) -> Callable[[Task], NEBResult]:
    engine = as_engine(spec[0])

    def search(task: Task) -> NEBResult:
        pair, file = task
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExtrapolationWarning)  # the rows tell it
            return neb(pair.reactant, pair.product, engine, keep=file, **spec[1])

    return search


def _finished(pair: Pair, result: NEBResult) -> FinishedSearch:
    row: dict[str, Any] = {"id": pair.id, "converged": result.converged, "reason": result.reason}
    row |= {name: getattr(result, name) for name in ("barrier", "reaction_energy", "has_barrier", "highest")}
    row |= {"images": len(result.images), "fmax": result.fmax, "steps": result.steps, "gradients": result.n_gradients}
    row["bonds_formed"] = [bond_name(pair.reactant, bond) for bond in result.change.formed]
    row["bonds_broken"] = [bond_name(pair.reactant, bond) for bond in result.change.broken]
    row |= extrapolation_columns(result.extrapolation)
    arrays = {
        "positions": np.array([image.structure.positions for image in result.images]),
        "energies": result.energies,
        "forces": np.array([image.forces for image in result.images]),
    }
    return FinishedSearch(row, arrays)
