"""Survival curves of molecular dynamics as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hesse.errors import RequestError
from hesse.pes import RAMPS, ReplicaSettings, survival_of_rows
from hesse.reports.figure_style import (
    BASELINE_COLOR,
    MUTED_COLOR,
    OTHER_COLOR,
    figure_style,
    new_figure,
    write_picture,
)
from hesse.runtime.filesystem import picture_suffix

__all__ = ["draw_survival"]

_COLORS = (OTHER_COLOR, BASELINE_COLOR, "#009e73", "#cc79a7", MUTED_COLOR)


def draw_survival(
    rows: Mapping[str, Sequence[Mapping[str, Any]]], path: str | Path, settings: ReplicaSettings | None = None
) -> None:
    """Draw survival curves with their 95 % bands.

    Args:
        rows: rows of `hesse md` by the label of their curve.
        path: a .png or .svg file.
        settings: those of the runs; a ramp gets a second axis, of temperatures.

    Raises:
        FileFormatError: another suffix.
        RequestError: no replica with dynamics.
        WriteError: the figure cannot be written.
    """
    picture_suffix(path)
    curves = {label: curve for label, values in rows.items() if (curve := survival_of_rows(values)) is not None}
    if not curves:
        raise RequestError("there is no survival curve to draw: no replica was started")
    with figure_style():
        figure, axes = new_figure(5.2, 3.4)
        for k, (label, curve) in enumerate(curves.items()):
            color = _COLORS[k % len(_COLORS)]
            axes.fill_between(curve.times, curve.low, curve.high, step="post", color=color, alpha=0.18, linewidth=0)
            text = f"{label} ({curve.n_failed} of {curve.n} failed)"
            axes.step(curve.times, curve.fraction, where="post", color=color, label=text)
        end = max(float(curve.times[-1]) for curve in curves.values())
        axes.set(xlabel="time (ps)", ylabel="surviving fraction", ylim=(0.0, 1.03), xlim=(0.0, end or 1.0))
        if settings is not None and settings.ramp is not None:
            rate = RAMPS[settings.ramp].increment / (settings.steps_per_level * settings.step_length / 1000.0)
            start = RAMPS[settings.ramp].start

            def to_kelvin(t: Any) -> Any:
                return start + rate * np.asarray(t)

            def to_time(kelvin: Any) -> Any:
                return (np.asarray(kelvin) - start) / rate

            above = axes.secondary_xaxis("top", functions=(to_kelvin, to_time))
            above.set_xlabel("temperature (K)")
        axes.legend(loc="best")
        write_picture(figure, path)
