"""`hesse reaction`: from two geometries to a barrier and a rate."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hesse.cli.common_options import (
    ENGINE,
    OVERWRITE,
    QUIET,
    STRICT,
    WORKERS,
    outside_text,
    print_failures,
    workers_for,
)

if TYPE_CHECKING:
    from hesse.pes import Reaction
    from hesse.sampling import CampaignResult, Pair


class _Method(StrEnum):
    """The methods that end in a Hessian, which free energies need."""

    prfo = "prfo"
    sella = "sella"


def reaction(
    reactant: Annotated[
        Path, typer.Argument(metavar="R", help="Reactant, or reactants; or reactants and products in turn.")
    ],
    product: Annotated[
        Path | None, typer.Argument(metavar="[P]", help="Product, or products in the same order.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for pages, geometries and rows.")] = Path(
        "reaction"
    ),
    engine: Annotated[str, ENGINE] = "gfn2",
    verify: Annotated[
        str | None, typer.Option(metavar="ENGINE", help="Another engine, which evaluates the answer.")
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Images of the elastic band between the ends.")] = 8,
    attempts: Annotated[int, typer.Option(min=1, help="Elastic bands, each with more images than the one before.")] = 2,
    method: Annotated[_Method, typer.Option(help="Saddle search: P-RFO, or the package Sella.")] = _Method.prfo,
    fmax: Annotated[float, typer.Option(help="eV/Å; largest force at ends and saddle point.")] = 0.005,
    temperature: Annotated[
        list[float] | None,
        typer.Option(help="K, of free energies and rates; may be given several times. [default: 298.15]"),
    ] = None,
    distance: Annotated[float, typer.Option(help="Å; --verify must find its saddle point within this.")] = 0.3,
    workers: Annotated[int | None, WORKERS] = None,
    overwrite: Annotated[bool, OVERWRITE] = False,
    json: Annotated[Path | None, typer.Option("--json", help="Also write the rows as JSON.")] = None,
    strict: Annotated[bool, STRICT] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Find the reaction between two geometries: path, saddle point, both ends verified, barrier, free energy, rate.

    With several reactants and products every pair is searched. DIR gets a page for each reaction, its geometries, and
    reactions.json. The same command continues after an interruption."""
    from hesse.cli.option_checks import check_positive
    from hesse.datasets import read_dataset
    from hesse.errors import ExecutionError
    from hesse.reports import write_reaction_page
    from hesse.runtime.filesystem import write_rows
    from hesse.sampling import reaction_pairs, search_reactions, write_reaction_files

    check_positive("eV/Å", fmax=fmax)
    check_positive("Å", distance=distance)
    for kelvin in temperature or ():
        check_positive("K", temperature=kelvin)
    first = read_dataset(reactant, check=False)
    pairs = reaction_pairs(first, None if product is None else read_dataset(product, check=False))
    _check_folder(out, json, [reactant, *([product] if product is not None else [])], overwrite)
    folders = {pair.id: out if len(pairs) == 1 else out / _folder_name(pair.id, k) for k, pair in enumerate(pairs)}

    def keep(index: int, found: Reaction) -> None:
        folder = folders[pairs[index].id]
        write_reaction_files(folder, found)
        write_reaction_page(folder / "reaction.html", found)

    options: dict[str, Any] = {"images": images, "attempts": attempts, "method": method.value, "fmax": fmax}
    options["distance"] = distance
    if temperature:
        options["temperature"] = tuple(temperature)
    workers = workers_for(workers, engine, [pair.reactant for pair in pairs], processes=verify is not None)
    result = search_reactions(
        pairs, engine, out / "reactions", verify=verify, workers=workers, quiet=quiet, on_result=keep, **options
    )
    write_rows(out / "reactions.json", result.rows)
    if json is not None:
        write_rows(json, result.rows)
    for row in result.rows:
        if row["found"]:
            typer.echo(_line(row))
    print_failures(
        [
            f"{row['id']}: {row['outcome'].replace('_', ' ')}: {row['reason']}{outside_text(row)}"
            for row in result.rows
            if not row["found"]
        ]
    )
    _summary(out, pairs, result, folders)
    if result.n_found == 0:
        count = "the pair; the reason is" if len(pairs) == 1 else f"any of {len(pairs)} pairs; the reasons are"
        raise ExecutionError(f"no reaction was found for {count} above")


def _check_folder(out: Path, json_file: Path | None, sources: list[Path], overwrite: bool) -> None:
    """Raise RequestError for a folder that holds other things, before the work."""
    from hesse.errors import RequestError
    from hesse.runtime.filesystem import check_output_path

    if json_file is not None:
        check_output_path(json_file, *sources)
    if out.exists() and not out.is_dir():
        raise RequestError(f"{out} is a file: --out needs a folder")
    # A search that was interrupted early has left its lock only.
    ours = (out / "reactions.searches.jsonl", out / ".reactions.searches.jsonl.lock")
    if out.is_dir() and any(out.iterdir()) and not any(path.exists() for path in ours) and not overwrite:
        raise RequestError(
            f"{out} is not empty, and no search has written there: choose another --out, or give --overwrite to write "
            "into it"
        )
    out.mkdir(parents=True, exist_ok=True)


def _folder_name(name: str, index: int) -> str:
    """A name that is safe in any file system, and unique by its number."""
    return f"{index + 1:04d}-" + re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:80]


def _line(row: dict[str, Any]) -> str:
    from hesse.units import KCAL_PER_MOL

    parts = [
        f"barrier {row['barrier']:.3f} eV ({row['barrier'] / KCAL_PER_MOL:.1f} kcal/mol)",
        f"reaction energy {row['reaction_energy']:.3f} eV",
        f"imaginary mode {-row['imaginary_frequency']:.0f}i cm⁻¹",
    ]
    parts += [
        f"ΔG‡({at['temperature']:g} K) {at['gibbs_barrier']:.3f} eV, rate {at['rate']:.2g} /s (with Wigner's tunneling "
        f"factor {at['tunneling']:.3g})"
        for at in row["rates"]
    ]
    parts.append(f"{row['engine_calls']} evaluations")
    if (check := row.get("verification")) is not None:
        answer = "has its saddle point there too" if check["saddle_found"] else "has no saddle point there"
        energy = "" if check["barrier"] is None else f", barrier {check['barrier']:.3f} eV"
        parts.append(f"{check['level']} {answer}{energy}")
    return f"{row['id']}: " + "; ".join(parts) + (f"; {row['reason']}" if row["reason"] else "") + outside_text(row)


def _summary(out: Path, pairs: list[Pair], result: CampaignResult, folders: dict[str, Path]) -> None:
    """Write the page of the campaign, and print the numbers of the whole run."""
    from hesse.reports import render_campaign
    from hesse.runtime.filesystem import atomic_write_text

    if len(pairs) > 1:
        pages = {
            name: f"{folder.name}/reaction.html"
            for name, folder in folders.items()
            if (folder / "reaction.html").exists()
        }
        atomic_write_text(out / "index.html", render_campaign(result.rows, result.statistics(), pages))
        counts = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in result.statistics().items())
        typer.echo(f"{out / 'index.html'}: {counts} ({result.rows[0]['level']})")
    else:
        typer.echo(f"{out / 'reaction.html'} ({result.rows[0]['level']})")
    if result.n_reused:
        typer.echo(f"  {result.n_reused} searches were finished before")
