"""A run goes on with more steps; another setting or other data in its folder get a reply that names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_run import OPTIONS, config, record, run, tensors, training_data, validation_data

from hesse.datasets import Dataset, write_dataset
from hesse.errors import ConfigError, FileFormatError
from hesse.structures import Properties
from hesse.training import load_config, train
from hesse.training.config_file import run_from_config
from hesse.training.schedules import Plateau, learning_rate

CONSTANT: dict[str, Any] = {"schedule": {"kind": "constant", "warmup": 3}}
INDEPENDENT: dict[str, dict[str, Any]] = {
    "constant": CONSTANT,
    "plateau": {
        "schedule": {"kind": "plateau", "patience": 0, "factor": 0.5, "warmup": 0},
        "optimizer": {"learning_rate": 0.1},  # too large: the rate is reduced
    },
    "fresh probes": {**CONSTANT, "probe": {"source": "fresh"}, "curvature": {"every_n_steps": 2, "fraction": 0.6}},
    "balance": {**CONSTANT, "weights": {"balance": True}},
}


def train_rows(folder: Path) -> list[dict[str, Any]]:
    return [row for row in record(folder) if row["kind"] == "train"]


@pytest.mark.parametrize("name", INDEPENDENT)
@pytest.mark.parametrize("first", [10, pytest.param(12, marks=pytest.mark.slow)])
def test_without_dependence_on_steps_the_result_is_that_of_one_long_run(tmp_path: Path, name: str, first: int) -> None:
    """Twice longer, also from a step without a regular validation (every four steps)."""
    options = INDEPENDENT[name]
    run(tmp_path / "one", steps=20, **options)
    run(tmp_path / "two", steps=first, **options)
    run(tmp_path / "two", steps=16, **options)
    result = run(tmp_path / "two", steps=20, **options)
    assert result.steps == 20
    assert train_rows(tmp_path / "one") == train_rows(tmp_path / "two")
    for file in ("checkpoint.safetensors", "last.hesse"):
        one, two = tensors(tmp_path / "one" / file), tensors(tmp_path / "two" / file)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
    regular = [row for row in record(tmp_path / "two") if row["kind"] == "validation" and row["step"] != 10]
    assert [row for row in record(tmp_path / "one") if row["kind"] == "validation"] == regular
    notes = [row for row in record(tmp_path / "two") if "the run goes on after" in row.get("text", "")]
    assert [row["step"] for row in notes] == [first, 16]
    assert "the result is that of one run of 20 steps" in notes[-1]["text"]


def test_a_schedule_that_depends_on_steps_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ramp = {"weight_ramps": {"hvp": {"start": 0.0, "end": 0.5}}}
    run(tmp_path, steps=10, **ramp)
    train(training_data(), validation_data(), config(steps=20, **ramp), output=tmp_path)
    (text,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: the run goes on")]
    assert "after step 10 with steps: 20 instead of 10." in text
    assert "The learning rate (schedule cosine) and the weight ramps (hvp) depend on the number of steps" in text
    assert "The result is not that of one run of 20 steps" in text
    settings = config()
    rates = [row["lr"] for row in train_rows(tmp_path)]
    for step, rate in enumerate(rates):
        steps = 10 if step < 10 else 20
        assert rate == learning_rate(settings.optimizer.learning_rate, step, steps, settings.schedule, Plateau())
    assert rates[10] > 10 * rates[9]


def test_an_interrupted_run_may_get_more_or_fewer_steps_but_not_fewer_than_done(tmp_path: Path) -> None:
    run(tmp_path, steps=10, **CONSTANT)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match=r"steps: 9: the run in .* has done 10 steps already.*--restart"):
        run(tmp_path, steps=9, **CONSTANT)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_run_that_early_stopping_ended_does_not_go_on(tmp_path: Path) -> None:
    options = {"early_stopping": 1, "optimizer": {"learning_rate": 0.2}, "validate_every": 2, **CONSTANT}
    first = run(tmp_path, steps=40, **options)
    assert first.steps < 40
    again = run(tmp_path, steps=80, **options)
    assert again.steps == first.steps
    assert any("early_stopping has ended this run" in row.get("text", "") for row in record(tmp_path))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, r"seed \(0 before, 1 now\)"),
        ({"weights": {"energy": 2.0}}, r"weights\.energy \(1\.0 before, 2\.0 now\)"),
        ({"batch": {"structures": 4}}, r"batch\.structures \(3 before, 4 now\)"),
        ({"dtype": "float32", "seed": 2}, r"seed \(0 before, 2 now\); dtype \(float64 before, float32 now\)"),
        ({"weight_ramps": {"hvp": {"start": 0.0, "end": 0.5}}}, r"weight_ramps.*before"),
    ],
    ids=str,
)
def test_another_setting_is_named_with_the_ways_to_go_on(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    run(tmp_path, steps=4)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(FileFormatError, match=named) as reply:
        run(tmp_path, **{"steps": 8, **changes})
    for word in (f"init_from: {tmp_path / 'model.hesse'}", "another output", "--restart"):
        assert word in str(reply.value)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def more(data: Dataset) -> Dataset:
    """The data twice, under other ids in the second half."""
    other = training_data(seed=7)
    return Dataset(
        (*data.structures, *other.structures),
        Properties.concatenate([data.labels, other.labels]),
        metadata=data.metadata,
    )


def test_more_data_are_named_with_the_ways_to_go_on(tmp_path: Path) -> None:
    train(training_data(), validation_data(), config(steps=4), output=tmp_path / "a", quiet=True)
    with pytest.raises(FileFormatError, match=r"training data \(10 structures before, 20 now\).*init_from") as reply:
        train(more(training_data()), validation_data(), config(steps=8), output=tmp_path / "a", quiet=True)
    assert "the validation data" not in str(reply.value)
    with pytest.raises(FileFormatError, match=r"the validation data \(3 structures before, 0 now\)"):
        train(training_data(), None, config(steps=8), output=tmp_path / "a", quiet=True)
    # What the reply says works.
    options = {k: v for k, v in OPTIONS.items() if k != "model"} | {"steps": 4}
    options["init_from"] = str(tmp_path / "a" / "model.hesse")
    result = train(more(training_data()), validation_data(), options, output=tmp_path / "b", quiet=True)
    assert result.steps == 4


def test_configuration_files(tmp_path: Path) -> None:
    """More steps, and more data in the same file, of which a part is held out."""
    write_dataset(tmp_path / "train.h5", training_data())
    path, out = tmp_path / "run.yaml", tmp_path / "out"
    data = {"train": "train.h5", "validation_fraction": 0.2}
    path.write_text(yaml.safe_dump({**OPTIONS, "steps": 4, "data": data, "output": "out"}))
    run_from_config(load_config(path), quiet=True)
    with pytest.raises(ConfigError, match="has done 4 steps"):
        run_from_config(load_config(path, ["steps=3"]), quiet=True)
    assert load_config(out / "config.yaml").steps == 4
    assert run_from_config(load_config(path, ["steps=6"]), quiet=True).steps == 6
    assert load_config(out / "config.yaml").steps == 6
    with pytest.raises(FileFormatError, match=r"validation_fraction \(0\.2 before, 0\.3 now\).*init_from"):
        run_from_config(load_config(path, ["steps=8", "data.validation_fraction=0.3"]), quiet=True)
    write_dataset(tmp_path / "train.h5", more(training_data()))
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    with pytest.raises(FileFormatError, match=r"data\.train \(10 structures before, 20 now\).*init_from: .*\.hesse"):
        run_from_config(load_config(path, ["steps=8"]), quiet=True)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert load_config(out / "config.yaml").steps == 6
