"""What was in the output file of a campaign before is not lost, or it is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.calculators.lj import LennardJones
from typer.testing import CliRunner

import closed_form_engines
import oracles
from hesse.cli.app import app
from hesse.datasets import read_dataset, write_dataset
from hesse.errors import FileFormatError, RequestError
from hesse.labelling import label, ledger_path

FIRST = [oracles.molecule(3, 1, name="a"), oracles.molecule(4, 2, name="b")]
OTHER = [oracles.molecule(3, 3, name="c")]


@pytest.mark.parametrize("ending", [".h5", ".extxyz"])
def test_a_file_without_ledger_is_not_replaced(tmp_path: Path, ending: str) -> None:
    output = tmp_path / f"mine{ending}"
    write_dataset(output, label(FIRST, closed_form_engines.morse(), quiet=True).dataset)
    before = output.read_bytes()
    with pytest.raises(RequestError, match=r"exists already and is not the output of a campaign.*--overwrite"):
        label(OTHER, closed_form_engines.morse(), output, quiet=True)
    assert output.read_bytes() == before
    assert not ledger_path(output).exists()
    report = label(OTHER, closed_form_engines.morse(), output, overwrite=True, quiet=True)
    assert read_dataset(output).ids == ("c",)
    (note,) = report.notes
    assert note == f"2 structures of {output} are not among the input and are no longer in it", "and nowhere else"


def test_replaced_structures_and_levels_are_told(tmp_path: Path) -> None:
    output = tmp_path / "labels.h5"
    assert label(FIRST, closed_form_engines.morse(), output, quiet=True).notes == ()
    assert label(FIRST, closed_form_engines.morse(), output, probes=2, quiet=True).notes == ()
    (note,) = label(FIRST[:1], closed_form_engines.morse(), output, quiet=True).notes
    assert note.startswith(f"1 structures of {output} are not among the input")
    assert note.endswith("the labels of before stay in labels.h5.ledger.sqlite")
    report = label(FIRST[:1], LennardJones(rc=8.0), output, quiet=True)
    assert any(f"{output} held labels of Morse" in note for note in report.notes)
    again = label(FIRST, closed_form_engines.morse(), output, quiet=True)
    assert again.n_reused == 2, "nothing was lost"


def test_an_output_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    output = tmp_path / "labels.h5"
    label(FIRST, closed_form_engines.morse(), output, quiet=True)
    output.write_bytes(b"damaged")
    (note,) = label(FIRST, closed_form_engines.morse(), output, quiet=True).notes
    assert note.startswith(f"{output} could not be read and was replaced (")
    assert len(read_dataset(output)) == 2


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hesse.cli.common_options._STEADY_ENGINES", ("ase:closed_form_engines:morse",))
    write_dataset("mine.h5", label(FIRST, closed_form_engines.morse(), quiet=True).dataset)
    command = ["label", "mine.h5", "other.h5", "--engine", "ase:closed_form_engines:morse", "--quiet"]
    assert CliRunner().invoke(app, command).exit_code == 0
    ledger_path("other.h5").unlink()
    refused = CliRunner().invoke(app, command)
    assert isinstance(refused.exception, RequestError)
    assert isinstance(CliRunner().invoke(app, [*command, "--dry-run"]).exception, RequestError)
    assert CliRunner().invoke(app, [*command, "--overwrite"]).exit_code == 0


def test_a_format_that_cannot_hold_labels_is_refused_before_the_work(tmp_path: Path) -> None:
    def never() -> None:
        raise AssertionError("computed")

    engine = closed_form_engines.morse()
    engine.calculate = lambda *_, **__: never()
    with pytest.raises(FileFormatError, match=r"written as \.h5 or \.extxyz, not as \.json"):
        label(FIRST, engine, tmp_path / "labels.json", quiet=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [("label",), ("sample", "nms"), ("sample", "rattle"), ("minimize",), ("saddle",), ("irc",), ("md",)],
    ids=str,
)
def test_no_command_begins_what_its_output_cannot_hold(tmp_path: Path, words: tuple[str, ...]) -> None:
    write_dataset(tmp_path / "in.extxyz", OTHER)
    engine = ["--engine", "ase:closed_form_engines:morse"] if words != ("sample", "rattle") else []
    done = CliRunner().invoke(app, [*words, str(tmp_path / "in.extxyz"), str(tmp_path / "out.json"), *engine])
    assert isinstance(done.exception, FileFormatError), done.output
    assert "not as .json" in str(done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["in.extxyz"]
