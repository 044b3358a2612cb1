"""Every Python block in README.md and docs/*.md runs, and every shell block marked `sh run`, in order, in an empty
folder of its own per page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from forked_commands import forked_commands

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(python|sh run)\n(.*?)^```", re.DOTALL | re.MULTILINE)


WITH_CODE = [p for p in PAGES if BLOCK.search(p.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a command `hesse` that does not import everything again."""
    with forked_commands(tmp_path_factory.mktemp("commands")) as folder:
        yield folder


def run_in_a_shell(block: str, commands: Path) -> None:
    """As a user would, with the `hesse` that is tested."""
    places = os.pathsep.join([str(commands), str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        ["bash", "-euc", block], env={**os.environ, "PATH": places}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda p: str(p.relative_to(ROOT)))
def test_code_in_prose_runs(page: Path, commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__docs__"}
    text = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        language, block = match.groups()
        if language != "python":
            run_in_a_shell(block, commands)
            continue
        line = text[: match.start()].count("\n") + 2
        code = compile("\n" * (line - 1) + block, str(page), "exec")
        exec(code, namespace)
