"""What a run says about the structures that select its model, and a run without validation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tiny_run import OPTIONS, config, record, training_data

from hesse.cli.train_command import _print_result
from hesse.datasets import Dataset, write_dataset
from hesse.errors import ConfigError
from hesse.training import load_config, train
from hesse.training.config_file import run_from_config
from hesse.training.validation_messages import validation_messages


def grouped(*groups: str) -> Dataset:
    data = training_data().select(range(len(groups)))
    structures = tuple(replace(s, group=g, id=f"s{k}") for k, (s, g) in enumerate(zip(data.structures, groups)))  # noqa: B905
    return replace(data, structures=structures)


def test_held_out_groups_are_named_and_few_of_them_are_told() -> None:
    text, warning = validation_messages(grouped("water", "water", "ammonia"), grouped("methane"))
    assert text == "validation: 1 of 3 groups (methane), 1 of 4 structures"
    assert warning.startswith("warning: there are 3 groups in all: the best model is selected by the errors of methane")
    assert "data.validation_fraction=0" in warning
    _, warning = validation_messages(grouped(*"abcdef"), grouped("g", "g"))
    assert warning.startswith("warning: a single group is held out")
    assert len(validation_messages(grouped(*"abcdef"), grouped("g", "h"))) == 1


def test_structures_of_all_groups_are_named_where_that_helps() -> None:
    advice = "structures of all groups (data.by_group=false; if it is set, another seed)"
    assert advice in validation_messages(grouped("a", "a", "b"), grouped("c"))[1]
    assert advice not in validation_messages(grouped("a"), grouped("b"))[1]


def test_structures_without_groups_count_as_structures() -> None:
    held_out = replace(grouped("", ""), structures=grouped("", "").structures[:2])
    training = grouped(*[""] * 8).select(range(2, 8))
    assert validation_messages(training, held_out) == ["validation: 2 of 8 structures (s0, s1)"]


def test_groups_on_both_sides_are_told() -> None:
    (text,) = validation_messages(grouped("a", "b", "a"), grouped("a"))
    assert text.endswith("one group is in the training data too, so that errors are those of known molecules")


def test_a_run_without_validation_keeps_the_last_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path / "train.h5", training_data())
    options = {**OPTIONS, "steps": 6, "data": {"train": "train.h5", "validation_fraction": 0}, "output": "out"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(options))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "split.json").write_text("of a run that was here before")
    result = run_from_config(load_config(tmp_path / "run.yaml"), quiet=True)
    assert (result.steps, result.best_step, dict(result.scores)) == (6, 6, {})
    assert not (tmp_path / "out" / "split.json").exists()
    rows = record(tmp_path / "out")
    assert not any(row["kind"] == "validation" for row in rows)
    assert any("validation: none" in row.get("text", "") for row in rows)
    _print_result(result)
    shown = capsys.readouterr()
    assert "the model after the last of 6 steps (no validation)" in shown.out
    assert "best" not in shown.out
    again = run_from_config(load_config(tmp_path / "run.yaml"), quiet=True)  # the same command continues
    assert again.steps == 6


@pytest.mark.parametrize("options", [{"early_stopping": 2}, {"schedule": {"kind": "plateau"}}], ids=str)
def test_options_that_need_validation_are_refused_without(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"acts on validation errors, and this run has no validation data"):
        train(training_data(), None, config(**options), output=tmp_path / "run", quiet=True)


def test_an_early_best_step_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = training_data()
    result = train(
        data,
        data.select([0, 5]),
        config(steps=4, validate_every=1, allow_shared_structures=True),
        output=tmp_path / "run",
        quiet=True,
    )
    for best, early in ((1, False), (4, False)):
        assert replace(result, best_step=best).best_is_early is early
    _print_result(replace(result, steps=600, best_step=100))
    assert "warning: the best step is early, 100 of 600" in capsys.readouterr().err
    _print_result(replace(result, steps=600, best_step=150))
    assert capsys.readouterr().err == ""
