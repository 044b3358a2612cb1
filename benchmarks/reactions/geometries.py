"""Source of the reactions: geometries of two public collections, in their published files.

* `grambow_ts`: reactant, transition state and product of elementary reactions, as three xz-compressed SDF files whose
  i-th records belong together (Grambow, Pattanaik, Green, Sci. Data 7, 137 (2020)).
* `ts1x_reactions`: reactant and product with one order of atoms, a tar archive of two-frame xyz files (Schreiner,
  Bhowmik, Vegge, Busk, Winther, Sci. Data 9, 779 (2022), as used by ReactBench).
"""

from __future__ import annotations

import io
import lzma
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read

from hesse.errors import FileFormatError
from hesse.structures import Structure

__all__ = ["Reaction", "read_own", "read_reactions"]

OWN = Path(__file__).parent / "guesses.extxyz"

ELEMENTS = (1, 6, 7, 8)
LARGEST = 17
"""Atoms."""


@dataclass(frozen=True, eq=False)
class Reaction:
    """Published geometries of one elementary reaction; `guess` is the transition state at another level of theory, or
    None if only the ends were published."""

    name: str
    reactant: Structure
    product: Structure
    guess: Structure | None


def read_reactions(data: Path) -> tuple[list[Reaction], dict[str, int]]:
    """All reactions of H, C, N, O with at most 17 atoms below `data`, and the number left out, by reason.

    Raises:
        FileFormatError: a collection is missing, or its files do not fit together.
    """
    reactions, left_out = [], dict.fromkeys(("more than 17 atoms", "elements other than H, C, N, O"), 0)
    for reaction in (*_grambow(data / "grambow_ts"), *_ts1x(data / "ts1x_reactions")):
        if len(reaction.reactant) > LARGEST:
            left_out["more than 17 atoms"] += 1
        elif not np.isin(reaction.reactant.numbers, ELEMENTS).all():
            left_out["elements other than H, C, N, O"] += 1
        else:
            reactions.append(reaction)
    return reactions, left_out


def read_own() -> list[Reaction]:
    """Seven small reactions: guesses of transition states typed in by hand, and the ends of their GFN2-xTB paths,
    rounded to 0.001 Å. The tiny version is built from them."""
    frames: dict[str, dict[str, Structure]] = {}
    for atoms in read(OWN, ":"):
        name = atoms.info["group"]
        frames.setdefault(name, {})[atoms.info["tag"]] = _structure(atoms, name)
    return [Reaction(name, frame["reactant"], frame["product"], frame["ts"]) for name, frame in frames.items()]


def _grambow(folder: Path) -> Iterator[Reaction]:
    columns = [_records(folder / f"{name}.sdf.xz") for name in ("reactants", "ts", "products")]
    if len({len(column) for column in columns}) != 1:
        raise FileFormatError(f"{folder}: {[len(c) for c in columns]} reactants, transition states and products")
    for records in zip(*columns, strict=True):
        number = re.search(r"rxn\d+", records[1].splitlines()[0])
        if number is None:
            raise FileFormatError(f"{folder}: a transition state without a reaction number, {records[1][:40]!r}")
        name = f"grambow-{number[0]}"
        reactant, guess, product = (_structure(read(io.StringIO(text), format="sdf"), name) for text in records)
        if not np.array_equal(reactant.numbers, guess.numbers):
            raise FileFormatError(f"{folder}: {name} has other atoms in the reactant than in the transition state")
        yield Reaction(name, reactant, product, guess)


def _records(path: Path) -> list[str]:
    try:
        with lzma.open(path, "rt") as file:
            text = file.read()
    except (OSError, lzma.LZMAError) as error:
        raise FileFormatError(f"{path}: cannot be read ({error}); expected the published SDF, xz-compressed") from error
    return [part.removeprefix("\n") for part in text.split("$$$$")][:-1]


def _ts1x(folder: Path) -> Iterator[Reaction]:
    path = folder / "ts1x.tar.xz"
    try:
        with tarfile.open(path) as archive:
            names = sorted(member.name for member in archive if member.isfile() and member.name.endswith(".xyz"))
            texts = [archive.extractfile(name).read().decode() for name in names]  # type: ignore[union-attr]
    except (OSError, tarfile.TarError, lzma.LZMAError) as error:
        raise FileFormatError(f"{path}: cannot be read ({error})") from error
    for member, text in zip(names, texts, strict=True):
        name = f"ts1x-{Path(member).stem}"
        reactant, product = (_structure(atoms, name) for atoms in read(io.StringIO(text), ":", format="xyz"))
        yield Reaction(name, reactant, product, None)


def _structure(atoms: Atoms, reaction: str) -> Structure:
    return Structure(atoms.numbers, atoms.positions, group=reaction)
