"""Recipes train in this process here: starting others takes longer than these runs."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesse.recipes.protocols.stages.n_cores", lambda: 1)
