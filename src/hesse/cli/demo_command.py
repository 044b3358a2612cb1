"""`hesse demo`: from molecules to a trained and evaluated potential, with molecules that ship with ASE."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("demo-out"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of sampling, probes, splits and training.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps of each potential.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Number of processes that sample and label.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Sample, label, train E-F and E-F-HVP, compare (five minutes). Labels are from GFN2-xTB; writes a report."""
    from hesse.recipes import DemoPlan, run_demo
    from hesse.reports import ComparedModel, Comparison, comparison_table, print_tables, vibration_table, write_report
    from hesse.runtime.filesystem import atomic_write_text

    plan = DemoPlan(seed=seed)
    plan = replace(plan, steps=steps or plan.steps, workers=workers or plan.workers)
    result = run_demo(out, plan, quiet=quiet)
    baseline, other = (ComparedModel(name, judged, result.logs[name]) for name, judged in result.evaluations.items())
    comparison = Comparison("E-F-HVP against E-F: same network, weights, seed and steps", result.facts, baseline, other)
    summary = comparison.summary() | {"plan": asdict(plan), "seconds": result.seconds}
    atomic_write_text(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    write_report(out / "report.html", comparison)
    print_tables([comparison_table(comparison), vibration_table(comparison)])
    typer.echo(f"report: {out / 'report.html'}   numbers: {out / 'summary.json'}   models: {out / 'models'}")
