"""The face of the package: what is promised exists, what exists is promised, and the command line answers at once."""

from __future__ import annotations

import subprocess
import sys

import hesse


def test_every_promised_name_exists() -> None:
    for name in hesse.__all__:
        assert getattr(hesse, name) is not None


def test_promises_are_sorted_and_complete() -> None:
    assert set(hesse._SOURCES) | {"__version__"} == set(hesse.__all__)
    assert dir(hesse) == sorted(hesse.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(hesse, "hessain")


def test_help_needs_no_heavy_import() -> None:
    """`hesse --help` must not load torch: it would take seconds."""
    code = (
        "import sys; sys.argv = ['hesse', '--help']\n"
        "from hesse.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'ase', 'tblite', 'scipy', 'matplotlib', 'h5py'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for verb in ("bench", "check", "convert", "demo", "evaluate", "info", "irc", "label", "saddle", "sample", "train"):
        assert verb in done.stdout
