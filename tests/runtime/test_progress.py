"""Progress: on standard error only, plain lines without a terminal, nothing if quiet."""

from __future__ import annotations

import pytest

from hesse.runtime import progress
from hesse.runtime.progress import track


def test_plain_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_INTERVAL", 0.0)
    with track("labels", 10, done=4) as advance:
        advance(3, "halfway")
        advance(3)
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert lines[0].startswith("labels: 7/10")
    assert lines[0].endswith("halfway")
    assert lines[-1].startswith("labels: 10/10")


def test_rate_and_remaining_time_are_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with track("labels", 1000, done=100) as advance:
        for second in range(1, 41):
            now = float(second)
            advance(2, "3 failed")
        now = 3600.0
        advance(1)
        advance(0, "no worker")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "labels: 120/1000, 10 s, 2 a second, 7 min left, 3 failed"
    assert lines[3] == "labels: 180/1000, 40 s, 2 a second, 7 min left, 3 failed"
    assert lines[4].startswith("labels: 181/1000, 60 min, 1.01 an hour")
    assert lines[5].endswith("no worker")
    assert len(lines) == 6


def test_plain_lines_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    with track("steps", 1000) as advance:
        for _ in range(1000):
            advance()
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_quiet_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with track("labels", 2, quiet=True) as advance:
        advance(2, "note")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    with track("labels", 2) as advance:
        advance(1, "first [x] note")
        advance()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "2/2" in shown.err


def test_errors_pass_through() -> None:
    with pytest.raises(ValueError, match="inside"), track("labels", 2):
        raise ValueError("inside")
