"""`hesse bench`: what things cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hesse.cli.app import app
from hesse.cli.options import QUIET

bench = typer.Typer(name="bench", help="Measure what things cost.", no_args_is_help=True)
app.add_typer(bench)


@bench.callback()
def _bench() -> None:
    """Measure what things cost."""


@bench.command()
def labels(
    engine: Annotated[
        list[str] | None, typer.Option(help="gfn2, pyscf:hf/sto-3g, ...; may be given several times.")
    ] = None,
    carbons: Annotated[
        list[int] | None, typer.Option(min=1, help="Sizes of the alkanes; may be given several times.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="For everything: sizes that would not fit are left out.")] = 55.0,
    repeats: Annotated[int, typer.Option(min=1, help="How often each label is timed (Hessians once).")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="Small molecules, ten seconds.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the log-log picture (.png).")] = None,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Cost of energy, gradient, Hessian-vector product and Hessian against the number of atoms, for straight alkanes
    up to 98 atoms, on one thread."""
    from dataclasses import replace
    from json import dumps

    from hesse.errors import RequestError
    from hesse.files import require_target, write_text
    from hesse.recipes import CostPlan, fitted_exponents, measure_label_costs
    from hesse.reports import cost_tables, draw_label_costs, print_tables

    plan = CostPlan(seconds=seconds, repeats=repeats)
    if quick:
        plan = replace(plan, carbons=(1, 2, 3, 4, 6), seconds=min(seconds, 10.0))
    if carbons:
        plan = replace(plan, carbons=tuple(carbons))
    if engine:
        plan = replace(plan, engines=tuple(engine))
    if picture is not None and picture.suffix.lower() != ".png":
        raise RequestError(f"{picture}: the picture is a .png")
    for target in (json, picture):
        if target is not None:
            require_target(target)
    found = measure_label_costs(plan, quiet=quiet)
    rows, exponents = [row.to_json() for row in found], fitted_exponents(found)
    if json is not None:
        write_text(json, dumps(rows, indent=1) + "\n")
    if picture is not None:
        draw_label_costs(rows, exponents, picture)
    print_tables(cost_tables(rows))
    for name in plan.engines:
        powers = [f"{label} {power:.2f}" for (which, label), power in exponents.items() if which == name]
        if powers:
            typer.echo(f"{name}: fitted powers of the number of atoms: {', '.join(powers)}")
