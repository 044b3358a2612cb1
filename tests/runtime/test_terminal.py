"""Names of files, ids and tags cannot control the terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from hesse.datasets import Dataset, write_dataset
from hesse.reports.tables import new_table, print_tables
from hesse.runtime.terminal import plain_markup, printable
from hesse.structures import Properties, Structure

EVIL = "[/x][bold]\x1b]0;owned\x07\x1b[2J\u202e\x9b31m"
RUN = "import sys; sys.argv[0] = 'hesse'; from hesse.cli.app import main; main()"


def test_control_characters_are_shown() -> None:
    assert printable("a\tb\nc é") == "a\tb\nc é"
    assert printable("\x1b[2J\r\x9b\u202e\udc80") == r"\x1b[2J\r\x9b\u202e\udc80"
    assert plain_markup("a\nb") == r"a\nb"


def test_tables_show_markup_literally(capsys: pytest.CaptureFixture[str]) -> None:
    table = new_table(EVIL)
    table.add_column(EVIL)
    table.add_row(EVIL)
    print_tables([table])
    shown = capsys.readouterr().out
    assert shown.count("[/x][bold]") == 3
    assert "\x1b" not in shown
    assert r"\x1b]0;owned" in shown


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    water = Structure([1, 1], [[0.0, 0, 0], [0.0, 0, 0.7]], id=EVIL, tag=EVIL, group=EVIL)
    path = tmp_path_factory.mktemp("names") / "a\x1b[31m.h5"
    write_dataset(path, Dataset((water,), Properties.single(2, energy=-1.0), {"level": EVIL}))
    return path


@pytest.mark.slow
def test_commands_without_a_terminal(file: Path) -> None:
    done = subprocess.run([sys.executable, "-c", RUN, "info", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert r"[/x][bold]\x1b]0;owned\x07" in done.stdout
    missing = subprocess.run([sys.executable, "-c", RUN, "info", "\x1b[2Jno.h5"], capture_output=True, text=True)
    assert missing.returncode == 2
    assert "\x1b" not in missing.stderr


@pytest.mark.slow
def test_commands_on_a_terminal(file: Path) -> None:
    """rich writes escapes of its own there; those of the file do not get through."""
    main_end, child_end = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", RUN, "info", str(file)], stdout=child_end, stderr=child_end, stdin=child_end
    ) as child:
        os.close(child_end)
        shown = b""
        while True:
            try:
                piece = os.read(main_end, 65536)
            except OSError:
                break
            if not piece:
                break
            shown += piece
    os.close(main_end)
    assert child.returncode == 0, shown
    for attack in ("\x1b]0;", "\x1b[2J", "\u202e", "\x9b"):
        assert attack.encode() not in shown
    assert b"[/x]" in shown
