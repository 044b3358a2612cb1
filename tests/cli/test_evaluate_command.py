"""`hesse evaluate`: JSON rows, notes and error messages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from commands_in_process import Run
from hesse.datasets import Dataset, write_dataset
from hesse.models import Hipnn, HipnnConfig, load_model, save_model
from oracles import Morse, labeled, molecules


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    config = HipnnConfig(features=4, sensitivities=4, blocks=1, onsite_layers=1, cutoff=4.0, longest=3.5)
    path = tmp_path / "model.hesse"
    save_model(path, Hipnn(config, (1, 6, 8)).double(), {"level": "closed form"})
    return path


def data(seed: int = 0) -> Dataset:
    structures = molecules([3, 4, 5, 4], seed)
    return labeled(Morse(), [replace(s, tag="ab"[k % 2]) for k, s in enumerate(structures)], hessian=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "test-set.h5"
    write_dataset(path, data())
    return path


def test_json_rows(run: Run, model: Path, file: Path, tmp_path: Path) -> None:
    target = tmp_path / "errors.json"
    code, out, err = run("evaluate", model, file, "--json", target, "--quiet")
    assert code == 0
    assert err == ""
    rows = json.loads(target.read_text())
    assert isinstance(rows, list)
    types = {"dataset": str, "tag": str, "property": str, "metric": str, "value": float, "unit": str, "n": int}
    types |= {"ci_low": float, "ci_high": float, "groups": int}
    for row in rows:
        assert {key: type(value) for key, value in row.items()} == types
        assert row["dataset"] == "test-set"
        assert row["value"] >= 0
    assert {r["tag"] for r in rows} == {"", "a", "b"}
    assert {r["property"] for r in rows} == {"energy", "energy_per_atom", "forces", "hvp", "hessian"}
    assert {r["metric"] for r in rows} == {"rmse", "mae", "noise_floor"}
    assert {(r["property"], r["unit"]) for r in rows} == {
        ("energy", "eV"),
        ("energy_per_atom", "eV/atom"),
        ("forces", "eV/Å"),
        ("hvp", "eV/Å²"),
        ("hessian", "eV/Å²"),
    }
    assert "RMSE" in out
    assert "kcal/mol/Å²" in out


def test_errors_equal_those_of_direct_evaluation(run: Run, model: Path, file: Path, tmp_path: Path) -> None:
    from hesse.curvature import evaluate
    from hesse.structures import Request, collate

    target = tmp_path / "errors.json"
    assert run("evaluate", model, file, "--json", target, "--memory", 0.1)[0] == 0
    (row,) = [
        r for r in json.loads(target.read_text()) if (r["property"], r["metric"], r["tag"]) == ("hessian", "rmse", "")
    ]
    potential, reference = load_model(model), data()
    squared = count = 0.0
    for k, structure in enumerate(reference.structures):
        result = evaluate(potential, collate([structure], potential.cutoff), Request(hessian=True))
        difference = result.hessian_of(0) - reference.labels.hessian_of(k)
        squared, count = squared + float(difference.square().sum()), count + difference.numel()
    assert row["value"] == pytest.approx((squared / count) ** 0.5, rel=1e-8)
    assert row["n"] == count


def test_options_that_leave_out_rows(run: Run, model: Path, file: Path, tmp_path: Path) -> None:
    target = tmp_path / "errors.json"
    options = ("--no-hessian", "--no-by-tag", "--dtype", "float32", "--quiet")
    assert run("evaluate", model, file, "--json", target, *options)[0] == 0
    rows = json.loads(target.read_text())
    assert {r["tag"] for r in rows} == {""}
    assert "hessian" not in {r["property"] for r in rows}


def test_files_of_the_same_name_have_different_names(run: Run, model: Path, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_dataset(other / "test-set.h5", data(seed=1))
    write_dataset(other / "third.h5", data(seed=2))
    target = tmp_path / "errors.json"
    assert run("evaluate", model, file, other / "test-set.h5", other / "third.h5", "--json", target)[0] == 0
    names = {r["dataset"] for r in json.loads(target.read_text())}
    assert names == {str(file), str(other / "test-set.h5"), "third"}


def test_an_error_within_the_noise_is_noted(run: Run, model: Path, tmp_path: Path) -> None:
    path, known = tmp_path / "noisy.h5", data()
    error = torch.full((len(known),), 1e3, dtype=torch.float64)  # eV/Å², by the labels' own estimate
    write_dataset(path, Dataset(known.structures, known.labels.replace(hessian_error=error)))
    code, out, err = run("evaluate", model, path)
    assert code == 0
    assert err.count("not meaningful below about 1.5e+03 eV/Å²") == 1
    assert "the RMSE of hessian" in err
    assert "1000" in out


def test_another_level_of_theory_is_noted(run: Run, model: Path, file: Path, tmp_path: Path) -> None:
    assert "closed form" not in run("evaluate", model, file)[2]
    path = tmp_path / "dft.h5"
    write_dataset(path, replace(data(), metadata={"level": "wB97X/6-31G(d)"}))
    code, _, err = run("evaluate", model, path)
    assert code == 0
    assert "wB97X/6-31G(d)" in err
    assert "trained on closed form" in err
    assert run("evaluate", model, path, "--quiet")[2] == ""


def test_an_unknown_element_is_refused_before_any_work(run: Run, model: Path, file: Path, tmp_path: Path) -> None:
    path, target = tmp_path / "fluorine.h5", tmp_path / "errors.json"
    write_dataset(path, labeled(Morse(), molecules([3], 5, elements=(9,), name="fluorine")))
    code, out, err = run("evaluate", model, file, path, "--json", target)
    assert code == 2
    assert 'structure "fluorine" holds F; ' in err
    assert out == ""
    assert not target.exists()


@pytest.mark.parametrize(
    ("arguments", "reply"),
    [
        (("{model}", "{folder}/none.h5"), "none.h5"),
        (("{folder}/none.hesse", "{file}"), "no such model file"),
        (("{file}", "{file}"), "expected a model file"),
        (("{model}", "{file}", "--json", "{folder}/nowhere/errors.json"), "no folder"),
        (("{model}", "{file}", "--page", "{folder}/page.png"), "choose a name that ends in .html"),
        (("{model}", "{file}", "--device", "abacus"), 'device "abacus"'),
        (("{model}", "{file}", "--dtype", "float8"), "float8"),
        (("{model}", "{file}", "--memory", "0"), "memory_mib"),
        (("{model}",), "DATA"),
    ],
)
def test_wrong_requests_exit_with_2(
    run: Run, model: Path, file: Path, tmp_path: Path, arguments: tuple[str, ...], reply: str
) -> None:
    names = {"model": model, "file": file, "folder": tmp_path}
    code, out, err = run("evaluate", *(a.format(**names) for a in arguments))
    assert code == 2
    assert reply in err
    assert out == ""


def test_one_table_if_all_structures_have_the_same_tag(run: Run, model: Path, file: Path, tmp_path: Path) -> None:
    path, several = tmp_path / "one-tag.h5", data()
    write_dataset(path, Dataset([replace(s, tag="hot") for s in several.structures], several.labels))
    assert run("evaluate", model, path, "--quiet")[1].count("RMSE") == 1
    assert run("evaluate", model, file, "--quiet")[1].count("RMSE") == 3


def reactions(tmp_path: Path) -> Path:
    structures = [replace(s, tag=tag) for s, tag in zip(molecules([4] * 3), ("ts", "reactant", "product"), strict=True)]
    path = tmp_path / "reactions.h5"
    write_dataset(path, labeled(Morse(), [replace(s, group="r") for s in structures], hessian=True))
    return path


def test_suites(run: Run, model: Path, file: Path, tmp_path: Path) -> None:
    rows, records = tmp_path / "rows.json", tmp_path / "records.json"
    options = ("--json", rows, "--records", records, "--worst", 0)
    code, out, _ = run("evaluate", model, reactions(tmp_path), "--suite", "reactions", *options)
    assert code == 0
    assert "reactions · reactions" in out
    assert "transition states found" in out
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80
    found = json.loads(rows.read_text())
    assert {"barrier", "reaction_energy", "transition_states"} <= {row["property"] for row in found}
    (record,) = json.loads(records.read_text())
    assert (record["dataset"], record["kind"], record["group"]) == ("reactions", "saddle", "r")
    code, out, _ = run("evaluate", model, file, "--suite", "curvature", "--no-by-tag")
    assert code == 0
    assert "wB97M-V" in out
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80


def test_a_suite_that_does_not_fit_the_data(run: Run, model: Path, file: Path, tmp_path: Path) -> None:
    code, _, err = run("evaluate", model, file, "--suite", "reactions")
    assert code == 2
    assert "reactant, ts and product" in err
    code, out, err = run("evaluate", model, file, reactions(tmp_path), "--suite", "reactions", "--worst", 0)
    assert code == 0
    assert "note: test-set: errors of labels only" in err
    assert "barrier, MAE" in out
    code, _, err = run("evaluate", model, file, "--suite", "curves")
    assert code == 2
    assert "curvature" in err
    code, _, err = run("evaluate", model, file, "--suite", "curvature", "--no-hessian")
    assert code == 2
    assert "--no-hessian" in err


def test_a_page(run: Run, model: Path, file: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    other = tmp_path / "noisy.h5"
    known = data()
    error = torch.full((len(known),), 1e3, dtype=torch.float64)
    write_dataset(other, replace(known, labels=known.labels.replace(hessian_error=error), metadata={"level": "DFT"}))
    code, _, err = run("evaluate", model, file, other, "--page", page, "--suite", "curvature", "--quiet")
    assert (code, err) == (0, "")
    text = page.read_text()
    for words in ("Is “model” good enough?", "On test-set, 4 structures", "On noisy, 4 structures", "closed form",
                  "not meaningful below", "but the model was trained on", "that of the model, on cpu"):  # fmt: skip
        assert words in text, words
    assert not list(tmp_path.glob("page.html.*"))
    assert run("evaluate", model, file, "--page", page, "--json", page)[0] == 2
    assert run("evaluate", model, file, "--page", file)[0] == 2
    assert run("evaluate", model, file, "--page", tmp_path / "nowhere" / "page.html")[0] == 2
    assert page.read_text() == text
