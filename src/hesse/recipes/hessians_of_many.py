"""Hessians of many structures: by a label campaign, in batches by a model, or of parts of the atoms; all resumable."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray as Array

from hesse.curvature import evaluate_structures
from hesse.engines import Engine, PotentialEngine, as_engine
from hesse.engines.error_estimates import attach_error_estimates
from hesse.errors import EngineError, ExecutionError, ExtrapolationWarning, HesseError, InterruptedRunError
from hesse.harmonic.masses import MassesLike, atom_masses
from hesse.harmonic.normal_modes import normal_modes
from hesse.labelling import label, plan_labels
from hesse.pes import MinimizationResult, Vibrations, minimize
from hesse.pes.hessian_columns import PartialHessian, hessian_of_atoms
from hesse.pes.vibrational_analysis import vibrations_from_labels
from hesse.potential import check_elements
from hesse.recipes.journaled_tasks import HessianRun, JournaledTasks, interrupted
from hesse.runtime.progress import track
from hesse.runtime.signals import StoppedError, stop_signals
from hesse.sampling.search_journal import FinishedSearch, SearchJournal, search_key
from hesse.structures import Properties, Request, Structure, check_cell

__all__ = ["KnownHessian", "compute_hessians", "vibrations_journal"]

Moving: TypeAlias = "Int[Array, 'm'] | None"
_CHUNK = 64
"""Structures that a model computes before the journal is written."""
_CHUNK_ELEMENTS = 4_000_000
"""Elements of all Hessians of a chunk: 32 MB."""


@dataclass(frozen=True, eq=False)
class KnownHessian:
    """A Hessian of one structure: that of all atoms in its labels, or that of the atoms that move.

    Attributes:
        structure: the geometry, relaxed if that was requested.
        level: level of theory.
        labels: labels with the full Hessian; None for a partial one.
        partial: the Hessian of the atoms that move; None for a full one.
    """

    structure: Structure
    level: str
    labels: Properties | None = None
    partial: PartialHessian | None = None

    def vibrations(self, moving: Moving, masses: MassesLike, isotopes: Mapping[int, str | float] | None) -> Vibrations:
        """Vibrations from this Hessian.

        Args:
            moving: the atoms that move; None for all.
            masses: see `hesse.vibrations`.
            isotopes: see `hesse.vibrations`.

        Returns:
            Frequencies and normal modes.
        """
        if self.partial is None:
            assert self.labels is not None
            return vibrations_from_labels(
                self.structure, self.labels, level=self.level, atoms=moving, masses=masses, isotopes=isotopes
            )
        part = self.partial
        m = atom_masses(self.structure, masses, isotopes)
        modes = normal_modes(self.structure, part.hessian, masses=m, atoms=moving)
        return Vibrations(self.structure, self.level, part.energy, part.forces, part.hessian, modes, part.error)


Found: TypeAlias = "dict[int, KnownHessian | str]"
"""For each structure its Hessian, or why there is none."""


def vibrations_journal(output: Path) -> Path:
    """Path of the journal of relaxations, partial Hessians and Hessians of models.

    Args:
        output: file of the Hessians.

    Returns:
        `output` with the ending `.vibrations.jsonl` added.
    """
    return Path(f"{output}.vibrations.jsonl")


def compute_hessians(
    run: HessianRun,
    structures: Mapping[int, Structure],
    moving: Mapping[int, Moving],
    relaxation: Mapping[str, Any] | None,
) -> tuple[Found, int]:
    """Compute the Hessian of every structure.

    Args:
        run: engine, processes and output.
        structures: the structures by index.
        moving: the atoms that move in each; None for all.
        relaxation: options of a relaxation before; None for none.

    Returns:
        The Hessians or reasons by index, and how many an earlier run had computed.

    Raises:
        InterruptedRunError: SIGINT or SIGTERM.
        HesseError: the engine or the files cannot be used.
    """
    found: Found = {}
    opened = nullcontext(None) if run.output is None else SearchJournal.open(vibrations_journal(run.output))
    with opened as journal:
        if relaxation is not None:
            tasks = JournaledTasks(run, journal, {"kind": "minimize", **relaxation}, "relaxing")
            relaxed, _ = tasks.run(_make_relaxer, structures, relaxation, _relaxed_record)
            found = {i: record for i, record in relaxed.items() if isinstance(record, str)}
            structures = {
                i: structures[i].with_positions(record.arrays["positions"], id=structures[i].id)
                for i, record in relaxed.items()
                if not isinstance(record, str)
            }
        parts = {i: structure for i, structure in structures.items() if moving[i] is not None}
        whole = {i: structure for i, structure in structures.items() if moving[i] is None}
        n_reused = 0
        if parts:
            results, n_known = _partial_hessians(run, journal, parts, moving)
            found, n_reused = found | results, n_reused + n_known
        if whole and isinstance(run.engine_object, PotentialEngine):
            results, n_known = _hessians_by_model(run, journal, whole)
            found, n_reused = found | results, n_reused + n_known
    if whole and not isinstance(run.engine_object, PotentialEngine):
        results, n_known = _hessians_by_campaign(run, whole)
        found, n_reused = found | results, n_reused + n_known
    return found, n_reused


# --- full Hessians by engines -----------------------------------------------------------------------------------------


def _hessians_by_campaign(run: HessianRun, structures: Mapping[int, Structure]) -> tuple[Found, int]:
    indices = {structure.id: i for i, structure in structures.items()}
    n_known = 0
    if run.output is not None:
        plan = plan_labels(list(structures.values()), run.engine, run.output, probes=0, hessian=True)
        n_known = plan.n_complete
    try:
        report = label(
            list(structures.values()),
            run.engine,
            run.output,
            probes=0,
            hessian=True,
            workers=run.workers,
            scheduler=run.scheduler,
            timeout=run.timeout,
            retry_failed=run.retry_failed,
            quiet=run.quiet,
        )
    except InterruptedRunError:
        raise
    except ExecutionError as error:  # no structure could be labeled
        return dict.fromkeys(structures, str(error)), 0
    found: Found = {indices[failure.id]: failure.reason for failure in report.failures}
    for structure, labels in report.dataset:
        found[indices[structure.id]] = KnownHessian(structure, run.level, labels=labels)
    return found, n_known


# --- full Hessians by models, many at once ----------------------------------------------------------------------------


def _hessians_by_model(
    run: HessianRun, journal: SearchJournal | None, structures: Mapping[int, Structure]
) -> tuple[Found, int]:
    engine = run.engine_object
    assert isinstance(engine, PotentialEngine)
    keys = {i: search_key(structure, engine, {"kind": "hessian"}) for i, structure in structures.items()}
    found: Found = {}
    for i, structure in structures.items():
        record = None if journal is None else journal.finished(keys[i])
        if record is not None:
            found[i] = KnownHessian(structure, run.level, labels=_labels_of_record(structure, record))
    n_reused = len(found)
    with track(f"Hessians with {run.level}", len(structures), quiet=run.quiet, done=n_reused) as advance:
        try:
            with stop_signals():
                pending = {i: s for i, s in structures.items() if i not in found}
                for chunk in _chunks(pending):
                    for i, result in _evaluate_chunk(engine, {i: structures[i] for i in chunk}).items():
                        found[i] = result
                        if journal is not None and isinstance(result, KnownHessian):
                            journal.add(keys[i], _record_of_labels(result))
                    advance(len(chunk))
        except StoppedError:
            raise interrupted(len(found), len(structures), journal) from None
    return found, n_reused


def _chunks(structures: Mapping[int, Structure]) -> Iterator[list[int]]:
    """Indices of structures of similar size, small ones first."""
    chunk: list[int] = []
    elements = 0
    for i in sorted(structures, key=lambda i: len(structures[i])):
        size = 9 * len(structures[i]) ** 2
        if chunk and (len(chunk) == _CHUNK or elements + size > _CHUNK_ELEMENTS):
            yield chunk
            chunk, elements = [], 0
        chunk.append(i)
        elements += size
    if chunk:
        yield chunk


def _evaluate_chunk(engine: PotentialEngine, structures: Mapping[int, Structure]) -> Found:
    """Hessians of some structures in one pass; if one of them fails, one by one."""
    found: Found = {}
    valid: dict[int, Structure] = {}
    for i, structure in structures.items():
        try:
            where = f'structure "{structure.id}"'
            check_elements(engine.potential, structure.numbers, where=where, name=engine.level)
            check_cell(structure)
            structure.check_no_overlap()
            valid[i] = structure
        except HesseError as error:
            found[i] = str(error)
    request = Request(forces=True, hessian=True)
    try:
        results = evaluate_structures(engine.potential, list(valid.values()), request) if valid else None
    except EngineError as error:
        if len(valid) == 1:
            return found | dict.fromkeys(valid, str(error))
        for i, structure in valid.items():
            found |= _evaluate_chunk(engine, {i: structure})
        return found
    for k, (i, structure) in enumerate(valid.items()):
        assert results is not None
        labels = attach_error_estimates(structure, results.select([k]), request)
        found[i] = KnownHessian(structure, engine.level, labels=labels)
    return found


# --- relaxations and partial Hessians, one by one in processes --------------------------------------------------------


def _make_relaxer(spec: tuple[str | Engine, Mapping[str, Any]]) -> Callable[[Structure], MinimizationResult]:
    engine, options = as_engine(spec[0]), spec[1]

    def relax(structure: Structure) -> MinimizationResult:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExtrapolationWarning)
            return minimize(structure, engine, **options)

    return relax


def _relaxed_record(result: MinimizationResult) -> FinishedSearch | str:
    if not result.converged:
        return f"not relaxed after {result.steps} steps (largest force {result.fmax:.3g} eV/Å): give more steps"
    return FinishedSearch({"energy": result.energy}, {"positions": result.structure.positions})


def _partial_hessians(
    run: HessianRun,
    journal: SearchJournal | None,
    structures: Mapping[int, Structure],
    moving: Mapping[int, Moving],
) -> tuple[Found, int]:
    groups: dict[tuple[int, ...], dict[int, Structure]] = {}
    for i, structure in structures.items():
        array = moving[i]
        assert array is not None
        groups.setdefault(tuple(array.tolist()), {})[i] = structure
    found: Found = {}
    n_reused = 0
    for group, members in groups.items():
        atoms = list(group)
        tasks = JournaledTasks(run, journal, {"kind": "partial", "atoms": atoms}, f"partial Hessians with {run.level}")
        records, n_known = tasks.run(_make_partial, members, atoms, lambda record: record)
        n_reused += n_known
        for i, record in records.items():
            if isinstance(record, str):
                found[i] = record
                continue
            row, arrays = record.row, record.arrays
            part = PartialHessian(row["energy"], arrays["forces"], arrays["hessian"], row["hessian_error"])
            found[i] = KnownHessian(structures[i], run.level, partial=part)
    return found, n_reused


def _make_partial(spec: tuple[str | Engine, Sequence[int]]) -> Callable[[Structure], FinishedSearch]:
    engine, atoms = as_engine(spec[0]), np.asarray(spec[1])

    def compute(structure: Structure) -> FinishedSearch:
        part = hessian_of_atoms(structure, engine, atoms)
        row = {"energy": part.energy, "hessian_error": part.error}
        return FinishedSearch(row, {"forces": part.forces, "hessian": part.hessian})

    return compute


# --- records of labels ------------------------------------------------------------------------------------------------

_ERRORS = ("energy_error", "forces_error", "hessian_error")


def _record_of_labels(known: KnownHessian) -> FinishedSearch:
    labels = known.labels
    assert labels is not None
    assert labels.energy is not None
    assert labels.forces is not None
    errors = {name: float(value[0]) for name in _ERRORS if (value := labels[name]) is not None}
    row = {"energy": float(labels.energy[0]), **{k: v for k, v in errors.items() if np.isfinite(v)}}
    return FinishedSearch(row, {"forces": labels.forces.numpy(), "hessian": labels.hessian_of(0).numpy()})


def _labels_of_record(structure: Structure, record: FinishedSearch) -> Properties:
    values: dict[str, Any] = {name: record.row.get(name) for name in ("energy", *_ERRORS)}
    return Properties.single(
        len(structure), structure_id=structure.id, **values, **dict[str, Any](record.arrays)
    ).map_tensors(torch.Tensor.double)
