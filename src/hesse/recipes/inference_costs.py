"""What it costs to ask a trained potential: energies, forces, Hessian-vector products and Hessians of many structures,
or of a large one."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from hesse.curvature import evaluate_many
from hesse.devices import keep_freed_memory, require_device
from hesse.errors import ConfigError, require_choice
from hesse.potential import Potential
from hesse.probes import ProbeStream, make_probe
from hesse.progress import track
from hesse.recipes.step_costs import threads_set
from hesse.recipes.timing import Timing, Work, peak_mib, rounds_within, take_turns, timed
from hesse.structures import Request, Structure, collate

__all__ = ["QUESTIONS", "InferenceCost", "InferencePlan", "measure_inference_costs"]

QUESTIONS = ("e", "ef", "hvp", "hessian")
"""Energies; with forces; with one Hessian-vector product each; with full Hessians."""


@dataclass(frozen=True)
class InferencePlan:
    """How to measure.

    Attributes:
        schemes: which of `QUESTIONS`.
        dtypes: "float32", "float64".
        device: where.
        threads: CPU threads of torch; None leaves them as they are.
        repeats: of every question, in turns with the others.
        patience: seconds for the repetitions of one question: slow ones are repeated less often. Hessians that would
            take longer than this once (by what a product takes) are left out.
        memory_mib: bound on the memory of what is computed together; None for a default by device.

    Raises:
        UnknownOptionError: a scheme or type that does not exist.
        ConfigError: nothing to measure, or numbers that are not positive.
    """

    schemes: tuple[str, ...] = QUESTIONS
    dtypes: tuple[str, ...] = ("float32",)
    device: str = "cpu"
    threads: int | None = 1
    repeats: int = 7
    patience: float = 30.0
    memory_mib: float | None = None

    def __post_init__(self) -> None:
        for name, valid in (("schemes", QUESTIONS), ("dtypes", ("float32", "float64"))):
            chosen = getattr(self, name)
            if not chosen:
                raise ConfigError(f"a measurement of answers needs {name}: {', '.join(valid)}")
            for one in chosen:
                require_choice(one, valid, name.removesuffix("s"))
            object.__setattr__(self, name, tuple(one for one in valid if one in chosen))
        if self.repeats < 1 or (self.threads is not None and self.threads < 1) or not self.patience > 0:
            raise ConfigError("repeats, threads and patience (seconds) must be above zero")


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
    """Time the questions to all potentials in turns, through `hesse.curvature.evaluate_many`. Neighbour lists are known
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
    device = require_device(plan.device)
    keep_freed_memory()
    rows: list[InferenceCost] = []
    left_out: list[str] = []
    with threads_set(plan.threads):
        for dtype in plan.dtypes:
            some, without = _in_one_type(potentials, structures, plan, dtype, device, quiet)
            rows += some
            left_out += without
    return rows, left_out


def _in_one_type(
    potentials: Mapping[str, Potential],
    structures: Sequence[Structure],
    plan: InferencePlan,
    dtype: str,
    device: torch.device,
    quiet: bool,
) -> tuple[list[InferenceCost], list[str]]:
    works: dict[tuple[str, str], Work] = {}
    peaks: dict[tuple[str, str], float] = {}
    seconds: dict[tuple[str, str], float] = {}
    left_out: list[str] = []
    # What a product takes tells what a Hessian will.
    needed = {*plan.schemes, *(("ef", "hvp") if "hessian" in plan.schemes else ())}
    columns = 3 * max(len(s) for s in structures)
    with track(f"{dtype}: measuring memory", len(potentials), quiet=quiet) as advance:
        for name, given in potentials.items():
            potential = copy.deepcopy(given).to(dtype=getattr(torch, dtype), device=device).eval()
            for scheme in (question for question in QUESTIONS if question in needed):
                expected = 0.0
                if scheme == "hessian":  # one noisy timing of each may make a product seem free
                    product = max(seconds[name, "hvp"] - seconds[name, "ef"], 0.25 * seconds[name, "hvp"])
                    expected = columns * product
                if expected > plan.patience:
                    left_out.append(
                        f"{name}, {dtype}: Hessians of structures with up to {columns // 3} atoms would take about "
                        f"{expected:.0f} s (by what a product takes); patience is {plan.patience:g} s"
                    )
                    continue
                work = _work(potential, structures, scheme, plan.memory_mib)
                seconds[name, scheme] = timed(work, device)[0]
                if scheme in plan.schemes:
                    peaks[name, scheme] = peak_mib(work, device)
                    works[name, scheme] = work
            advance(1, name)
    rounds = {key: rounds_within(plan.patience, seconds[key], plan.repeats) for key in works}
    with track(f"{dtype}: timing {len(works)} questions in turns", plan.repeats, quiet=quiet) as advance:
        timings = take_turns(works, device, rounds, advance=advance)
    by_clock = device.type != "cpu"

    def row(key: tuple[str, str], mine: Timing) -> InferenceCost:
        base = timings.get((key[0], "ef"))
        return InferenceCost(
            subject=key[0],
            scheme=key[1],
            mode="eager",
            dtype=dtype,
            device=plan.device,
            structures=len(structures),
            atoms=sum(len(s) for s in structures),
            seconds=mine.seconds,
            peak_mib=peaks[key],
            ratio_to_ef=None if base is None else mine.over(base, by_clock=by_clock),
            process_seconds=mine.process_seconds,
            repeats=len(mine.wall),
            threads=torch.get_num_threads(),
        )

    return [row(key, timing) for key, timing in timings.items()], left_out


def _work(potential: Potential, structures: Sequence[Structure], scheme: str, memory_mib: float | None) -> Work:
    """Asks one question of all structures."""
    probes = None
    if scheme == "hvp":
        probes = make_probe("rademacher", 1).draw(collate(structures, 0.1), ProbeStream(0))
    request = Request(forces=scheme != "e", probes=probes, hessian=scheme == "hessian")
    return lambda: evaluate_many(potential, structures, request, memory_mib=memory_mib)
