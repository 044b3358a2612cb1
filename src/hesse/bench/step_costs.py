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

from hesse.bench.cases import SCHEMES, BenchmarkCase, StepSpec
from hesse.bench.timing import Timing, Work, peak_memory_mib, repeats_within, time_interleaved, time_once
from hesse.bench.workloads import with_random_labels
from hesse.errors import CompilationError, ConfigError, check_choice
from hesse.runtime.devices import device_from_name, disable_malloc_trim
from hesse.runtime.progress import track
from hesse.structures import Structure

__all__ = ["StepCost", "StepCosts", "StepPlan", "measure_step_costs", "torch_threads"]

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
        time_budget: seconds for the repetitions of one step; slow ones are repeated less often, but once at least.
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
    time_budget: float = 30.0
    memory_mib: float = 4096.0

    def __post_init__(self) -> None:
        for name, valid in (("schemes", SCHEMES), ("modes", MODES), ("dtypes", DTYPES)):
            chosen = tuple(dict.fromkeys(getattr(self, name)))
            if not chosen:
                raise ConfigError(f"a measurement of steps needs {name}: {', '.join(valid)}")
            for one in chosen:
                check_choice(one, valid, name.removesuffix("s"))
            object.__setattr__(self, name, tuple(one for one in valid if one in chosen))
        if min(self.probes, self.repeats) < 1 or (self.threads is not None and self.threads < 1):
            raise ConfigError("probes, repeats and threads must be at least one")
        if not (self.time_budget > 0 and self.memory_mib > 0):
            raise ConfigError("time_budget (seconds) and memory (MiB) must be above zero")


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
    cases: Sequence[BenchmarkCase],
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
    names = [subject.name for subject in cases]
    if not names or not structures:
        raise ConfigError("a measurement of steps needs something to train, and at least one structure")
    if len(set(names)) < len(names):
        raise ConfigError(f"each subject is measured once, got {', '.join(names)}")
    device_from_name(plan.device)
    disable_malloc_trim()  # as training does
    costs = StepCosts()
    with torch_threads(plan.threads):
        for dtype in plan.dtypes:
            measured = _Measurement(cases, structures, plan, dtype).run(quiet=quiet)
            costs = StepCosts(costs.rows + measured.rows, costs.left_out + measured.left_out)
    return costs


@contextmanager
def torch_threads(n_threads: int | None) -> Iterator[None]:
    """So many threads of torch inside; what there were afterwards."""
    before = torch.get_num_threads()
    if n_threads is not None:
        torch.set_num_threads(n_threads)
    yield
    torch.set_num_threads(before)


StepKey = tuple[str, str, str]
"""Subject, mode, scheme."""


@dataclass
class _Measurement:
    """All subjects, modes and schemes in one type."""

    cases: Sequence[BenchmarkCase]
    structures: Sequence[Structure]
    plan: StepPlan
    dtype: str
    steps: dict[StepKey, Work] = field(default_factory=dict)
    peaks: dict[StepKey, float] = field(default_factory=dict)
    seconds: dict[StepKey, float] = field(default_factory=dict)
    losses: dict[StepKey, float] = field(default_factory=dict)
    n_microbatches: dict[StepKey, int] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def run(self, *, quiet: bool) -> StepCosts:
        plan, device = self.plan, torch.device(self.plan.device)
        case_modes = [(s, mode) for s in self.cases for mode in plan.modes if mode in s.modes]
        with track(f"{self.dtype}: measuring memory", len(case_modes), quiet=quiet) as advance:
            for case, mode in case_modes:
                self._prepare(case, mode)
                advance(1, f"{case.name}, {mode}")
        with track(f"{self.dtype}: timing {len(self.steps)} steps in turns", plan.repeats, quiet=quiet) as advance:
            repeats = {key: repeats_within(plan.time_budget, self.seconds[key], plan.repeats) for key in self.steps}
            timings = time_interleaved(self.steps, device, repeats, advance=advance)
        return StepCosts(tuple(self._row(key, timings) for key in self.steps), tuple(self.left_out))

    def _prepare(self, case: BenchmarkCase, mode: str) -> None:
        """The work of every scheme, done once while its memory is counted."""
        plan = self.plan
        hvp_data = with_random_labels(self.structures, probes=plan.probes)
        schemes = [scheme for scheme in plan.schemes if scheme in case.schemes]
        spec = StepSpec(hvp_data, "ef", mode, getattr(torch, self.dtype), torch.device(plan.device))
        # How much one more direction takes tells how many Hessian columns fit into memory.
        needed = [*schemes, *(("ef", "ef_hvp") if "ef_h" in schemes and mode == "eager" else ())]
        try:
            for scheme in ("ef", "ef_hvp"):
                if scheme in needed:
                    self._measure_once(case, spec.with_scheme(scheme), keep=scheme in schemes)
        except CompilationError as error:
            self.left_out.append(f"{case.name}, {mode}, {self.dtype}: {error}")
            return
        if "ef_h" in schemes and mode == "eager":  # full Hessians are not compiled
            n_microbatches = self._n_microbatches_within_memory(case, mode)
            if n_microbatches is not None:
                hessian_data = with_random_labels(self.structures, probes=0, hessian=True)
                self._measure_once(
                    case, StepSpec(hessian_data, "ef_h", mode, spec.dtype, spec.device, n_microbatches), keep=True
                )

    def _measure_once(self, case: BenchmarkCase, spec: StepSpec, *, keep: bool) -> None:
        key = (case.name, spec.mode, spec.scheme)
        take_step = case.make_step(spec)
        if spec.scheme != "ef_h":  # those are long
            take_step()  # what is set up or compiled once and for all
        results: list[tuple[float, float, Tensor]] = []
        self.peaks[key] = peak_memory_mib(lambda: results.append(time_once(take_step, spec.device)), spec.device)
        self.seconds[key], _, loss = results[0]
        self.losses[key], self.n_microbatches[key] = float(loss), spec.n_microbatches
        if keep:
            self.steps[key] = take_step

    def _n_microbatches_within_memory(self, case: BenchmarkCase, mode: str) -> int | None:
        """How many parts an E-F-H step must have to stay within memory; None where that is not possible."""
        plan = self.plan
        ef_mib, hvp_mib = (self.peaks[case.name, mode, scheme] for scheme in ("ef", "ef_hvp"))
        columns = 3 * max(len(s) for s in self.structures)
        expected_mib = ef_mib + columns * max(hvp_mib - ef_mib, 0.0) / plan.probes
        n_microbatches = max(1, math.ceil(expected_mib / plan.memory_mib))
        if n_microbatches <= len(self.structures):
            return n_microbatches
        self.left_out.append(
            f"{case.name}, {mode}, {self.dtype}: an E-F-H step on {columns // 3} atoms would need about "
            f"{expected_mib / 1024:.0f} GiB (by what one product takes); the limit is {plan.memory_mib:.0f} MiB"
        )
        return None

    def _row(self, key: StepKey, timings: dict[StepKey, Timing]) -> StepCost:
        subject, mode, scheme = key
        plan, timing = self.plan, timings[key]
        ef_timing = timings.get((subject, mode, "ef"))
        return StepCost(
            subject=subject,
            scheme=scheme,
            mode=mode,
            dtype=self.dtype,
            device=plan.device,
            structures=len(self.structures),
            atoms=sum(len(s) for s in self.structures),
            seconds=timing.seconds,
            peak_mib=self.peaks[key],
            ratio_to_ef=None if ef_timing is None else timing.ratio_to(ef_timing, wall_time=plan.device != "cpu"),
            process_seconds=timing.process_seconds,
            repeats=len(timing.wall),
            threads=torch.get_num_threads(),
            probes=plan.probes,
            parts=self.n_microbatches[key],
            loss=self.losses[key],
        )
