"""Cost of inference: energies, forces, Hessian-vector products and Hessians of many structures, or of a large one."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from hesse.bench.timing import Timing, Work, peak_memory_mib, repeats_within, time_interleaved, time_once
from hesse.curvature import evaluate_structures
from hesse.datasets import StructuresLike, as_structures
from hesse.engines import PotentialLike, as_potential
from hesse.errors import ConfigError, check_choice
from hesse.potential import Potential
from hesse.probes import ProbeSeed, make_probe
from hesse.runtime.devices import device_from_name, disable_malloc_trim, torch_threads
from hesse.runtime.progress import track
from hesse.structures import Request, Structure, collate

__all__ = ["INFERENCE_SCHEMES", "InferenceCost", "InferencePlan", "measure_inference_costs"]

INFERENCE_SCHEMES = ("e", "ef", "hvp", "hessian")
"""Computed properties: energies; with forces; with one Hessian-vector product per structure; with Hessians."""


@dataclass(frozen=True)
class InferencePlan:
    """Settings of the measurement.

    Attributes:
        schemes: computed properties, one or several of `INFERENCE_SCHEMES`.
        dtypes: "float32", "float64".
        device: device of the calculation.
        threads: CPU threads of torch; None leaves them unchanged.
        repeats: repetitions of every calculation, interleaved with the others.
        time_budget: seconds for the repetitions of one calculation; slow ones are repeated less often. Hessians are
            left out if one calculation would take longer, estimated from the time of a product.
        memory_mib: maximum memory of a batch; None for the default of the device.

    Raises:
        UnknownOptionError: unknown scheme or floating-point type.
        ConfigError: an empty list, or a number that is not positive.
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
                raise ConfigError(f"a measurement of inference needs {name}: {', '.join(valid)}")
            for value in chosen:
                check_choice(value, valid, name.removesuffix("s"))
            object.__setattr__(self, name, tuple(value for value in valid if value in chosen))
        if self.repeats < 1 or (self.threads is not None and self.threads < 1) or not self.time_budget > 0:
            raise ConfigError("repeats, threads and time_budget (seconds) must be above zero")


@dataclass(frozen=True)
class InferenceCost:
    """Cost of one calculation for all structures.

    Attributes:
        subject: name of the potential.
        scheme: "e", "ef", "hvp" or "hessian" (the latter two with energies and forces).
        mode: always "eager".
        dtype, device: floating-point type and device of the calculation.
        structures, atoms: number of structures and atoms.
        seconds: wall time including the construction of batches, median of the repetitions.
        peak_mib: peak memory of tensors in addition to those that existed before, MiB.
        ratio_to_ef: ratio to the time of energies and forces, as in `StepCost`.
        process_seconds: process time of all threads, median of the repetitions.
        repeats: number of repetitions.
        threads: CPU threads of torch.
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


def measure_inference_costs(
    potentials: Mapping[str, PotentialLike],
    structures: StructuresLike,
    plan: InferencePlan | None = None,
    *,
    quiet: bool = False,
) -> tuple[list[InferenceCost], list[str]]:
    """Time `hesse.curvature.evaluate_structures` for all potentials, repetitions interleaved. Neighbor lists are
    computed before.

    Args:
        potentials: the potentials (or their paths or names) by the names in the table.
        structures: Structures, ASE Atoms, a data set or the path of a file.
        plan: settings; None for the defaults.
        quiet: show no progress.

    Returns:
        The costs, and sentences about the calculations that were left out.

    Raises:
        ConfigError: no potential, or a device that cannot be used.
        RequestError: no structure.
        UnknownElementError: a potential does not know an element.
    """
    plan = plan or InferencePlan()
    if not potentials:
        raise ConfigError("a measurement of inference needs a potential")
    loaded = {name: as_potential(potential) for name, potential in potentials.items()}
    structures = as_structures(structures)
    device = device_from_name(plan.device)
    disable_malloc_trim()
    rows: list[InferenceCost] = []
    left_out: list[str] = []
    with torch_threads(plan.threads):
        for dtype in plan.dtypes:
            dtype_rows, dtype_left_out = _measure_dtype(loaded, structures, plan, dtype, device, quiet)
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
    # The time of a Hessian is estimated from the time of a product.
    needed = {*plan.schemes, *(("ef", "hvp") if "hessian" in plan.schemes else ())}
    columns = 3 * max(len(s) for s in structures)
    with track(f"{dtype}: measuring memory", len(potentials), quiet=quiet) as advance:
        for name, original in potentials.items():
            potential = copy.deepcopy(original).to(dtype=getattr(torch, dtype), device=device).eval()
            for scheme in (scheme for scheme in INFERENCE_SCHEMES if scheme in needed):
                expected = 0.0
                if scheme == "hessian":  # the difference of two noisy timings may be too small
                    hvp_seconds = max(seconds[name, "hvp"] - seconds[name, "ef"], 0.25 * seconds[name, "hvp"])
                    expected = columns * hvp_seconds
                if expected > plan.time_budget:
                    left_out.append(
                        f"{name}, {dtype}: Hessians of structures with up to {columns // 3} atoms would take about "
                        f"{expected:.0f} s (estimated from the time of a product); the limit is {plan.time_budget:g} s"
                    )
                    continue
                call = _make_call(potential, structures, scheme, plan.memory_mib)
                seconds[name, scheme] = time_once(call, device)[0]
                if scheme in plan.schemes:
                    peaks[name, scheme] = peak_memory_mib(call, device)
                    calls[name, scheme] = call
            advance(1, name)
    repeats = {key: repeats_within(plan.time_budget, seconds[key], plan.repeats) for key in calls}
    with track(f"{dtype}: timing {len(calls)} calculations", plan.repeats, quiet=quiet) as advance:
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
    """The function that is timed."""
    probes = None
    if scheme == "hvp":
        probes = make_probe("rademacher", 1).draw(collate(structures, 0.1), ProbeSeed(0))
    request = Request(forces=scheme != "e", probes=probes, hessian=scheme == "hessian")
    return lambda: evaluate_structures(potential, structures, request, memory_mib=memory_mib)
