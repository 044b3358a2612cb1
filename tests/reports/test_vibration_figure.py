"""The picture of frequencies."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from hesse.errors import ConfigError, FileFormatError
from hesse.reports.vibration_figure import draw_frequencies

FREQUENCIES = np.array([-450.0, 300.0, 1600.0, 3700.0])


def test_imaginary_modes_are_marked(tmp_path: Path) -> None:
    draw_frequencies(tmp_path / "ts.svg", FREQUENCIES, title="a saddle")
    text = (tmp_path / "ts.svg").read_text(encoding="utf-8")
    assert "imaginary" in text
    assert "a saddle" in text
    draw_frequencies(tmp_path / "minimum.svg", FREQUENCIES[1:])
    assert "imaginary" not in (tmp_path / "minimum.svg").read_text(encoding="utf-8")


def test_the_same_input_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        draw_frequencies(tmp_path / name, FREQUENCIES)
    ids = [re.sub(r"\s+", " ", (tmp_path / name).read_text(encoding="utf-8")) for name in ("a.svg", "b.svg")]
    assert ids[0] == ids[1]


def test_png_and_a_single_atom(tmp_path: Path) -> None:
    draw_frequencies(tmp_path / "atom.png", np.array([]))
    assert (tmp_path / "atom.png").read_bytes().startswith(b"\x89PNG")


def test_replies(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"\.png or \.svg"):
        draw_frequencies(tmp_path / "a.pdf", FREQUENCIES)
    with pytest.raises(ConfigError, match="width: expected a positive number"):
        draw_frequencies(tmp_path / "a.svg", FREQUENCIES, width=0.0)
