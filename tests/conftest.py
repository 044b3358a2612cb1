"""Shared by all tests: one thread, fixed seeds, and where optional reference data lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("hesse", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("hesse")


@pytest.fixture(autouse=True)
def _one_thread_and_a_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Reference data that are not part of the repository; tests that use it skip where it is absent."""
    folder = Path(os.environ.get("HESSE_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no reference data (set HESSE_SHARED_DATA, or put shared/data beside the checkout)")
    return folder
