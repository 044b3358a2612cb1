"""The figure of survival curves."""

from __future__ import annotations

import pytest

from hesse.errors import RequestError
from hesse.pes import ReplicaSettings
from hesse.reports import draw_survival

ROWS = [{"structure": name, "survived": k > 3, "time": float(min(k, 4))} for k, name in enumerate("abcdef")]


def test_curves_bands_and_temperatures(tmp_path) -> None:
    draw_survival({"one": ROWS, "two": ROWS[2:]}, tmp_path / "s.svg", ReplicaSettings(ramp="fast"))
    text = (tmp_path / "s.svg").read_text()
    for words in ("one (4 of 6 failed)", "two (2 of 4 failed)", "temperature (K)", "time (ps)", "surviving fraction"):
        assert words in text
    draw_survival({"one": ROWS}, tmp_path / "plain.svg")
    assert "temperature" not in (tmp_path / "plain.svg").read_text()
    draw_survival({"one": ROWS}, tmp_path / "s.png")
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_to_draw_gets_a_reply(tmp_path) -> None:
    with pytest.raises(RequestError, match=r"\.png or \.svg"):
        draw_survival({"one": ROWS}, tmp_path / "s.pdf")
    with pytest.raises(RequestError, match="no replica was started"):
        draw_survival({"one": [{"structure": "a", "survived": False, "time": None}]}, tmp_path / "s.svg")
    assert not list(tmp_path.iterdir())
