"""`hesse info`: the content of a data file or a model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hesse.cli.common_options import STRICT
from hesse.cli.input_options import (
    CurvatureUnit,
    EnergyUnit,
    ForcesUnit,
    LengthUnit,
    Limit,
    Match,
    Rename,
    Sample,
    SampleSeed,
    StressUnit,
    parse_renames,
)


def info(
    name: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A data file or folder, a run, a model (MODEL.hesse, mace:FILE, torchani:FILE, ..., "
            "python:package.module:factory), weights (.safetensors), an engine (gfn2, pyscf:METHOD/BASIS).",
        ),
    ],
    energy_unit: EnergyUnit = None,
    length_unit: LengthUnit = None,
    forces_unit: ForcesUnit = None,
    curvature_unit: CurvatureUnit = None,
    stress_unit: StressUnit = None,
    rename: Rename = None,
    match: Match = None,
    sample: Sample = None,
    seed: SampleSeed = 0,
    limit: Limit = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write the content as JSON.")
    ] = None,
    strict: Annotated[bool, STRICT] = False,
) -> None:
    """Show the content of a data set or a model, or the settings of an engine. Labels, units, noise, consistency and
    curvature of data; options and provenance of models."""
    import json

    from hesse.engines.names import ADAPTERS, path_in_name
    from hesse.engines.xtb import XTB_METHODS, xtb_name
    from hesse.models import best_model, is_run_folder
    from hesse.runtime.filesystem import atomic_write_text, check_output_path

    if is_run_folder(name):
        name = str(best_model(name))
    file, kind = Path(name), name.partition(":")[0]
    named_potential = ":" in name and kind in (*ADAPTERS, "python") and not file.exists()
    if json_file is not None:
        check_output_path(json_file, *([source] if (source := path_in_name(name)) else []))
    if named_potential:
        card: dict[str, Any] = {"source": name, **_describe_potential(name)}
        sections = {"model": _flatten({key: value for key, value in card.items() if key not in ("source", "elements")})}
        sections["model"].insert(1, ("elements", _symbols(card["elements"]) or "all"))
    elif not file.exists() and (kind == "pyscf" or xtb_name(name).partition("?")[0] in XTB_METHODS):
        card, sections = _describe_engine(name)
    elif file.suffix.lower() == ".hesse":
        from hesse.models import read_model_header, read_training_environments

        environments = read_training_environments(file)
        card = {"source": str(file), **read_model_header(file)}
        card["provenance"] = _without_unused_network(card["provenance"])
        card["training_environments"] = None if environments is None else environments.describe()
        sections = _model_sections(card)
    elif file.suffix.lower() == ".safetensors":
        from hesse.models import read_weights_header

        card = {"source": str(file), **read_weights_header(file)}
        sections = {"weights": [("of module", card["module"])], **_provenance_sections(card["provenance"])}
    else:
        from hesse.datasets import Subset, dataset_summary, read_dataset
        from hesse.errors import NotReadWarning

        if not strict:
            warnings.simplefilter("ignore", NotReadWarning)  # it is part of the output
        # Unchecked, because the content of broken files is of most interest; it includes the result of the check.
        dataset = read_dataset(
            file,
            check=False,
            energy_unit=energy_unit,
            length_unit=length_unit,
            forces_unit=forces_unit,
            curvature_unit=curvature_unit,
            stress_unit=stress_unit,
            rename=parse_renames(rename or []),
            subset=Subset(match=match, sample=sample, seed=seed, limit=limit),
        )
        card = dataset_summary(dataset)
        sections = _data_sections(card)
    _print_sections(name, sections)
    if json_file is not None:
        atomic_write_text(json_file, json.dumps(card, indent=1, ensure_ascii=False, default=str) + "\n")


def _describe_potential(name: str) -> dict[str, Any]:
    """Properties of a potential that is not a file of Hesse. It must be loaded for that."""
    from hesse.engines import make_potential
    from hesse.potential import dtype_and_device

    potential = make_potential(name)
    dtype, _ = dtype_and_device(potential)
    return {
        "class": type(potential).__name__,
        "elements": list(potential.elements),
        "cutoff": float(potential.cutoff),
        "parameters": sum(p.numel() for p in potential.parameters()),
        "dtype": str(dtype).removeprefix("torch."),
        "has_atomic_energies": potential.has_atomic_energies,
    }


def _describe_engine(name: str) -> tuple[dict[str, Any], dict[str, Rows]]:
    """The record that an engine adds to its labels, and the settings that its name may hold."""
    from hesse.engines import make_engine
    from hesse.engines.names import settings_model

    engine = make_engine(name)
    fields = settings_model(name).model_fields
    card = {
        "source": name,
        "level": engine.level,
        "recorded": dict(engine.settings),
        "settings": {key: {"default": field.default, "meaning": field.description} for key, field in fields.items()},
    }
    sections: dict[str, Rows] = {
        "engine": [("level", engine.level), *engine.settings.items()],
        f"settings, as in {name.partition('?')[0]}?{next(iter(fields))}=...": [
            (key, f"{field.description} (default {_as_written(field.default)})") for key, field in fields.items()
        ],
    }
    return card, sections


def _as_written(value: object) -> str:
    """A value as in a name of an engine."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


# --- tables ----------------------------------------------------------------------------------------------------------

Rows = list[tuple[str, str]]


def _data_sections(card: Mapping[str, Any]) -> dict[str, Rows]:
    sizes, curvature = card["atoms_per_structure"], card["curvature"]
    structures: Rows = [
        ("structures", f"{card['structures']}"),
        ("atoms", f"{card['atoms']} ({sizes['smallest']} to {sizes['largest']}, median {sizes['median']:g})"),
        ("elements", "  ".join(f"{symbol} {count}" for symbol, count in card["elements"].items())),
        ("periodic, charged", f"{card['periodic']}, {card['charged']}"),
        *(
            (name, "  ".join(f"{value}: {count}" for value, count in card[name].items()))
            for name in ("charges", "multiplicities")
        ),
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
    quality += [("not finite", _not_finite_text(entry)) for entry in card["not_finite"]]
    quality += [(entry["label"], f"{entry['verdict']}: {entry['message']}") for entry in card["consistency"]]
    suspect = card["suspect"]
    suspect_rows: Rows = [(entry["id"], entry["reason"]) for entry in suspect["first"]]
    if suspect["structures"] > len(suspect_rows):
        suspect_rows.append(("...", f"and {suspect['structures'] - len(suspect_rows)} more"))
    sections = {"structures": structures, "labels by tag": labels, "quality of labels": quality}
    sections[f"suspect: {suspect['structures']} structures, kept out of training and evaluation"] = suspect_rows
    if curvature is not None:
        sections[f"curvature of {curvature['hessians_diagonalised']} Hessians"] = [
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


def _not_finite_text(entry: Mapping[str, Any]) -> str:
    count, names = entry["structures"], ", ".join(entry["first"])
    more = ", ..." if count > len(entry["first"]) else ""
    return f"{entry['label']} of {count} structure{'s' if count > 1 else ''} ({names}{more}); training refuses them"


def _model_sections(card: Mapping[str, Any]) -> dict[str, Rows]:
    """The options of the model, then one section for each nested table of its provenance."""
    sections: dict[str, Rows] = {
        "file": [
            ("format version", str(card["version"])),
            ("elements", _symbols(card["elements"])),
            ("training environments", card["training_environments"] or "not kept: structures outside are not told"),
        ],
        **_kind_sections(card["model"]),
        **_provenance_sections(card["provenance"]),
    }
    return {title: rows for title, rows in sections.items() if rows}


def _without_unused_network(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance without the network of the configuration: the section of the model has the true one, which is another
    where training started from an initial model."""
    config = provenance.get("config")
    if not isinstance(config, Mapping):
        return dict(provenance)
    used = {key: value for key, value in config.items() if key not in ("model", "repulsion")}
    return {**provenance, "config": used}


def _kind_sections(model: Mapping[str, Any], title: str = "model") -> dict[str, Rows]:
    """The options of a model; for a sum or an ensemble, those of every part."""
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
    """A nested table as rows: `data.train`, `data.test`, …"""
    rows: Rows = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            rows += _flatten(value, f"{prefix}{key}.")
        else:
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
            rows.append((f"{prefix}{key}", text))
    return rows


def _symbols(elements: Sequence[int]) -> str:

    from hesse.structures import species_names

    return " ".join(species_names(elements))


def _format_number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"


def _print_sections(title: str, sections: Mapping[str, Rows]) -> None:
    """Tables on a terminal, aligned plain lines elsewhere."""
    from rich.console import Console
    from rich.table import Table

    from hesse.runtime.terminal import plain_markup, rich_stream

    console = Console(file=rich_stream())
    if not console.is_terminal:
        width = max(len(name) for rows in sections.values() for name, _ in rows)
        print(title)
        for heading, rows in sections.items():
            print(f"{heading}:")
            for name, value in rows:
                print(f"  {name:<{width}}  {value}")
        return
    for heading, rows in sections.items():
        table = Table(title=plain_markup(heading), title_justify="left", show_header=False)
        for name, value in rows:
            table.add_row(plain_markup(name), plain_markup(value))
        console.print(table)
