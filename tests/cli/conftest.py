"""Verbs compute with the closed forms in this process here: starting others takes longer than their work."""

from __future__ import annotations

import pytest

from commands_in_process import Run, exit_code
from hesse.cli import common_options


@pytest.fixture(autouse=True)
def _closed_forms_are_steady(monkeypatch: pytest.MonkeyPatch) -> None:
    closed_forms = ("ase:closed_form_engines:morse", "ase:closed_form_engines:killer")  # which kills for F and Ne only
    steady = (*common_options._STEADY_ENGINES, *closed_forms)
    monkeypatch.setattr(common_options, "_STEADY_ENGINES", steady)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process: exit code, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = exit_code(monkeypatch, *arguments)
        return code, *capsys.readouterr()

    return call
