"""Label campaigns: many structures, one engine, several processes; resumable, and no failure is fatal."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import torch

from hesse import __version__
from hesse.datasets import Dataset, identity_defects, require_writable_suffix, write_dataset
from hesse.engines import Differences, Engine, make_engine
from hesse.errors import ConfigError, InterruptedRunError, RequestError, WorkError
from hesse.files import require_target
from hesse.labelling.ledger import Ledger, Record, digest_of, geometry_digest
from hesse.labelling.payload import labels_from_bytes, labels_to_bytes
from hesse.probes import ProbeStream, make_probe
from hesse.progress import track
from hesse.structures import Labels, Request, Structure, collate
from hesse.workers import run_tasks

__all__ = ["Failure", "LabelReport", "LabelRequest", "label", "ledger_path", "reason_to_reject"]

GROSS = 0.1
"""Labels whose identities, or whose own error estimate, are off by more than this fraction of the label's root mean
square are recorded as failed. Sound engines stay below 0.02."""

_NAMED = 3
"""Structures named for each reason of failure."""

NEGLIGIBLE = {"forces": 0.05, "hvp": 0.1, "hessian": 0.1}
"""eV/Å and eV/Å²; defects below this are never held against a label, however small the label is. Density functionals on
a grid leave 0.02 to 0.1 eV/Å²."""


@dataclass(frozen=True)
class LabelRequest:
    """What every structure is asked.

    Attributes:
        probes: Hessian-vector products per structure; 0 for none.
        probe: family of the probes, see `hesse.probes.PROBE_KINDS`.
        seed: of the probes. A structure's probes depend on the seed and its id alone.
        hessian: full Hessians too.
        stress: stress too (structures periodic in three directions).

    Raises:
        ConfigError: a negative number of probes; UnknownOptionError: an unknown family.
    """

    probes: int = 1
    probe: str = "rademacher"
    seed: int = 0
    hessian: bool = False
    stress: bool = False

    def __post_init__(self) -> None:
        if self.probes < 0:
            raise ConfigError(f"the number of probes per structure cannot be negative, got {self.probes}")
        make_probe(self.probe, max(self.probes, 1))


@dataclass(frozen=True)
class Failure:
    """A structure without labels, and why."""

    id: str
    reason: str


@dataclass(frozen=True, eq=False)
class LabelReport:
    """What a campaign made.

    Attributes:
        dataset: the labelled structures, in the order asked.
        failures: the others.
        reused: how many labels were in the ledger already.
        seconds: wall time of this run.
        engine_seconds: summed over structures, of all runs.
    """

    dataset: Dataset
    failures: tuple[Failure, ...]
    reused: int
    seconds: float
    engine_seconds: float

    def failures_by_reason(self) -> list[tuple[int, str]]:
        """How often each reason occurs and the first ids it befell, most frequent first."""
        return _by_reason(self.failures)


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
    workers: int = 1,
    timeout: float | None = None,
    retry_failed: bool = False,
    quiet: bool = False,
) -> LabelReport:
    """Label `structures` with `engine` and write them to `output`.

    Every answer goes into a ledger beside `output` at once; the same call continues where the last one stopped, and
    computes only what is missing. A structure whose labelling fails, contradicts symmetry or kills its process is a
    record with its reason.

    Args:
        structures: labels that a `Dataset` already holds are not looked at.
        engine: text as for `hesse.engines.make_engine`, or an engine (then with `workers=0`, in this process).
        output: `.h5` or `.extxyz`; None keeps everything in memory (no ledger, nothing to resume).
        request: what to compute; energies and forces always are.
        differences: how curvature is taken from forces, when `engine` is text.
        workers: processes of one thread each.
        timeout: seconds for one structure, after which it counts as failed.
        retry_failed: ask again for what failed before.
        quiet: no progress.

    Raises:
        WorkError: no structure at all could be labelled; the message has the reasons.
        InterruptedRunError: SIGINT or SIGTERM came; everything finished is in the ledger.
        RequestError, FileFormatError, WriteError: the request, the ledger or the output is at fault.
    """
    start = time.monotonic()
    asked = request or LabelRequest()
    chosen = tuple(structures.structures if isinstance(structures, Dataset) else structures)
    _check(chosen, engine, output, workers)
    made = make_engine(engine, differences=differences) if isinstance(engine, str) else engine
    keys = [(s.id, geometry_digest(s)) for s in chosen]
    engine_digest = digest_of({"name": made.name, "level": made.level, "settings": dict(made.settings)})
    where = ":memory:" if output is None else ledger_path(output)
    with Ledger(where, engine=engine_digest, request=digest_of(asdict(asked))) as ledger:
        known = ledger.known()
        missing = [k for k, key in enumerate(keys) if key not in known or (retry_failed and not known[key])]
        tasks = [chosen[k] for k in missing]
        title = f"labelling with {made.level}"
        with track(title, len(chosen), quiet=quiet, done=len(chosen) - len(missing)) as advance:
            outcomes = run_tasks(_set_up, (engine, differences, asked), tasks, workers=workers, timeout=timeout)
            try:
                with _stop_signals():
                    for outcome in outcomes:
                        name, geometry = keys[missing[outcome.index]]
                        ledger.write([Record(name, geometry, outcome.reason, outcome.seconds, outcome.answer)])
                        advance(1)
            except _StoppedError:
                outcomes.close()
        found = ledger.records()
    finished = [key for key in keys if key in found]
    if len(finished) < len(keys):
        raise InterruptedRunError(_how_to_resume(len(finished), len(keys), output))
    return _report(chosen, [found[key] for key in keys], made, asked, output, len(chosen) - len(missing), start)


def _check(chosen: Sequence[Structure], engine: str | Engine, output: str | Path | None, workers: int) -> None:
    if not chosen:
        raise RequestError("there is no structure to label")
    ids = Counter(s.id for s in chosen)
    twice, times = ids.most_common(1)[0]
    if times > 1:
        raise RequestError(f'the id "{twice}" stands {times} times; ids name structures and must differ')
    if not isinstance(engine, str) and workers:
        raise RequestError("processes make their own engines: give the engine as text, or workers=0")
    if output is not None:
        require_writable_suffix(output)
        require_target(output)


def _how_to_resume(finished: int, total: int, output: str | Path | None) -> str:
    if output is None:
        return f"stopped after {finished} of {total} structures; without an output file nothing is kept"
    return (
        f"stopped after {finished} of {total} structures, all safe in {ledger_path(output)}; the same command continues"
    )


class _StoppedError(BaseException):
    """SIGINT or SIGTERM came. No `Exception`: nobody on the way may take it for a failure of one structure."""


@contextmanager
def _stop_signals() -> Iterator[None]:
    """SIGINT and SIGTERM raise _StoppedError, once; a second one acts as usual. Signals reach only the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, frame: FrameType | None) -> None:
        restore()
        raise _StoppedError

    try:
        for number in before:
            signal.signal(number, stop)
        yield
    finally:
        restore()


def _set_up(spec: tuple[str | Engine, Differences | None, LabelRequest]) -> Callable[[Structure], bytes]:
    """What a worker runs: an engine, and a function from a structure to its labels as bytes."""
    chosen, differences, asked = spec
    if isinstance(chosen, str):
        torch.set_num_threads(1)
        engine = make_engine(chosen, differences=differences)
    else:
        engine = chosen
    probe = make_probe(asked.probe, asked.probes) if asked.probes else None
    stream = ProbeStream(asked.seed)

    def work(structure: Structure) -> bytes:
        # Probes need no neighbours: the shortest list will do.
        directions = None if probe is None else probe.draw(collate([structure], 0.1), stream)
        labels = engine.compute(
            structure,
            Request(energy=True, forces=True, probes=directions, hessian=asked.hessian, stress=asked.stress),
        )
        reason = reason_to_reject(structure, labels)
        if reason:
            raise WorkError(reason)
        return labels_to_bytes(labels)

    return work


def reason_to_reject(structure: Structure, labels: Labels) -> str:
    """Why labels of one structure cannot be true (symmetry, or their own error estimate, says so); empty when they can.

    The limits are `GROSS` and `NEGLIGIBLE`.
    """
    defects = identity_defects([structure], labels)
    for name, label_name, unit in (
        ("forces", "forces", "eV/Å"),
        ("hvp", "Hessian-vector products", "eV/Å²"),
        ("hessian", "Hessian", "eV/Å²"),
    ):
        value, error = getattr(labels, name), getattr(labels, f"{name}_error", None)
        if value is None:
            continue
        limit = max(GROSS * float(value.square().mean().sqrt()), NEGLIGIBLE[name])
        for kind in ("translation", "rotation"):
            defect = float(getattr(defects, f"{name}_{kind}").nan_to_num(0.0).max())
            if defect > limit:
                return (
                    f'structure "{structure.id}": {label_name} violate the {kind}al identity by {defect:.2g} {unit} '
                    f"(limit {limit:.2g})"
                )
        if error is not None and float(error.nan_to_num(0.0).max()) > limit:
            return (
                f'structure "{structure.id}": {label_name} have an estimated error of {float(error.max()):.2g} {unit} '
                f"(limit {limit:.2g}): the surface is not smooth here, or the engine is noisy"
            )
    return ""


def _report(
    chosen: Sequence[Structure],
    records: Sequence[Record],
    engine: Engine,
    asked: LabelRequest,
    output: str | Path | None,
    reused: int,
    start: float,
) -> LabelReport:
    pairs, failures = [], []
    for structure, record in zip(chosen, records, strict=True):
        if record.payload is None:
            failures.append(Failure(structure.id, record.reason))
        else:
            pairs.append((structure, labels_from_bytes(record.payload)))
    if not pairs:
        lines = "; ".join(f"{count} x {reason}" for count, reason in _by_reason(failures)[:3])
        raise WorkError(f"none of {len(chosen)} structures could be labelled with {engine.level}: {lines}")
    attributes = {
        "level": engine.level,
        "engine": engine.name,
        **engine.settings,
        "code_version": __version__,
    }
    if asked.probes:
        attributes |= {"probe": asked.probe, "probes": str(asked.probes), "probe_seed": str(asked.seed)}
    dataset = Dataset.of(pairs, **attributes)
    if output is not None:
        write_dataset(output, dataset)
    return LabelReport(
        dataset,
        tuple(failures),
        reused,
        time.monotonic() - start,
        sum(record.seconds for record in records),
    )


def _by_reason(failures: Sequence[Failure]) -> list[tuple[int, str]]:
    ids: dict[str, list[str]] = {}
    for failure in failures:
        ids.setdefault(failure.reason.replace(f'structure "{failure.id}": ', ""), []).append(failure.id)
    found = []
    for reason, of in sorted(ids.items(), key=lambda item: -len(item[1])):
        names = ", ".join(f'"{name}"' for name in of[:_NAMED]) + (", ..." if len(of) > _NAMED else "")
        found.append((len(of), f"{reason} ({names})"))
    return found
