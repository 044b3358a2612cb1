"""Configuration files: valid options are read, wrong ones get a helpful reply."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import hesse
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


def test_a_factor_of_balanced_weights_as_a_word(path: Path) -> None:
    config = load_config(write(path, weights="balance"), ["weights.hvp=0.5"])
    assert config.weights == hesse.LossWeights(balance=True, hvp=0.5)


def test_absolute_paths_stay(path: Path) -> None:
    config = load_config(write(path, data={"train": "/somewhere/a.h5", "validation": "b.xyz"}))
    assert str(config.data.train) == "/somewhere/a.h5"
    assert config.data.validation == path.parent / "b.xyz"


def test_every_option_survives_a_round_trip(path: Path) -> None:
    rich = RunConfig.model_validate(
        {
            **MINIMAL,
            "model": {"kind": "hipnn", "l_max": 2, "features": 8, "cutoff_function": "cosine"},
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
def test_the_reply_to_a_mistyped_name_gives_the_nearest_one(
    path: Path, changes: dict[str, object], words: list[str], message: str
) -> None:
    with pytest.raises(UnknownOptionError, match=message):
        load_config(write(path, **changes), words)


@pytest.mark.parametrize(
    ("changes", "words", "message"),
    [
        ({"steps": "many"}, [], r'option "steps" = \'many\''),
        ({"steps": 10.5}, [], '"steps" = 10.5'),
        ({"steps": 0}, [], "expected 1 or more"),
        ({"optimizer": {"learning_rate": -1}}, [], r'\[optimizer\]: option "learning_rate" = -1'),
        ({"optimizer": {"learning_rate": float("inf")}}, [], "finite"),
        ({"weights": {"energy": float("inf")}}, [], "finite"),
        ({"model": {"cutoff": float("nan")}}, [], "cutoff"),
        ({"model": {"kind": "hipnn", "shortest": 3, "longest": 2}}, [], "shortest < longest"),
        ({"model": 3}, [], 'option "model" = 3'),
        ({"data": "train.h5"}, [], 'option "data"'),
        ({"data": {}}, [], r'\[data\]: the option "train" is required'),
        ({}, ["steps"], 'expected key=value, .* got "steps"'),
        ({}, ["=5"], "expected key=value"),
        ({}, ["steps.more=5"], "steps"),
        ({}, ["output=[1"], "not valid YAML"),
        ({}, ["output.more=5"], "output is a value, not a section"),
        ({"weight_ramps": {"hvp": {"start": 0.8, "end": 0.2}}}, [], r"start.*end"),
        ({"weight_ramps": {"hpv": {"end": 0.5}}}, [], r"weight_ramps: no loss term 'hpv'\. Did you mean \"hvp\"\?"),
        ({"loss": [{"quantity": "hessain"}]}, [], r"no loss term of 'hessain'\. Did you mean \"hessian\"\?"),
        ({"loss": [{"quantity": "energy"}, {"quantity": "energy"}]}, [], "two loss terms are called 'energy'"),
        ({"loss": [{"quantity": "forces", "form": "huber"}]}, [], "form huber needs delta"),
        ({"loss": [{"quantity": "energy"}], "weights": {"energy": 2}}, [], "leave out weights"),
        ({"weights": {"length_scale": 0.5, "forces": 1.0}}, [], "length_scale sets the weights"),
        ({"probe": {"weighting": "mass"}}, [], "needs Hessians"),
        ({"probe": {"kind": "gaussian"}}, [], "belong to fresh probes"),
        ({}, ["probe.n_probes=4"], "belong to fresh probes"),
    ],
    ids=str,
)
def test_invalid_values_are_named(path: Path, changes: dict[str, object], words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write(path, **changes), words)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text", "a: [1", "a: \x00b", "42"])
def test_files_without_options_are_refused(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(FileFormatError, match=r"run\.yaml"):
        load_config(path)


def test_unreadable_files_are_refused(path: Path) -> None:
    with pytest.raises(FileFormatError, match="cannot read the configuration"):
        load_config(path)
    with pytest.raises(FileFormatError):
        load_config(path.parent)
    path.write_bytes(b"steps: 5\nname: \xff\xfe\n")
    with pytest.raises(FileFormatError, match=r"expected a configuration \(YAML text"):
        load_config(path)


def test_yaml_runs_no_code(path: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    path.write_text(f"steps: !!python/object/apply:os.mkdir ['{mark}']\n")
    with pytest.raises(RequestError):
        load_config(path)
    assert not mark.exists()


def test_every_kind_of_probes_is_an_option() -> None:
    for kind in PROBE_KINDS:
        assert ProbeConfig(source="fresh", kind=kind).kind == kind  # type: ignore[arg-type]


def test_a_missing_section_is_named() -> None:
    with pytest.raises(ConfigError, match='here: the option "data" is required'):
        validate_config(RunConfig, {"output": "x"}, source="here")


RENAMED = {
    "start_from": "init_from",
    "prior": "repulsion",
    "references": "reference_energies",
    "ramps": "weight_ramps",
    "curvature.every": "curvature.every_n_steps",
    "curvature.pairs": "curvature.probes",
    "probe.per_structure": "probe.n_probes",
    "optimiser": "optimizer",
    "optimizer.clip": "optimizer.max_grad_norm",
    "optimizer.ema": "optimizer.ema_decay",
    "batch.bucketing": "batch.size_window",
    "threads": "cpu_threads",
    "include_suspect": "include_flagged",
    "weights.penalty": "weights.regularizer",
}


@pytest.mark.parametrize("old", RENAMED)
def test_the_reply_to_an_old_name_gives_the_new_one(path: Path, old: str) -> None:
    with pytest.raises(UnknownOptionError, match=f'the option "{old}" was renamed to "{RENAMED[old]}"'):
        load_config(write(path), [f"{old}=1"])


def test_all_old_names_are_listed_at_once(path: Path) -> None:
    old = {"optimiser": {"clip": 1.0, "learning_rate": 1e-3}, "threads": 1, "model": {"kind": "equivariant"}}
    with pytest.raises(UnknownOptionError) as reply:
        load_config(write(path, **old))
    for words in (
        '"optimiser" is now "optimizer"',
        '"optimiser.clip" is now "optimizer.max_grad_norm"',
        '"threads" is now "cpu_threads"',
        '"model.kind: equivariant" is now "model.kind: hessenet"',
    ):
        assert words in str(reply.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 1e-3}, r'TrainConfig: no option "lr"\. Use "optimizer\.learning_rate"'),
        ({"learning_rate": 1e-3}, r'no option "learning_rate"\. Did you mean "optimizer\.learning_rate"\?'),
        ({"stepps": 5}, r'no option "stepps"\. Did you mean "steps"\?'),
        ({"steps": "many"}, r'option "steps" = \'many\''),
        ({"optimiser": {}}, 'the option "optimiser" was renamed to "optimizer"'),
        ({"probe": {"knd": "sphere"}}, r'TrainConfig, \[probe\]: no option "knd"\. Did you mean "kind"\?'),
        ({"init_from": "a.hesse", "repulsion": {}}, "leave out model, repulsion and baseline"),
    ],
    ids=str,
)
def test_python_gets_the_same_replies(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**options)


def test_sections_in_python_reply_too() -> None:
    with pytest.raises(UnknownOptionError, match=r'LossWeights: no option "hpv"\. Did you mean "hvp"\?'):
        hesse.LossWeights(hpv=1.0)  # type: ignore[call-arg]
    with pytest.raises(UnknownOptionError, match='the option "penalty" was renamed to "regularizer"'):
        hesse.LossWeights(penalty=1.0)  # type: ignore[call-arg]
    with pytest.raises(UnknownOptionError, match=r'HesseNetConfig: no option "feature"\. Did you mean "features"\?'):
        hesse.HesseNetConfig(feature=8)  # type: ignore[call-arg]


def test_settings_cannot_be_changed() -> None:
    config = TrainConfig()
    with pytest.raises(ConfigError, match="a TrainConfig cannot be changed: create another one"):
        config.steps = 5  # type: ignore[misc]
    assert config.model_copy(update={"steps": 5}).steps == 5


def test_the_default_network_is_hessenet(path: Path) -> None:
    assert load_config(write(path)).model == hesse.HesseNetConfig()
    assert load_config(write(path, model={"features": 8})).model == hesse.HesseNetConfig(features=8)


@pytest.mark.parametrize("value", [3, [], ["a.h5", 3], {"a": 1}, None], ids=str)
def test_a_wrong_list_of_files_gets_a_reply(path: Path, value: object) -> None:
    with pytest.raises(
        ConfigError, match=r"\[data\]: option \"train\" = .*: expected the path of a file or folder, or"
    ):
        load_config(write(path, data={"train": value}))


def test_lists_of_files(path: Path) -> None:
    config = load_config(write(path, data={"train": ["a.h5", "/b.xyz"], "validation": ["c.h5"]}))
    assert config.data.train_files == (path.parent / "a.h5", Path("/b.xyz"))
    assert config.data.validation_files == (path.parent / "c.h5",)
    assert load_config(write(path)).data.validation_files == ()
