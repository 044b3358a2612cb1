"""`hesse recipe`: published protocols over the one training loop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hesse.cli.common_options import QUIET, SCHEDULER, STRICT

if TYPE_CHECKING:
    from hesse.recipes.protocols import RecipePlan, RecipeResult


def recipe(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="hint, ensemble-distillation, teacher-student or active.")
    ] = None,
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="YAML file; docs/recipes explains the options.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all options and data, list the stages.")] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes for training, one thread each. [default: one for each core]"),
    ] = None,
    scheduler: Annotated[str | None, SCHEDULER] = None,
    json: Annotated[Path | None, typer.Option(help="Write the results of all stages to this file.")] = None,
    strict: Annotated[bool, STRICT] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """More from fewer labels: published protocols over the one training loop. Without NAME they are listed. The same
    command continues an interrupted recipe."""
    from hesse.errors import RequestError
    from hesse.recipes.protocols import RECIPES, plan_recipe, run_recipe
    from hesse.runtime.filesystem import check_output_path, write_rows

    if name is None:
        width = max(map(len, RECIPES), default=0)
        for entry in RECIPES.values():
            typer.echo(f"{entry.name:<{width}}  {entry.description}")
        return
    if config is None:
        raise RequestError(f"hesse recipe {name}: expected a configuration file: hesse recipe {name} CONFIG.yaml")
    if dry_run:
        _print_plan(plan_recipe(name, config))
        return
    if json is not None:
        check_output_path(json, config)
    result = run_recipe(name, config, workers=workers, scheduler=scheduler, quiet=quiet)
    if json is not None:
        write_rows(json, [{"stage": r.name, **r.results, "seconds": r.seconds} for r in result.records.values()])
    for remark in result.remarks:
        typer.echo(f"note: {remark}", err=True)
    if result.summary:
        typer.echo(result.summary)
    typer.echo(f"{result.output}: {len(result.records)} stages done")
    for figure in _draw_figures(result):
        typer.echo(f"figure: {figure}")
    if result.stopped:
        typer.echo(f"ended: {result.stopped}")


def _draw_figures(result: RecipeResult) -> list[Path]:
    """Figures of the recipes that have rows over labels or points of a calibration, in the output folder."""
    from dataclasses import asdict
    from json import loads

    from hesse.recipes.protocols.label_curve import curve_points
    from hesse.reports.recipe_figures import draw_calibration, draw_label_curve

    drawn = []
    if "results" in result.records:
        points = [asdict(point) for point in curve_points(result.records["results"].results["rows"])]
        rows = [{**point, "property": point["quantity"]} for point in points]
        for name in ("hessian", "hvp", "forces"):
            target = result.output / f"labels-{name}.png"
            if draw_label_curve(rows, target, property=name):
                drawn.append(target)
    file = result.output / "calibration" / "points.json"
    if "calibration" in result.records and file.exists():
        target = result.output / "calibration.png"
        points = loads(file.read_text(encoding="utf-8"))
        last = points[-1]["model"] if points else ""
        if draw_calibration([point for point in points if point["model"] == last], target):
            drawn.append(target)
    return drawn


def _print_plan(plan: RecipePlan) -> None:
    width = max(map(len, plan.stages))
    for name, description in plan.stages.items():
        typer.echo(f"{plan.states[name]:<10}  {name:<{width}}  {description}")
    for remark in plan.remarks:
        typer.echo(f"note: {remark}", err=True)
    done = sum(state == "done" for state in plan.states.values())
    typer.echo(f"{len(plan.stages)} stages: {done} done")
