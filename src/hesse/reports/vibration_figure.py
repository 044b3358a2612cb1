"""A picture of the frequencies of one structure: sticks, and their density with a width."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from hesse.errors import ConfigError, check_numbers
from hesse.reports.figure_style import (
    BASELINE_COLOR,
    MUTED_COLOR,
    OTHER_COLOR,
    figure_style,
    new_figure,
    write_picture,
)
from hesse.runtime.filesystem import picture_suffix

__all__ = ["draw_frequencies"]


def draw_frequencies(
    path: str | Path, frequencies: Float[ndarray, "modes"], *, title: str = "", width: float = 20.0
) -> None:
    """Draw frequencies as sticks of equal height, with the density of modes behind them.

    Energies and Hessians say nothing about intensities, which need dipole moments: the height is the number of modes.

    Args:
        path: the picture, `.svg` or `.png`.
        frequencies: cm⁻¹; imaginary ones are negative, and drawn in another color.
        title: title of the picture.
        width: half width at half maximum of the Lorentzians of the density, cm⁻¹.

    Raises:
        FileFormatError: another suffix.
        ConfigError: a width that is not a positive number.
        WriteError: the file cannot be written.
    """
    check_numbers(width=width)
    if not (np.isfinite(width) and width > 0):
        raise ConfigError(f"width: expected a positive number of cm⁻¹, got {width}")
    picture_suffix(path)
    low, high = (
        min(0.0, float(np.min(frequencies, initial=0.0)) - 100.0),
        float(np.max(frequencies, initial=0.0)) + 200.0,
    )
    grid = np.linspace(low, high, 2000)
    # In units of the peak of one mode.
    density = (width**2 / ((grid[:, None] - frequencies) ** 2 + width**2)).sum(1)
    with figure_style():
        figure, axes = new_figure(width=6.5, height=2.8)
        axes.fill_between(grid, density, color=MUTED_COLOR, alpha=0.25, linewidth=0)
        axes.plot(grid, density, color=MUTED_COLOR, linewidth=1.0)
        for values, color, label in (
            (frequencies[frequencies >= 0], OTHER_COLOR, ""),
            (frequencies[frequencies < 0], BASELINE_COLOR, "imaginary"),
        ):
            if len(values):
                axes.vlines(values, 0.0, 1.0, color=color, linewidth=1.2, label=label)
        if (frequencies < 0).any():
            axes.legend()
        axes.set_xlim(high, low)  # as spectra are drawn: large wavenumbers on the left
        axes.set_ylim(bottom=0.0)
        axes.set_xlabel("wavenumber, cm⁻¹")
        axes.set_ylabel("modes")
        axes.set_title(title)
        write_picture(figure, path)
