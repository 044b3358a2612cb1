"""`hesse convert` and `hesse info`: data files in, data files and data cards out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from hesse.cli.app import app
from hesse.cli.common_options import MAX_SHOWN, print_remaining

EnergyUnit = Annotated[
    str | None, typer.Option(help="Energy unit of a file that does not state it: eV, Hartree, kcal/mol, …")
]
LengthUnit = Annotated[
    str | None, typer.Option(help="Length unit of a file that does not state it: angstrom, bohr, nm.")
]
ForcesUnit = Annotated[
    str | None, typer.Option(help="Unit of the forces, where it is not that of energy/length: hartree/bohr.")
]
CurvatureUnit = Annotated[
    str | None, typer.Option(help="Unit of Hessians and H v, where it is not energy/length²: hartree/bohr^2.")
]
Rename = Annotated[
    list[str] | None,
    typer.Option(metavar="OLD=NEW", help="A key of extended XYZ or grouped HDF5: REF_forces=forces; several times."),
]
Match = Annotated[str | None, typer.Option(metavar="PATTERN", help="Only structures with such ids: 'C2H6O/*'.")]
Sample = Annotated[int | None, typer.Option(min=1, help="Only N structures, drawn at random (of those that match).")]
SampleSeed = Annotated[int, typer.Option("--seed", min=0, help="Seed of --sample.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N structures (of the sample).")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No messages.")]


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="A data file, an output of a program, or a folder of them.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help=".h5 or .extxyz; .json for one Hessian")],
    energy_unit: EnergyUnit = None,
    length_unit: LengthUnit = None,
    forces_unit: ForcesUnit = None,
    curvature_unit: CurvatureUnit = None,
    negate_forces: Annotated[
        bool, typer.Option("--negate-forces", "--forces-are-gradients", help="What is called forces are gradients.")
    ] = False,
    negate_curvature: Annotated[
        bool, typer.Option("--negate-curvature", help="What is called Hessian is the derivative of the forces.")
    ] = False,
    symmetrize: Annotated[bool, typer.Option("--symmetrize", help="Replace each Hessian by (H + Hᵀ)/2.")] = False,
    pair: Annotated[
        list[int] | None, typer.Option(min=0, help="Keep only this (probe, product) pair; may be given several times.")
    ] = None,
    level: Annotated[str | None, typer.Option(help="Level of theory, kept with the data.")] = None,
    tag: Annotated[str | None, typer.Option(help="Tag of all structures; errors are reported by tag.")] = None,
    charge: Annotated[int | None, typer.Option(help="Charge of all structures, where the file states none.")] = None,
    multiplicity: Annotated[int | None, typer.Option(min=1, help="Spin multiplicity of all structures.")] = None,
    rename: Rename = None,
    match: Match = None,
    sample: Sample = None,
    seed: SampleSeed = 0,
    limit: Limit = None,
    check: Annotated[bool, typer.Option(help="Refuse NaN, overlaps, and curvature that contradicts forces.")] = True,
    flag_suspect: Annotated[
        bool,
        typer.Option("--flag-suspect", help="Flag single structures that would be refused, and keep them out of use."),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Read data of any known kind, check them, and write them as HDF5 or extended XYZ."""
    from hesse import datasets
    from hesse.runtime.filesystem import check_output_path

    datasets.check_writable_suffix(target)
    check_output_path(target, source)
    dataset = datasets.read_dataset(
        source,
        check=False,
        energy_unit=energy_unit,
        length_unit=length_unit,
        forces_unit=forces_unit,
        curvature_unit=curvature_unit,
        rename=_parse_renames(rename or []),
        subset=datasets.Subset(match=match, sample=sample, seed=seed, limit=limit),
    )
    if negate_forces:
        dataset = datasets.negate_forces(dataset)
    if negate_curvature:
        dataset = datasets.negate_curvature(dataset)
    if charge is not None or multiplicity is not None:
        dataset = datasets.set_charge_multiplicity(dataset, charge=charge, multiplicity=multiplicity)
    if symmetrize:
        dataset = datasets.symmetrize_hessians(dataset)
    if pair:
        dataset = datasets.select_probes(dataset, pair)
    if level is not None:
        dataset = datasets.with_metadata(dataset, level=level)
    if tag is not None:
        dataset = datasets.with_tag(dataset, tag)
    suspect_reasons: Mapping[str, str] = {}
    if flag_suspect:
        dataset, suspect_reasons = datasets.flag_suspect(dataset)
    reports = datasets.check_dataset(dataset) if check else []
    datasets.write_dataset(target, dataset)
    if not quiet:
        not_written = [n for n in ("energy", "forces", "hvp", "stress") if dataset.labels.mask(n).any()]
        if target.suffix.lower() == ".json" and not_written:
            print(f"not written: {', '.join(not_written)}, which have no place in a .json", file=sys.stderr)
        if "source_note" in dataset.metadata:
            print(f"note: {dataset.metadata['source_note']}", file=sys.stderr)
        for name in dataset.unknown_keys[:MAX_SHOWN]:
            print(f"not read: {name}", file=sys.stderr)
        print_remaining(len(dataset.unknown_keys))
        for report in reports:
            print(report.message, file=sys.stderr)
        for name, reason in list(suspect_reasons.items())[:MAX_SHOWN]:
            print(f'suspect: structure "{name}": {reason}', file=sys.stderr)
        print_remaining(len(suspect_reasons))
        print(f"{target}: {len(dataset)} structures, {int(dataset.labels.n_atoms.sum())} atoms", file=sys.stderr)


@app.command()
def info(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A data file or folder, a model (.hesse), weights (.safetensors).")
    ],
    energy_unit: EnergyUnit = None,
    length_unit: LengthUnit = None,
    forces_unit: ForcesUnit = None,
    curvature_unit: CurvatureUnit = None,
    rename: Rename = None,
    match: Match = None,
    sample: Sample = None,
    seed: SampleSeed = 0,
    limit: Limit = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the card as JSON too.")
    ] = None,
) -> None:
    """Show what a data set or a model file holds: labels, units, noise, consistency, curvature; provenance."""
    import json

    from hesse.runtime.filesystem import atomic_write_text, check_output_path

    if json_file is not None:
        check_output_path(json_file, file)
    if file.suffix.lower() == ".hesse":
        from hesse.models import read_model_header

        card: dict[str, Any] = {"source": str(file), **read_model_header(file)}
        sections = _model_sections(card)
    elif file.suffix.lower() == ".safetensors":
        from hesse.models import read_weights_header

        card = {"source": str(file), **read_weights_header(file)}
        sections = {"weights": [("of module", card["module"])], **_provenance_sections(card["provenance"])}
    else:
        from hesse.datasets import Subset, dataset_summary, read_dataset

        # A card is wanted of broken files most of all: it shows the verdict.
        dataset = read_dataset(
            file,
            check=False,
            energy_unit=energy_unit,
            length_unit=length_unit,
            forces_unit=forces_unit,
            curvature_unit=curvature_unit,
            rename=_parse_renames(rename or []),
            subset=Subset(match=match, sample=sample, seed=seed, limit=limit),
        )
        card = dataset_summary(dataset)
        sections = _data_sections(card)
    _print_sections(str(file), sections)
    if json_file is not None:
        atomic_write_text(json_file, json.dumps(card, indent=1, ensure_ascii=False, default=str) + "\n")


def _parse_renames(pairs: list[str]) -> dict[str, str]:
    from hesse.errors import ConfigError

    renames = {}
    for pair in pairs:
        old, equals, new = pair.partition("=")
        if not (old and equals and new):
            raise ConfigError(f'--rename: expected OLD=NEW, for example REF_forces=forces, got "{pair}"')
        renames[old] = new
    return renames


# --- tables ----------------------------------------------------------------------------------------------------------

Rows = list[tuple[str, str]]


def _data_sections(card: Mapping[str, Any]) -> dict[str, Rows]:
    sizes, curvature = card["atoms_per_structure"], card["curvature"]
    structures: Rows = [
        ("structures", f"{card['structures']}"),
        ("atoms", f"{card['atoms']} ({sizes['smallest']} to {sizes['largest']}, median {sizes['median']:g})"),
        ("elements", "  ".join(f"{symbol} {count}" for symbol, count in card["elements"].items())),
        ("periodic, charged", f"{card['periodic']}, {card['charged']}"),
        ("groups", f"{card['groups']}"),
        ("units", "eV, Å"),
        *((key, str(value)) for key, value in card["attributes"].items()),
        *([("not read", ", ".join(card["unread"]))] if card["unread"] else []),
        ("data hash", card["data_hash"]),
    ]
    labels: Rows = []
    for row in card["tags"]:
        label_counts = [f"{name} {count}" for name, count in row.items() if name not in ("tag", "structures") and count]
        labels.append((row["tag"] or "(no tag)", f"{row['structures']}: {', '.join(label_counts) or 'no labels'}"))
    units = {"forces": "eV/Å", "hvp": "eV/Å²", "hessian": "eV/Å²"}
    quality: Rows = []
    for name, unit in units.items():
        if card["label_rms"][name] is not None:
            values = [
                f"rms {_format_number(card['label_rms'][name])}",
                f"noise by symmetry {_format_number(card['noise'][name])}",
            ]
            if card["stated_error"][name] is not None:
                values.append(f"stated error {_format_number(card['stated_error'][name])}")
            quality.append((name, f"{', '.join(values)} {unit}"))
    quality += [(entry["label"], f"{entry['verdict']}: {entry['message']}") for entry in card["consistency"]]
    suspect = card["suspect"]
    suspect_rows: Rows = [(entry["id"], entry["reason"]) for entry in suspect["first"]]
    if suspect["structures"] > len(suspect_rows):
        suspect_rows.append(("...", f"and {suspect['structures'] - len(suspect_rows)} more"))
    sections = {"structures": structures, "labels by tag": labels, "quality of labels": quality}
    sections[f"suspect: {suspect['structures']} structures, kept out of training and evaluation"] = suspect_rows
    if curvature is not None:
        sections[f"curvature of {curvature['hessians_diagonalized']} Hessians"] = [
            (
                "eigenvalues",
                f"{curvature['lowest_eigenvalue']:.3g} to {curvature['highest_eigenvalue']:.3g} eV/Å²",
            ),
            (
                f"below {curvature['negative_below']} eV/Å²",
                f"{curvature['structures_with_negative_curvature']} structures, of which "
                f"{curvature['structures_with_one_negative_eigenvalue']} have one such eigenvalue",
            ),
        ]
    return {title: rows for title, rows in sections.items() if rows}


def _model_sections(card: Mapping[str, Any]) -> dict[str, Rows]:
    """The configuration, then where the model came from: one section for each nested table of its provenance."""
    from ase.data import chemical_symbols

    symbols = " ".join(chemical_symbols[z] for z in card["elements"])
    sections: dict[str, Rows] = {
        "file": [("format version", str(card["version"])), ("elements", symbols)],
        **_kind_sections(card["model"]),
        **_provenance_sections(card["provenance"]),
    }
    return {title: rows for title, rows in sections.items() if rows}


def _kind_sections(model: Mapping[str, Any], title: str = "model") -> dict[str, Rows]:
    """The options of a model; of a sum or an ensemble, those of every part."""
    parts = model.get("parts")
    if not isinstance(parts, list):
        return {title: _flatten(model)}
    sections: dict[str, Rows] = {title: [("kind", f"{model['kind']} of {len(parts)}")]}
    for number, part in enumerate(parts, start=1):
        sections |= _kind_sections(part["model"], f"{title}, part {number}")
    return sections


def _provenance_sections(provenance: Mapping[str, Any]) -> dict[str, Rows]:
    sections: dict[str, Rows] = {"provenance": []}
    for key, value in provenance.items():
        if isinstance(value, Mapping):
            sections[key.replace("_", " ")] = _flatten(value)
        else:
            sections["provenance"].append((key.replace("_", " "), str(value)))
    return {title: rows for title, rows in sections.items() if rows}


def _flatten(table: Mapping[str, Any], prefix: str = "") -> Rows:
    """A nested table, flat: `data.train`, `data.test`, …"""
    rows: Rows = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            rows += _flatten(value, f"{prefix}{key}.")
        else:
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
            rows.append((f"{prefix}{key}", text))
    return rows


def _format_number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"


def _print_sections(title: str, sections: Mapping[str, Rows]) -> None:
    """Tables on a terminal, aligned plain lines elsewhere."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        width = max(len(name) for rows in sections.values() for name, _ in rows)
        print(title)
        for heading, rows in sections.items():
            print(f"{heading}:")
            for name, value in rows:
                print(f"  {name:<{width}}  {value}")
        return
    for heading, rows in sections.items():
        table = Table(title=escape(heading), title_justify="left", show_header=False)
        for name, value in rows:
            table.add_row(escape(name), escape(value))
        console.print(table)
