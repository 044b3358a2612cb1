"""Label campaigns: many structures, one engine, several processes or a cluster; resumable, and no failure is fatal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hesse import __version__
from hesse.datasets import Dataset, flag_suspects, require_writable_suffix, write_dataset
from hesse.engines import Differences, Engine, make_engine
from hesse.errors import InterruptedRunError, RequestError, WorkError
from hesse.files import require_target
from hesse.labelling.assembly import assemble_labels
from hesse.labelling.ledger import Attempt, Ledger, Record
from hesse.labelling.plan import LabelPlan, make_plan
from hesse.labelling.report import Failure, LabelReport, Suspect, by_reason
from hesse.labelling.request import LabelRequest
from hesse.labelling.signals import StoppedError, stop_signals
from hesse.labelling.work import set_up
from hesse.progress import track
from hesse.structures import Structure
from hesse.workers import address_of, run_tasks

__all__ = ["label", "ledger_path", "plan_labels"]


def ledger_path(output: str | Path) -> Path:
    """Where the ledger of a campaign lies: beside its output."""
    return Path(f"{output}.ledger.sqlite")


def label(
    structures: Sequence[Structure] | Dataset,
    engine: str | Engine,
    output: str | Path | None = None,
    *,
    request: LabelRequest | None = None,
    differences: Differences | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    timeout: float | None = None,
    retry_failed: bool = False,
    quiet: bool = False,
) -> LabelReport:
    """Label `structures` with `engine` and write them to `output`.

    Every answer goes into a ledger beside `output` at once; the same call continues where the last one stopped, and
    asks only for what is missing: more probes, or Hessians, are added to what is there. A structure whose labelling
    fails or kills its process is a record with its reason. Labels that contradict symmetry, or whose own error estimate
    is large, are kept and flagged suspect.

    Args:
        structures: labels that a `Dataset` already holds are not looked at.
        engine: text as for `hesse.engines.make_engine`, or an engine (then with `workers=0`, in this process).
        output: `.h5` or `.extxyz`; None keeps everything in memory (no ledger, nothing to resume).
        request: what to compute; energies and forces always are.
        differences: how curvature is taken from forces, when `engine` is text.
        workers: processes of one thread each; one by default.
        scheduler: instead, a dask.distributed cluster, see `hesse.workers.run_tasks`.
        timeout: seconds for one structure, after which it counts as failed.
        retry_failed: ask again for what failed before.
        quiet: no progress.

    Raises:
        WorkError: no structure at all could be labelled, or the cluster was lost; the message has the reasons.
        InterruptedRunError: SIGINT or SIGTERM came; everything finished is in the ledger.
        RequestError, FileFormatError, WriteError: the request, the ledger or the output is at fault.
    """
    start = time.monotonic()
    asked = request or LabelRequest()
    chosen = _chosen(structures)
    _check(chosen, engine, output, workers, scheduler)
    made = make_engine(engine, differences=differences) if isinstance(engine, str) else engine
    where = ":memory:" if output is None else ledger_path(output)
    campaign = _Campaign(chosen, made, asked, output)
    with Ledger(where, engine=_described(made)) as ledger:
        plan = make_plan(chosen, asked, ledger.known(), ledger.attempts(), retry_failed=retry_failed)
        spec = (engine, differences, asked)
        tasks = ((chosen[one.index], one.missing) for one in plan.open)
        done, failed, suspect = len(chosen) - len(plan.open), 0, 0
        with track(f"labelling with {made.level}", len(chosen), quiet=quiet, done=done) as advance:
            outcomes = run_tasks(
                set_up,
                spec,
                tasks,
                workers=workers,
                scheduler=scheduler,
                timeout=timeout,
                notify=lambda news: advance(0, news),
            )
            try:
                with stop_signals():
                    for outcome in outcomes:
                        one = plan.open[outcome.index]
                        records = {
                            name: Record(answer.payload, answer.suspect)
                            for name, answer in (outcome.answer or {}).items()
                        }
                        size = len(chosen[one.index])
                        ledger.write(
                            [Attempt(plan.keys[one.index], one.missing, size, outcome.seconds, outcome.reason, records)]
                        )
                        done, failed = done + 1, failed + outcome.failed
                        suspect += any(record.suspect for record in records.values())
                        advance(1, _note(failed, suspect))
            except StoppedError:
                outcomes.close()
                raise InterruptedRunError(f"stopped {campaign.how_to_resume(done)}") from None
            except WorkError as error:
                if output is None or not done:
                    raise
                raise type(error)(f"{error} The campaign stopped {campaign.how_to_resume(done)}") from error
        return campaign.report(ledger, plan, start)


def plan_labels(
    structures: Sequence[Structure] | Dataset,
    engine: str | Engine,
    output: str | Path,
    *,
    request: LabelRequest | None = None,
    differences: Differences | None = None,
    retry_failed: bool = False,
) -> LabelPlan:
    """What `label` would ask with the same arguments. Nothing is computed or written.

    Raises:
        RequestError, FileFormatError: as `label`.
    """
    chosen = _chosen(structures)
    _check(chosen, engine, output, workers=0, scheduler=None)
    made = make_engine(engine, differences=differences) if isinstance(engine, str) else engine
    asked, path = request or LabelRequest(), ledger_path(output)
    if not path.exists():
        return make_plan(chosen, asked, {}, [], retry_failed=retry_failed)
    with Ledger(path, engine=_described(made), read_only=True) as ledger:
        return make_plan(chosen, asked, ledger.known(), ledger.attempts(), retry_failed=retry_failed)


def _chosen(structures: Sequence[Structure] | Dataset) -> tuple[Structure, ...]:
    return tuple(structures.structures if isinstance(structures, Dataset) else structures)


def _described(engine: Engine) -> dict[str, object]:
    return {"name": engine.name, "level": engine.level, "settings": dict(engine.settings)}


def _check(
    chosen: Sequence[Structure],
    engine: str | Engine,
    output: str | Path | None,
    workers: int | None,
    scheduler: str | None,
) -> None:
    if not chosen:
        raise RequestError("there is no structure to label")
    ids = Counter(s.id for s in chosen)
    twice, times = ids.most_common(1)[0]
    if times > 1:
        raise RequestError(f'the id "{twice}" stands {times} times; ids name structures and must differ')
    if not isinstance(engine, str) and (workers != 0 or scheduler is not None):
        raise RequestError("processes make their own engines: give the engine as text, or workers=0")
    if scheduler is not None:
        address_of(scheduler)
    if output is not None:
        require_writable_suffix(output)
        require_target(output)


def _note(failed: int, suspect: int) -> str:
    return ", ".join(f"{count} {what}" for count, what in ((failed, "failed"), (suspect, "suspect")) if count)


@dataclass(frozen=True)
class _Campaign:
    """What was asked of whom, for whoever sums it up."""

    chosen: tuple[Structure, ...]
    engine: Engine
    asked: LabelRequest
    output: str | Path | None

    def how_to_resume(self, finished: int) -> str:
        after = f"after {finished} of {len(self.chosen)} structures"
        if self.output is None:
            return f"{after}; without an output file nothing is kept"
        return f"{after}, all safe in {ledger_path(self.output)}; the same command continues"

    def report(self, ledger: Ledger, plan: LabelPlan, start: float) -> LabelReport:
        """Read everything back from the ledger, write the output and sum up."""
        wanted, known = self.asked.quantities(), ledger.known()
        whole = [i for i, key in enumerate(plan.keys) if all(name in known.get(key, {}) for name in wanted)]
        attempts = ledger.attempts()
        reasons = {(a.key, a.asked): a.reason for a in attempts}
        failed = dict(plan.failed)
        for one in plan.open:
            if reason := reasons[plan.keys[one.index], one.missing]:
                failed[one.index] = reason
        failures = tuple(Failure(self.chosen[i].id, reason) for i, reason in sorted(failed.items()))
        if not whole:
            lines = "; ".join(f"{count} x {reason}" for count, reason in by_reason(failures)[:3])
            raise WorkError(
                f"none of {len(self.chosen)} structures could be labelled with {self.engine.level}: {lines}"
            )
        structures = tuple(self.chosen[i] for i in whole)
        records = (ledger.labels(plan.keys[i], wanted) for i in whole)
        dataset = Dataset(structures, assemble_labels(structures, self.asked, records), attributes=self._attributes())
        # What one structure cannot know of itself, the others may: curvature that all of them contradict.
        dataset, against = flag_suspects(dataset)
        suspects = []
        for i in dataset.labels.suspects().nonzero()[:, 0].tolist():
            said = dict.fromkeys(reason for name in wanted if (reason := known[plan.keys[whole[i]]][name]))
            name = structures[i].id
            suspects.append(Suspect(name, "; ".join(said) or against[name]))
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
            len(self.chosen) - len(plan.open),
            plan.topped_up,
            time.monotonic() - start,
            sum(seconds.values()),
        )

    def _attributes(self) -> dict[str, str]:
        engine, asked = self.engine, self.asked
        found = {"level": engine.level, "engine": engine.name, **engine.settings, "code_version": __version__}
        if asked.probes:
            found |= {"probe": asked.probe, "probes": str(asked.probes), "probe_seed": str(asked.seed)}
        return found
