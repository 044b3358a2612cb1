"""Comparison of the error estimates of Hessian-vector products with their true errors.

    python benchmarks/label_errors.py RESULTS.jsonl --only gfn2 --only hf --only dft --minutes 15
    python benchmarks/label_errors.py RESULTS.jsonl --costs

Structures are molecules of the G2 set with random displacements of 0.05 Å of every coordinate, with one Rademacher
direction each. The true error is the difference from a reference at tighter settings: for GFN2-xTB and Hartree-Fock
sixth-order differences (six gradients) of SCF solutions converged at least a hundred times tighter; for functionals the
central difference of a short step on PySCF's finest grid (level 9). Gradients are counted. Every result is a line of
RESULTS.jsonl; the same command continues.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.build import molecule
from ase.collections import g2

from hesse.datasets import sum_rule_errors
from hesse.engines import AnalyticDerivatives, EnergyFunction, FiniteDifferences, ForceEngine, XtbEngine
from hesse.engines.pyscf import PyscfEngine
from hesse.structures import Request, Structure, from_ase

JITTER = 0.05
SMALL = ("H2O", "NH3", "HCN", "H2CO", "CH4", "C2H2", "CH2_s1A1d", "CO2", "N2O", "F2O", "H2O2", "N2H4", "C2H4", "CH3OH")
HF_BASIS = "hf/6-31g*"
DFT = "wb97x/6-31g*"


@dataclass(frozen=True)
class Case:
    """One way to compute a label, and the kind of its reference value."""

    kind: str
    name: str
    engine: Callable[[], ForceEngine]


CASES = (
    Case("gfn2", "GFN2-xTB, two gradients", lambda: XtbEngine("gfn2")),
    Case("gfn2", "GFN2-xTB, Richardson", lambda: XtbEngine("gfn2", differences=FiniteDifferences(richardson=True))),
    Case("hf", "HF/6-31G*, two gradients", lambda: PyscfEngine(HF_BASIS)),
    Case("hf", "HF/6-31G*, Richardson", lambda: PyscfEngine(HF_BASIS, differences=FiniteDifferences(richardson=True))),
    Case("hf", "HF/6-31G*, analytic", lambda: PyscfEngine(HF_BASIS, hvp="analytic")),
    Case("dft", "wB97X/6-31G*, grid 5, two gradients", lambda: PyscfEngine(DFT)),
    Case(
        "dft",
        "wB97X/6-31G*, grid 5, Richardson",
        lambda: PyscfEngine(DFT, differences=FiniteDifferences(richardson=True)),
    ),
    Case("dft", "wB97X/6-31G*, grid 3, two gradients", lambda: PyscfEngine(DFT, grid=3)),
    Case("dft", "wB97X/6-31G*, grid 5, analytic", lambda: PyscfEngine(DFT, hvp="analytic")),
)


class Counted(ForceEngine):
    """An engine that counts its gradients."""

    def __init__(self, engine: ForceEngine) -> None:
        self.engine = engine
        self.name, self.level, self.settings = engine.name, engine.level, engine.settings
        self.differences, self.gradient_noise = engine.differences, engine.gradient_noise
        self.gradients = 0
        self.grid_forces: list[np.ndarray | None] = []

    def energy_function(self, structure: Structure) -> EnergyFunction:
        self.inner = self.engine.energy_function(structure)

        def point(positions: np.ndarray) -> Any:
            self.gradients += 1
            result = self.inner(positions)
            self.grid_forces.append(result.grid_forces)
            return result

        return point

    def analytic_derivatives(
        self, structure: Structure, energy_function: EnergyFunction, request: Request
    ) -> AnalyticDerivatives:
        return self.engine.analytic_derivatives(structure, self.inner, request)


def jittered(names: tuple[str, ...] | list[str], rounds: int) -> Iterator[tuple[Structure, np.ndarray]]:
    """Displaced structures and directions: one of every molecule, then the next round."""
    for round_index in range(rounds):
        for number, name in enumerate(names):
            atoms = molecule(name)
            rng = np.random.default_rng([round_index, number])
            atoms.positions += JITTER * rng.normal(size=atoms.positions.shape)
            yield from_ase(atoms, id=f"{name}-{round_index}"), rng.choice([-1.0, 1.0], size=atoms.positions.shape)


def closed_shells() -> list[str]:
    """The molecules of the G2 set that are closed shells of more than one atom."""
    entries = []
    for name in g2.names:
        atoms = molecule(name)
        if len(atoms) > 1 and atoms.numbers.sum() % 2 == 0 and not atoms.get_initial_magnetic_moments().any():
            entries.append(name)
    return entries


def slope(surface: EnergyFunction, x: np.ndarray, v: np.ndarray, step: float) -> np.ndarray:
    return (surface(x - step * v).forces - surface(x + step * v).forces) / (2 * step)


def sixth_order(surface: EnergyFunction, x: np.ndarray, v: np.ndarray, step: float) -> np.ndarray:
    inner, middle, outer = (slope(surface, x, v, k * step) for k in (1, 2, 4))
    return (64 * inner - 20 * middle + outer) / 45


def reference(kind: str, structure: Structure, v: np.ndarray) -> np.ndarray:
    """`H v` at tighter settings."""
    if kind == "gfn2":
        return sixth_order(XtbEngine("gfn2", accuracy=1e-8).energy_function(structure), structure.positions, v, 2e-3)
    if kind == "hf":
        tight = PyscfEngine(HF_BASIS, energy_threshold=1e-12, gradient_threshold=1e-9)
        return sixth_order(tight.energy_function(structure), structure.positions, v, 4e-3)
    return slope(
        PyscfEngine(DFT, grid=9, gradient_threshold=1e-8).energy_function(structure), structure.positions, v, 3e-4
    )


def measured(case: Case, structure: Structure, v: np.ndarray, exact: np.ndarray) -> dict[str, Any]:
    """Error estimate and true error of one label, and their components."""
    engine = Counted(case.engine())
    probes = torch.from_numpy(v[None])
    start = time.perf_counter()
    labels = engine.compute(structure, Request(forces=True, probes=probes))
    seconds = time.perf_counter() - start
    products = engine.gradients - 1
    defects = sum_rule_errors([structure], labels)
    return {
        "case": case.name,
        "structure": structure.id,
        "true": float(np.sqrt(np.mean((labels.hvp[0].numpy() - exact) ** 2))),
        "estimate": float(labels.hvp_error[0, 0]),
        "translation": float(defects.hvp_translation[0, 0].nan_to_num(0.0)),
        "rotation": float(defects.hvp_rotation[0, 0].nan_to_num(0.0)),
        "size": float(labels.hvp.square().mean().sqrt()),
        "gradients": products,
        "seconds": seconds,
        "hvp": labels.hvp[0].tolist(),
        "grid": [None if g is None else g.tolist() for g in engine.grid_forces],
    }


def run(results: Path, kinds: list[str], minutes: float, part: str) -> None:
    """Compute missing labels and references; `part` selects cases by a part of their names."""
    plans = {
        "gfn2": jittered(closed_shells(), 1),
        "hf": jittered(SMALL, 2),
        "dft": jittered(SMALL[:11], 6),
    }
    entries = rows(results)
    done = {(row["case"], row["structure"]) for row in entries if "case" in row}
    known = {(row["reference"], row["structure"]): np.array(row["value"]) for row in entries if "reference" in row}
    for kind in kinds:
        end = time.monotonic() + 60 * minutes
        for structure, v in plans[kind]:
            if time.monotonic() > end:
                break
            cases = [c for c in CASES if c.kind == kind and part in c.name]
            missing = [c for c in cases if (c.name, structure.id) not in done]
            if not missing:
                continue
            if (kind, structure.id) not in known:
                value = reference(kind, structure, v)
                write(results, {"reference": kind, "structure": structure.id, "value": value.tolist()})
                known[kind, structure.id] = value
            for case in missing:
                write(results, measured(case, structure, v, known[kind, structure.id]))


def write(results: Path, row: dict[str, Any]) -> None:
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def rows(results: Path) -> list[dict[str, Any]]:
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines() if line.strip()]


def table(entries: list[dict[str, Any]]) -> str:
    """The results as a Markdown table."""
    lines = [
        "| label | n | gradients | true error, median | worst | estimate / true, median | from | to | within 3 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        case_rows = [row for row in entries if row.get("case") == case.name]
        if not case_rows:
            continue
        true = np.array([row["true"] for row in case_rows])
        ratio = np.array([row["estimate"] for row in case_rows]) / true
        inside = np.mean((ratio > 1 / 3) & (ratio < 3))
        gradients = sorted({row["gradients"] for row in case_rows})
        lines.append(
            f"| {case.name} | {len(case_rows)} | {', '.join(map(str, gradients))} | {np.median(true):.1e} | "
            f"{true.max():.1e} | "
            f"{np.median(ratio):.2f} | {ratio.min():.2f} | {ratio.max():.2f} | {100 * inside:.0f} % |"
        )
    return "\n".join(lines)


def costs() -> str:
    """Processor time of labels in units of one energy and gradient, as Markdown; shortest of up to three."""
    lines = [
        "| molecule | level | gradient, s | 1 product | 4 products | 1 analytic | 4 | Hessian | by differences |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for level, names in (("gfn2", ("H2O", "CH3CH2OH", "C6H6")), (HF_BASIS, ("H2O", "H2CO", "CH3OH"))):
        for name in names:
            structure, direction = next(jittered((name,), 1))
            one = torch.from_numpy(direction[None])
            four = one.repeat(4, 1, 1)
            plain = XtbEngine(level) if level == "gfn2" else PyscfEngine(level)
            unit = processor_time(plain, structure, Request(forces=True))
            cells = [processor_time(plain, structure, Request(forces=True, probes=v)) / unit for v in (one, four)]
            if level == "gfn2":
                cells += [np.nan, np.nan, np.nan, processor_time(plain, structure, Request(hessian=True)) / unit]
            else:
                analytic = PyscfEngine(level, hvp="analytic")
                cells += [processor_time(analytic, structure, Request(probes=v)) / unit for v in (one, four)]
                cells += [processor_time(plain, structure, Request(hessian=True)) / unit, np.nan]
            shown = " | ".join("" if np.isnan(cell) else f"{cell:.1f}" for cell in cells)
            lines.append(f"| {name} | {level} | {unit:.2g} | {shown} |")
    return "\n".join(lines)


def processor_time(engine: ForceEngine, structure: Structure, request: Request) -> float:
    entries = []
    while len(entries) < 3 and sum(entries) < 5.0:
        start = time.process_time()
        engine.compute(structure, request)
        entries.append(time.process_time() - start)
    return min(entries)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="a file of JSON lines; results in it are not computed again")
    parser.add_argument("--only", action="append", choices=("gfn2", "hf", "dft"), help="default: report only")
    parser.add_argument("--minutes", type=float, default=15.0, help="for each kind; the current structure is completed")
    parser.add_argument("--case", default="", help='part of the names of the cases to compute ("two gradients")')
    parser.add_argument("--costs", action="store_true", help="also print the table of costs (a few minutes)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.only:
        run(arguments.results, arguments.only, arguments.minutes, arguments.case)
    print(table(rows(arguments.results)))
    if arguments.costs:
        print(costs())


if __name__ == "__main__":
    main()
