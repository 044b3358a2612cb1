"""Arrays of a wrong shape: the reply names the shape that is expected, and how to convert the layout that came."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import closed_form_engines
import hesse
import oracles
from hesse import HesseError, Structure
from hesse.datasets import from_phonopy, to_phonopy
from hesse.errors import LabelShapeError
from hesse.pes import displacement

TRIANGLE = Structure([6, 6, 6], [[0, 0, 0], [1.4, 0, 0], [0.7, 1.1, 0]], id="triangle")
FLAT = np.zeros((9, 9))

CALLS: dict[str, tuple[Callable[[], object], str]] = {
    "to_phonopy, a matrix": (
        lambda: to_phonopy(FLAT),
        r"got shape \(9, 9\): use .reshape\(3, 3, 3, 3\)",
    ),
    "to_phonopy, its own layout": (lambda: to_phonopy(np.zeros((5, 5, 3, 3))), r"got shape \(5, 5, 3, 3\)"),
    "to_phonopy, None": (lambda: to_phonopy(None), r"to_phonopy expects a Hessian|expected an array of numbers"),
    "to_phonopy, ragged": (lambda: to_phonopy([[1, 2], [3]]), "expected an array of numbers, got list"),
    "from_phonopy, a matrix": (lambda: from_phonopy(FLAT), r"\[atoms, atoms, 3, 3\], got shape \(9, 9\)"),
    "from_phonopy, a Hessian": (lambda: from_phonopy(np.zeros((5, 3, 5, 3))), r"got shape \(5, 3, 5, 3\)"),
    "from_phonopy, compact": (lambda: from_phonopy(np.zeros((2, 8, 3, 3))), "compact"),
    "normal_modes, a matrix": (lambda: hesse.normal_modes(TRIANGLE, FLAT), r"Use .reshape\(3, 3, 3, 3\)"),
    "normal_modes, text": (lambda: hesse.normal_modes(TRIANGLE, "x"), "got str"),
    "saddle": (lambda: hesse.saddle(TRIANGLE, closed_form_engines.own_engine(), hessian=FLAT), r"Use .reshape"),
    "irc": (lambda: hesse.irc(TRIANGLE, closed_form_engines.own_engine(), hessian=FLAT), r"Use .reshape"),
    "collate": (lambda: hesse.collate(TRIANGLE, 5.0), r"collate\(\[structure\], cutoff\)"),
    "collate, nothing": (lambda: hesse.collate([], 5.0), "at least one"),
    "displacement": (lambda: displacement(TRIANGLE, oracles.atom()), "same atoms"),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_reply_tells_the_shape(name: str) -> None:
    call, message = CALLS[name]
    with pytest.raises(HesseError, match=message):
        call()


def test_the_layout_of_phonopy_is_recognized() -> None:
    four = Structure([6] * 4, oracles.rhombus().positions)
    with pytest.raises(LabelShapeError, match="from_phonopy"):
        hesse.normal_modes(four, np.zeros((4, 4, 3, 3)))
    hessian = np.random.default_rng(0).normal(size=(4, 3, 4, 3))
    np.testing.assert_array_equal(from_phonopy(to_phonopy(hessian)), hessian)
