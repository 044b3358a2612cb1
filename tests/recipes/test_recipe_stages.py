"""The frame of recipes: stages with records, settings from files and data in memory, plans."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import Field
from typer.testing import CliRunner

from hesse.cli.app import app
from hesse.datasets import read_dataset, write_dataset
from hesse.errors import ConfigError, ExecutionError, FileFormatError, RequestError, UnknownOptionError
from hesse.recipes.protocols import named_recipes
from hesse.recipes.protocols.named_recipes import Recipe, plan_recipe, run_recipe
from hesse.recipes.protocols.recipe_settings import Files, RecipeSettings
from hesse.recipes.protocols.stages import Stage, StageRecord, StageWork, run_stages, stage_states
from oracles import Morse, labeled, molecules

CALLS: list[str] = []


def counting(name: str, *, factor: int = 2, source: Path | None = None, stop: bool = False) -> Stage:
    """A stage that writes a number into a file, read from the file of an earlier stage."""

    def work(stage: StageWork) -> Mapping[str, Any]:
        CALLS.append(name)
        value = factor * (1 if source is None else int(source.read_text()))
        (stage.folder / "number.txt").write_text(str(value))
        return {"value": value, **({"stop": "enough"} if stop else {})}

    inputs = () if source is None else (source,)
    return Stage(name, "multiplies", work, {"factor": factor}, inputs, ("number.txt",))


def two(output: Path, **options: Any) -> list[Stage]:
    return [counting("a/first"), counting("second", source=output / "a/first/number.txt", **options)]


def test_finished_stages_are_kept_and_the_others_done(tmp_path: Path) -> None:
    CALLS.clear()
    assert stage_states(two(tmp_path), tmp_path) == {"a/first": "to do", "second": "to do"}
    records, stopped = run_stages(two(tmp_path)[:1], tmp_path, quiet=True)
    assert (records["a/first"].results, stopped) == ({"value": 2}, "")
    assert stage_states(two(tmp_path), tmp_path) == {"a/first": "done", "second": "to do"}
    records, _ = run_stages(two(tmp_path), tmp_path, quiet=True)
    assert records["second"].results == {"value": 4}
    assert CALLS == ["a/first", "second"]
    saved = json.loads((tmp_path / "second" / "stage.json").read_text())
    assert saved["inputs"][0][1] == records["a/first"].products["number.txt"]


def test_a_stage_that_fails_is_done_again(tmp_path: Path) -> None:
    def fails(stage: StageWork) -> Mapping[str, Any]:
        raise ExecutionError("no")

    with pytest.raises(ExecutionError):
        run_stages([counting("a/first"), Stage("second", "fails", fails)], tmp_path, quiet=True)
    CALLS.clear()
    run_stages(two(tmp_path), tmp_path, quiet=True)
    assert CALLS == ["second"]


def test_a_result_can_end_the_recipe(tmp_path: Path) -> None:
    stages = [counting("first", stop=True), counting("second")]
    records, stopped = run_stages(stages, tmp_path, quiet=True)
    assert (list(records), stopped) == (["first"], "enough")
    assert stage_states(stages, tmp_path) == {"first": "done", "second": "not needed"}


def test_finished_stages_of_other_options_or_files_are_refused(tmp_path: Path) -> None:
    run_stages(two(tmp_path), tmp_path, quiet=True)
    with pytest.raises(ConfigError, match=r"second: .* other options: factor \(2 before, 3 now\)"):
        run_stages(two(tmp_path, factor=3), tmp_path, quiet=True)
    with pytest.raises(ConfigError, match="other files"):
        stage_states([counting("second")], tmp_path)
    (tmp_path / "a/first/number.txt").write_text("7")
    with pytest.raises(ConfigError, match=r"number.txt was changed after this stage was finished"):
        run_stages(two(tmp_path), tmp_path, quiet=True)
    (tmp_path / "a/first/number.txt").unlink()
    with pytest.raises(ConfigError, match=r"number.txt is missing"):
        run_stages(two(tmp_path), tmp_path, quiet=True)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "hesse-recipe-stage", "version": 2}', "x" * 50])
def test_a_damaged_record_has_a_reply(tmp_path: Path, text: str) -> None:
    run_stages(two(tmp_path), tmp_path, quiet=True)
    (tmp_path / "second" / "stage.json").write_text(text)
    with pytest.raises(FileFormatError, match="cannot be read as the record of a stage"):
        run_stages(two(tmp_path), tmp_path, quiet=True)


class ToySettings(RecipeSettings):
    data_files: ClassVar[tuple[str, ...]] = ("data", "test")
    engines: ClassVar[tuple[str, ...]] = ("engine",)

    data: Files
    engine: str = "gfn2"
    factor: int = Field(2, ge=1)


def toy_check(settings: ToySettings) -> list[str]:
    if len(read_dataset(settings.data)) < 2:  # type: ignore[arg-type]
        raise RequestError("one structure is not enough")
    return ["toy remark"]


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    def stages(settings: ToySettings) -> list[Stage]:
        return two(settings.output, factor=settings.factor)

    def summary(settings: ToySettings, records: Mapping[str, StageRecord]) -> str:
        return f"value {records['second'].results['value']}" if "second" in records else ""

    recipe = Recipe("toy", "a toy", ToySettings, toy_check, stages, summary)
    monkeypatch.setattr(named_recipes, "RECIPES", {"toy": recipe})
    monkeypatch.setattr("hesse.recipes.protocols.RECIPES", {"toy": recipe})


DATA = labeled(Morse(depth=1.0, width=1.2), molecules([3, 4, 3]), probes=1)


@pytest.mark.usefixtures("toy")
def test_paths_of_a_file_count_from_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "configs"
    folder.mkdir()
    write_dataset(folder / "data.h5", DATA)
    (folder / "toy.yaml").write_text("data: data.h5\noutput: out\ntest: [data.h5]\nengine: models/a.hesse\n")
    plan = plan_recipe("toy", folder / "toy.yaml")
    assert plan.output == folder / "out"
    assert plan.states == {"a/first": "to do", "second": "to do"}
    assert plan.remarks == ("toy remark",)
    assert not plan.output.exists()
    result = run_recipe("toy", folder / "toy.yaml", quiet=True)
    assert result.summary == "value 4"
    assert result.file("second", "number.txt").read_text() == "4"
    settings = json.loads((folder / "out" / "recipe.json").read_text())["settings"]
    assert settings["engine"] == str(folder / "models/a.hesse")
    assert settings["test"] == {"data": str(folder / "data.h5")}
    with pytest.raises(UnknownOptionError):
        result.file("third", "number.txt")


@pytest.mark.usefixtures("toy")
def test_data_in_memory_are_kept_in_the_output(tmp_path: Path) -> None:
    options = {"data": DATA.to_ase(), "output": tmp_path / "out", "test": {"all": DATA}}
    run_recipe("toy", options, quiet=True)
    stored = tmp_path / "out" / "inputs"
    assert {p.name for p in stored.iterdir()} == {"data.h5", "test-all.h5"}
    assert read_dataset(stored / "test-all.h5").content_hash() == DATA.content_hash()
    before = (stored / "data.h5").stat().st_mtime_ns
    assert run_recipe("toy", options, quiet=True).summary == "value 4"
    assert (stored / "data.h5").stat().st_mtime_ns == before


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"dat": "x"}, UnknownOptionError, 'no option "dat"'),
        ({"factor": 0}, ConfigError, "expected 1 or more"),
        ({"training": {"output": "x"}}, ConfigError, "leave out output"),
        ({"training": {"seed": 1}}, ConfigError, r"write seeds: \[0, 1, 2\]"),
        ({"suite": "all"}, ConfigError, "no suite 'all'"),
        ({"seeds": [1, 1]}, ConfigError, "every seed once"),
        ({"seed": 1}, UnknownOptionError, 'Use "seeds"'),
        ({"output": None}, ConfigError, "output"),
    ],
)
def test_wrong_options_have_replies_and_write_nothing(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        run_recipe("toy", {"data": DATA, "output": tmp_path / "out", **options})
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("toy")
def test_wrong_calls_have_replies(tmp_path: Path) -> None:
    with pytest.raises(UnknownOptionError, match='no recipe "toi"'):
        run_recipe("toi", {})
    with pytest.raises(RequestError, match="expected the path of a YAML file"):
        run_recipe("toy", 3)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="one structure is not enough"):
        run_recipe("toy", {"data": DATA[:1], "output": tmp_path / "out"})
    with pytest.raises(FileFormatError, match="cannot read the configuration"):
        run_recipe("toy", tmp_path / "none.yaml")


@pytest.mark.usefixtures("toy")
def test_the_command(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data.h5", DATA)
    file = tmp_path / "toy.yaml"
    file.write_text("data: data.h5\noutput: out\n")
    runner = CliRunner()
    assert "a toy" in runner.invoke(app, ["recipe"]).stdout
    planned = runner.invoke(app, ["recipe", "toy", str(file), "--dry-run"])
    assert "to do       second" in planned.stdout
    assert not (tmp_path / "out").exists()
    done = runner.invoke(app, ["recipe", "toy", str(file), "--quiet", "--json", str(tmp_path / "rows.json")])
    assert done.exit_code == 0
    assert "value 4" in done.stdout
    assert [row["stage"] for row in json.loads((tmp_path / "rows.json").read_text())] == ["a/first", "second"]
    assert isinstance(runner.invoke(app, ["recipe", "toy"]).exception, RequestError)


def test_a_reply_about_a_section_does_not_print_it() -> None:
    training = {
        "steps": 3,
        "model": {"kind": "hipnn", "features": 4, "sensitivities": 4, "blocks": 1, "l_max": 0},
        "init_from": "x.hesse",
    }
    with pytest.raises(ConfigError, match=r'^config: section "training": leave out init_from: the recipe chooses'):
        run_recipe("ensemble-distillation", {"train": "x.h5", "output": "o", "training": training}, quiet=True)
