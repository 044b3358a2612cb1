"""The cells of a study: names, options, merging of equal runs, and replies to mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_study import study

from hesse.errors import ConfigError, FileFormatError, HesseError, UnknownOptionError
from hesse.studies import Cell, expand_cells, load_study
from hesse.studies.study_config import study_from_mapping


def cells(axes: dict[str, Any], **changes: Any) -> dict[str, Cell]:
    config = study_from_mapping(study(axes=axes, **changes), Path("/data"), source="study.yaml")
    return {cell.name: cell for cell in expand_cells(config, "study.yaml")}


def base(**changes: Any) -> dict[str, Any]:
    return {**study()["base"], **changes}


def test_every_combination_is_a_cell_with_a_readable_name() -> None:
    found = cells({"scheme": ["ef", "ef-hvp"], "seed": [0, 7]})
    assert list(found) == ["ef_seed0", "ef_seed7", "ef-hvp_seed0", "ef-hvp_seed7"]
    assert found["ef-hvp_seed7"].options["seed"] == 7
    assert found["ef-hvp_seed7"].labels == {"scheme": "ef-hvp", "seed": 7}
    assert found["ef_seed0"].options["data"]["train"] == "/data/train.h5"


def test_schemes_set_the_weights_of_the_base() -> None:
    given = {"energy": 2.0, "forces": 0.5, "hvp": 0.1}
    found = cells({"scheme": ["e", "ef", "ef-hvp", "ef-h"]}, base=base(weights=given))
    weights = {
        name: [cell.options["weights"][k] for k in ("energy", "forces", "hvp", "hessian")]
        for name, cell in found.items()
    }
    assert weights == {
        "e": [2.0, 0.0, 0.0, 0.0],
        "ef": [2.0, 0.5, 0.0, 0.0],
        "ef-hvp": [2.0, 0.5, 0.1, 0.0],
        "ef-h": [2.0, 0.5, 0.0, 0.1],
    }
    balanced = cells({"scheme": ["ef", "ef-h"]}, base=base(weights="balance"))
    assert balanced["ef"].options["weights"]["balance"]
    assert [balanced["ef-h"].options["weights"][k] for k in ("energy", "forces", "hvp", "hessian")] == [1, 1, 0, 1]
    by_length = cells({"scheme": ["ef-hvp"]}, base=base(weights={"length_scale": 0.5}))
    assert by_length["ef-hvp"].options["weights"]["hvp"] == pytest.approx(0.0625)


def test_axes_without_effect_make_no_further_cells() -> None:
    """Probes, and the weight of products, mean nothing for a scheme without products."""
    probes = ["stored", "pair-0", "fixed-gaussian", "fresh-one-hot"]
    found = cells({"scheme": ["ef", "ef-hvp"], "probe": probes})
    assert list(found) == ["ef", *(f"ef-hvp_{probe}" for probe in probes)]
    assert [cell.pairs for cell in found.values()] == ["stored", "stored", "pair-0", "fixed-gaussian", "stored"]
    fresh = found["ef-hvp_fresh-one-hot"].options["probe"]
    assert (fresh["source"], fresh["kind"]) == ("fresh", "one-hot")
    assert list(cells({"scheme": ["ef", "ef-hvp"], "probe": ["stored"]})) == ["ef", "ef-hvp_stored"], "names stay"
    weighted = cells({"scheme": ["ef", "ef-hvp"], "weights.hvp": [0.1, 0.2]})
    assert list(weighted) == ["ef", "ef-hvp_hvp-0.1", "ef-hvp_hvp-0.2"]
    assert weighted["ef-hvp_hvp-0.2"].options["weights"]["hvp"] == 0.2


def test_fixed_probes_are_the_same_in_all_runs_or_those_of_their_seed() -> None:
    axes = {"probe": ["stored", "fixed-soft-modes"], "seed": [0, 3]}
    assert [cell.probe_seed for cell in cells(axes, probe_seed=5).values()] == [5, 5, 5, 5]
    own = cells(axes, probe_seed="seed")
    assert {name: cell.probe_seed for name, cell in own.items()} == {
        "stored_seed0": 0, "stored_seed3": 0, "fixed-soft-modes_seed0": 0, "fixed-soft-modes_seed3": 3,
    }  # fmt: skip
    for wrong in (-1, "run"):
        with pytest.raises(ConfigError, match="probe_seed"):
            cells(axes, probe_seed=wrong)


def test_designed_probes_are_fixed_only() -> None:
    with pytest.raises(UnknownOptionError, match=r"no probe 'fresh-soft-modes'.*fixed also mass, soft-modes"):
        cells({"probe": ["fresh-soft-modes"]})


def test_any_option_and_any_set_of_options_can_be_an_axis() -> None:
    found = cells(
        {
            "optimizer.learning_rate": [1e-3, 5e-3],
            "recipe": {"small": {"batch": {"structures": 2}, "steps": 3}, "other": {"repulsion": {"kind": "zbl"}}},
            "network": {"wide": {"kind": "hipnn", "features": 9}},
        }
    )
    assert list(found)[:2] == ["learning-rate-0.001_small_wide", "learning-rate-0.001_other_wide"]
    cell = found["learning-rate-0.005_small_wide"].options
    assert (cell["optimizer"]["learning_rate"], cell["batch"]["structures"], cell["steps"]) == (5e-3, 2, 3)
    assert (cell["batch"]["atoms"], cell["model"]["features"]) == (2000, 9)
    assert found["learning-rate-0.001_other_wide"].options["repulsion"]["kind"] == "zbl"
    assert list(cells({"network": ["hessenet", "ani"]})) == ["hessenet", "ani"]
    assert list(cells({"weights": {"soft": {"hvp": 0.1}, "hard": "balance"}})) == ["soft", "hard"]


@pytest.mark.parametrize(
    ("keeps", "batch", "steps"), [("steps", 8, 100), ("steps-per-epoch", 2, 100), ("epochs", 8, 25)]
)
def test_what_stays_the_same_with_less_data(keeps: str, batch: int, steps: int) -> None:
    found = cells({"data_fraction": [0.25, 1.0]}, base=base(steps=100, batch={"structures": 8}), fraction_keeps=keeps)
    assert list(found) == ["25pct", "100pct"]
    part, whole = found.values()
    assert (part.options["batch"]["structures"], part.options["steps"], part.fraction) == (batch, steps, 0.25)
    assert (whole.options["batch"]["structures"], whole.options["steps"], whole.fraction) == (8, 100, 1.0)


def test_combinations_can_be_left_out() -> None:
    found = cells({"scheme": ["ef", "ef-hvp"], "seed": [0, 1]}, exclude=[{"scheme": "ef", "seed": 1}])
    assert list(found) == ["ef_seed0", "ef-hvp_seed0", "ef-hvp_seed1"]


@pytest.mark.parametrize(
    ("axes", "changes", "error", "reply"),
    [
        ({"shceme": ["ef"]}, {}, UnknownOptionError, r'study.yaml, \[axes\], shceme: no axis.*"scheme"'),
        ({"scheme": ["ef-hpv"]}, {}, UnknownOptionError, r"scheme: no scheme 'ef-hpv'.*\"ef-hvp\""),
        ({"probe": ["fixed-gausian"]}, {}, UnknownOptionError, r"probe: no probe.*\"fixed-gaussian\""),
        ({"seed": [0, -1]}, {}, ConfigError, r"seed: expected whole numbers from 0 on, got -1"),
        ({"seed": 5}, {}, ConfigError, r"\[axes\], seed: expected a list of values"),
        ({"seed": []}, {}, ConfigError, r"\[axes\], seed: expected one or more values"),
        ({"seed": [1, 1]}, {}, ConfigError, r"seed: 1 occurs twice"),
        ({"data_fraction": [0.0]}, {}, ConfigError, r"data_fraction: expected fractions above 0 and up to 1, got 0.0"),
        ({"steps": ["many"]}, {}, ConfigError, r'cell many.*"steps" = \'many\': expected a whole number'),
        ({"optimizer.learningrate": [1.0]}, {}, UnknownOptionError, r'\[optimizer\]: no option "learningrate"'),
        ({"network": ["hesenet"]}, {}, UnknownOptionError, r'\[model\]: no kind "hesenet"'),
        ({"loss": [[1], [2]]}, {}, ConfigError, r"loss: give the value \[1\] a name"),
        ({"seed": [0]}, {"exclude": [{"sed": 0}]}, UnknownOptionError, r"exclude 0: no axis 'sed'"),
        ({"seed": [0]}, {"baseline": {"seed": 4}}, UnknownOptionError, r"baseline, seed: no value 4"),
        ({"seed": [0]}, {"exclude": [{"seed": 0}]}, ConfigError, r"exclude leaves no cell"),
        ({"seed": [0]}, {"base": {"steps": 3}}, ConfigError, r'"base".*data is required'),
        ({"seed": [0]}, {"base": {**study()["base"], "output": "x"}}, ConfigError, r"leave out output"),
        ({"seed": [0]}, {"base": {**study()["base"], "stepps": 2}}, UnknownOptionError, r'no option "stepps"'),
        ({"seed": [0]}, {"fraction_keeps": "time"}, UnknownOptionError, r"fraction_keeps"),
        ({"seed": [0]}, {"tset": {}}, UnknownOptionError, r'no option "tset".*"test"'),
        ({"seed": [0]}, {"test": 5}, ConfigError, r'"test".*expected a file, a list of files, or files by name'),
        ({}, {}, ConfigError, r"axes is empty"),
        ({"seed": [0]}, {"suite": {"near": "full"}}, ConfigError, r"suite: no test set 'near'. Valid: far"),
        ({"seed": [0]}, {"suite": "curvatur"}, ConfigError, r"suite: no suite 'curvatur'.*\"curvature\""),
        ({"seed": [0]}, {"suite": {"far": "ful"}}, ConfigError, r"suite: no suite 'ful'.*\"full\""),
        ({"seed": [0]}, {"suite": "curvature", "hessian": False}, ConfigError, r"leave out hessian: false"),
        ({"tag": {"a b": {"steps": 1}, "a/b": {"steps": 2}}}, {}, ConfigError, r"several cells would be called 'a-b'"),
        (
            {"scheme": ["ef"]},
            {"base": {**study()["base"], "loss": [{"quantity": "energy"}]}},
            ConfigError,
            r"cell ef: scheme sets weights, and the base has a loss",
        ),
    ],
)
def test_mistakes_get_a_reply_that_names_the_key(
    axes: dict[str, Any], changes: dict[str, Any], error: type[HesseError], reply: str
) -> None:
    with pytest.raises(error, match=reply):
        cells(axes, **changes)


def test_a_file_that_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"none\.yaml: cannot read"):
        load_study(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(FileFormatError, match="expected a mapping"):
        load_study(tmp_path / "list.yaml")
    (tmp_path / "short.yaml").write_text("axes: {seed: [0]}\noutput: x\n")
    with pytest.raises(ConfigError, match=r'short\.yaml.*"base" is required'):
        load_study(tmp_path / "short.yaml")
    (tmp_path / "good.yaml").write_text(
        "base: {data: {train: a.h5}, init_from: old.hesse}\naxes: {seed: [0], data.train: {b: b.h5}}\n"
        "output: x\ntest: [c.h5, d/e.h5]\n"
    )
    config = load_study(tmp_path / "good.yaml")
    assert config.output == tmp_path / "x"
    assert config.base["data"]["train"] == str(tmp_path / "a.h5")
    assert config.axes["data.train"] == {"b": str(tmp_path / "b.h5")}
    assert config.test == {"c": tmp_path / "c.h5", "e": tmp_path / "d" / "e.h5"}
