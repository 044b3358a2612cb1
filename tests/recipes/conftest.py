"""Recipes train in this process here: starting others takes longer than these runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _one_core() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hesse.recipes.protocols.stages.n_cores", lambda: 1)
        yield
