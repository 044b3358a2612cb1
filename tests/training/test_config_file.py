"""Configuration text: what is meant is taken, what is mistyped is answered."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hesse.errors import ConfigError, FileFormatError, RequestError, UnknownOptionError
from hesse.probes import PROBE_KINDS
from hesse.training import ProbeConfig, RunConfig, TrainConfig, load_config, validate_config

MINIMAL = {"data": {"train": "train.h5"}, "output": "run"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.yaml"


def write(path: Path, **changes: object) -> Path:
    path.write_text(yaml.safe_dump({**MINIMAL, **changes}), encoding="utf-8")
    return path


def test_a_minimal_file_has_defaults_and_paths_beside_it(path: Path) -> None:
    config = load_config(write(path))
    assert config.data.train == path.parent / "train.h5"
    assert config.output == path.parent / "run"
    defaults = TrainConfig()
    assert config.model == defaults.model
    assert config.weights == defaults.weights


def test_absolute_paths_stay(path: Path) -> None:
    config = load_config(write(path, data={"train": "/somewhere/a.h5", "validation": "b.xyz"}))
    assert str(config.data.train) == "/somewhere/a.h5"
    assert config.data.validation == path.parent / "b.xyz"


def test_every_option_survives_a_round_trip(path: Path) -> None:
    rich = RunConfig.model_validate(
        {
            **MINIMAL,
            "model": {"l_max": 2, "features": 8, "cutoff_function": "cosine"},
            "weights": {"energy": 4, "hessian": 0.09},
            "weight_ramps": {"hvp": {"start": 0.1, "shape": "linear"}},
            "probe": {"source": "fresh", "kind": "one-hot", "n_probes": 3},
            "optimizer": {"max_grad_norm": None, "ema_decay": None},
            "schedule": {"kind": "plateau"},
            "early_stopping": 7,
            "dtype": "float64",
        }
    )
    path.write_text(yaml.safe_dump(rich.model_dump(mode="json")))
    back = load_config(path)
    relative = {"train": Path("train.h5")}
    assert back.model_copy(update={"output": Path("run"), "data": back.data.model_copy(update=relative)}) == rich


@pytest.mark.parametrize(
    ("words", "reached"),
    [
        (["optimizer.learning_rate=1e-3"], lambda c: c.optimizer.learning_rate == 1e-3),
        (["steps=5", "steps=6"], lambda c: c.steps == 6),
        (["optimizer.ema_decay=null"], lambda c: c.optimizer.ema_decay is None),
        (["model.l_max=2", "model.features=8"], lambda c: (c.model.l_max, c.model.features) == (2, 8)),
        (["weight_ramps.hvp.end=0.25"], lambda c: c.weight_ramps["hvp"].end == 0.25),
        (["weights={energy: 4, forces: 1}"], lambda c: (c.weights.energy, c.weights.forces) == (4, 1)),
        (["output=elsewhere/run"], lambda c: c.output == Path("elsewhere/run")),
        (["tensorboard=true"], lambda c: c.tensorboard is True),
        (["data.by_group=false"], lambda c: c.data.by_group is False),
        (["output=a=b"], lambda c: c.output == Path("a=b")),
        (["steps=1e3"], lambda c: c.steps == 1000),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_overrides_win(path: Path, words: list[str], reached: object) -> None:
    config = load_config(write(path, steps=100, optimizer={"ema_decay": 0.9}), words)
    assert reached(config)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("changes", "words", "message"),
    [
        ({"stepps": 5}, [], r'run\.yaml: no option "stepps"\. Did you mean "steps"\?'),
        ({"weights": {"hessain": 1}}, [], r'\[weights\]: no option "hessain"\. Did you mean "hessian"\?'),
        ({"optimzer": {}}, [], r'no option "optimzer"\. Did you mean "optimizer"\?'),
        ({}, ["model.l_maxx=1"], r'\[model\]: no option "l_maxx"\. Did you mean "l_max"\?'),
        ({}, ["data.trian=x"], r'\[data\]: no option "trian"\. Did you mean "train"\?'),
        ({"weight_ramps": {"hpv": {"end": 0.5}}}, [], r'\[weight_ramps\]: no option "hpv"\. Did you mean "hvp"\?'),
        (
            {"weight_ramps": {"hvp": {"strat": 0.5}}},
            [],
            r'\[weight_ramps\.hvp\]: no option "strat"\. Did you mean "start"\?',
        ),
        ({"probe": {"kind": "radmacher"}}, [], r'\[probe\]: .*"radmacher".* Did you mean "rademacher"\?'),
        ({"schedule": {"kind": "cosin"}}, [], r'\[schedule\]: no kind "cosin"\. Did you mean "cosine"\?'),
        ({"dtype": "float16"}, [], r'run\.yaml: no dtype "float16"\. Did you mean "float'),
    ],
    ids=str,
)
def test_mistyped_names_are_answered_with_the_nearest(
    path: Path, changes: dict[str, object], words: list[str], message: str
) -> None:
    with pytest.raises(UnknownOptionError, match=message):
        load_config(write(path, **changes), words)


@pytest.mark.parametrize(
    ("changes", "words", "message"),
    [
        ({"steps": "many"}, [], r'option "steps" = \'many\''),
        ({"steps": 10.5}, [], '"steps" = 10.5'),
        ({"steps": 0}, [], "greater than or equal to 1"),
        ({"optimizer": {"learning_rate": -1}}, [], r'\[optimizer\]: option "learning_rate" = -1'),
        ({"optimizer": {"learning_rate": float("inf")}}, [], "finite"),
        ({"weights": {"energy": float("inf")}}, [], "finite"),
        ({"model": {"cutoff": float("nan")}}, [], "cutoff"),
        ({"model": {"shortest": 3, "longest": 2}}, [], "shortest < longest"),
        ({"model": 3}, [], 'option "model" = 3'),
        ({"data": "train.h5"}, [], 'option "data"'),
        ({"data": {}}, [], r'\[data\]: the option "train" is required'),
        ({}, ["steps"], 'expected key=value, .* got "steps"'),
        ({}, ["=5"], "expected key=value"),
        ({}, ["steps.more=5"], "steps"),
        ({}, ["output=[1"], "not valid YAML"),
        ({}, ["output.more=5"], "output is a value, not a section"),
        ({"weight_ramps": {"hvp": {"start": 0.8, "end": 0.2}}}, [], r"start.*end"),
    ],
    ids=str,
)
def test_values_that_make_no_sense_are_named(
    path: Path, changes: dict[str, object], words: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write(path, **changes), words)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text", "a: [1", "a: \x00b", "42"])
def test_files_that_hold_no_options_are_refused(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(FileFormatError, match=r"run\.yaml"):
        load_config(path)


def test_unreadable_files_are_refused(path: Path) -> None:
    with pytest.raises(FileFormatError, match="cannot read the configuration"):
        load_config(path)
    with pytest.raises(FileFormatError):
        load_config(path.parent)
    path.write_bytes(b"steps: 5\nname: \xff\xfe\n")
    with pytest.raises(FileFormatError, match="not valid YAML"):
        load_config(path)


def test_yaml_runs_no_code(path: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    path.write_text(f"steps: !!python/object/apply:os.mkdir ['{mark}']\n")
    with pytest.raises(RequestError):
        load_config(path)
    assert not mark.exists()


def test_every_family_of_probes_can_be_asked_for() -> None:
    for kind in PROBE_KINDS:
        assert ProbeConfig(kind=kind).kind == kind  # type: ignore[arg-type]


def test_a_missing_section_is_named() -> None:
    with pytest.raises(ConfigError, match='here: the option "data" is required'):
        validate_config(RunConfig, {"output": "x"}, source="here")
