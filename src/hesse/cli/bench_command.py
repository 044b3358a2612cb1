"""`hesse bench`: measure costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hesse.cli.common_options import QUIET, STRICT

if TYPE_CHECKING:
    from hesse.bench import BenchmarkCase
    from hesse.structures import Structure

bench = typer.Typer(name="bench", help="Measure costs of labels, training steps and inference.", no_args_is_help=True)


@bench.command()
def labels(
    engine: Annotated[
        list[str] | None, typer.Option(help="gfn2, pyscf:hf/sto-3g, ...; may be given several times.")
    ] = None,
    carbons: Annotated[
        list[int] | None, typer.Option(min=1, help="Sizes of the alkanes; may be given several times.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="Time limit of the whole command: sizes that would not fit are left out.")
    ] = 55.0,
    repeats: Annotated[int, typer.Option(min=1, help="Number of timings of each label (Hessians: one).")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="Small molecules, ten seconds.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw a log-log plot (.png).")] = None,
    strict: Annotated[bool, STRICT] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Cost of energy, gradient, Hessian-vector product and Hessian as a function of the number of atoms, for straight
    alkanes of up to 98 atoms, on one thread."""
    from dataclasses import asdict, replace

    from hesse.bench import LabelCostPlan, fitted_exponents, measure_label_costs
    from hesse.errors import RequestError
    from hesse.reports import draw_label_costs, label_cost_tables, print_tables
    from hesse.runtime.filesystem import check_output_path, write_rows

    plan = LabelCostPlan(seconds=seconds, repeats=repeats)
    if quick:
        plan = replace(plan, carbons=(1, 2, 3, 4, 6), seconds=min(seconds, 10.0))
    if carbons:
        plan = replace(plan, carbons=tuple(carbons))
    if engine:
        plan = replace(plan, engines=tuple(engine))
    if picture is not None and picture.suffix.lower() != ".png":
        raise RequestError(f"{picture}: a picture is written as .png")
    for target in (json, picture):
        if target is not None:
            check_output_path(target)
    results = measure_label_costs(plan, quiet=quiet)
    rows, exponents = [asdict(row) for row in results], fitted_exponents(results)
    if json is not None:
        write_rows(json, rows)
    if picture is not None:
        draw_label_costs(rows, exponents, picture)
    print_tables(label_cost_tables(rows))
    for name in plan.engines:
        powers = [f"{label} {power:.2f}" for (engine_name, label), power in exponents.items() if engine_name == name]
        if powers:
            typer.echo(f"{name}: fitted powers of the number of atoms: {', '.join(powers)}")


@bench.command()
def step(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="MODEL.hesse, mace:FILE, torchani:FILE, ...")
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(help="A new network: hipnn, ani, hessenet, hipnn?l_max=0,features=32; several times."),
    ] = None,
    peers: Annotated[str, typer.Option(help="Other programs to compare with: torchani,hippynn.")] = "",
    config: Annotated[
        Path | None, typer.Option(help="A training configuration: its network, on structures of its data.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Structures of this file. [default: random molecules]")] = None,
    structures: Annotated[int, typer.Option(min=1, help="Number of structures in the step.")] = 64,
    atoms: Annotated[str, typer.Option(help="Sizes of the random molecules.")] = "8-14",
    periodic: Annotated[
        str, typer.Option(help="Instead, one cell of MgO with about this number of atoms: 100,500,1000,2000,4000.")
    ] = "",
    probes: Annotated[int, typer.Option(min=1, help="Hessian-vector products per structure.")] = 1,
    scheme: Annotated[list[str] | None, typer.Option(help="ef, ef_hvp, ef_h; several times. [default: all]")] = None,
    compile: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Also measure compiled steps (minutes).")
    ] = True,
    dtype: Annotated[list[str] | None, typer.Option(help="float32, float64; several times. [default: float32]")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    repeats: Annotated[
        int, typer.Option(min=1, help="Number of timings of each step, alternating with the others.")
    ] = 7,
    patience: Annotated[
        float, typer.Option(help="Seconds for the timings of one step: slow steps are timed less often.")
    ] = 30.0,
    memory: Annotated[float, typer.Option(help="MiB; E-F-H steps that need more are computed in parts.")] = 4096.0,
    quick: Annotated[
        bool, typer.Option("--quick", help="A minute for one model: five timings, no compilation.")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    picture: Annotated[Path | None, typer.Option(help="With --periodic: draw time and memory (.png).")] = None,
    strict: Annotated[bool, STRICT] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Cost of one training step: the loss of energies and forces (E-F), with Hessian-vector products (E-F-HVP) or
    Hessians (E-F-H), and its gradient in the parameters. Without a model: the three networks of Hesse."""
    from dataclasses import asdict

    from hesse.bench import StepPlan, measure_step_costs
    from hesse.bench.cases import SCHEMES
    from hesse.errors import ConfigError
    from hesse.reports import cell_cost_tables, draw_cell_costs, print_tables, step_cost_tables
    from hesse.runtime.filesystem import check_output_path, write_rows

    if picture is not None and (not periodic or picture.suffix.lower() != ".png"):
        raise ConfigError(
            "the picture shows cells and is written as .png: give --periodic and a name that ends in .png"
        )
    for target in (json, picture):
        if target is not None:
            check_output_path(target, *(file for file in (data, config) if file is not None), *(models or []))
    plan = StepPlan(
        schemes=tuple(scheme or SCHEMES),
        modes=("eager", "compiled") if compile and not quick else ("eager",),
        dtypes=tuple(dtype or ("float32",)),
        probes=probes,
        device=device,
        threads=threads,
        repeats=min(repeats, 5) if quick else repeats,
        time_budget=min(patience, 5.0) if quick else patience,
        memory_mib=memory,
    )
    batches, cases = _step_workload(models or [], kind or [], peers, config, data, structures, atoms, periodic)
    rows: list[dict[str, object]] = []
    left_out: list[str] = []
    for batch in batches:
        results = measure_step_costs(cases, batch, plan, quiet=quiet)
        rows += [asdict(row) for row in results.rows]
        left_out += results.left_out
    if json is not None:
        write_rows(json, rows)
    if picture is not None:
        draw_cell_costs(rows, picture)
    print_tables(cell_cost_tables(rows) if periodic else step_cost_tables(rows))
    for line in left_out:
        typer.echo(f"left out: {line}")


@bench.command()
def inference(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="MODEL.hesse, mace:FILE, torchani:FILE, ...")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="A new network: hipnn, ani, hessenet, hipnn?l_max=0; several times.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Structures of this file. [default: random molecules]")] = None,
    structures: Annotated[int, typer.Option(min=1, help="Number of structures.")] = 64,
    atoms: Annotated[str, typer.Option(help="Sizes of the random molecules.")] = "8-14",
    periodic: Annotated[
        str, typer.Option(help="Instead, one cell of MgO with about this number of atoms: 100,500,1000.")
    ] = "",
    scheme: Annotated[list[str] | None, typer.Option(help="e, ef, hvp, hessian; several times. [default: all]")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="float32, float64; several times. [default: float32]")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    repeats: Annotated[int, typer.Option(min=1, help="Number of timings of each, alternating with the others.")] = 7,
    patience: Annotated[
        float, typer.Option(help="Seconds for the timings of one scheme; Hessians that would take longer are left out.")
    ] = 30.0,
    memory: Annotated[float | None, typer.Option(help="MiB for one batch. [default: by device]")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Five timings, and five seconds for each scheme.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    strict: Annotated[bool, STRICT] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Cost of inference: energies, forces, Hessian-vector products and Hessians of many structures together, or of one
    large cell. Without a model: the three networks of Hesse."""
    from dataclasses import asdict

    from hesse.bench import InferencePlan, measure_inference_costs, named_potentials
    from hesse.bench.inference_costs import INFERENCE_SCHEMES
    from hesse.bench.named_potentials import NATIVE_KINDS
    from hesse.errors import ConfigError
    from hesse.reports import inference_cost_tables, print_tables
    from hesse.runtime.filesystem import check_output_path, write_rows

    if periodic and data is not None:
        raise ConfigError("--periodic makes its own cells of MgO: leave out --data")
    if json is not None:
        check_output_path(json, *([data] if data else []), *(models or []))
    plan = InferencePlan(
        schemes=tuple(scheme or INFERENCE_SCHEMES),
        dtypes=tuple(dtype or ("float32",)),
        device=device,
        threads=threads,
        repeats=min(repeats, 5) if quick else repeats,
        time_budget=min(patience, 5.0) if quick else patience,
        memory_mib=memory,
    )
    batches = _batches(data, None, structures, atoms, periodic)
    kinds = kind or (() if models else NATIVE_KINDS)
    potentials = named_potentials(models or [], kinds, [s for batch in batches for s in batch])
    rows: list[dict[str, object]] = []
    left_out: list[str] = []
    for batch in batches:
        results, skipped = measure_inference_costs(potentials, batch, plan, quiet=quiet)
        rows += [asdict(row) for row in results]
        left_out += skipped
    if json is not None:
        write_rows(json, rows)
    print_tables(inference_cost_tables(rows))
    for line in left_out:
        typer.echo(f"left out: {line}")


def _step_workload(
    models: Sequence[str],
    kinds: Sequence[str],
    peers: str,
    config: Path | None,
    data: Path | None,
    count: int,
    atoms: str,
    periodic: str,
) -> tuple[list[list[Structure]], list[BenchmarkCase]]:
    """The batches to measure with, and the cases to measure."""
    from hesse.bench.cases import HesseCase
    from hesse.bench.named_potentials import NATIVE_KINDS, named_potentials, potential_from_config
    from hesse.errors import ConfigError

    if periodic and (data is not None or config is not None or peers):
        raise ConfigError("--periodic makes its own cells of MgO: leave out --data, --config and --peers")
    run = None if config is None else potential_from_config(config)
    if not (models or kinds or peers or run):
        kinds = NATIVE_KINDS
    batches = _batches(data, None if run is None else run[1], count, atoms, periodic)
    potentials = named_potentials(models, kinds, [s for batch in batches for s in batch])
    if run is not None:
        potentials[str(config)] = run[0]
    cases: list[BenchmarkCase] = [HesseCase(name, potential) for name, potential in potentials.items()]
    if peers:
        from hesse.bench.baselines import baseline_cases

        elements = sorted({int(z) for s in batches[0] for z in s.numbers})
        for name in dict.fromkeys(part.strip() for part in peers.split(",")):
            cases += baseline_cases(name, elements)
    return batches, cases


def _batches(
    data: Path | None, structures: Sequence[Structure] | None, count: int, atoms: str, periodic: str
) -> list[list[Structure]]:
    """One batch of structures of a file or of random molecules; or one batch per size of cell."""
    from hesse.bench.workloads import random_molecules_in_range, random_subset, rocksalt_cell

    if periodic:
        return [[rocksalt_cell(size)] for size in _parse_integers(periodic, ",", "--periodic")]
    if data is not None:
        from hesse.datasets import read_dataset

        structures = read_dataset(data, check=False).structures
    if structures is not None:
        return [random_subset(structures, count)]
    sizes = _parse_integers(atoms, "-", "--atoms")
    return [random_molecules_in_range(sizes[0], sizes[-1], count)]


def _parse_integers(text: str, separator: str, option: str) -> list[int]:
    """Whole numbers between separators. Raises ConfigError."""
    from hesse.errors import ConfigError

    try:
        return [int(part) for part in text.split(separator)]
    except ValueError:
        example = separator.join(("8", "14"))
        raise ConfigError(f'{option} "{text}": expected whole numbers such as {example}') from None
