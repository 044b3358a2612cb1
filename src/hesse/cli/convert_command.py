"""`hesse convert`: from any data format to HDF5 or extended XYZ."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hesse.cli.common_options import MAX_SHOWN, OVERWRITE, STRICT, print_remaining
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

if TYPE_CHECKING:
    from hesse.datasets import Dataset


def convert(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="IN...", help="Data files, outputs of programs, or folders of them."),
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help=".h5 or .extxyz; .json for one Hessian")],
    energy_unit: EnergyUnit = None,
    length_unit: LengthUnit = None,
    forces_unit: ForcesUnit = None,
    curvature_unit: CurvatureUnit = None,
    stress_unit: StressUnit = None,
    negate_forces: Annotated[
        bool,
        typer.Option("--negate-forces", "--forces-are-gradients", help="The forces in the file are gradients."),
    ] = False,
    negate_curvature: Annotated[
        bool, typer.Option("--negate-curvature", help="The Hessians in the file are derivatives of the forces.")
    ] = False,
    symmetrize: Annotated[bool, typer.Option("--symmetrize", help="Replace each Hessian by (H + Hᵀ)/2.")] = False,
    pair: Annotated[
        list[int] | None, typer.Option(min=0, help="Keep only this (probe, product) pair; may be given several times.")
    ] = None,
    level: Annotated[str | None, typer.Option(help="Level of theory, stored with the data.")] = None,
    tag: Annotated[str | None, typer.Option(help="Tag of all structures; errors are reported by tag.")] = None,
    charge: Annotated[int | None, typer.Option(help="Charge of all structures, if the file states none.")] = None,
    multiplicity: Annotated[int | None, typer.Option(min=1, help="Spin multiplicity of all structures.")] = None,
    rename: Rename = None,
    match: Match = None,
    sample: Sample = None,
    seed: SampleSeed = 0,
    limit: Limit = None,
    check: Annotated[
        bool, typer.Option(help="Refuse NaN, overlapping atoms, and curvature that contradicts the forces.")
    ] = True,
    flag_suspect: Annotated[
        bool,
        typer.Option(
            "--flag-suspect",
            help="Flag single structures that would be refused, so that training and evaluation skip them.",
        ),
    ] = False,
    overwrite: Annotated[bool, OVERWRITE] = False,
    strict: Annotated[bool, STRICT] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No messages.")] = False,
) -> None:
    """Convert data of any known format to HDF5 or extended XYZ. The data are checked first. Several files become one;
    ids that occur in several of them begin with the name of their file then. An existing OUT is replaced with
    --overwrite only, and never if it is an input."""
    from hesse import datasets
    from hesse.errors import NotReadWarning
    from hesse.runtime.filesystem import check_new_file, check_output_path

    if quiet and not strict:
        warnings.simplefilter("ignore", NotReadWarning)
    datasets.check_writable_suffix(target)
    for source in sources:
        check_output_path(target, source)
    check_new_file(target, overwrite=overwrite)
    parts = [
        datasets.read_dataset(
            source,
            check=False,
            energy_unit=energy_unit,
            length_unit=length_unit,
            forces_unit=forces_unit,
            curvature_unit=curvature_unit,
            stress_unit=stress_unit,
            rename=parse_renames(rename or []),
            subset=datasets.Subset(match=match, sample=sample, seed=seed, limit=limit),
        )
        for source in sources
    ]
    dataset, n_renamed = datasets.join_datasets(parts, [source.stem for source in sources])
    if negate_forces:
        dataset = datasets.negate_forces(dataset)
    if negate_curvature:
        dataset = datasets.negate_curvature(dataset)
    if charge is not None or multiplicity is not None:
        _refuse_contradiction(dataset, charge, multiplicity)
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
            print(f"not written: {', '.join(not_written)}, which a .json cannot hold", file=sys.stderr)
        if n_renamed:
            print(
                f"note: {n_renamed} structures have ids that occur in several files; there they begin with the name of "
                "their file",
                file=sys.stderr,
            )
        if len({part.metadata.get("level") for part in parts}) > 1 and level is None:
            print("note: the files are of different levels of theory", file=sys.stderr)
        if "source_note" in dataset.metadata:
            print(f"note: {dataset.metadata['source_note']}", file=sys.stderr)
        for report in reports:
            print(report.message, file=sys.stderr)
        for name, reason in list(suspect_reasons.items())[:MAX_SHOWN]:
            print(f'suspect: structure "{name}": {reason}', file=sys.stderr)
        print_remaining(len(suspect_reasons))
        print(f"{target}: {len(dataset)} structures, {int(dataset.labels.n_atoms.sum())} atoms", file=sys.stderr)


def _refuse_contradiction(dataset: Dataset, charge: int | None, multiplicity: int | None) -> None:
    """Options are for what a file does not state; 0 and 1 may be either."""
    for structure in dataset.structures:
        for name, given, stated, default in (
            ("charge", charge, structure.charge, 0),
            ("multiplicity", multiplicity, structure.multiplicity, 1),
        ):
            if given is not None and stated not in (default, given):
                from hesse.errors import RequestError

                raise RequestError(
                    f'--{name} {given} was given, but structure "{structure.id}" states {stated}. Leave the option '
                    "out, or correct the file."
                )
