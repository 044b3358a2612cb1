"""A picture of the electron-phonon spectral function α²F(ω) and of the coupling λ(ω) below each frequency."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hesse.errors import FileFormatError
from hesse.reports.figure_style import BASELINE_COLOR, OTHER_COLOR, figure_style, new_figure, to_png, to_svg
from hesse.runtime.filesystem import atomic_write_text
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
        width: width of the Gaussians that make a curve of the strengths, eV; default: a hundredth of the highest
            frequency.

    Raises:
        FileFormatError: another suffix.
        WriteError: the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".svg", ".png"):
        raise FileFormatError(f"{path}: pictures are written as .svg or .png")
    highest = max(s.highest_frequency for s in (spectrum, reference) if s is not None)
    grid = np.linspace(0, 1.08 * highest, 600)
    width = 0.01 * highest if width is None else width
    lowest = 0.0
    with figure_style():
        figure, axes = new_figure(width=6.4, height=3.2)
        coupling_axes = axes.twinx()
        for s, color, style, name in (
            (reference, BASELINE_COLOR, "--", "reference"),
            (spectrum, OTHER_COLOR, "-", "" if reference is None else "α²F"),
        ):
            if s is None:
                continue
            curve = s.broadened(grid, width)
            lowest = min(lowest, 1.1 * float(curve.min()))
            axes.plot(1e3 * grid, curve, color=color, linestyle=style, linewidth=1.3, label=name)
            if s is spectrum:
                axes.fill_between(1e3 * grid, curve, color=color, alpha=0.15, linewidth=0)
            coupling_axes.plot(1e3 * grid, s.cumulative_coupling(grid), color=color, linestyle=":", linewidth=1.2)
        axes.set(xlabel="ω (meV)", ylabel="α²F", title=title, xlim=(0, 1e3 * grid[-1]))
        axes.set_ylim(bottom=lowest)
        coupling_axes.set_ylabel("λ(ω), dotted")
        coupling_axes.set_ylim(bottom=0.0)
        coupling_axes.spines["right"].set_visible(True)
        if reference is not None:
            axes.legend(loc="upper left")
        if suffix == ".png":
            to_png(figure, path)
        else:
            atomic_write_text(path, to_svg(figure))
