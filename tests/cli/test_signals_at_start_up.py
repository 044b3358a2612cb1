"""SIGINT and SIGTERM while a command starts end it with the documented exit code and one line."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hesse.cli import app
from hesse.errors import InterruptedRunError

COMMANDS = {
    "convert": ["convert", "water.xyz", "out.h5"],
    "label": ["label", "water.xyz", "out.h5", "--engine", "gfn2"],
    "train": ["train", "run.yaml"],
    "evaluate": ["evaluate", "model.hesse", "water.xyz"],
    "saddle": ["saddle", "water.xyz", "out.xyz", "--engine", "gfn2"],
}


@pytest.mark.slow
@pytest.mark.parametrize("verb", COMMANDS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_at_start_up(tmp_path: Path, verb: str, number: signal.Signals) -> None:
    (tmp_path / "water.xyz").write_text("3\n\nO 0 0 0.119\nH 0 0.763 -0.477\nH 0 -0.763 -0.477\n")
    # Told by the process itself: its handlers are there, and the imports have begun.
    code = (
        "import sys; from hesse.cli import entry\n"
        "class Tell:\n"
        "    def find_spec(self, name, *more):\n"
        "        if name == 'typer': print('importing', flush=True)\n"
        "sys.meta_path.insert(0, Tell()); entry.main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, *COMMANDS[verb]],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (InterruptedRunError.exit_code, "interrupted\n")
    assert [p.name for p in tmp_path.iterdir()] == ["water.xyz"]


def test_short_memory_is_a_reply(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for error in (MemoryError("56 GiB"), RuntimeError("DefaultCPUAllocator: can't allocate memory: 56 GiB")):

        def fail(error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(app, "_run", fail)
        with pytest.raises(SystemExit) as end:
            app.main()
        assert end.value.code == 1
        assert capsys.readouterr().err.startswith("MemoryError: not enough memory (")
