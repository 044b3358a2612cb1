"""`hesse coarse`: from all-atom trajectories to models of beads."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hesse.cli.coarse_dynamics_commands import compare, md
from hesse.cli.common_options import OVERWRITE, QUIET

if TYPE_CHECKING:
    from hesse.coarse import BeadMapping, Trajectory

coarse = typer.Typer(
    name="coarse", help="Coarse graining: map trajectories to beads, fit priors, judge models.", no_args_is_help=True
)
coarse.command("md")(md)
coarse.command("compare")(compare)


class _Molecules(StrEnum):
    residue = "residue"
    fragment = "fragment"


class _Center(StrEnum):
    mass = "mass"
    geometry = "geometry"


@coarse.command("map")
def map_command(
    trajectory: Annotated[
        list[Path],
        typer.Argument(
            metavar="TRAJ... OUT", help="Trajectory with forces (.trr, LAMMPS dump, .extxyz, .h5), then OUT."
        ),
    ],
    temperature: Annotated[float, typer.Option(help="K, of the simulation.")],
    topology: Annotated[
        Path | None, typer.Option(help="Atoms and residues: .gro, .tpr, .pdb, .psf, .data (read by MDAnalysis).")
    ] = None,
    molecules: Annotated[
        _Molecules | None,
        typer.Option(help="With --topology: molecules are residues, or what its bonds connect. [residue]"),
    ] = None,
    molecule_size: Annotated[
        int | None, typer.Option(min=1, help="Without: atoms of every molecule. [default: found by bonds]")
    ] = None,
    lammps_units: Annotated[str | None, typer.Option(help="Units of a LAMMPS dump: real or metal.")] = None,
    timestep: Annotated[float | None, typer.Option(help="fs, of a LAMMPS dump.")] = None,
    frame_time: Annotated[
        float | None, typer.Option(help="ps between frames, of .extxyz and .h5, which do not state it.")
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="Bead type of a molecule: CH4O=MEOH; may be given several times."),
    ] = None,
    bead: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TYPE=SELECTION",
            help="A bead in each molecule, of the atoms that a selection of MDAnalysis chooses; with --topology.",
        ),
    ] = None,
    groups: Annotated[
        Path | None, typer.Option(help="Beads of each molecule by names of atoms: a YAML file, see docs.")
    ] = None,
    center: Annotated[
        _Center, typer.Option(help="Position of a bead: center of mass, or mean position.")
    ] = _Center.mass,
    drop: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Molecules that get no bead (an implicit solvent).")
    ] = None,
    allow_lost_atoms: Annotated[
        bool, typer.Option("--allow-lost-atoms", help="Also if atoms of a molecule belong to no bead.")
    ] = False,
    variable_cell: Annotated[
        bool, typer.Option("--variable-cell", help="The cell changes: constant pressure.")
    ] = False,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Also if beads are closer to each other than 0.5 Å.")
    ] = False,
    start: Annotated[int, typer.Option(min=0, help="First frame.")] = 0,
    stop: Annotated[int | None, typer.Option(min=1, help="End of the frames, exclusive. [default: all]")] = None,
    step: Annotated[int, typer.Option(min=1, help="Every n-th frame.")] = 1,
    overwrite: Annotated[bool, OVERWRITE] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Map an all-atom trajectory at one state point to beads, and print what the data hold."""
    from hesse.cli.input_options import parse_renames
    from hesse.cli.option_checks import check_positive, check_results
    from hesse.coarse import describe_beads, map_trajectory, open_trajectory
    from hesse.datasets import check_writable_suffix, write_dataset
    from hesse.errors import RequestError
    from hesse.runtime.filesystem import check_new_file

    *files, output = trajectory
    if not files:
        raise RequestError(f"expected a trajectory and the file to write, got {output} only")
    check_positive("K", temperature=temperature)
    check_positive("fs", timestep=timestep)
    check_positive("ps", frame_time=frame_time)
    if stop is not None and stop <= start:
        raise RequestError(f"--stop {stop}: expected a frame behind the first one, --start {start}")
    check_writable_suffix(output, complete=True)
    check_results(output, inputs=tuple(files))
    check_new_file(output, overwrite=overwrite)
    _check_mapping(name=name, bead=bead, groups=groups, drop=drop, with_topology=topology is not None)
    names = parse_renames(name or [], option="--name", example="CH4O=MEOH")
    selections = [_parse_bead(text) for text in bead or []]
    by_molecule = None if groups is None else _read_groups(groups)
    opened = open_trajectory(
        files[0] if len(files) == 1 else files,
        topology=topology,
        molecules=None if molecules is None else molecules.value,
        molecule_size=molecule_size,
        lammps_units=lammps_units,
        timestep=timestep,
        frame_time=frame_time,
    )
    mapping = _mapping(
        opened,
        names=names,
        selections=selections,
        groups=by_molecule,
        center=center.value,
        drop=drop or [],
        allow_lost_atoms=allow_lost_atoms,
    )
    dataset = map_trajectory(
        opened,
        mapping,
        temperature=temperature,
        start=start,
        stop=stop,
        step=step,
        variable_cell=variable_cell,
        allow_overlap=allow_overlap,
        quiet=quiet,
    )
    write_dataset(output, dataset)
    rows = describe_beads(dataset)
    width = max(len(label) for label, _ in rows)
    for label, text in rows:
        typer.echo(f"{label:<{width}}  {text}")
    typer.echo(f"written: {output}")


def _check_mapping(*, with_topology: bool, drop: list[str] | None, **given: Any) -> None:
    """Raises RequestError for options of a mapping that exclude each other, before anything is read."""
    from hesse.errors import RequestError

    options = [f"--{name}" for name, value in given.items() if value]
    if len(options) > 1:
        raise RequestError(f"{' and '.join(options)} exclude each other: beads are molecules, groups, or selections")
    if given["bead"] and not with_topology:
        raise RequestError("--bead selects atoms by MDAnalysis: give a topology (--topology), or use --groups")
    if given["bead"] and drop:
        raise RequestError(
            "--drop has no effect with --bead: select what gets a bead, and give --allow-lost-atoms for the rest"
        )


def _mapping(
    trajectory: Trajectory,
    *,
    names: dict[str, str],
    selections: list[tuple[str, str]],
    groups: dict[str, list[tuple[str, list[str | int]]]] | None,
    center: Any,
    drop: list[str],
    allow_lost_atoms: bool,
) -> BeadMapping:
    """The mapping that the options describe."""
    from hesse.coarse import UniverseTrajectory, map_groups, map_molecules, map_selections

    if selections:
        assert isinstance(trajectory, UniverseTrajectory)
        return map_selections(trajectory, selections, center=center, allow_lost_atoms=allow_lost_atoms)
    if groups is not None:
        return map_groups(trajectory.topology, groups, center=center, drop=drop, allow_lost_atoms=allow_lost_atoms)
    return map_molecules(trajectory.topology, center=center, bead_types=names, drop=drop)


def _parse_bead(text: str) -> tuple[str, str]:
    """Type and selection of a bead. Raises ConfigError."""
    from hesse.errors import ConfigError

    bead_type, equals, selection = text.partition("=")
    if not (bead_type and equals and selection):
        raise ConfigError(f'--bead: expected TYPE=SELECTION, for example "CH3=name C1 H11 H12 H13", got "{text}"')
    return bead_type.strip(), selection.strip()


def _read_groups(path: Path) -> dict[str, list[tuple[str, list[str | int]]]]:
    """Beads by molecule. Raises ConfigError for another content."""
    from hesse.errors import ConfigError
    from hesse.runtime.yaml_text import read_options

    groups: dict[str, list[tuple[str, list[str | int]]]] = {}
    for molecule, beads in read_options(path).items():
        valid = isinstance(beads, list) and all(
            isinstance(bead, dict) and set(bead) == {"type", "atoms"} and isinstance(bead["atoms"], list)
            for bead in beads
        )
        if not valid:
            raise ConfigError(
                f"{path}: {molecule}: expected a list of beads, each with a type and its atoms, such as "
                "[{type: CH3, atoms: [C1, H11, H12, H13]}, ...]"
            )
        groups[str(molecule)] = [(str(bead["type"]), list(bead["atoms"])) for bead in beads]
    return groups


@coarse.command("prior")
def prior_command(
    data: Annotated[
        list[Path], typer.Argument(metavar="DATA... OUT", help="Mapped data, then the model file to write.")
    ],
    temperature: Annotated[float | None, typer.Option(help="K, of frames whose tags name no state point.")] = None,
    bond: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TYPES:I-J,...",
            help="Bonds of a molecule: A-B-A:0-1,1-2. [default: the shortest tree that connects its beads]",
        ),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the prior beside the data: .svg or .png.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write a row for each term to this file.")] = None,
    overwrite: Annotated[bool, OVERWRITE] = False,
) -> None:
    """Fit the prior of beads to mapped data: repulsion of pairs, bonds and angles of molecules."""
    from hesse.cli.option_checks import check_positive, check_results
    from hesse.coarse import fit_prior
    from hesse.errors import RequestError
    from hesse.models import save_model
    from hesse.runtime.filesystem import check_new_file, write_rows

    *files, output = data
    if not files:
        raise RequestError(f"expected mapped data and the file to write, got {output} only")
    if output.suffix != ".hesse":
        raise RequestError(f"the prior is a model file: expected OUT.hesse, got {output}")
    check_positive("K", temperature=temperature)
    check_results(output, json, picture=plot, inputs=tuple(files))
    check_new_file(output, overwrite=overwrite)
    bonds = _parse_bonds(bond or [])
    fit = fit_prior(_read_mapped(files), temperature=temperature, bonds=bonds)
    save_model(output, fit.potential, {"prior_of": [str(file) for file in files], "terms": fit.rows()})
    for row in fit.rows():
        if row["term"] == "pair":
            text = f"taper {row['taper']:.3f} Å, strength {row['strength']:.4f} eV/Å"
        elif row["term"] == "bond":
            text = f"length {row['length']:.3f} Å, stiffness {row['stiffness']:.4g} eV/Å²"
        else:
            text = f"cos θ {row['cosine']:.4f}, stiffness {row['stiffness']:.4g} eV"
        typer.echo(f"{row['term']:<6}{row['beads']:<18}{text}")
    typer.echo(f"written: {output}")
    if json is not None:
        write_rows(json, fit.rows())
    if plot is not None:
        from hesse.reports.prior_figure import draw_prior

        draw_prior(plot, fit)


def _read_mapped(files: list[Path]) -> Any:
    from hesse.datasets import join_datasets, names_of_files, read_dataset

    parts = [read_dataset(file, check=False) for file in files]
    return parts[0] if len(parts) == 1 else join_datasets(parts, names_of_files(files))[0]


def _parse_bonds(texts: list[str]) -> dict[tuple[str, ...], list[tuple[int, int]]]:
    """Bonds by molecule, from texts TYPES:I-J,... Raises ConfigError."""
    from hesse.errors import ConfigError

    bonds = {}
    for text in texts:
        types, _, pairs = text.partition(":")
        try:
            ends = [tuple(int(i) for i in pair.split("-")) for pair in pairs.split(",")]
            bonds[tuple(types.split("-"))] = [(i, j) for i, j in ends]
        except ValueError:
            raise ConfigError(f'--bond: expected TYPES:I-J,I-J, for example A-B-A:0-1,1-2, got "{text}"') from None
    return bonds


@coarse.command("forces")
def forces_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model of beads: runs/a/model.hesse.")],
    data: Annotated[list[Path], typer.Argument(metavar="DATA...", help="Mapped data that it was not trained on.")],
    fixed: Annotated[
        Path | None,
        typer.Option(help="Mapped frames at fixed beads, one group for each set: the noise, hence the limit."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
) -> None:
    """How much of the forces on beads a model explains, at each state point."""
    from hesse.cli.option_checks import check_results
    from hesse.coarse import explained_forces, force_noise
    from hesse.runtime.filesystem import write_rows

    check_results(json, inputs=(Path(model), *data, *([] if fixed is None else [fixed])))
    noise = None if fixed is None else force_noise(_read_mapped([fixed]))
    rows = explained_forces(model, _read_mapped(data), noise=noise)
    typer.echo(f"{'state point':<24}{'bead':<10}{'force RMS':>12}{'left':>10}{'explained':>18}{'limit':>9}")
    for row in rows:
        error = "" if row.standard_error is None else f" ± {100 * row.standard_error:.1f}"
        limit = "unknown" if row.limit is None else f"{100 * row.limit:.1f} %"
        explained = f"{100 * row.explained:.1f}{error} %"
        typer.echo(f"{row.tag:<24}{row.bead:<10}{row.rms:>12.4f}{row.residual:>10.4f}{explained:>18}{limit:>9}")
    if json is not None:
        write_rows(json, rows)
