"""The geometries of a reaction as files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from hesse._version import __version__
from hesse.datasets import Dataset, write_dataset
from hesse.pes import PathPoint, Reaction
from hesse.sampling.samples import energy_labels
from hesse.structures import Properties, Structure

__all__ = ["write_reaction_files"]


def write_reaction_files(folder: str | Path, reaction: Reaction) -> list[Path]:
    """Write the geometries that a search has found.

    `ends.extxyz` has the relaxed reactant and product, and the relaxed ends of the path;
    `band.extxyz` the elastic band, `ts.extxyz` the saddle point with its Hessian, and `path.extxyz` the reaction path
    from the side of the reactant to that of the product. Stages that were not reached have no file.

    Args:
        folder: the folder, created where missing.
        reaction: the reaction, found or not.

    Returns:
        The files.

    Raises:
        WriteError: a file cannot be written.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    pairs: dict[str, list[tuple[Structure, Properties]]] = {"ends": [], "band": [], "ts": [], "path": []}
    for tag, run in (("reactant", reaction.reactant), ("product", reaction.product)):
        if run is not None:
            named = _named(run.structure, reaction, tag, tag)
            pairs["ends"].append((named, energy_labels(named, run.energy, run.forces)))
    for tag, end in zip(("reactant", "product"), reaction.ends or (), strict=False):
        named = _named(end.structure, reaction, f"path-end-{tag}", "end")
        pairs["ends"].append((named, energy_labels(named, end.energy, end.forces)))
    if reaction.path is not None:
        pairs["band"] = _points(reaction, reaction.path.images, "neb")
    if reaction.saddle is not None:
        top = reaction.saddle
        named = _named(top.structure, reaction, "ts", "ts" if top.converged else "failed")
        hessian = None if top.hessian is None else np.asarray(top.hessian)
        labels = Properties.single(
            len(named), energy=top.energy, forces=top.forces, hessian=hessian, structure_id=named.id
        )
        pairs["ts"].append((named, labels))
    pairs["path"] = _points(reaction, reaction.path_points, "irc")
    written = []
    for name, pair in pairs.items():
        if pair:
            written.append(place / f"{name}.extxyz")
            metadata = {"level": reaction.level, "made_by": "reaction search", "code_version": __version__}
            write_dataset(written[-1], Dataset.from_pairs(pair, **metadata))
    return written


def _points(reaction: Reaction, points: tuple[PathPoint, ...], tag: str) -> list[tuple[Structure, Properties]]:
    named = [_named(p.structure, reaction, f"{tag}/{k:03d}", tag) for k, p in enumerate(points)]
    return [(s, energy_labels(s, p.energy, p.forces)) for s, p in zip(named, points, strict=True)]


def _named(structure: Structure, reaction: Reaction, name: str, tag: str) -> Structure:
    return replace(structure, id=f"{reaction.id}/{name}", tag=tag, group=reaction.id)
