"""Label campaigns: many structures, one engine, several processes or a cluster; resumable, and no failure is fatal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hesse._version import __version__
from hesse.datasets import Dataset, check_writable_suffix, flag_suspect, write_dataset
from hesse.engines import Engine, FiniteDifferences, make_engine
from hesse.errors import ExecutionError, InterruptedRunError, RequestError
from hesse.labelling.label_report import Failure, LabelReport, Suspect, group_by_reason
from hesse.labelling.ledger import Attempt, Ledger, Record
from hesse.labelling.plan import LabelPlan, make_plan
from hesse.labelling.serialization import assemble_labels
from hesse.labelling.spec import LabelSpec
from hesse.labelling.worker import make_worker
from hesse.runtime.filesystem import check_output_path
from hesse.runtime.parallel import map_tasks, scheduler_address
from hesse.runtime.progress import track
from hesse.runtime.signals import StoppedError, stop_signals
from hesse.structures import Structure

__all__ = ["label", "ledger_path", "plan_labels"]


def ledger_path(output: str | Path) -> Path:
    """Where the ledger of a campaign lies: beside its output."""
    return Path(f"{output}.ledger.sqlite")


def label(
    structures: Sequence[Structure] | Dataset,
    engine: str | Engine,
    output: str | Path | None = None,
    *,
    spec: LabelSpec | None = None,
    differences: FiniteDifferences | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    timeout: float | None = None,
    retry_failed: bool = False,
    quiet: bool = False,
) -> LabelReport:
    """Label `structures` with `engine` and write them to `output`.

    Every answer goes into a ledger beside `output` at once; the same call continues where the last one stopped, and
    asks only for what is missing: more probes, or Hessians, are added to what is there. A structure whose labeling
    fails or kills its process is a record with its reason. Labels that contradict symmetry, or whose own error estimate
    is large, are kept and flagged suspect.

    Args:
        structures: labels that a `Dataset` already holds are not looked at.
        engine: text as for `hesse.engines.make_engine`, or an engine (then with `workers=0`, in this process).
        output: `.h5` or `.extxyz`; None keeps everything in memory (no ledger, nothing to resume).
        request: what to compute; energies and forces always are.
        differences: how curvature is taken from forces, when `engine` is text.
        workers: processes of one thread each; one by default.
        scheduler: instead, a dask.distributed cluster, see `hesse.runtime.parallel.map_tasks`.
        timeout: seconds for one structure, after which it counts as failed.
        retry_failed: ask again for what failed before.
        quiet: no progress.

    Raises:
        WorkError: no structure at all could be labeled, or the cluster was lost; the message has the reasons.
        InterruptedRunError: SIGINT or SIGTERM came; everything finished is in the ledger.
        RequestError, FileFormatError, WriteError: the request, the ledger or the output is at fault.
    """
    start = time.monotonic()
    label_spec = spec or LabelSpec()
    inputs = _structure_tuple(structures)
    _check_inputs(inputs, engine, output, workers, scheduler)
    engine_object = make_engine(engine, differences=differences) if isinstance(engine, str) else engine
    ledger_file = ":memory:" if output is None else ledger_path(output)
    campaign = _Campaign(inputs, engine_object, label_spec, output)
    with Ledger(ledger_file, engine=_engine_description(engine_object)) as ledger:
        plan = make_plan(inputs, label_spec, ledger.completed(), ledger.attempts(), retry_failed=retry_failed)
        worker_spec = (engine, differences, label_spec)
        tasks = ((inputs[one.index], one.missing) for one in plan.pending)
        n_done, n_failed, n_suspect = len(inputs) - len(plan.pending), 0, 0
        with track(f"labeling with {engine_object.level}", len(inputs), quiet=quiet, done=n_done) as advance:
            results = map_tasks(
                make_worker,
                worker_spec,
                tasks,
                workers=workers,
                scheduler=scheduler,
                timeout=timeout,
                on_message=lambda news: advance(0, news),
            )
            try:
                with stop_signals():
                    for result in results:
                        one = plan.pending[result.index]
                        records = {
                            name: Record(answer.payload, answer.suspect_reason)
                            for name, answer in (result.value or {}).items()
                        }
                        n_atoms = len(inputs[one.index])
                        ledger.write(
                            [Attempt(plan.keys[one.index], one.missing, n_atoms, result.seconds, result.error, records)]
                        )
                        n_done, n_failed = n_done + 1, n_failed + result.failed
                        n_suspect += any(record.suspect_reason for record in records.values())
                        advance(1, _progress_note(n_failed, n_suspect))
            except StoppedError:
                results.close()
                raise InterruptedRunError(f"stopped {campaign.resume_hint(n_done)}") from None
            except ExecutionError as error:
                if output is None or not n_done:
                    raise
                raise type(error)(f"{error} The campaign stopped {campaign.resume_hint(n_done)}") from error
        return campaign.report(ledger, plan, start)


def plan_labels(
    structures: Sequence[Structure] | Dataset,
    engine: str | Engine,
    output: str | Path,
    *,
    spec: LabelSpec | None = None,
    differences: FiniteDifferences | None = None,
    retry_failed: bool = False,
) -> LabelPlan:
    """What `label` would ask with the same arguments. Nothing is computed or written.

    Raises:
        RequestError, FileFormatError: as `label`.
    """
    inputs = _structure_tuple(structures)
    _check_inputs(inputs, engine, output, workers=0, scheduler=None)
    engine_object = make_engine(engine, differences=differences) if isinstance(engine, str) else engine
    label_spec, path = spec or LabelSpec(), ledger_path(output)
    if not path.exists():
        return make_plan(inputs, label_spec, {}, [], retry_failed=retry_failed)
    with Ledger(path, engine=_engine_description(engine_object), read_only=True) as ledger:
        return make_plan(inputs, label_spec, ledger.completed(), ledger.attempts(), retry_failed=retry_failed)


def _structure_tuple(structures: Sequence[Structure] | Dataset) -> tuple[Structure, ...]:
    return tuple(structures.structures if isinstance(structures, Dataset) else structures)


def _engine_description(engine: Engine) -> dict[str, object]:
    return {"name": engine.name, "level": engine.level, "settings": dict(engine.settings)}


def _check_inputs(
    structures: Sequence[Structure],
    engine: str | Engine,
    output: str | Path | None,
    workers: int | None,
    scheduler: str | None,
) -> None:
    if not structures:
        raise RequestError("there is no structure to label")
    ids = Counter(s.id for s in structures)
    repeated_id, count = ids.most_common(1)[0]
    if count > 1:
        raise RequestError(f'the id "{repeated_id}" stands {count} times; ids name structures and must differ')
    if not isinstance(engine, str) and (workers != 0 or scheduler is not None):
        raise RequestError("processes make their own engines: give the engine as text, or workers=0")
    if scheduler is not None:
        scheduler_address(scheduler)
    if output is not None:
        check_writable_suffix(output)
        check_output_path(output)


def _progress_note(failed: int, suspect: int) -> str:
    return ", ".join(f"{count} {what}" for count, what in ((failed, "failed"), (suspect, "suspect")) if count)


@dataclass(frozen=True)
class _Campaign:
    """What was asked of whom, for whoever sums it up."""

    structures: tuple[Structure, ...]
    engine: Engine
    spec: LabelSpec
    output: str | Path | None

    def resume_hint(self, n_done: int) -> str:
        progress = f"after {n_done} of {len(self.structures)} structures"
        if self.output is None:
            return f"{progress}; without an output file nothing is kept"
        return f"{progress}, all safe in {ledger_path(self.output)}; the same command continues"

    def report(self, ledger: Ledger, plan: LabelPlan, start: float) -> LabelReport:
        """Read everything back from the ledger, write the output and sum up."""
        requested, completed = self.spec.quantities(), ledger.completed()
        complete = [i for i, key in enumerate(plan.keys) if all(name in completed.get(key, {}) for name in requested)]
        attempts = ledger.attempts()
        reasons = {(a.key, a.quantities): a.reason for a in attempts}
        failed = dict(plan.failed)
        for pending in plan.pending:
            if reason := reasons[plan.keys[pending.index], pending.missing]:
                failed[pending.index] = reason
        failures = tuple(Failure(self.structures[i].id, reason) for i, reason in sorted(failed.items()))
        if not complete:
            summary = "; ".join(f"{count} x {reason}" for count, reason in group_by_reason(failures)[:3])
            raise ExecutionError(
                f"none of {len(self.structures)} structures could be labeled with {self.engine.level}: {summary}"
            )
        structures = tuple(self.structures[i] for i in complete)
        records = (ledger.read(plan.keys[i], requested) for i in complete)
        dataset = Dataset(structures, assemble_labels(structures, self.spec, records), metadata=self._attributes())
        # What one structure cannot know of itself, the others may: curvature that all of them contradict.
        dataset, reasons_by_consensus = flag_suspect(dataset)
        suspects = []
        for i in dataset.labels.suspect_mask().nonzero()[:, 0].tolist():
            quantity_reasons = dict.fromkeys(
                reason for name in requested if (reason := completed[plan.keys[complete[i]]][name])
            )
            name = structures[i].id
            suspects.append(Suspect(name, "; ".join(quantity_reasons) or reasons_by_consensus[name]))
        if self.output is not None:
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
        )

    def _attributes(self) -> dict[str, str]:
        engine, spec = self.engine, self.spec
        attributes = {"level": engine.level, "engine": engine.name, **engine.settings, "code_version": __version__}
        if spec.n_probes:
            attributes |= {"probe": spec.probe, "probes": str(spec.n_probes), "probe_seed": str(spec.seed)}
        return attributes
