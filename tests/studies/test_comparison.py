"""Comparison of runs: numbers against SciPy on made-up errors, baselines, learning curves, files and page."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats
from tiny_study import grouped, study, write_data
from typer.testing import CliRunner

import hesse
from hesse.cli.app import app
from hesse.datasets import write_dataset
from hesse.errors import FileFormatError, MissingLabelError, RequestError, UnknownOptionError
from hesse.evaluation import MetricRow
from hesse.recipes.set_errors import SetErrors
from hesse.studies import StudyComparison, StudyResult, compare, run_study
from hesse.studies.runs import ComparedRun, RunSet
from hesse.studies.study_comparison import compare_runs
from hesse.studies.study_config import Label
from hesse.training import load_config
from hesse.training.config_file import run_from_config

GROUPS = 12


def set_errors(group_rmse: np.ndarray, name: str = "far") -> SetErrors:
    """Errors of forces with ten values in each group."""
    counts = np.full(len(group_rmse), 10.0)
    rmse = float(np.sqrt(np.mean(group_rmse**2)))
    rows = (MetricRow(name, "", "forces", "rmse", rmse, "eV/Å", int(counts.sum())),)
    names = tuple(f"g{k}" for k in range(len(group_rmse)))
    return SetErrors("d", "m", True, "basic", 40, rows, names, {"forces": 10 * group_rmse**2}, {"forces": counts})


def made_up(scale: float, seed: int, noise: float = 0.03, **labels: Label) -> ComparedRun:
    """A run whose errors are `scale` times those of the groups, with scatter between seeds that all variants share."""
    groups = 1.0 + 0.5 * np.random.default_rng(99).uniform(size=GROUPS)
    own = 1.0 + noise * np.random.default_rng([seed, round(1000 * scale)]).normal(size=GROUPS)
    common = 1.0 + 0.2 * np.random.default_rng(seed).normal()
    errors = {"far": set_errors(scale * groups * common * own)}
    return ComparedRun(Path(f"run{scale}{seed}"), labels, seed, 20, 5, 2.0, 1.0, 0.1, 0.7, errors)


def run_set(*runs: ComparedRun, **baseline: Label) -> RunSet:
    return RunSet("made up", runs, {}, (), baseline)


def two_schemes(seeds: int, scale: float = 0.5) -> StudyComparison:
    runs = [made_up(1.0, k, scheme="ef") for k in range(seeds)]
    runs += [made_up(scale, k, scheme="ef-hvp") for k in reversed(range(seeds))]
    return compare_runs(run_set(*runs))


def test_errors_and_changes_are_those_of_scipy() -> None:
    result = two_schemes(5)
    assert result.baselines == {"ef-hvp": "ef"}
    old, new = (np.array(row.values) for row in result.errors)
    assert result.errors[0].mean == pytest.approx(old.mean())
    assert result.errors[0].sd == pytest.approx(old.std(ddof=1))
    low, high = stats.t.interval(0.95, 4, old.mean(), stats.sem(old))
    assert (result.errors[0].low, result.errors[0].high) == pytest.approx((low, high))
    (row,) = result.changes
    assert row.percent == pytest.approx(100 * (new.mean() / old.mean() - 1))
    expected = stats.ttest_rel(new, old)
    assert (row.t, row.p_t) == pytest.approx((expected.statistic, expected.pvalue))
    assert row.p_wilcoxon == stats.wilcoxon(new - old).pvalue == 0.0625 == row.smallest_p_wilcoxon
    assert row.p_t_holm == row.p_t, "one test needs no correction"
    changes = 100 * (new / old - 1)
    low, high = stats.t.interval(0.95, 4, changes.mean(), stats.sem(changes))
    assert (row.seed_low, row.seed_high) == pytest.approx((low, high))
    assert row.group_low is not None
    assert row.group_high is not None
    assert row.group_low < row.percent < row.group_high < 0
    assert (row.pairs, row.groups, row.verdict) == (5, GROUPS, "better")
    assert "better: forces −50 %" in result.verdicts[0]
    assert any("cannot give less than p = 0.0625" in note for note in result.notes)


def test_two_seeds_are_not_tested() -> None:
    (row,) = two_schemes(2).changes
    assert (row.p_t, row.p_wilcoxon, row.t) == (None, None, None)
    assert row.untested == "2 of 3 pairs of seeds that a test needs"
    assert row.verdict == "better on these structures"
    single = two_schemes(1)
    assert (single.errors[0].sd, single.changes[0].seed_low) == (None, None)
    assert any("fewer than 3 seeds" in note for note in single.notes)


def test_equal_variants_have_no_clear_difference() -> None:
    """Sixteen comparisons of variants without a difference: none is a finding after correction."""
    runs = [made_up(1.0, k, scheme="ef") for k in range(4)]
    runs += [made_up(1.0 + 1e-3 * j, k, scheme=f"other-{j}") for j in range(1, 17) for k in range(4)]
    result = compare_runs(run_set(*runs))
    assert len(result.changes) == 16
    assert {row.verdict for row in result.changes} == {"no clear difference"}
    plain = [row.p_t for row in result.changes if row.p_t is not None]
    adjusted = [row.p_t_holm for row in result.changes if row.p_t_holm is not None]
    assert min(adjusted) == pytest.approx(min(1.0, 16 * min(plain)))


def test_agreement_is_that_of_the_errors_of_groups() -> None:
    result = two_schemes(3)
    (row,) = result.agreement
    old, new = (
        np.sqrt(np.mean([run.errors["far"].squared["forces"] / 10 for run in result.variants[name]], axis=0))
        for name in ("ef", "ef-hvp")
    )
    assert np.allclose(row.differences, new - old)
    assert np.allclose(row.means, (new + old) / 2)
    assert row.bias == pytest.approx((new - old).mean())
    assert row.high - row.low == pytest.approx(2 * stats.norm.ppf(0.975) * (new - old).std(ddof=1))
    assert row.groups[3] == "g3"


def test_each_variant_is_compared_with_the_baseline_that_is_otherwise_the_same() -> None:
    """Probes are no label of the scheme without products, networks are one of both."""
    runs = [
        made_up(s, k, scheme=scheme, network=network, **probe)
        for k in range(3)
        for s, network in ((1.0, "a"), (2.0, "b"))
        for scheme, probe in (("ef", {}), ("ef-hvp", {"probe": "pair-0"}), ("ef-hvp", {"probe": "pair-1"}))
    ]
    assert compare_runs(run_set(*runs)).baselines == {
        f"ef-hvp_{n}_pair-{k}": f"ef_{n}" for n in ("a", "b") for k in (0, 1)
    }
    by_probe = compare_runs(run_set(*runs), {"probe": "pair-0"}).baselines
    assert by_probe == {f"ef-hvp_{n}_pair-1": f"ef-hvp_{n}_pair-0" for n in ("a", "b")}
    one = compare_runs(run_set(*runs), "ef_b").baselines
    assert set(one.values()) == {"ef_b"}
    assert len(one) == 5
    chosen = compare_runs(run_set(*runs, scheme="ef", network="b")).baselines
    assert set(chosen.values()) == {"ef_b"}
    with pytest.raises(RequestError, match=r"no variant 'ef_c' as baseline.*\"ef_b\""):
        compare_runs(run_set(*runs), "ef_c")
    with pytest.raises(RequestError, match=r"no axis 'shceme'.*\"scheme\""):
        compare_runs(run_set(*runs), {"shceme": "ef"})
    with pytest.raises(RequestError, match=r"baseline, scheme: no variant with 'e'"):
        compare_runs(run_set(*runs), {"scheme": "e"})


def test_learning_curves_and_where_they_cross() -> None:
    runs = [
        made_up(scale * (1.0 / fraction) ** 0.3, k, noise=0.0, scheme=scheme, data_fraction=fraction)
        for k in range(2)
        for scheme, scale in (("ef", 1.0), ("ef-hvp", 0.7))
        for fraction in (0.1, 0.25, 0.5, 1.0)
    ]
    result = compare_runs(run_set(*runs))
    points = [(row.series, row.fraction) for row in result.curves]
    assert points == [(s, f) for s in ("ef", "ef-hvp") for f in (0.1, 0.25, 0.5, 1.0)]
    # 0.7 / f^0.3 < 1 for f > 0.305
    assert result.crossings == (
        "far, forces: ef-hvp reaches the mean error of ef with 100 % of the data with 50 % of them",
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    """Two schemes, three seeds, five steps; a cell has failed since."""
    folder = tmp_path_factory.mktemp("study")
    write_data(folder)
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study(axes={"scheme": ["ef", "ef-hvp"], "seed": [0, 1, 2]})))
    return run_study(path, workers=0, quiet=True)


@pytest.mark.slow
def test_a_study_is_compared_and_written(finished: StudyResult) -> None:
    result = compare(finished.output)
    assert list(result.variants) == ["ef", "ef-hvp"]
    assert {row.dataset for row in result.errors} == {"far"}
    assert {row.property for row in result.changes} == {"energy", "forces", "hvp", "hessian"}
    assert all(row.pairs == 3 and row.p_t_holm is not None for row in result.changes)
    costs = {row.variant: row for row in result.costs}
    assert costs["ef"].processor_seconds is not None
    assert costs["ef"].epoch_seconds == pytest.approx(3 * costs["ef"].step_seconds)  # 8 structures in threes
    files = {path.name: path for path in result.write(finished.output / "comparison")}
    content = json.loads(files["comparison.json"].read_text(), parse_constant=lambda word: pytest.fail(word))
    assert content["changes"][0]["percent"] == result.changes[0].percent
    with open(files["changes.csv"], newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [float(row["percent"]) for row in rows] == [row.percent for row in result.changes]
    with open(files["agreement_points.csv"], newline="") as handle:
        assert {row["group"] for row in csv.DictReader(handle)} == {"g0", "g1", "g2"}
    text = files["comparison.md"].read_text()
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert files["comparison.md"].read_text() == compare(finished.output).markdown()


def test_runs_are_compared_without_a_study(finished: StudyResult) -> None:
    """The same numbers as in the study; what differs in the options names the variants."""
    folders = [finished.run_folder(name) for name in finished.finished]
    result = hesse.compare(folders, baseline="ef")
    assert list(result.variants) == ["ef", "ef-hvp"]
    whole = compare(finished.output)
    assert [row.percent for row in result.changes] == [row.percent for row in whole.changes]
    pair = compare([folders[0], folders[1]])
    assert list(pair.variants) == ["run"]
    assert pair.changes == ()


def test_other_test_data_and_validation_data(finished: StudyResult, tmp_path: Path) -> None:
    write_dataset(tmp_path / "new.h5", grouped([3, 4], 11, 2))
    folders = [finished.run_folder(name) for name in ("ef_seed0", "ef-hvp_seed0")]
    result = compare(folders, data=[tmp_path / "new.h5"], hessian=False)
    assert {row.dataset for row in result.errors} == {"new"}
    assert "hessian" not in {row.property for row in result.errors}
    bare = copies(folders, tmp_path)
    result = compare(bare)
    assert {row.dataset for row in result.errors} == {"validation"}
    assert "compared on the validation data that they have in common (validation, 3 structures)" in result.notes[0]


def copies(folders: list[Path], target: Path) -> list[Path]:
    """Copies of runs that belong to no study."""
    result = [target / folder.name for folder in folders]
    for folder, copy in zip(folders, result, strict=True):
        shutil.copytree(folder, copy)
    return result


def values(result: StudyComparison) -> list[tuple[str, str, str, tuple[float, ...]]]:
    return [(row.variant, row.dataset, row.property, row.values) for row in result.errors]


def test_earlier_commands_do_not_change_the_test_sets(finished: StudyResult, tmp_path: Path) -> None:
    """Cached errors are used again, but they choose nothing."""
    for name, seed in (("one", 11), ("two", 12)):
        (tmp_path / name).mkdir()
        write_dataset(tmp_path / name / "test.h5", grouped([3, 4], seed, 2))
    folders = [finished.run_folder(name) for name in ("ef_seed0", "ef-hvp_seed0")]
    runs = copies(folders, tmp_path)
    first = compare(runs)
    files = [tmp_path / name / "test.h5" for name in ("one", "two")]
    both = compare(runs, data=files)
    assert {row.dataset for row in both.errors} == set(map(str, files))
    assert values(compare(runs)) == values(first)
    assert {row.dataset for row in compare(folders).errors} == {"far"}, "the cells of a study know its test sets"
    assert any("runs of the study study are compared on its test sets (far)" in n for n in compare(folders).notes)
    whole = compare(finished.output)
    write_dataset(tmp_path / "far.h5", grouped([3, 4], 13, 2))
    further = compare(finished.output, data=[tmp_path / "far.h5"])
    assert {row.dataset for row in further.errors} == {"far", str(tmp_path / "far.h5")}
    assert [v for v in values(further) if v[1] == "far"] == values(whole)
    assert values(compare(finished.output)) == values(whole)
    same = compare(finished.output, data={"far": finished.output.parent / "test.h5"})
    assert values(same) == values(whole), "the same data are no second set"
    shutil.copy(files[0], tmp_path / "again.h5")
    with pytest.raises(RequestError, match="hold the same structures and labels: give one of them"):
        compare(runs, data=[files[0], tmp_path / "again.h5"])


def test_a_part_that_was_held_out_is_named_so(tmp_path: Path) -> None:
    write_data(tmp_path)
    config = {**study()["base"], "data": {"train": "train.h5", "validation_fraction": 0.25, "by_group": False}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**config, "output": "runs/a"}))
    run_from_config(load_config(tmp_path / "run.yaml"), quiet=True)
    run = tmp_path / "runs" / "a"
    first = compare(run)
    assert {row.dataset for row in first.errors} == {"train, validation"}
    whole = compare(run, data=tmp_path / "train.h5")
    assert whole.notes[0].startswith("train: 6 of 8 structures were trained on (the same geometry is in the training")
    assert not any("trained on" in note for note in compare(run, data=tmp_path / "test.h5").notes)
    assert {row.dataset for row in whole.errors} == {"train"}
    assert values(compare(run)) == values(first)


def test_a_changed_test_set_of_a_study_is_refused(finished: StudyResult, tmp_path: Path) -> None:
    copy = tmp_path / "study"
    shutil.copytree(finished.output, copy)
    record = json.loads((copy / "study.json").read_text())
    write_dataset(tmp_path / "test.h5", grouped([3, 4], 13, 2))
    record["test"]["far"]["file"] = str(tmp_path / "test.h5")
    (copy / "study.json").write_text(json.dumps(record))
    compare(copy)
    shutil.rmtree(copy / "runs" / "ef_seed0" / "evaluations")
    with pytest.raises(RequestError, match=r"has changed since it was the test set \"far\""):
        compare(copy)


def trained(folder: Path, **options: object) -> Path:
    """A run of its own on the data of the study."""
    if not (folder / "test.h5").exists():
        write_data(folder)
    name = str(options.pop("name"))
    config = {**study()["base"], **options, "output": f"runs/{name}"}
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    run_from_config(load_config(folder / "run.yaml"), quiet=True)
    return folder / "runs" / name


def test_two_runs_are_compared_whatever_they_differ_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In two options, and in the seed: the first run is the baseline."""
    a = trained(tmp_path, name="lr=a", weights={"hvp": 0})
    b = trained(tmp_path, name="b", steps=6, seed=3)
    result = hesse.compare(a, b)
    first, second = result.variants
    assert result.baselines == {second: first}
    assert result.changes
    assert any("another seed than the baseline" in note for note in result.notes)
    assert not any("nothing is compared" in note for note in result.notes)
    assert f"| {second} | {b} |" in result.markdown()
    for baseline in (b, str(b), second):
        assert hesse.compare([a, b], baseline=baseline).baselines == {first: second}
    monkeypatch.chdir(tmp_path)
    from hesse.cli.compare_command import compare as command

    command([Path("runs/lr=a"), Path("runs/b")], baseline="runs/lr=a", quiet=True)
    output = capsys.readouterr().out
    assert f"{first} = runs/lr=a\n{second} = runs/b\n" in output
    assert f"{second} against {first} on validation" in output
    with pytest.raises(RequestError, match=r"no variant 'runs/c' as baseline, and none of these runs is in a folder"):
        hesse.compare(a, b, baseline="runs/c")


def test_variants_that_are_left_out_are_named() -> None:
    runs = [made_up(1.0, k, scheme="ef", network="a") for k in range(3)]
    runs += [made_up(0.9, k, scheme="ef-hvp", network="a") for k in range(3)]
    runs += [made_up(0.8, k, scheme="ef-hvp", network="b") for k in range(3)]
    result = compare_runs(run_set(*runs))
    assert result.baselines == {"ef-hvp_a": "ef_a"}
    assert any("not compared: ef-hvp_b;" in note for note in result.notes)


def test_data_without_groups_are_noted(finished: StudyResult, tmp_path: Path) -> None:
    data = grouped([3, 3, 3], 21, 1)
    write_dataset(
        tmp_path / "loose.h5",
        replace(
            data, structures=tuple(replace(s, group="", numbers=data.structures[0].numbers) for s in data.structures)
        ),
    )
    folders = [finished.run_folder(name) for name in ("ef_seed0", "ef-hvp_seed0")]
    expected = "loose: no groups in the data: intervals treat every structure as independent"
    for _ in range(2):  # computed, and read again
        assert any(expected in note for note in compare(folders, data=tmp_path / "loose.h5").notes)


def test_a_suite_without_its_labels_is_refused_before_the_work(finished: StudyResult, tmp_path: Path) -> None:
    folder = copies([finished.run_folder("ef_seed0")], tmp_path)
    with pytest.raises(MissingLabelError, match="the suite reactions needs structures with the tags"):
        compare(folder, data=[finished.output.parent / "test.h5"], suite="reactions")


def test_a_suite_adds_numbers_that_are_tested_too(finished: StudyResult, tmp_path: Path) -> None:
    folders = [finished.run_folder(name) for name in finished.finished]
    result = compare(folders, data=[finished.output.parent / "test.h5"], suite="curvature", baseline="ef")
    row = next(row for row in result.changes if row.property == "eigenvalues")
    assert (row.metric, row.pairs, row.groups, row.group_low) == ("mae", 3, 0, None)
    assert row.p_t_holm is not None
    shown = {(row.property, row.metric) for row in result.errors}
    assert {("projected_curvature", "slope"), ("eigenvalues", "mae"), ("hessian", "rmse")} <= shown
    assert not {("hessian", "level_spread"), ("hessian", "noise_floor")} & shown
    text = next(path for path in result.write(tmp_path) if path.suffix == ".md").read_text()
    assert "## Further numbers on test" in text
    assert "eigenvalues (MAE)" in text
    Page((tmp_path / "report.html").read_text())
    with pytest.raises(UnknownOptionError, match=r'no suite "curvatur".*"curvature"'):
        compare(folders, suite="curvatur")  # type: ignore[arg-type]


def test_what_cannot_be_compared_gets_a_reply(finished: StudyResult, tmp_path: Path) -> None:
    folder = finished.run_folder("ef_seed0")
    with pytest.raises(FileFormatError, match="nowhere: there is no such folder"):
        compare(tmp_path / "nowhere")
    with pytest.raises(FileFormatError, match=r"expected the folder of a run \(hesse train\) or of a study"):
        compare([tmp_path])
    with pytest.raises(RequestError, match="the same run was given twice"):
        compare([folder, folder])
    with pytest.raises(RequestError, match="is a whole study: compare it alone"):
        compare([finished.output, folder])
    with pytest.raises(RequestError, match="one or more"):
        compare([])
    for wrong in (3, [3], None):
        with pytest.raises(RequestError, match="one or more"):
            compare(wrong)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="data: expected a file"):
        compare(folder, data=5)  # type: ignore[arg-type]
    with pytest.raises(FileFormatError, match=r"test\.h5: this is a file.*Test sets are given by name.*data="):
        compare(folder, finished.output.parent / "test.h5")
    with pytest.raises(RequestError, match="baseline: expected the name of a variant"):
        compare(folder, baseline=4)  # type: ignore[arg-type]
    shutil.copytree(folder, tmp_path / "copy")
    with pytest.raises(RequestError, match=r"the same options and the same seed \(0\)"):
        compare([folder, tmp_path / "copy"])
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(FileFormatError, match=r"study\.json: cannot be read as a study"):
        compare(tmp_path)


class Page(HTMLParser):
    """Collects references and identifiers, and checks that elements are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.pictures: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.references += [str(values[k]) for k in ("src", "href") if k in values]
        if tag == "img":
            self.pictures.append(str(values["alt"]))
        if values.get("role") == "img":
            self.pictures.append(str(values["aria-label"]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(result: StudyComparison, folder: Path) -> Path:
    return next(path for path in result.write(folder) if path.suffix == ".html")


def hostile() -> StudyComparison:
    """Names with characters of HTML, learning curves, a failed cell."""
    runs = [
        made_up(scale / fraction**0.3, k, scheme=scheme, data_fraction=fraction)
        for k in range(3)
        for scheme, scale in (("ef", 1.0), ("<b>&", 0.7))
        for fraction in (0.25, 1.0)
    ]
    result = compare_runs(run_set(*runs))
    return replace(result, failed={"<i>": "it & that"}, title='<script>alert("x")</script>')


def test_the_page_refers_to_no_other_file_and_escapes_names(tmp_path: Path) -> None:
    text = page_of(hostile(), tmp_path).read_text()
    page = Page(text)
    assert all(reference.startswith("data:") for reference in page.references)
    assert "http" not in re.sub(r"data:image/svg\+xml;base64,[A-Za-z0-9+/=]*", "", text)
    assert '<script>alert("x")' not in text
    assert "&lt;i&gt;" in text
    assert sum("Bland-Altman plot of" in words for words in page.pictures) == 2
    assert sum("fraction of the training data" in words for words in page.pictures) == 1
    assert "<title>g3: mean" in text, "points are named"
    assert text == page_of(hostile(), tmp_path / "again").read_text()


@pytest.mark.slow
def test_the_page_works_in_a_browser(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    path = page_of(hostile(), tmp_path)
    click = "<script>document.querySelectorAll('th button')[1].click();</script></body>"
    path.write_text(path.read_text().replace("</body>", click))
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom", str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in done.stderr
    assert 'aria-sort="ascending"' in done.stdout
    assert done.stdout.count("<th ") == done.stdout.count('type="button"') > 10


def test_the_command_line_compares_a_study(
    finished: StudyResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from hesse.cli.compare_command import compare as command

    command([finished.output], baseline="scheme=ef-hvp", out=tmp_path / "out", json=tmp_path / "rows.json", quiet=True)
    output = capsys.readouterr().out
    assert "ef against ef-hvp on far" in output
    rows: list[dict[str, Any]] = json.loads((tmp_path / "rows.json").read_text())
    assert {row["baseline"] for row in rows} == {"ef-hvp"}
    assert (tmp_path / "out" / "report.html").exists()
    assert not any(isinstance(v, float) and math.isnan(v) for row in rows for v in row.values())


def test_a_file_in_place_of_the_folder_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("precious")
    done = CliRunner().invoke(app, ["compare", str(tmp_path / "runs"), "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, RequestError)
    assert "out is a file; expected a folder" in str(done.exception)
