"""The verb `reaction`: files of one reaction, a campaign, and replies."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from ase.io import write

from commands_in_process import hesse
from hesse.datasets import read_dataset
from hesse.errors import ConfigError, ExecutionError, RequestError
from hesse.structures import Structure, to_ase

MORSE = ("--engine", "ase:closed_form_engines:morse", "--quiet")
TETRAHEDRON = np.array([[0.55, 0, -0.39], [-0.55, 0, -0.39], [0, 0.55, 0.39], [0, -0.55, 0.39]])


def end(name: str, mirrored: bool = False, numbers: tuple[int, ...] = (6, 6, 6, 6)):
    return to_ase(Structure(numbers, TETRAHEDRON * [1, 1, -1 if mirrored else 1], id=name))


@pytest.fixture
def ends(tmp_path: Path) -> Path:
    write(tmp_path / "r.extxyz", end("left <&>"))
    write(tmp_path / "p.extxyz", end("right", True))
    return tmp_path


class Words(HTMLParser):
    """The text of a page, and its images."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.images = "", 0
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.images += tag == "img"


@pytest.mark.slow
def test_one_reaction_gets_a_page_and_its_geometries(ends):
    done = hesse(
        "reaction", "r.extxyz", "p.extxyz", *MORSE, "--out", "out", "--json", "rows.json", "--verify",
        "ase:closed_form_engines:morse", "--temperature", 300, "--temperature", 500, folder=ends,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert "left <&>: barrier 2.199 eV (50.7 kcal/mol); reaction energy" in done.stdout
    assert "ΔG‡(500 K)" in done.stdout
    assert "/s (with Wigner's tunneling factor " in done.stdout
    assert "reaction.html (MorseCalculator@" in done.stdout
    assert "has its saddle point there too, barrier 2.199 eV" in done.stdout
    (row,) = json.loads((ends / "rows.json").read_text())
    assert json.loads((ends / "out" / "reactions.json").read_text()) == [row]
    assert row["found"]
    assert [at["temperature"] for at in row["rates"]] == [300.0, 500.0]
    page = Words((ends / "out" / "reaction.html").read_text())
    assert page.images == 3
    assert "left <&>" in page.text
    assert "Wigner" in page.text
    top = read_dataset(ends / "out" / "ts.extxyz")
    assert top.labels.hessian is not None
    path = read_dataset(ends / "out" / "path.extxyz")
    assert float(path.labels.energy.max()) == pytest.approx(float(top.labels.energy[0]))
    assert {s.tag for s in read_dataset(ends / "out" / "ends.extxyz").structures} == {"reactant", "product", "end"}
    again = hesse("reaction", "r.extxyz", "p.extxyz", *MORSE, "--out", "out", "--verify",
                  "ase:closed_form_engines:morse", "--temperature", 300, "--temperature", 500, folder=ends)  # fmt: skip
    assert "1 searches were finished before" in again.stdout


@pytest.mark.slow
def test_a_campaign_ends_in_statistics(ends):
    frames = [end("a"), end("b", True), end("c", numbers=(6, 6, 6, 7)), end("d", numbers=(6, 6, 7, 6))]
    write(ends / "pairs.extxyz", frames)
    done = hesse("reaction", "pairs.extxyz", *MORSE, "--out", "out", "--images", 5, folder=ends)
    assert done.exit_code == 0, done.stderr
    assert "out/index.html: 1 found, 1 different atoms" in done.stdout
    assert "c: different atoms: " in done.stderr
    page = Words((ends / "out" / "index.html").read_text())
    assert "1 of 2 reactions found" in page.text
    assert (ends / "out" / "0001-a" / "reaction.html").exists()


def test_wrong_requests_change_nothing(ends):
    (ends / "mine").mkdir()
    (ends / "mine" / "file").write_text("mine")
    with pytest.raises(RequestError, match="is not empty"):
        hesse("reaction", "r.extxyz", "p.extxyz", *MORSE, "--out", "mine", folder=ends)
    with pytest.raises(RequestError, match="needs a folder"):
        hesse("reaction", "r.extxyz", "p.extxyz", *MORSE, "--out", "r.extxyz", folder=ends)
    with pytest.raises(RequestError, match="an even number"):
        hesse("reaction", "r.extxyz", *MORSE, "--out", "out", folder=ends)
    with pytest.raises(ConfigError, match=r"--temperature: expected a number of K above 0, got -4"):
        hesse("reaction", "r.extxyz", "p.extxyz", *MORSE, "--out", "cold", "--temperature", -4, folder=ends)
    assert not list((ends / "cold").glob("*"))
    assert hesse("reaction", "r.extxyz", "p.extxyz", "--method", "davidson", folder=ends).exit_code == 2
    assert "davidson" not in hesse("reaction", "--help", folder=ends).stdout
    write(ends / "other.extxyz", end("other", numbers=(6, 6, 6, 7)))
    with pytest.raises(ExecutionError, match="no reaction was found for the pair; the reason is above"):
        hesse("reaction", "r.extxyz", "other.extxyz", *MORSE, "--out", "out", folder=ends)
    (ends / "early").mkdir()  # as a search leaves it that was interrupted before its first result
    (ends / "early" / ".reactions.searches.jsonl.lock").touch()
    with pytest.raises(ExecutionError):
        hesse("reaction", "r.extxyz", "other.extxyz", *MORSE, "--out", "early", folder=ends)
    assert (ends / "mine" / "file").read_text() == "mine"
