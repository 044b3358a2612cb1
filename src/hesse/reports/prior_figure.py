"""A picture of the prior of beads beside the data that it was fitted to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from hesse.coarse import InternalDistribution, PairDistribution, PriorFit
from hesse.models import BeadBond
from hesse.reports.figure_style import (
    BASELINE_COLOR,
    OTHER_COLOR,
    figure_style,
    new_figure,
    title_with_note,
    write_picture,
)
from hesse.runtime.filesystem import picture_suffix
from hesse.units import BOLTZMANN

__all__ = ["draw_prior"]

_COLUMNS = 3


def draw_prior(path: str | Path, fit: PriorFit, *, title: str = "") -> None:
    """Draw g(r), the potential of mean force and the repulsion of each pair of types, and the bonds and angles.

    Args:
        path: the picture, `.svg` or `.png`.
        fit: the prior with its data.
        title: title of the picture.

    Raises:
        FileFormatError: another suffix.
        WriteError: the file cannot be written.
    """
    picture_suffix(path)
    panels: list[PairDistribution | InternalDistribution] = [*fit.pairs, *fit.internal]
    columns = min(_COLUMNS, max(1, len(panels)))
    rows = -(-len(panels) // columns)
    with figure_style():
        figure, first = new_figure(width=1.2 + 3.6 * columns, height=0.7 + 2.9 * rows)
        first.remove()
        for k, panel in enumerate(panels):
            axes = figure.add_subplot(rows, columns, k + 1)
            if isinstance(panel, PairDistribution):
                _draw_pair(axes, panel)
            else:
                _draw_internal(axes, panel)
        if fit.pairs:
            figure.legend(handles=_legend(), loc="outside lower center", ncols=3)
        if title:
            figure.suptitle(title)
        write_picture(figure, path)


def _legend() -> list[Line2D]:
    """The lines of the panels of pairs, below all panels: anywhere within one a curve may be."""
    return [
        Line2D([], [], color=BASELINE_COLOR, linewidth=1.2, label="g(r)"),
        Line2D([], [], color=OTHER_COLOR, linewidth=1.4, label="prior"),
        Line2D([], [], color=OTHER_COLOR, linewidth=1.0, linestyle="--", label="−kT ln g"),
    ]


def _draw_pair(axes: Any, pair: PairDistribution) -> None:
    """g(r) from the left axis, energies in meV from the right one."""
    prior = pair.repulsion
    axes.plot(pair.distances, pair.g, color=BASELINE_COLOR, linewidth=1.2)
    axes.axvline(prior.taper, color=BASELINE_COLOR, linewidth=0.8, linestyle=":")
    axes.set_xlabel("distance / Å")
    axes.set_ylabel("g(r)")
    note = f"taper {prior.taper:.2f} Å, strength {prior.strength:.3f} eV/Å"
    title_with_note(axes, "-".join(pair.types), note)
    axes.set_xlim(max(0.0, prior.taper - 1.0), min(prior.taper + 5.0, float(pair.distances[-1])))
    axes.set_ylim(0, None)
    energies = axes.twinx()
    seen = pair.g > 0
    mean_force = -1e3 * BOLTZMANN * pair.temperature * np.log(np.where(seen, pair.g, 1.0))
    energies.plot(pair.distances[seen], mean_force[seen], color=OTHER_COLOR, linewidth=1.0, linestyle="--")
    r = np.linspace(max(0.0, prior.taper - 1.0), prior.reach, 400)
    u = 1e3 * prior.strength * prior.fraction / prior.steepness * np.exp(-prior.steepness * (r - prior.taper))
    energies.plot(r, u, color=OTHER_COLOR, linewidth=1.4)
    energies.set_ylim(-1.2 * max(1.0, float(-mean_force[seen].min())), 1.3 * max(1.0, float(mean_force[seen].max())))
    energies.spines["right"].set_visible(True)
    energies.set_ylabel("energy / meV", color=OTHER_COLOR)


def _draw_internal(axes: Any, item: InternalDistribution) -> None:
    """A histogram, and the Gaussian of the fitted harmonic term."""
    axes.hist(item.values, bins=60, density=True, color=BASELINE_COLOR, alpha=0.5)
    width = float(item.values.std())
    is_bond = isinstance(item.term, BeadBond)
    center = item.term.length if isinstance(item.term, BeadBond) else item.term.cosine
    x = np.linspace(center - 4 * width, center + 4 * width, 200)
    density = np.exp(-0.5 * ((x - center) / width) ** 2) / (width * np.sqrt(2 * np.pi))
    axes.plot(x, density, color=OTHER_COLOR, linewidth=1.3)
    unit = "eV/Å²" if is_bond else "eV"
    value = f"length {center:.3f} Å" if is_bond else f"cos θ {center:.3f}"
    title_with_note(axes, item.name, f"{value}, stiffness {item.term.stiffness:.3g} {unit}")
    axes.set_xlabel("length / Å" if is_bond else "cos θ")
    axes.set_ylabel("density")
