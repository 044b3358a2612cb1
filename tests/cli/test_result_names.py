"""Results of commands never replace files of another kind, whatever the verb."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import pytest
import typer.main
from typer.testing import CliRunner

from hesse.cli.app import app
from hesse.cli.option_checks import check_results
from hesse.cli.result_names import check_result_names, result_options
from hesse.errors import RequestError

INPUTS_AND_OUTPUTS = {
    "--born", "--compare", "--config", "--data", "--ensemble", "--figure", "--fixed", "--groups", "--labels", "--out",
    "--picture", "--plot", "--reference", "--structure", "--structures", "--topology",
}  # fmt: skip
"""Options with the path of something else: an input, a folder, a picture, a data set."""


def commands(group: Any) -> Iterator[Any]:
    for command in group.commands.values():
        if hasattr(command, "commands"):
            yield from commands(command)
        else:
            yield command


def path_options() -> list[Any]:
    """All commands and those of their options that take a path."""
    parameters = []
    for command in commands(typer.main.get_command(app)):
        hints = get_type_hints(inspect.unwrap(command.callback), include_extras=True)
        for parameter in command.params:
            if parameter.param_type_name == "option" and "pathlib.Path" in str(hints.get(parameter.name)):
                parameters += [pytest.param(command, name, id=f"{command.name}{name}") for name in parameter.opts]
    assert len(parameters) > 40
    return parameters


@pytest.mark.parametrize(("command", "option"), path_options())
def test_every_option_with_a_result_checks_its_name(command: Any, option: str, tmp_path: Path) -> None:
    if option not in result_options(command.name):
        assert option in INPUTS_AND_OUTPUTS, "a new option: does it name a result, whose ending is to be checked?"
        return
    name = next(p.name for p in command.params if option in p.opts)
    assert name is not None
    for file in ("keep.yaml", "h2o.xyz", "bare"):
        context = SimpleNamespace(params={name: tmp_path / file})
        ending = "html" if option == "--page" else "json"
        with pytest.raises(RequestError, match=rf"{file}: {option} writes .*a name that ends in \.{ending}"):
            command.invoke(context)


def test_an_earlier_result_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    small = typer.Typer()

    @small.command()
    def write(json: Path, page: Path) -> None:
        json.write_text(" [1]")
        page.write_text("\n<!DOCTYPE html>")

    # As options, which typer makes of defaults.
    write.__defaults__ = (tmp_path / "a.json", tmp_path / "a.html")
    check_result_names(small)
    runner = CliRunner()
    for _ in range(2):
        assert runner.invoke(small, []).exit_code == 0
    (tmp_path / "a.html").write_text("my notes")
    result = runner.invoke(small, [])
    assert isinstance(result.exception, RequestError)
    assert "a.html: --page writes a page (HTML), and this file has other content" in str(result.exception)
    assert (tmp_path / "a.html").read_text() == "my notes"


def test_no_command_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As found: a configuration and a geometry were replaced by JSON."""
    monkeypatch.chdir(tmp_path)
    Path("keep.yaml").write_text("data: train.h5\n")
    Path("h2o.xyz").write_text("1\n\nHe 0 0 0\n")
    for words in (
        ["evaluate", "runs/a", "test.h5", "--json", "keep.yaml"],
        ["evaluate", "runs/a", "test.h5", "--records", "keep.yaml"],
        ["vibrations", "other.xyz", "--engine", "gfn2", "--json", "h2o.xyz"],
        ["bench", "labels", "--json", "keep.yaml"],
    ):
        result = CliRunner().invoke(app, words)
        assert isinstance(result.exception, RequestError), result.output
        assert "ends in .json" in str(result.exception)
    assert Path("keep.yaml").read_text() == "data: train.h5\n"
    assert Path("h2o.xyz").read_text() == "1\n\nHe 0 0 0\n"


def test_two_results_in_one_file(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"a\.png: two results would be written to this file"):
        check_results(tmp_path / "a.png", picture=tmp_path / "a.png")
