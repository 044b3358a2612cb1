"""What it costs to ask a trained potential: energies, forces, Hessian-vector products and Hessians of many structures,
or of a large one."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from hesse.bench.step_costs import torch_threads
from hesse.bench.timing import Timing, Work, peak_memory_mib, repeats_within, time_interleaved, time_once
from hesse.curvature import evaluate_structures
from hesse.errors import ConfigError, check_choice
from hesse.potential import Potential
from hesse.probes import ProbeSeed, make_probe
from hesse.runtime.devices import device_from_name, disable_malloc_trim
from hesse.runtime.progress import track
from hesse.structures import Request, Structure, collate

__all__ = ["INFERENCE_SCHEMES", "InferenceCost", "InferencePlan", "measure_inference_costs"]

INFERENCE_SCHEMES = ("e", "ef", "hvp", "hessian")
"""Energies; with forces; with one Hessian-vector product each; with full Hessians."""


@dataclass(frozen=True)
class InferencePlan:
    """How to measure.

    Attributes:
        schemes: which of `INFERENCE_SCHEMES`.
        dtypes: "float32", "float64".
        device: where.
        threads: CPU threads of torch; None leaves them as they are.
        repeats: of every question, in turns with the others.
        time_budget: seconds for the repetitions of one question: slow ones are repeated less often. Hessians that would
            take longer than this once (by what a product takes) are left out.
        memory_mib: bound on the memory of what is computed together; None for a default by device.

    Raises:
        UnknownOptionError: a scheme or type that does not exist.
        ConfigError: nothing to measure, or numbers that are not positive.
    """

    schemes: tuple[str, ...] = INFERENCE_SCHEMES
    dtypes: tuple[str, ...] = ("float32",)
    device: str = "cpu"
    threads: int | None = 1
    repeats: int = 7
    time_budget: float = 30.0
    memory_mib: float | None = None

    def __post_init__(self) -> None:
        for name, valid in (("schemes", INFERENCE_SCHEMES), ("dtypes", ("float32", "float64"))):
            chosen = getattr(self, name)
            if not chosen:
                raise ConfigError(f"a measurement of answers needs {name}: {', '.join(valid)}")
            for one in chosen:
                check_choice(one, valid, name.removesuffix("s"))
            object.__setattr__(self, name, tuple(one for one in valid if one in chosen))
        if self.repeats < 1 or (self.threads is not None and self.threads < 1) or not self.time_budget > 0:
            raise ConfigError("repeats, threads and time_budget (seconds) must be above zero")


@dataclass(frozen=True)
class InferenceCost:
    """The cost of one question, asked of all structures.

    Attributes:
        subject: who answers.
        scheme: "e", "ef", "hvp" or "hessian" (the latter two with energies and forces).
        mode: always "eager".
        dtype, device: of the calculation.
        structures, atoms: asked about, in all.
        seconds: by the clock, median of the repeats, building the batches included.
        peak_mib: tensors that exist at once, beyond what was there before, MiB.
        ratio_to_ef: how many times as long as energies and forces, as in `StepCost`.
        process_seconds: process time (all threads), median of the repeats.
        repeats: how many.
        threads: of torch on the CPU.
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

    def to_json(self) -> dict[str, Any]:
        """As a row of a machine-readable result."""
        return asdict(self)


def measure_inference_costs(
    potentials: Mapping[str, Potential],
    structures: Sequence[Structure],
    plan: InferencePlan | None = None,
    *,
    quiet: bool = False,
) -> tuple[list[InferenceCost], list[str]]:
    """Time the questions to all potentials in turns, through `hesse.curvature.evaluate_structures`. Neighbor lists are known
    when the clock starts.

    Returns:
        The rows, and sentences about what was left out.

    Raises:
        ConfigError: no potential or structure, a device that cannot be used.
        UnknownElementError: a potential does not know an element.
    """
    plan = plan or InferencePlan()
    if not potentials or not structures:
        raise ConfigError("a measurement of answers needs a potential, and at least one structure")
    device = device_from_name(plan.device)
    disable_malloc_trim()
    rows: list[InferenceCost] = []
    left_out: list[str] = []
    with torch_threads(plan.threads):
        for dtype in plan.dtypes:
            dtype_rows, dtype_left_out = _measure_dtype(potentials, structures, plan, dtype, device, quiet)
            rows += dtype_rows
            left_out += dtype_left_out
    return rows, left_out


def _measure_dtype(
    potentials: Mapping[str, Potential],
    structures: Sequence[Structure],
    plan: InferencePlan,
    dtype: str,
    device: torch.device,
    quiet: bool,
) -> tuple[list[InferenceCost], list[str]]:
    calls: dict[tuple[str, str], Work] = {}
    peaks: dict[tuple[str, str], float] = {}
    seconds: dict[tuple[str, str], float] = {}
    left_out: list[str] = []
    # What a product takes tells what a Hessian will.
    needed = {*plan.schemes, *(("ef", "hvp") if "hessian" in plan.schemes else ())}
    columns = 3 * max(len(s) for s in structures)
    with track(f"{dtype}: measuring memory", len(potentials), quiet=quiet) as advance:
        for name, original in potentials.items():
            potential = copy.deepcopy(original).to(dtype=getattr(torch, dtype), device=device).eval()
            for scheme in (question for question in INFERENCE_SCHEMES if question in needed):
                expected = 0.0
                if scheme == "hessian":  # one noisy timing of each may make a product seem free
                    hvp_seconds = max(seconds[name, "hvp"] - seconds[name, "ef"], 0.25 * seconds[name, "hvp"])
                    expected = columns * hvp_seconds
                if expected > plan.time_budget:
                    left_out.append(
                        f"{name}, {dtype}: Hessians of structures with up to {columns // 3} atoms would take about "
                        f"{expected:.0f} s (by what a product takes); patience is {plan.time_budget:g} s"
                    )
                    continue
                call = _make_call(potential, structures, scheme, plan.memory_mib)
                seconds[name, scheme] = time_once(call, device)[0]
                if scheme in plan.schemes:
                    peaks[name, scheme] = peak_memory_mib(call, device)
                    calls[name, scheme] = call
            advance(1, name)
    repeats = {key: repeats_within(plan.time_budget, seconds[key], plan.repeats) for key in calls}
    with track(f"{dtype}: timing {len(calls)} questions in turns", plan.repeats, quiet=quiet) as advance:
        timings = time_interleaved(calls, device, repeats, advance=advance)
    wall_time = device.type != "cpu"

    def row(key: tuple[str, str], timing: Timing) -> InferenceCost:
        ef_timing = timings.get((key[0], "ef"))
        return InferenceCost(
            subject=key[0],
            scheme=key[1],
            mode="eager",
            dtype=dtype,
            device=plan.device,
            structures=len(structures),
            atoms=sum(len(s) for s in structures),
            seconds=timing.seconds,
            peak_mib=peaks[key],
            ratio_to_ef=None if ef_timing is None else timing.ratio_to(ef_timing, wall_time=wall_time),
            process_seconds=timing.process_seconds,
            repeats=len(timing.wall),
            threads=torch.get_num_threads(),
        )

    return [row(key, timing) for key, timing in timings.items()], left_out


def _make_call(potential: Potential, structures: Sequence[Structure], scheme: str, memory_mib: float | None) -> Work:
    """Asks one question of all structures."""
    probes = None
    if scheme == "hvp":
        probes = make_probe("rademacher", 1).draw(collate(structures, 0.1), ProbeSeed(0))
    request = Request(forces=scheme != "e", probes=probes, hessian=scheme == "hessian")
    return lambda: evaluate_structures(potential, structures, request, memory_mib=memory_mib)
