"""A campaign in a process that is killed by tests."""

from __future__ import annotations

import sys
from typing import Any

import oracles
from hesse.errors import HesseError
from hesse.labelling import label

SLOW = "ase:closed_form_engines:slow"
COUNT = 40


def campaign(output: str, *scheduler: str) -> None:
    """Label in two processes, or on a cluster; print the outcome, and exit as the command does."""
    structures = [oracles.molecule(3, k) for k in range(COUNT)]
    options: dict[str, Any] = {"scheduler": scheduler[0]} if scheduler else {"workers": 2}
    try:
        report = label(structures, SLOW, output, quiet=True, **options)
    except HesseError as error:
        print(type(error).__name__, error)
        sys.exit(error.exit_code)
    print(report.n_reused, len(report.dataset), len(report.failures))
