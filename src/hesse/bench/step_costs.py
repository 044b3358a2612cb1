"""Cost of a training step: the loss with energies and forces, Hessian-vector products or Hessians, and its gradient
with respect to the parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hesse.bench.cases import SCHEMES, BenchmarkCase, StepSpec
from hesse.bench.timing import Timing, Work, peak_memory_mib, repeats_within, time_interleaved, time_once
from hesse.bench.workloads import with_random_labels
from hesse.datasets import StructuresLike, as_structures
from hesse.errors import CompilationError, ConfigError, check_choice
from hesse.runtime.devices import device_from_name, disable_malloc_trim, torch_threads
from hesse.runtime.progress import track
from hesse.structures import Structure

__all__ = ["StepCost", "StepCosts", "StepPlan", "measure_step_costs"]

MODES = ("eager", "compiled")
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class StepPlan:
    """Settings of the measurement.

    Attributes:
        schemes: labels in the loss: "ef", "ef_hvp", "ef_h".
        modes: "eager", "compiled".
        dtypes: "float32", "float64".
        probes: Hessian-vector products per structure.
        device: device of the calculation.
        threads: CPU threads of torch; None leaves them unchanged.
        repeats: repetitions of every step, interleaved with the other steps.
        time_budget: seconds for the repetitions of one step; slow steps are repeated less often, but at least once.
        memory_mib: an E-F-H step that would need more memory is split into microbatches of whole structures; it is left
            out if one structure alone would need more.

    Raises:
        UnknownOptionError: unknown scheme, mode or floating-point type.
        ConfigError: an empty list, or a number that is not positive.
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
            for value in chosen:
                check_choice(value, valid, name.removesuffix("s"))
            object.__setattr__(self, name, tuple(value for value in valid if value in chosen))
        if min(self.probes, self.repeats) < 1 or (self.threads is not None and self.threads < 1):
            raise ConfigError("probes, repeats and threads must be at least one")
        if not (self.time_budget > 0 and self.memory_mib > 0):
            raise ConfigError("time_budget (seconds) and memory (MiB) must be above zero")


@dataclass(frozen=True)
class StepCost:
    """Cost of one step.

    Attributes:
        subject: name of the potential or program.
        scheme: "ef", "ef_hvp" or "ef_h".
        mode: "eager" or "compiled".
        dtype, device: floating-point type and device of the calculation.
        structures, atoms: number of structures and atoms in the batch.
        seconds: wall time, median of the repetitions.
        peak_mib: peak memory of tensors during the step in addition to model and batch, MiB.
        ratio_to_ef: ratio to the time of the E-F step, median over the interleaved repetitions: process time on a CPU,
            which depends little on other load, and wall time on other devices. None without "ef".
        process_seconds: process time of all threads, median of the repetitions.
        repeats: number of repetitions.
        threads: CPU threads of torch.
        probes: Hessian-vector products per structure.
        parts: number of microbatches.
        loss: loss of the step; the same for subjects with the same weights.
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


@dataclass(frozen=True)
class StepCosts:
    """Costs of all steps, and sentences about the steps that were left out."""

    rows: tuple[StepCost, ...] = ()
    left_out: tuple[str, ...] = ()


def measure_step_costs(
    cases: Sequence[BenchmarkCase],
    structures: StructuresLike,
    plan: StepPlan | None = None,
    *,
    quiet: bool = False,
) -> StepCosts:
    """Time one training step of every case on the same structures with random labels, repetitions interleaved.

    Args:
        cases: potentials and programs with different names.
        structures: the structures of the step: Structures, ASE Atoms, a data set or the path of a file.
        plan: settings; None for the defaults.
        quiet: show no progress.

    Returns:
        The costs.

    Raises:
        ConfigError: no case, two cases with one name, or a device that cannot be used.
        RequestError: no structure.
        UnknownElementError: a case does not know an element of the structures.
    """
    plan = plan or StepPlan()
    structures = as_structures(structures)
    names = [case.name for case in cases]
    if not names:
        raise ConfigError("a measurement of steps needs something to train")
    if len(set(names)) < len(names):
        raise ConfigError(f"each case is measured once, got {', '.join(names)}")
    device_from_name(plan.device)
    disable_malloc_trim()  # as training does
    costs = StepCosts()
    with torch_threads(plan.threads):
        for dtype in plan.dtypes:
            measured = _Measurement(cases, structures, plan, dtype).run(quiet=quiet)
            costs = StepCosts(costs.rows + measured.rows, costs.left_out + measured.left_out)
    return costs


StepKey = tuple[str, str, str]
"""Subject, mode, scheme."""


@dataclass
class _Measurement:
    """Measurement of all cases, modes and schemes in one floating-point type."""

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
        with track(f"{self.dtype}: timing {len(self.steps)} steps", plan.repeats, quiet=quiet) as advance:
            repeats = {key: repeats_within(plan.time_budget, self.seconds[key], plan.repeats) for key in self.steps}
            timings = time_interleaved(self.steps, device, repeats, advance=advance)
        return StepCosts(tuple(self._row(key, timings) for key in self.steps), tuple(self.left_out))

    def _prepare(self, case: BenchmarkCase, mode: str) -> None:
        """Make the steps of all schemes, and run each once to measure its memory."""
        plan = self.plan
        hvp_data = with_random_labels(self.structures, probes=plan.probes)
        schemes = [scheme for scheme in plan.schemes if scheme in case.schemes]
        spec = StepSpec(hvp_data, "ef", mode, getattr(torch, self.dtype), torch.device(plan.device))
        # The memory of one more direction is the memory of one more Hessian column.
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
        if spec.scheme != "ef_h":  # long steps are not repeated
            take_step()  # includes setup and compilation, which are not timed
        results: list[tuple[float, float, Tensor]] = []
        self.peaks[key] = peak_memory_mib(lambda: results.append(time_once(take_step, spec.device)), spec.device)
        self.seconds[key], _, loss = results[0]
        self.losses[key], self.n_microbatches[key] = float(loss), spec.n_microbatches
        if keep:
            self.steps[key] = take_step

    def _n_microbatches_within_memory(self, case: BenchmarkCase, mode: str) -> int | None:
        """Number of microbatches for which an E-F-H step stays within the memory; None if that is not possible."""
        plan = self.plan
        ef_mib, hvp_mib = (self.peaks[case.name, mode, scheme] for scheme in ("ef", "ef_hvp"))
        columns = 3 * max(len(s) for s in self.structures)
        expected_mib = ef_mib + columns * max(hvp_mib - ef_mib, 0.0) / plan.probes
        n_microbatches = max(1, math.ceil(expected_mib / plan.memory_mib))
        if n_microbatches <= len(self.structures):
            return n_microbatches
        self.left_out.append(
            f"{case.name}, {mode}, {self.dtype}: an E-F-H step on {columns // 3} atoms would need about "
            f"{expected_mib / 1024:.0f} GiB (estimated from the memory of one product); the limit is "
            f"{plan.memory_mib:.0f} MiB"
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
