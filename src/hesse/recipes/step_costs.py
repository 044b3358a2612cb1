"""What a training step costs: loss of energies and forces, of Hessian-vector products, of Hessians, and its gradient in
the parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from hesse.devices import keep_freed_memory, require_device
from hesse.errors import CompilationError, ConfigError, require_choice
from hesse.progress import track
from hesse.recipes.step_subjects import SCHEMES, StepSubject, Task
from hesse.recipes.timing import Timing, Work, peak_mib, rounds_within, take_turns, timed
from hesse.recipes.workloads import labelled_at_random
from hesse.structures import Structure

__all__ = ["StepCost", "StepCosts", "StepPlan", "measure_step_costs", "threads_set"]

MODES = ("eager", "compiled")
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class StepPlan:
    """How to measure.

    Attributes:
        schemes: which losses: "ef", "ef_hvp", "ef_h".
        modes: "eager", "compiled".
        dtypes: "float32", "float64".
        probes: Hessian-vector products per structure.
        device: where.
        threads: CPU threads of torch; None leaves them as they are.
        repeats: of every step, in turns with the others.
        patience: seconds for the repetitions of one step; slow ones are repeated less often, but once at least.
        memory_mib: an E-F-H step that would need more is taken in parts (whole structures each); where one structure
            alone would need more, it is left out.

    Raises:
        UnknownOptionError: a scheme, mode or type that does not exist.
        ConfigError: nothing to measure, or numbers that are not positive.
    """

    schemes: tuple[str, ...] = SCHEMES
    modes: tuple[str, ...] = ("eager",)
    dtypes: tuple[str, ...] = ("float32",)
    probes: int = 1
    device: str = "cpu"
    threads: int | None = 1
    repeats: int = 7
    patience: float = 30.0
    memory_mib: float = 4096.0

    def __post_init__(self) -> None:
        for name, valid in (("schemes", SCHEMES), ("modes", MODES), ("dtypes", DTYPES)):
            chosen = tuple(dict.fromkeys(getattr(self, name)))
            if not chosen:
                raise ConfigError(f"a measurement of steps needs {name}: {', '.join(valid)}")
            for one in chosen:
                require_choice(one, valid, name.removesuffix("s"))
            object.__setattr__(self, name, tuple(one for one in valid if one in chosen))
        if min(self.probes, self.repeats) < 1 or (self.threads is not None and self.threads < 1):
            raise ConfigError("probes, repeats and threads must be at least one")
        if not (self.patience > 0 and self.memory_mib > 0):
            raise ConfigError("patience (seconds) and memory (MiB) must be above zero")


@dataclass(frozen=True)
class StepCost:
    """The cost of one step.

    Attributes:
        subject: who takes it.
        scheme: "ef", "ef_hvp" or "ef_h".
        mode: "eager" or "compiled".
        dtype, device: of the calculation.
        structures, atoms: of the batch, in all.
        seconds: by the clock, median of the repeats.
        peak_mib: tensors that exist at once during the step, beyond model and batch, MiB.
        ratio_to_ef: how many times as long as the E-F step, median over repetitions side by side: of process time on a
            CPU, which other work on the machine disturbs little, and by the clock on other devices. None without "ef".
        process_seconds: process time (all threads), median of the repeats.
        repeats: how many.
        threads: of torch on the CPU.
        probes: Hessian-vector products per structure.
        parts: graphs that the step was spread over.
        loss: of the step; subjects with the same weights have the same.
    """

    subject: str
    scheme: str
    mode: str
    dtype: str
    device: str
    structures: int
    atoms: int
    seconds: float
    peak_mib: float
    ratio_to_ef: float | None
    process_seconds: float
    repeats: int
    threads: int
    probes: int
    parts: int
    loss: float

    def to_json(self) -> dict[str, Any]:
        """As a row of a machine-readable result."""
        return asdict(self)


@dataclass(frozen=True)
class StepCosts:
    """Rows, and sentences about what was left out."""

    rows: tuple[StepCost, ...] = ()
    left_out: tuple[str, ...] = ()


def measure_step_costs(
    subjects: Sequence[StepSubject],
    structures: Sequence[Structure],
    plan: StepPlan | None = None,
    *,
    quiet: bool = False,
) -> StepCosts:
    """Time one training step on `structures` (with labels of random numbers) for all subjects in turns.

    Raises:
        ConfigError: no subject or structure, two subjects of one name, a device that cannot be used.
        UnknownElementError: a subject does not know an element of the structures.
    """
    plan = plan or StepPlan()
    names = [subject.name for subject in subjects]
    if not names or not structures:
        raise ConfigError("a measurement of steps needs something to train, and at least one structure")
    if len(set(names)) < len(names):
        raise ConfigError(f"each subject is measured once, got {', '.join(names)}")
    require_device(plan.device)
    keep_freed_memory()  # as training does
    found = StepCosts()
    with threads_set(plan.threads):
        for dtype in plan.dtypes:
            one = _Measurement(subjects, structures, plan, dtype).go(quiet=quiet)
            found = StepCosts(found.rows + one.rows, found.left_out + one.left_out)
    return found


@contextmanager
def threads_set(threads: int | None) -> Iterator[None]:
    """So many threads of torch inside; what there were afterwards."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    yield
    torch.set_num_threads(before)


Key = tuple[str, str, str]
"""Subject, mode, scheme."""


@dataclass
class _Measurement:
    """All subjects, modes and schemes in one type."""

    subjects: Sequence[StepSubject]
    structures: Sequence[Structure]
    plan: StepPlan
    dtype: str
    works: dict[Key, Work] = field(default_factory=dict)
    peaks: dict[Key, float] = field(default_factory=dict)
    seconds: dict[Key, float] = field(default_factory=dict)
    losses: dict[Key, float] = field(default_factory=dict)
    parts: dict[Key, int] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def go(self, *, quiet: bool) -> StepCosts:
        plan, device = self.plan, torch.device(self.plan.device)
        chosen = [(s, mode) for s in self.subjects for mode in plan.modes if mode in s.modes]
        with track(f"{self.dtype}: measuring memory", len(chosen), quiet=quiet) as advance:
            for subject, mode in chosen:
                self._prepare(subject, mode)
                advance(1, f"{subject.name}, {mode}")
        with track(f"{self.dtype}: timing {len(self.works)} steps in turns", plan.repeats, quiet=quiet) as advance:
            rounds = {key: rounds_within(plan.patience, self.seconds[key], plan.repeats) for key in self.works}
            timings = take_turns(self.works, device, rounds, advance=advance)
        return StepCosts(tuple(self._row(key, timings) for key in self.works), tuple(self.left_out))

    def _prepare(self, subject: StepSubject, mode: str) -> None:
        """The work of every scheme, done once while its memory is counted."""
        plan = self.plan
        light = labelled_at_random(self.structures, probes=plan.probes)
        schemes = [scheme for scheme in plan.schemes if scheme in subject.schemes]
        task = Task(light, "ef", mode, getattr(torch, self.dtype), torch.device(plan.device))
        # How much one more direction takes tells how many Hessian columns fit into memory.
        needed = [*schemes, *(("ef", "ef_hvp") if "ef_h" in schemes and mode == "eager" else ())]
        try:
            for scheme in ("ef", "ef_hvp"):
                if scheme in needed:
                    self._try(subject, task.of(scheme), keep=scheme in schemes)
        except CompilationError as error:
            self.left_out.append(f"{subject.name}, {mode}, {self.dtype}: {error}")
            return
        if "ef_h" in schemes and mode == "eager":  # full Hessians are not compiled
            parts = self._parts(subject, mode)
            if parts is not None:
                heavy = labelled_at_random(self.structures, probes=0, hessian=True)
                self._try(subject, Task(heavy, "ef_h", mode, task.dtype, task.device, parts), keep=True)

    def _try(self, subject: StepSubject, task: Task, *, keep: bool) -> None:
        key = (subject.name, task.mode, task.scheme)
        work = subject.work(task)
        if task.scheme != "ef_h":  # those are long
            work()  # what is set up or compiled once and for all
        answers: list[tuple[float, float, Tensor]] = []
        self.peaks[key] = peak_mib(lambda: answers.append(timed(work, task.device)), task.device)
        self.seconds[key], _, loss = answers[0]
        self.losses[key], self.parts[key] = float(loss), task.parts
        if keep:
            self.works[key] = work

    def _parts(self, subject: StepSubject, mode: str) -> int | None:
        """How many parts an E-F-H step must have to stay within memory; None where that is not possible."""
        plan = self.plan
        forces, product = (self.peaks[subject.name, mode, scheme] for scheme in ("ef", "ef_hvp"))
        columns = 3 * max(len(s) for s in self.structures)
        expected = forces + columns * max(product - forces, 0.0) / plan.probes
        parts = max(1, math.ceil(expected / plan.memory_mib))
        if parts <= len(self.structures):
            return parts
        self.left_out.append(
            f"{subject.name}, {mode}, {self.dtype}: an E-F-H step on {columns // 3} atoms would need about "
            f"{expected / 1024:.0f} GiB (by what one product takes); the limit is {plan.memory_mib:.0f} MiB"
        )
        return None

    def _row(self, key: Key, timings: dict[Key, Timing]) -> StepCost:
        subject, mode, scheme = key
        plan, mine = self.plan, timings[key]
        base = timings.get((subject, mode, "ef"))
        return StepCost(
            subject=subject,
            scheme=scheme,
            mode=mode,
            dtype=self.dtype,
            device=plan.device,
            structures=len(self.structures),
            atoms=sum(len(s) for s in self.structures),
            seconds=mine.seconds,
            peak_mib=self.peaks[key],
            ratio_to_ef=None if base is None else mine.over(base, by_clock=plan.device != "cpu"),
            process_seconds=mine.process_seconds,
            repeats=len(mine.wall),
            threads=torch.get_num_threads(),
            probes=plan.probes,
            parts=self.parts[key],
            loss=self.losses[key],
        )
