"""A picture of the electron-phonon spectral function α²F(ω) and of the coupling λ(ω) below each frequency."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array
from scipy.special import ndtr

from hesse.reports.figure_style import BASELINE_COLOR, OTHER_COLOR, figure_style, new_figure, write_picture
from hesse.runtime.filesystem import picture_suffix
from hesse.superconductivity import SpectralFunction

__all__ = ["draw_alpha2f"]


def draw_alpha2f(
    path: str | Path,
    spectrum: SpectralFunction,
    *,
    reference: SpectralFunction | None = None,
    title: str = "",
    width: float | None = None,
) -> None:
    """Draw α²F(ω) with the part of λ below each frequency.

    Args:
        path: the picture, `.svg` or `.png`.
        spectrum: α²F.
        reference: another α²F behind it, for instance that of harmonic frequencies.
        title: title of the picture.
        width: width of the Gaussians that make curves of the strengths, eV; default: a hundredth of the highest
            frequency, and more where α²F is given on a coarser grid.

    Raises:
        FileFormatError: another suffix.
        WriteError: the file cannot be written.
    """
    picture_suffix(path)
    highest = max(s.highest_frequency for s in (spectrum, reference) if s is not None)
    grid = np.linspace(0, 1.08 * highest, 600)
    lowest = 0.0
    with figure_style():
        figure, axes = new_figure(width=6.4, height=3.2)
        coupling_axes = axes.twinx()
        for s, color, name in (
            (reference, BASELINE_COLOR, "reference"),
            (spectrum, OTHER_COLOR, "" if reference is None else "α²F"),
        ):
            if s is None:
                continue
            broad = max(0.01 * highest, 0.7 * _spacing(s)) if width is None else width
            curve = s.broadened(grid, broad)
            lowest = min(lowest, 1.1 * float(curve.min()))
            axes.plot(1e3 * grid, curve, color=color, linewidth=1.3, label=name)
            if s is spectrum:
                axes.fill_between(1e3 * grid, curve, color=color, alpha=0.15, linewidth=0)
            coupling_axes.plot(1e3 * grid, _sums(s, grid, broad), color=color, linestyle="--", linewidth=1.2)
        axes.set(xlabel="ω (meV)", ylabel="α²F", title=title, xlim=(0, 1e3 * grid[-1]))
        axes.set_ylim(bottom=lowest)
        coupling_axes.set_ylabel("λ(ω), dashed")
        coupling_axes.set_ylim(bottom=0.0)
        coupling_axes.spines["right"].set_visible(True)
        if reference is not None:
            axes.legend(loc="upper left")
        write_picture(figure, path)


def _spacing(spectrum: SpectralFunction) -> float:
    """The distance of the frequencies where they are a grid, zero for single modes."""
    steps = np.diff(spectrum.frequencies)
    is_grid = len(steps) >= 8 and float(np.ptp(steps)) < 0.05 * float(steps.max())
    return float(steps.max()) if is_grid else 0.0


def _sums(spectrum: SpectralFunction, grid: Float[Array, " n"], width: float) -> Float[Array, " n"]:
    """λ(ω) of the broadened α²F: a smooth curve between the data, whatever the grids are."""
    parts = 2 * spectrum.strengths / spectrum.frequencies
    result: Float[Array, " n"] = ndtr((grid[:, None] - spectrum.frequencies) / width) @ parts
    return result
