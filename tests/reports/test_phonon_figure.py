"""Pictures of phonons: every curve is inside the axes, and the legend names all phonons."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from matplotlib.figure import Figure

pytest.importorskip("phonopy", reason="needs phonopy")
pytest.importorskip("seekpath", reason="needs seekpath")

import hesse
from hesse.lattice import Phonons

pytestmark = pytest.mark.filterwarnings("ignore::hesse.errors.HarmonicWarning")
MESH = (3, 3, 3)


@pytest.fixture(scope="module")
def copper() -> Phonons:
    return hesse.phonons(bulk("Cu", a=3.59), EMT(), supercell=2)


def scaled(phonons: Phonons, factor: float) -> Phonons:
    record = phonons.to_phonopy()
    record.force_constants = factor * np.array(record.force_constants)
    return replace(phonons, record=record)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    kept: list[Figure] = []
    monkeypatch.setattr("hesse.reports.phonon_figure.write_picture", lambda figure, _: kept.append(figure))
    return kept


def test_harder_and_softer_phonons_are_inside(copper: Phonons, figures: list[Figure]) -> None:
    further = {"300 K": scaled(copper, 1.5), "600 K": scaled(copper, -0.5)}
    hesse.draw_phonons(Path("x.png"), scaled(copper, 1.2), reference=copper, further=further, label="100 K", mesh=MESH)
    left, right = figures[0].axes
    low, high = left.get_ylim()
    drawn = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in (*left.lines, *right.lines)])
    assert low < drawn.min() < -1
    assert high > drawn.max() > 7
    names = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert names == ["reference", "100 K", "300 K", "600 K"]
    assert "imaginary" in left.get_ylabel()
