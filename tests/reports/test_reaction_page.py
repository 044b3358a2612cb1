"""Pages of reactions: complete and escaped, whatever stage a search has reached."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

import closed_form_engines
import hesse
import oracles
from hesse.pes import Reaction, ReactionOutcome
from hesse.reports import render_campaign, render_reaction
from hesse.reports.molecule_drawings import mode_animation, mode_arrows
from hesse.reports.reaction_figures import energy_profile
from hesse.structures import Structure

VOID = {"meta", "br", "img"}
HOSTILE = '<script>alert("x")</script> & $x_1$'
TETRAHEDRON = np.array([[0.55, 0, -0.39], [-0.55, 0, -0.39], [0, 0.55, 0.39], [0, -0.55, 0.39]])


class Page(HTMLParser):
    """Text, tags and images of a page; every tag that opens must close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tags, self.open = "", set[str](), list[str]()
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:  # <img/> ends itself
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def found() -> Reaction:
    ends = (Structure([6] * 4, TETRAHEDRON), Structure([6] * 4, TETRAHEDRON * [1, 1, -1]))
    return hesse.reaction(*ends, closed_form_engines.own_engine(), images=5, name=HOSTILE, temperature=(300.0, 600.0))


def test_the_page_has_everything_and_refers_to_nothing(found):
    html = render_reaction(found)
    page = Page(html)
    assert html.count("<script>") == 1, "that which turns the molecule"
    assert HOSTILE in page.text
    assert html.count("<img") == 3
    assert not re.search(r'(src|href)="(?!data:)', html)
    for words in ("Found", "barrier", f"{found.barrier:.4f}", "600.00", "Ends of the path", "vibrations", "same"):
        assert words in page.text
    for data in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", html):
        ElementTree.fromstring(base64.b64decode(data))
    assert render_reaction(found) == html


@pytest.mark.parametrize("outcome", list(ReactionOutcome))
def test_searches_that_did_not_get_far_have_a_page(outcome):
    page = Page(render_reaction(Reaction("r", "level", outcome, HOSTILE)))
    assert "script" not in page.tags
    assert HOSTILE in page.text
    assert energy_profile(Reaction("r", "level", outcome)) is None


def test_the_animation_moves_the_atoms_along_the_mode():
    structure = oracles.molecule(5, 3)
    mode = np.zeros((5, 3))
    mode[2, 1] = 1.0
    image = ElementTree.fromstring(mode_animation(structure, mode))
    circles = [e for e in image if e.tag.endswith("circle")]
    assert len(circles) == 5
    swings = [
        max(np.ptp([float(x) for x in step.attrib["values"].split(";")]) for step in circle) for circle in circles
    ]
    assert sorted(swings)[-2] == 0.0  # one atom moves
    assert max(swings) > 10.0  # pixels
    ElementTree.fromstring(mode_arrows(structure, mode, title="a mode"))
    ElementTree.fromstring(mode_arrows(structure, 0.0 * mode))


def test_a_campaign_has_its_statistics_and_links(found):
    rows = [found.row(), Reaction("other", "level", ReactionOutcome.NO_SADDLE, "why").row()]
    html = render_campaign(rows, {"found": 1, "no_saddle": 1}, {HOSTILE: "0001-x/reaction.html"})
    page = Page(html)
    assert "1 of 2 reactions found" in page.text
    assert "no saddle" in page.text
    assert 'href="0001-x/reaction.html"' in html
    assert "script" not in page.tags
