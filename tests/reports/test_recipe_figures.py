"""Figures of recipes: drawn where there is something to draw."""

from __future__ import annotations

from pathlib import Path

from hesse.recipes.protocols.label_curve import curve_points, curve_table
from hesse.reports.recipe_figures import draw_calibration, draw_label_curve

ROWS = [
    {"model": f"{variant}/{labels}/seed-{seed}", "dataset": "nms", "property": "hessian", "metric": "rmse",
     "unit": "eV/Å²", "n": 10, "value": base / labels**0.5 * (1 + 0.05 * seed)}
    for variant, base in (("random", 4.0), ("selection", 3.0))
    for labels in (16, 64)
    for seed in (0, 1, 2)
]  # fmt: skip
ROWS.append({**ROWS[0], "model": "pretrained/seed-0", "value": 2.0})


def test_points_are_means_over_seeds() -> None:
    points = {(p.variant, p.labels): p for p in curve_points(ROWS)}
    assert points["random", 16].values == (1.0, 1.05, 1.1)
    assert abs(points["random", 16].spread - 0.05) < 1e-12
    assert points["pretrained", None].values == (2.0,)
    lines = curve_table(ROWS).splitlines()
    assert lines[0].split() == ["test", "set", "variant", "labels", "seeds", "hessian", "(eV/Å²)"]
    assert any(line.split() == ["nms", "random", "16", "3", "1.05", "±", "0.05"] for line in lines)


def test_the_label_curve(tmp_path: Path) -> None:
    rows = [{**vars(point), "property": point.quantity} for point in curve_points(ROWS)]
    assert draw_label_curve(rows, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5000
    assert not draw_label_curve(rows, tmp_path / "none.png", property="forces")
    one = [row for row in rows if row["labels"] != 64]
    assert not draw_label_curve(one, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_the_calibration(tmp_path: Path) -> None:
    points = [{"property": "hvp", "spread": 0.01 * k, "error": 0.02 * k + 0.003 * (k % 5)} for k in range(1, 60)]
    assert draw_calibration(points, tmp_path / "calibration.png")
    assert (tmp_path / "calibration.png").stat().st_size > 5000
    assert not draw_calibration([{**points[0], "spread": 0.0}], tmp_path / "none.png")
