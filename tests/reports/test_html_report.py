"""The HTML report: one self-contained file, the same for the same input; tables and the summary figure."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import torch

from hesse.datasets import Dataset
from hesse.errors import RequestError, WriteError
from hesse.evaluation import Evaluation, error_metrics
from hesse.reports import (
    ComparedModel,
    Comparison,
    comparison_table,
    draw_summary,
    error_tables,
    print_tables,
    render_report,
    vibration_table,
    write_report,
)
from hesse.reports.figure_style import BASELINE_COLOR, OTHER_COLOR, log_axis, new_figure
from oracles import Morse, labeled, molecules

VOID = {"meta", "br", "hr", "img", "input", "link"}
HOSTILE = '<script>alert("x")</script> & $x_1$'


class Page(HTMLParser):
    """Checks the nesting of elements, collects identifiers, references and texts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = dict(attrs)
        if names.get("id"):
            self.ids.append(str(names["id"]))
        self.references += [str(v) for k, v in attrs if k in {"src", "href", "xlink:href", "srcset", "action", "data"}]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def evaluation_of(data: Dataset, name: str, scale: float, seed: int) -> Evaluation:
    generator = torch.Generator().manual_seed(seed)
    predicted = data.labels.map_tensors(lambda t: t + scale * torch.randn(t.shape, generator=generator, dtype=t.dtype))
    return Evaluation(name, data, predicted, tuple(error_metrics(data, predicted, name=name)))


@cache
def comparison(**changes: Any) -> Comparison:
    groups = [molecules([4, 5, 6] * 3, seed, name="") for seed in (0, 1)]
    tagged = [[replace(s, tag="hot" if k % 2 else HOSTILE) for k, s in enumerate(group)] for group in groups]
    sets = [labeled(Morse(), group, hessian=True) for group in tagged]
    sides = []
    for name, scale in (("E-F", 0.2), ("E-F-HVP", 0.1)):
        evaluations = tuple(evaluation_of(d, n, scale, 7) for d, n in zip(sets, ("far", HOSTILE), strict=True))
        log = [
            {"kind": kind, "step": step, "loss": scale, "forces_rmse": scale / (1 + step), "hvp_rmse": float("nan")}
            for step in range(0, 50, 10)
            for kind in ("train", "validation")
        ]
        sides.append(ComparedModel(name, evaluations, log))
    settings: dict[str, Any] = {"title": f"Report {HOSTILE}", "facts": {"machine": HOSTILE, "seed": "0"}}
    return Comparison(baseline=sides[0], other=sides[1], **{**settings, **changes})


@cache
def rendered() -> str:
    return render_report(comparison())


SVG = "data:image/svg+xml;base64,"


def drawings(page: Page) -> list[str]:
    """The figures of a page: SVG files of their own, each of them complete."""
    assert all(r.startswith(SVG) for r in page.references)
    texts = [base64.b64decode(r.removeprefix(SVG)).decode() for r in page.references]
    for text in texts:
        assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
        assert all(r.startswith(("#", "data:image/png;base64,")) for r in re.findall(r'href="([^"]*)"', text))
    return texts


def test_the_report_is_one_self_contained_file(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    write_report(target, comparison())
    text = target.read_text(encoding="utf-8")
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"base64,[A-Za-z0-9+/=\s]+", "", text))
    assert "@import" not in text
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    # Two histograms, two times three properties of both models, one learning curve (two were never finite or present).
    assert page.tags.count("img") == len(drawings(page)) == 2 + 12 + 1


def test_text_is_escaped() -> None:
    page = Page(rendered())
    assert "script" not in page.tags
    assert sum(HOSTILE in data for data in page.text) >= 4


def test_equal_comparisons_give_equal_reports() -> None:
    first = rendered()
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True}):  # whatever the user has set up
        assert render_report(comparison()) == first


def test_the_page_has_a_light_and_a_dark_theme() -> None:
    """In dark mode figures are inverted, so they must not have a background of their own."""
    text = rendered()
    assert "prefers-color-scheme: dark" in text
    for drawing in drawings(Page(text)):
        assert "#1c2126" in drawing
        assert not re.search(r"fill: #fff(fff)?\b", drawing)
        background = re.search(r'<g id="patch_1">\s*<path[^>]*>', drawing)
        assert background is None or "fill: none" in background.group()
    assert text.count(BASELINE_COLOR) == text.count(OTHER_COLOR) == 1  # colors of the swatches


def test_the_numbers_are_those_of_the_evaluations() -> None:
    c = comparison()
    for old, new in c.evaluation_pairs:
        before, after = old.row("hessian"), new.row("hessian")
        line = c.row(old.name, "hessian")
        assert before is not None
        assert after is not None
        assert line is not None
        assert (line.baseline, line.other, line.n) == (before.value, after.value, before.n)
        assert line.percent == pytest.approx(-50.0)  # the same noise, half as large
        assert line.low == pytest.approx(-50.0)
    page = Page(rendered())
    assert any("−50 %" in text for text in page.text)
    assert any("−74.5 %" in text for text in page.text)


def test_a_report_without_hessians_log_and_published_changes() -> None:
    """Empty training log, no Hessians, no published changes, no facts."""
    data = labeled(Morse(), molecules([3, 4]), probes=0)
    sides = [ComparedModel(name, (evaluation_of(data, "set", 0.1, 0),)) for name in ("a", "b")]
    c = Comparison("Little", {}, *sides, published=())
    page = Page(render_report(c))
    assert len(drawings(page)) == 4  # energies and forces
    assert not {"Vibrations", "This run", "Learning curves", "By kind of geometry"} & set(page.text)
    assert comparison_table(c).row_count == 3


def test_different_test_sets_are_refused() -> None:
    c = comparison()
    with pytest.raises(RequestError, match="same test sets"):
        replace(c, other=replace(c.other, evaluations=c.other.evaluations[:1]))
    with pytest.raises(RequestError, match="same test sets"):
        replace(c, baseline=ComparedModel("a", ()), other=ComparedModel("b", ()))


def test_vibrations_are_tabled_where_relaxed_structures_have_hessians(capsys: pytest.CaptureFixture[str]) -> None:
    assert not comparison().vibrations
    assert vibration_table(comparison()).row_count == 0
    assert "Vibrations" not in rendered()
    structures = [replace(s, tag="relaxed") for s in molecules([3, 4])]
    data = labeled(Morse(), structures, hessian=True)
    sides = []
    for name, factor in (("a", 1.44), ("b", 1.21)):
        assert data.labels.hessian is not None
        scaled = data.labels.replace(hessian=factor * data.labels.hessian)
        sides.append(ComparedModel(name, (Evaluation("set", data, scaled, tuple(error_metrics(data, scaled))),)))
    c = Comparison("Vibrations of two molecules", {}, *sides)
    old, new = c.vibrations["set"]
    assert old.frequency_mae == pytest.approx(2 * new.frequency_mae)  # 20 % and 10 % of every frequency
    assert "Vibrations" in "".join(Page(render_report(c)).text)
    assert c.summary()["vibrations"]["set"]["a"]["n_structures"] == 2
    print_tables([vibration_table(c)])
    assert "zero-point energy" in capsys.readouterr().out


def test_a_missing_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="no folder"):
        write_report(tmp_path / "nowhere" / "report.html", comparison())


def test_the_summary_read_from_json_gives_the_same_figure(tmp_path: Path) -> None:
    summary = comparison().summary()
    again = json.loads(json.dumps(summary, allow_nan=False))
    assert again == summary
    for name, values in (("a.png", summary), ("b.png", again)):
        draw_summary(values, tmp_path / name)
    first = (tmp_path / "a.png").read_bytes()
    assert first[:8] == b"\x89PNG\r\n\x1a\n"
    assert first == (tmp_path / "b.png").read_bytes()
    with pytest.raises(RequestError, match="no Hessian errors"):
        draw_summary({**summary, "lines": []}, tmp_path / "c.png")
    assert not (tmp_path / "c.png").exists()


def test_tables_have_both_units_and_all_digits(capsys: pytest.CaptureFixture[str]) -> None:
    evaluation = evaluation_of(
        labeled(Morse(), molecules([3, 4]), hessian=True), "a-rather-long-name-of-a-data-set", 0.1, 0
    )
    print_tables(error_tables(evaluation.rows))
    out = capsys.readouterr().out
    for expected in (
        "a-rather-long-name-of-a-data-set",
        "kcal/mol/Å²",
        "eV/Å²",
        "Hessian-vector products",
        "noise floor",
    ):
        assert expected in out
    row = evaluation.row("energy")
    assert row is not None
    assert f"{row.value / 0.04336:.2f}" in out  # one kcal/mol is 0.04336 eV
    assert "…" not in out
    assert "\x1b" not in out
    print_tables([comparison_table(comparison())])
    out = capsys.readouterr().out
    assert "−88.3 % Test, −87.0 % IRC, −74.5 % NMS" in out
    assert np.array([line.metric == "rmse" for line in comparison().rows]).sum() == 10


def test_error_tables_fit_a_terminal_of_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_tables(error_tables(evaluation_of(labeled(Morse(), molecules([3, 4]), hessian=True), "far", 0.1, 0).rows))
    assert max(len(line) for line in capsys.readouterr().out.splitlines()) <= 80


def test_narrow_logarithmic_axes_have_enough_labels() -> None:
    for low, high in ((0.94, 1.02), (0.11, 0.3), (23.0, 46.0), (1e-3, 0.02)):
        figure, axes = new_figure()
        axes.set_yscale("log")
        axes.set_ylim(low, high)
        log_axis(axes.yaxis, low, high)
        shown = [t for t in axes.yaxis.get_major_locator()() if low <= t <= high]
        assert len(shown) >= 3
        assert not {f"{t:g}" for t in axes.yaxis.get_minorticklocs()} & {f"{t:g}" for t in shown}
        figure.clear()
