"""A picture of phonons: bands along a path, and the density of states beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ase.symbols import Symbols
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from hesse.lattice.band_structure import Bands, DensityOfStates
from hesse.lattice.phonon_comparison import check_same_crystal
from hesse.lattice.phonons_result import DEFAULT_MESH, MeshLike, Phonons
from hesse.reports.figure_style import (
    BASELINE_COLOR,
    MUTED_COLOR,
    OTHER_COLOR,
    TEXT_COLOR,
    figure_style,
    write_picture,
)
from hesse.runtime.filesystem import picture_suffix

__all__ = ["draw_phonons"]

_MORE_COLORS: Final = ("#009e73", "#cc79a7", "#e69f00", "#56b4e9", TEXT_COLOR)


def draw_phonons(
    path: str | Path,
    phonons: Phonons,
    *,
    reference: Phonons | None = None,
    further: Mapping[str, Phonons] | None = None,
    bands: Bands | None = None,
    mesh: MeshLike = DEFAULT_MESH,
    title: str = "",
    label: str = "",
    reference_label: str = "reference",
) -> None:
    """Draw bands and density of states of phonons, beside those of a reference.

    Args:
        path: a `.png` or `.svg` file.
        phonons: the phonons.
        reference: other phonons of the same crystal, drawn beneath.
        further: more phonons of the same crystal by their names in the legend, such as those at other temperatures.
        bands: bands that are known already; None computes them.
        mesh: mesh of the density of states, see `Phonons.mesh`.
        title: title of the picture.
        label: name of the phonons in the legend; their level by default.
        reference_label: name of the reference.

    Raises:
        RequestError: a reference or further phonons of another crystal.
        FileFormatError: another suffix.
        WriteError: the file cannot be written.
    """
    picture_suffix(path)
    drawn = [(phonons, OTHER_COLOR, 1.4, label or phonons.level or "phonons")]
    for k, (name, more) in enumerate((further or {}).items()):
        check_same_crystal(phonons, more)
        drawn.append((more, _MORE_COLORS[k % len(_MORE_COLORS)], 1.2, name))
    if reference is not None:
        check_same_crystal(phonons, reference)
        drawn.insert(0, (reference, BASELINE_COLOR, 1.2, reference_label))
    bands = phonons.bands() if bands is None else bands
    with figure_style():
        figure = Figure(figsize=(7.2, 3.8), layout=ConstrainedLayoutEngine(wspace=0.05))
        left, right = figure.subplots(1, 2, width_ratios=(3.4, 1.0), sharey=True)
        lowest, ends = 0.0, list[float]()
        for shown, color, width, name in drawn:
            values = bands if shown is phonons else shown.bands(bands.path)
            lowest = min(lowest, float(values.frequencies.min()))
            _draw_bands(left, values, bands, color, width)
            dos = shown.dos(mesh)
            _draw_density(right, dos, color, width)
            ends += [float(x) for f in (values.frequencies, dos.frequencies) for x in (f.min(), f.max())]
            left.plot([], [], color=color, linewidth=width, label=name)
        for distance, _ in bands.path.ticks():
            left.axvline(distance, color=MUTED_COLOR, linewidth=0.6, zorder=0)
        for axes in (left, right):
            axes.axhline(0.0, color=MUTED_COLOR, linewidth=0.8, zorder=0)
        margin = 0.04 * (max(ends) - min(ends))
        left.set_ylim(min(ends) - margin, max(ends) + margin)
        left.set_xticks(*zip(*bands.path.ticks(), strict=True))
        left.set_xlim(bands.path.distances[0, 0], bands.path.distances[-1, -1])
        left.set_ylabel("frequency, THz (imaginary below zero)" if lowest < -0.05 else "frequency, THz")
        left.set_title(title or Symbols(phonons.primitive.numbers).get_chemical_formula("metal"))
        right.set_xlabel("modes per THz")
        right.set_xlim(left=0.0)
        if len(drawn) > 1:
            figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=min(len(drawn), 5))
        write_picture(figure, path)


def _draw_bands(axes: Axes, values: Bands, on: Bands, color: str, width: float) -> None:
    for distances, branches in zip(on.path.distances, values.branches, strict=True):
        axes.plot(distances, branches, color=color, linewidth=width)


def _draw_density(axes: Axes, dos: DensityOfStates, color: str, width: float) -> None:
    axes.plot(dos.density, dos.frequencies, color=color, linewidth=width)
    axes.fill_betweenx(dos.frequencies, dos.density, color=color, alpha=0.12, linewidth=0)
