"""The page of an evaluation: complete, escaped, alone, and working in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import hesse
from hesse.datasets import Dataset
from hesse.evaluation import Evaluation, MetricRow
from hesse.evaluation.level_spread import level_spread_row
from hesse.evaluation.saddle_judgment import SaddleTask, empty_record
from hesse.harmonic.normal_modes import normal_modes
from hesse.reports import render_evaluation, write_evaluation_page
from hesse.reports.mode_drawings import worst_modes
from hesse.reports.molecule_drawings import draw_arrows, draw_motion
from hesse.reports.point_plot import PlotPoint, point_plot
from oracles import Morse, labeled, molecules

HOSTILE = '<script>alert("x")</script> & $x_1$ {{ 7 * 7 }}'
VOID = {"meta", "link", "br", "img"}


class Page(HTMLParser):
    """Text of a page and of its pictures, and every address; every tag that opens must close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.references, self.pictures = "", list[str](), list[str]()
        self.headings, self.opened = list[str](), list[str]()
        self.feed(html)
        assert self.opened == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.references += [v or "" for k, v in attrs if k in ("src", "href")]
        if tag == "img" or values.get("role") == "img":
            self.pictures.append(values.get("alt") or values.get("aria-label") or "")
            assert self.pictures[-1], "a picture has words"
        if tag not in VOID:
            self.opened.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.opened and self.opened[-1] == "h2":
            self.headings.append(data)


@cache
def evaluation() -> Evaluation:
    """Two reactions whose names are hostile, judged by another potential than that of the labels."""
    tags = ("ts", "reactant", "product") * 2
    structures = [
        replace(s, tag=tag, group=f"{HOSTILE} {k // 3}", id=f"{HOSTILE} {k}")
        for k, (s, tag) in enumerate(zip(molecules([4] * 6), tags, strict=True))
    ]
    dataset = labeled(Morse(), structures, hessian=True)
    result = hesse.evaluate(Morse(depth=1.2), dataset, name="set", suite="curvature")
    found = empty_record(SaddleTask(f"{HOSTILE} 0", structures[0], frequency=-700.0, barrier=1.0))
    found |= {"found": True, "converged": True, "rmsd": 0.1, "imaginary_frequency": -650.0, "barrier": 1.1}
    lost = empty_record(SaddleTask("second", structures[3])) | {"reason": f"search: {HOSTILE}"}
    other = found | {"group": "third", "imaginary_frequency": -600.0, "barrier": 1.3, "ends_right": False}
    replica = {"kind": "replica", "structure": HOSTILE, "seed": 0, "reason": "bond length", "detail": HOSTILE}
    return replace(
        result,
        rows=(
            *result.rows,
            MetricRow("set", "", "barrier", "mae", 0.02, "eV", 2, 0.01, 0.03, 2),
            MetricRow("set", "", "transition_states", "fraction_found", 0.67, "1", 3, 0.09, 0.99, 3),
            MetricRow("set", "", "dynamics", "fraction_survived", 0.5, "1", 2, 0.1, 0.9, 2),
            level_spread_row("set"),
        ),
        records=(*({"kind": "saddle", **row} for row in (found, lost, other)), replica | {"temperature": 2500.0}),
        notes=(f"left out: {HOSTILE}",),
    )


def page(**options: object) -> str:
    return render_evaluation([evaluation()], model=HOSTILE, facts={"Data": HOSTILE}, **options)  # type: ignore[arg-type]


def test_the_page_has_all_parts_and_refers_to_nothing() -> None:
    html = page(notes=["another level of theory"])
    found = Page(html)
    assert all(reference.startswith("data:") for reference in found.references)
    assert "http" not in re.sub(r"data:image/svg\+xml;base64,[A-Za-z0-9+/=]*", "", html)
    parts = ["What decides", "Errors of labels", "Curvature", "Reactions", "Dynamics", "Plots", "The worst structures"]
    parts += ["The worst imaginary modes"]
    parts += ["Searches for transition states", "Runs of dynamics", "Methods", "Where this comes from"]
    assert found.headings == parts
    for words in ("Good enough for", "barriers at known geometries (0.23 to 0.69 kcal/mol)", "another level of theory",
                  "These data do not decide", "wB97M-V", hesse.__version__, "650i", "700i",
                  "right number of negative modes", "67.0", "9.00 to 99.0"):  # fmt: skip
        assert words in found.text, words
    assert html.index("Good enough for") < html.index("<table")
    assert page() == page()


def test_names_are_escaped_everywhere() -> None:
    html = page()
    assert '<script>alert("x")' not in html
    assert html.count("<script>") == 1
    assert "49" not in Page(html).text[:60]
    assert f"Is “{HOSTILE}” good enough?" in Page(html).text


def test_points_and_drawings_have_names() -> None:
    html = page()
    pictures = Page(html).pictures
    titles = re.findall(r"<circle [^>]*><title>([^<]*)</title></circle>", html)
    assert len(titles) == 6 + 6 + 2 + 2 + 2 + 2  # structures twice; reactions twice; transition states found twice
    assert "third: reference -700 cm⁻¹, potential -600 cm⁻¹" in titles
    assert sum("errors of its forces as arrows" in words for words in pictures) == 6
    assert sum("Errors of structures" in words for words in pictures) == 2


def test_the_worst_modes_are_those_of_lowest_overlap() -> None:
    modes = worst_modes(evaluation())
    assert [m.id for m in modes] == [f"{HOSTILE} {k}" for k in ((0, 3) if modes[0].id.endswith("0") else (3, 0))]
    assert modes[0].overlap <= modes[1].overlap
    for drawn in modes:
        index = int(drawn.id.split()[-1])
        hessian = evaluation().dataset.labels.hessian_of(index).numpy()
        structure = evaluation().dataset.structures[index]
        expected = normal_modes(structure, hessian).frequencies[0]
        assert drawn.frequencies[0] == pytest.approx(expected)
        assert drawn.frequencies[0] < 0
        again = normal_modes(structure, evaluation().predictions.hessian_of(index).numpy()).frequencies[0]
        assert drawn.frequencies[1] == pytest.approx(again)


def test_errors_of_energies_alone_have_a_page(tmp_path: Path) -> None:
    structures = molecules([3, 4], 1)
    full = labeled(Morse(), structures)
    dataset = Dataset(full.structures, full.labels.pick(["energy"]))
    result = hesse.evaluate(Morse(depth=1.2), dataset, name="energies")
    write_evaluation_page(tmp_path / "page.html", [result, evaluation()], model="m")
    found = Page((tmp_path / "page.html").read_text())
    assert "Errors of labels: energies" in " ".join(found.headings).replace(" : ", ": ")
    assert "total energies" in found.text


def test_an_evaluation_without_anything_that_decides() -> None:
    bare = replace(evaluation(), rows=(), records=(), notes=())
    assert "None of the numbers that decide" in Page(render_evaluation([bare], model="m")).text


def test_points_lie_where_their_numbers_say() -> None:
    points = [PlotPoint(1.0, 1.0, "a"), PlotPoint(3.0, 2.0, "b")]
    plot = point_plot("t", points, "x", "y", diagonal=True)
    for (x, y, _), point in zip(plot.points, points, strict=True):
        assert (x / 300 == pytest.approx(1 - y / 200, abs=1e-4)) is (point.x == point.y)
    ticks = {text: place for place, text in plot.x_ticks}
    assert plot.points[0][0] == pytest.approx(ticks["1"], abs=0.01)
    logarithmic = point_plot(
        "t", [*points, PlotPoint(0.0, 1.0, "zero"), PlotPoint(100.0, 9.0, "c")], "x", "y", log=True
    )
    assert [text for *_, text in logarithmic.points] == ["a", "b", "c"]
    places = np.array([(place, float(text)) for place, text in logarithmic.x_ticks])
    assert np.diff(places[:, 0]) / np.diff(np.log10(places[:, 1])) == pytest.approx(300 / (2 * 1.12), rel=1e-3)
    narrow = point_plot("t", [PlotPoint(149.0, 1.0, "a"), PlotPoint(152.0, 1.1, "b")], "x", "y", log=True)
    assert len(narrow.x_ticks) > 2
    assert len(narrow.y_ticks) > 2
    assert point_plot("one", points[:1], "x", "y").points[0][:2] == (150.0, 100.0)


def test_a_scene_is_the_molecule_in_another_orientation() -> None:
    structure = molecules([5])[0]
    moves = np.random.default_rng(0).normal(size=(5, 3))
    for drawing, longest in ((draw_arrows(structure, moves, "a"), 1.2), (draw_motion(structure, moves, "m"), 0.35)):
        scene = json.loads(drawing.scene)
        positions = np.array([atom[:3] for atom in scene["atoms"]])
        shifted = positions + np.array(scene["moves"])
        scale = longest / np.linalg.norm(moves, axis=1).max()
        for found, expected in ((positions, structure.positions), (shifted, structure.positions + scale * moves)):
            distances = [np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (found, expected)]
            np.testing.assert_allclose(*distances, atol=4e-3)
        assert np.linalg.norm(positions, axis=1).max() < scene["extent"]
    still = json.loads(draw_arrows(structure, 0.0 * moves, "still").scene)
    assert not np.any(still["moves"])


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 500])
def test_the_page_works_in_a_browser(tmp_path: Path, width: int) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    path = tmp_path / "page.html"
    probe = (
        "<script>document.querySelectorAll('th button')[0].click();"
        "const dot = document.querySelector('circle'); dot.dispatchEvent(new PointerEvent('pointerenter'));"
        "document.body.dataset.wide = document.documentElement.scrollWidth > window.innerWidth;"
        "const canvas = document.querySelector('.turning canvas'), holder = canvas.parentElement;"
        "document.body.dataset.canvases = document.querySelectorAll('.turning.drawn-by-script canvas').length;"
        "canvas.scrollIntoView();"
        "const empty = document.createElement('canvas'); let before = null;"
        "const timer = setInterval(() => {"
        "  [empty.width, empty.height] = [canvas.width, canvas.height];"
        "  if (before === null && canvas.toDataURL() !== empty.toDataURL()) {"
        "    document.body.dataset.painted = true;"
        "    before = canvas.toDataURL();"
        "    canvas.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowLeft' }));"
        "  } else if (before !== null && canvas.toDataURL() !== before) {"
        "    document.body.dataset.turned = true;"
        "    clearInterval(timer);"
        "  }"
        "}, 50);"
        "document.body.dataset.images = [...document.images].filter((i) => !i.complete).length;"
        "</script></body>"
    )
    path.write_text(page().replace("</body>", probe))
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900",
         "--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom", str(path)],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    assert done.stdout.count(' aria-sort="ascending"') == 1
    assert done.stdout.count("<th ") == done.stdout.count('type="button"') > 30
    assert 'data-wide="false"' in done.stdout, "the page does not scroll sideways, tables do"
    assert re.search(r"<output>[^<]+: ", done.stdout), "the name of a point is shown"
    assert 'data-canvases="10"' in done.stdout, "six structures, and two modes of two transition states"
    assert 'data-painted="true"' in done.stdout
    assert 'data-turned="true"' in done.stdout
