"""Label campaigns: compute labels of many structures with one engine, in several processes or on a cluster.

A campaign can be stopped and continued, and the failure of one structure does not stop it.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hesse._version import __version__
from hesse.datasets import (
    COUNTED_BY_STRUCTURE,
    Dataset,
    StructuresLike,
    as_structures,
    check_writable_suffix,
    flag_suspect,
    write_dataset,
)
from hesse.engines import Engine, EngineLike, FiniteDifferences, PotentialEngine, as_engine, engine_for_workers
from hesse.errors import ExecutionError, GeometryError, InterruptedRunError, RequestError
from hesse.labelling.label_report import Failure, LabelReport, Suspect, group_by_reason
from hesse.labelling.ledger import Ledger
from hesse.labelling.ledger_records import Attempt, Record
from hesse.labelling.output_files import check_replaceable, describe_replaced, ledger_path
from hesse.labelling.plan import LabelPlan, make_plan
from hesse.labelling.serialization import DamagedRecordError, assemble_labels
from hesse.labelling.spec import LabelSpec
from hesse.labelling.worker import make_worker
from hesse.potential import warn_of_charge_states
from hesse.runtime.filesystem import check_output_path
from hesse.runtime.parallel import map_tasks, scheduler_address
from hesse.runtime.progress import track
from hesse.runtime.signals import StoppedError, stop_signals
from hesse.runtime.tensor_files import tensor_digest
from hesse.structures import Structure

__all__ = ["label", "plan_labels"]


def label(
    structures: StructuresLike,
    engine: EngineLike,
    output: str | Path | None = None,
    *,
    probes: int = 1,
    probe: str = "rademacher",
    seed: int = 0,
    hessian: bool = False,
    stress: bool = False,
    outputs: Collection[str] = (),
    spec: LabelSpec | None = None,
    differences: FiniteDifferences | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    timeout: float | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    title: str = "labeling",
) -> LabelReport:
    """Label structures: compute energies, forces and curvature with an engine.

    Every result is written at once to a ledger in the folder of `output`. The same call continues where the last one
    stopped and computes only what is missing; more probes or Hessians are added to the labels in the ledger. If the
    computation of a structure fails or kills its process, the ledger records the reason and the campaign goes on.
    Labels that violate a sum rule or a symmetry, or whose own error estimate is large, are kept and flagged suspect.

    Args:
        structures: ASE Atoms, a Structure, a list of them, a Dataset (its labels are not used), or the path of a file.
        engine: a name as on the command line (`gfn2`, `pyscf:hf/6-31g*`, the path of a model), from which each process
            makes its own engine; or an Engine, Potential or ASE calculator, which works in this process. Two ASE
            calculators of the same class and parameters count as the same engine in the ledger.
        output: `.h5` or `.extxyz`; None keeps everything in memory, without a ledger.
        probes: number of Hessian-vector products per structure (`symmetry-adapted`: as many as each crystal needs).
        probe: kind of their directions, one of `hesse.datasets.FIXED_PROBE_KINDS`.
        seed: seed of their directions, which are a function of it and of each structure's id.
        hessian: also compute full Hessians.
        stress: also compute stresses of structures that are periodic in three directions; others are labeled without.
        outputs: further quantities by name (`hesse.register_quantity`), if the engine has them.
        spec: instead of the six arguments before, all of them in one object.
        differences: how curvature is taken from forces, if `engine` is a name or an ASE calculator.
        workers: number of processes, one thread each; 0 works in this process. By default 1 for a name, and 0 for an
            engine object.
        scheduler: instead of `workers`, a dask.distributed cluster, see `hesse.runtime.parallel.map_tasks`.
        timeout: seconds for one structure, after which it counts as failed; has no effect in this process.
        retry_failed: try again structures that failed before.
        overwrite: replace an existing `output` also if there is no ledger beside it, which means that its content is
            lost.
        quiet: show no progress.
        title: what the progress says before the level of theory.

    Returns:
        The labeled structures, the failures and the suspect labels. Energies are in eV, forces in eV/Å, products and
        Hessians in eV/Å².

    Raises:
        ExecutionError: no structure could be labeled, or the cluster was lost; the message has the reasons.
        InterruptedRunError: SIGINT or SIGTERM arrived; everything that was finished is in the ledger.
        RequestError: arguments that do not fit together, such as an engine object with several processes.
        HesseError: the structures, the engine, the ledger or the output cannot be used.
    """
    start = time.monotonic()
    label_spec = _label_spec(spec, probes, probe, seed, hessian, stress, outputs)
    inputs = as_structures(structures)
    _check_inputs(inputs, label_spec, output, scheduler)
    if output is not None:
        check_replaceable(output, overwrite=overwrite)
    worker_engine, workers = engine_for_workers(engine, workers, scheduler, differences)
    engine_object = as_engine(worker_engine, differences=differences)
    ledger_file = ":memory:" if output is None else ledger_path(output)
    continued = output is not None and ledger_path(output).exists()
    campaign = _Campaign(inputs, engine_object, label_spec, output, continued)
    with Ledger(ledger_file, engine=_engine_description(engine_object)) as ledger:
        for text in () if quiet else ledger.messages:
            print(text, file=sys.stderr)
        plan = make_plan(inputs, label_spec, ledger.completed(), ledger.attempts(), retry_failed=retry_failed)
        if isinstance(engine_object, PotentialEngine):
            warn_of_charge_states(engine_object.potential, [inputs[pending.index] for pending in plan.pending])
        worker_spec = (worker_engine, differences, label_spec)
        tasks = ((inputs[pending.index], pending.missing) for pending in plan.pending)
        n_done, n_failed, n_suspect = len(inputs) - len(plan.pending), 0, 0
        with track(f"{title} with {engine_object.level}", len(inputs), quiet=quiet, done=n_done) as advance:
            results = map_tasks(
                make_worker,
                worker_spec,
                tasks,
                workers=workers,
                scheduler=scheduler,
                timeout=timeout,
                on_message=lambda message: advance(0, message),
            )
            try:
                with stop_signals():
                    for result in results:
                        pending = plan.pending[result.index]
                        records = {
                            name: Record(quantity.payload, quantity.suspect_reason)
                            for name, quantity in (result.value or {}).items()
                        }
                        key, n_atoms = plan.keys[pending.index], len(inputs[pending.index])
                        ledger.write(
                            [Attempt(key, pending.missing, n_atoms, result.seconds, result.error, records)],
                        )
                        n_done, n_failed = n_done + 1, n_failed + result.failed
                        n_suspect += any(record.suspect_reason for record in records.values())
                        advance(1, _progress_note(n_failed, n_suspect))
            except StoppedError:
                results.close()
                # The signal may have come between the last record and its count: the ledger has the right number.
                rest = make_plan(inputs, label_spec, ledger.completed(), ledger.attempts(), retry_failed=False).pending
                hint = campaign.resume_hint(len(inputs) - len(rest))
                raise InterruptedRunError(f"stopped {hint}") from None
            except ExecutionError as error:
                if output is None or not n_done:
                    raise
                raise type(error)(f"{error} The campaign stopped {campaign.resume_hint(n_done)}") from error
        return campaign.report(ledger, plan, start)


def plan_labels(
    structures: StructuresLike,
    engine: EngineLike,
    output: str | Path,
    *,
    probes: int = 1,
    probe: str = "rademacher",
    seed: int = 0,
    hessian: bool = False,
    stress: bool = False,
    outputs: Collection[str] = (),
    spec: LabelSpec | None = None,
    differences: FiniteDifferences | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
) -> LabelPlan:
    """Plan a campaign: the work that `label` would do with the same arguments. Nothing is computed or written.

    Args:
        structures: as in `label`.
        engine: as in `label`.
        output: output file of the campaign; its ledger is read if it exists.
        probes: as in `label`.
        probe: as in `label`.
        seed: as in `label`.
        hessian: as in `label`.
        stress: as in `label`.
        outputs: as in `label`.
        spec: as in `label`.
        differences: as in `label`.
        retry_failed: as in `label`.
        overwrite: as in `label`.

    Returns:
        The missing quantities, and an estimate of the time that they take.

    Raises:
        HesseError: as in `label`.
    """
    label_spec = _label_spec(spec, probes, probe, seed, hessian, stress, outputs)
    inputs = as_structures(structures)
    _check_inputs(inputs, label_spec, output, scheduler=None)
    check_replaceable(output, overwrite=overwrite)
    engine_object, path = as_engine(engine, differences=differences), ledger_path(output)
    if not path.exists():
        return make_plan(inputs, label_spec, {}, [], retry_failed=retry_failed)
    with Ledger(path, engine=_engine_description(engine_object), read_only=True) as ledger:
        for text in ledger.messages:
            print(text, file=sys.stderr)
        return make_plan(inputs, label_spec, ledger.completed(), ledger.attempts(), retry_failed=retry_failed)


def _label_spec(
    spec: LabelSpec | None, probes: int, probe: str, seed: int, hessian: bool, stress: bool, outputs: Collection[str]
) -> LabelSpec:
    """The arguments as one object. Raises RequestError if both are given."""
    arguments = LabelSpec(probes, probe, seed, hessian, stress, outputs)  # type: ignore[arg-type]
    if spec is None:
        return arguments
    if not isinstance(spec, LabelSpec):
        raise RequestError(f"spec: expected a hesse.LabelSpec, got {type(spec).__name__}")
    if arguments != LabelSpec():
        raise RequestError("give either spec, or probes, probe, seed, hessian, stress and outputs, not both")
    return spec


def _engine_description(engine: Engine) -> dict[str, object]:
    """Everything that distinguishes this engine from others in the ledger."""
    settings = dict(engine.settings)
    if isinstance(engine, PotentialEngine) and not settings.keys() & {"file_digest", "weights_digest"}:
        tensors = {name: value.detach().cpu() for name, value in engine.potential.state_dict().items()}
        settings["weights_digest"] = tensor_digest({}, tensors)
    return {"name": engine.name, "level": engine.level, "settings": settings}


def _check_inputs(
    structures: Sequence[Structure], spec: LabelSpec, output: str | Path | None, scheduler: str | None
) -> None:
    ids = Counter(s.id for s in structures)
    repeated_id, count = ids.most_common(1)[0]
    if count > 1:
        raise RequestError(f'the id "{repeated_id}" occurs {count} times; ids name structures and must differ')
    if spec.stress and not any(all(structure.pbc) for structure in structures):
        raise GeometryError(
            "stress was requested, but no structure is periodic in all three directions: molecules and "
            "slabs have none, leave it out"
        )
    if spec.probe in COUNTED_BY_STRUCTURE:
        for structure in structures:
            spec.quantities_of(structure)  # raises for a structure that has no such probes
    if scheduler is not None:
        scheduler_address(scheduler)
    if output is not None:
        check_writable_suffix(output, complete=True)
        check_output_path(output)


_NARROW = 5.0
"""Å; in narrower cells the displacement of an atom is never that of a single one."""


def _width(structure: Structure) -> float:
    """Smallest distance between opposite faces of the cell, Å."""
    return float(1.0 / np.linalg.norm(np.linalg.inv(structure.cell), axis=0).max())


def _progress_note(failed: int, suspect: int) -> str:
    return ", ".join(f"{count} {word}" for count, word in ((failed, "failed"), (suspect, "suspect")) if count)


@dataclass(frozen=True)
class _Campaign:
    """Inputs of one campaign, kept for its final report."""

    structures: tuple[Structure, ...]
    engine: Engine
    spec: LabelSpec
    output: str | Path | None
    continued: bool
    """There was a ledger before."""

    def resume_hint(self, n_done: int) -> str:
        progress = f"after {n_done} of {len(self.structures)} structures"
        if self.output is None:
            return f"{progress}; without an output file nothing is kept"
        return f"{progress}, all safe in {ledger_path(self.output)}; the same command continues"

    def report(self, ledger: Ledger, plan: LabelPlan, start: float) -> LabelReport:
        """Read everything back from the ledger, write the output and sum up."""
        completed = ledger.completed()
        requested = [self.spec.quantities_of(structure) for structure in self.structures]
        complete = [i for i, key in enumerate(plan.keys) if set(requested[i]) <= completed.get(key, {}).keys()]
        attempts = ledger.attempts()
        reasons = {(a.key, a.quantities): a.reason for a in attempts}
        failed = dict(plan.failed)
        for pending in plan.pending:
            if reason := reasons.get((plan.keys[pending.index], pending.missing), ""):
                failed[pending.index] = reason
        dataset = self._assemble(ledger, plan, complete, failed)
        failures = tuple(Failure(self.structures[i].id, reason) for i, reason in sorted(failed.items()))
        if dataset is None:
            summary = "; ".join(f"{count} x {reason}" for count, reason in group_by_reason(failures)[:3])
            raise ExecutionError(
                f"none of {len(self.structures)} structures could be labeled with {self.engine.level}: {summary}"
            )
        structures = tuple(self.structures[i] for i in complete)
        # A second check needs all structures: it finds curvature that contradicts the forces of the whole data set.
        dataset, reasons_by_consensus = flag_suspect(dataset)
        suspects = []
        for i in dataset.labels.suspect_mask().nonzero()[:, 0].tolist():
            own_reasons = completed[plan.keys[complete[i]]]
            quantity_reasons = dict.fromkeys(own_reasons[name] for name in requested[complete[i]] if own_reasons[name])
            name = structures[i].id
            suspects.append(Suspect(name, "; ".join(quantity_reasons) or reasons_by_consensus[name]))
        notes = [*ledger.messages, *self._remarks(structures)]
        if self.output is not None:
            notes += describe_replaced(self.output, dataset, in_ledger=self.continued)
            write_dataset(self.output, dataset)
        seconds = dict.fromkeys(plan.keys, 0.0)
        for attempt in attempts:
            if attempt.key in seconds:
                seconds[attempt.key] += attempt.seconds
        return LabelReport(
            dataset,
            failures,
            tuple(suspects),
            len(self.structures) - len(plan.pending),
            plan.n_partial,
            time.monotonic() - start,
            sum(seconds.values()),
            notes=tuple(notes),
        )

    def _assemble(self, ledger: Ledger, plan: LabelPlan, complete: list[int], failed: dict[int, str]) -> Dataset | None:
        """The labels of the complete structures. Those whose records turn out to be damaged move from `complete` to
        `failed`. None if there is no structure."""
        while complete:
            structures = tuple(self.structures[i] for i in complete)
            records = (ledger.read(plan.keys[i], self.spec.quantities_of(self.structures[i])) for i in complete)
            try:
                labels = assemble_labels(structures, self.spec, records)
                return Dataset(structures, labels, metadata=self._metadata())
            except DamagedRecordError as error:
                index = complete.pop(error.index)
                ledger.discard(plan.keys[index], self.spec.quantities_of(self.structures[index]))
                failed[index] = "its record in the ledger was damaged; the same command computes it again"
        return None

    def _remarks(self, structures: Sequence[Structure]) -> list[str]:
        """Requested quantities that structures do not have, or that say less than they seem to, with the structures."""
        remarks = []
        if self.spec.stress:
            reason = "labeled without stress, because it is not periodic in all three directions"
            remarks += [Failure(s.id, reason) for s in structures if not all(s.pbc)]
        if self.spec.n_probes and self.spec.probe in COUNTED_BY_STRUCTURE:
            reason = (
                f"labeled with {self.spec.probe} products of a cell narrower than {_NARROW:g} Å, in which an atom "
                "moves with its images: for phonons, give supercells"
            )
            remarks += [Failure(s.id, reason) for s in structures if _width(s) < _NARROW]
        return [f"{count} x {text}" for count, text in group_by_reason(remarks)]

    def _metadata(self) -> dict[str, str]:
        engine, spec = self.engine, self.spec
        metadata = {"level": engine.level, "engine": engine.name, **engine.settings, "code_version": __version__}
        if spec.n_probes:
            metadata |= {"probe": spec.probe, "probe_seed": str(spec.seed)}
            if spec.probe not in COUNTED_BY_STRUCTURE:
                metadata["probes"] = str(spec.n_probes)
        return metadata
