"""The page of a reaction, and the page of a campaign: each one HTML file that refers to no other file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment

from hesse.pes import Reaction, bond_name
from hesse.reports.drawing import Drawing
from hesse.reports.molecule_drawings import draw_arrows, draw_motion
from hesse.reports.page_environment import page_environment
from hesse.reports.reaction_figures import energy_profile
from hesse.runtime.filesystem import atomic_write_text

__all__ = ["render_campaign", "render_reaction", "write_reaction_page"]


def write_reaction_page(path: str | Path, reaction: Reaction) -> None:
    """Write the page of a reaction: energy profile, imaginary mode, tables. An interrupted call leaves no partial file.

    Args:
        path: the file.
        reaction: the reaction, found or not.

    Raises:
        WriteError: the file cannot be written.
    """
    atomic_write_text(path, render_reaction(reaction))


def render_reaction(reaction: Reaction) -> str:
    """The page of a reaction as HTML.

    Args:
        reaction: the reaction, found or not.

    Returns:
        The HTML document.
    """
    profile = energy_profile(reaction)
    arrows = animation = None
    top = reaction.saddle
    if top is not None and top.converged and top.modes is not None:
        mode = top.modes.cartesian[0]
        arrows = draw_arrows(top.structure, mode, "The imaginary mode as arrows on the atoms")
        animation = draw_motion(top.structure, mode, "The imaginary mode as an animation")
    thermo = reaction.thermo
    change = None if reaction.path is None else reaction.path.change
    return (
        _environment()
        .get_template("reaction.html")
        .render(
            reaction=reaction,
            row=reaction.row(),
            profile=None if profile is None else Drawing(profile, "Energy along the path"),
            arrows=arrows,
            animation=animation,
            bonds="" if change is None else _bonds(reaction, change.formed, change.broken),
            energies=list(_energies(reaction)),
            rates=[] if thermo is None else thermo.rows(),
            method="" if thermo is None else thermo.reactant.method,
            wigner_high=thermo is not None and bool((thermo.tunneling > 2.0).any()),
            matches=list(_matches(reaction)),
            verification=list(_verification(reaction)),
        )
    )


def render_campaign(rows: Sequence[Mapping[str, Any]], statistics: Mapping[str, int], pages: Mapping[str, str]) -> str:
    """The page of a campaign as HTML: how the searches ended, and a line for each.

    Args:
        rows: one per reaction, see `hesse.pes.Reaction.row`.
        statistics: numbers by outcome.
        pages: addresses of the pages of the reactions, by id.

    Returns:
        The HTML document.
    """
    return _environment().get_template("campaign.html").render(rows=rows, statistics=statistics, pages=pages)


@cache
def _environment() -> Environment:
    return page_environment()


def _bonds(reaction: Reaction, formed: Sequence[tuple[int, int]], broken: Sequence[tuple[int, int]]) -> str:
    assert reaction.reactant is not None
    structure = reaction.reactant.structure
    changes = [(bond, "forms") for bond in formed] + [(bond, "breaks") for bond in broken]
    return ", ".join(f"{bond_name(structure, bond)} {what}" for bond, what in changes)


def _energies(reaction: Reaction) -> Iterator[tuple[str, float]]:
    """Names and values of the energies that are known."""
    for name, value in (
        ("barrier", reaction.barrier),
        ("reverse barrier", reaction.reverse_barrier),
        ("reaction energy", reaction.reaction_energy),
    ):
        if value is not None:
            yield name, value
    if reaction.ends is not None and reaction.reactant is not None:
        for name, end in zip(("reactant", "product"), reaction.ends, strict=True):
            yield f"end of the path at the {name}, above the reactant", end.energy - reaction.reactant.energy


def _matches(reaction: Reaction) -> Iterator[tuple[str, str, float, str]]:
    if reaction.matches is None:
        return
    for name, match in zip(("reactant", "product"), reaction.matches, strict=True):
        yield name, str(match.match), match.rmsd, _bonds(reaction, match.formed, match.broken)


def _verification(reaction: Reaction) -> Iterator[tuple[str, str]]:
    """The result of another engine, in words."""
    verification = reaction.verification
    if verification is None:
        return
    for name, value in (("barrier", verification.barrier), ("reaction energy", verification.reaction_energy)):
        if value is not None:
            yield f"{name} at these geometries", f"{value:.4f} eV"
    answer = "yes" if verification.saddle_found else "no"
    if verification.distance is not None:
        answer += f", {verification.distance:.2f} Å away"
    yield f"a first-order saddle point within {verification.limit:g} Å", answer
    if verification.imaginary_frequency is not None:
        yield "its imaginary mode", f"{-verification.imaginary_frequency:.0f}i cm⁻¹"
    if verification.reason:
        yield "remark", verification.reason
