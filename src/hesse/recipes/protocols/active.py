"""Active learning: a committee of models picks what it disagrees about, an engine labels it, and the committee learns.

The disagreement is the standard deviation of the members in energies, forces, or Hessian-vector products along random
probes (query by committee: Seung, Opper and Sompolinsky, COLT 1992; for potentials with energies arXiv 1801.09319).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hesse.datasets import read_dataset
from hesse.labelling import LabelSpec
from hesse.recipes.protocols.active_rounds import (
    EXPLORED,
    PICKED,
    Round,
    calibration_stage,
    exploration_stage,
    pick_stage,
    pool_labels_stage,
    test_calibration,
)
from hesse.recipes.protocols.active_settings import ActiveData, ActiveSettings, PickBy, read_active_data
from hesse.recipes.protocols.common_stages import (
    LABELS,
    MODEL,
    ensemble_stage,
    errors_stage,
    label_stage,
    train_stage,
)
from hesse.recipes.protocols.label_curve import curve_table
from hesse.recipes.protocols.recipe_settings import file_list, merged
from hesse.recipes.protocols.stages import Stage, StageRecord, StageWork
from hesse.runtime.filesystem import atomic_write_text

__all__ = ["active_stages", "active_summary"]

RESULTS, CALIBRATION = "results", "calibration"


@dataclass(frozen=True)
class Committee:
    """A trained committee: its name in tables, the files of its members, and the stage with their mean."""

    name: str
    members: tuple[Path, ...]
    mean: str


def active_stages(settings: ActiveSettings) -> list[Stage]:
    """The stages: for each seed and way to pick, rounds of training, picks and labels; then errors and calibration.

    Args:
        settings: the configuration, which `check_active` has accepted.

    Returns:
        The stages.
    """
    data = read_active_data(settings)
    stages: dict[str, Stage] = {}
    committees: dict[str, Committee] = {}
    for seed in settings.seeds:
        for by in settings.pick_by:
            for stage, committee in _branch(settings, data, seed, by):
                stages.setdefault(stage.name, stage)
                if committee is not None:
                    committees[committee.name] = committee
    if not settings.test:
        return list(stages.values())
    runs = {name: settings.output / committee.mean for name, committee in committees.items()}
    errors = errors_stage(RESULTS, runs, settings.test, suite=settings.suite)
    return [*stages.values(), errors, _calibration(settings, list(committees.values()))]


def _branch(
    settings: ActiveSettings, data: ActiveData, seed: int, by: PickBy
) -> Iterator[tuple[Stage, Committee | None]]:
    """Stages of one way to pick with one seed; with a committee, the one that the stage completes."""
    output, branch = settings.output, f"{by}/seed-{seed}"
    labels: list[Path] = []
    requests: list[Path] = []
    members: tuple[Path, ...] = ()
    calibrated, sizes = "", settings.picks()
    for number in range(len(sizes) + 1):
        # All ways to pick begin with the same committee.
        folder = f"{branch}/round-{number}" if number else f"start/seed-{seed}"
        given = settings.pretrained if number == 0 else None
        before, members = (
            members,
            tuple(
                output / folder / f"member-{k}" / MODEL if given is None else Path(given[k])
                for k in range(settings.members)
            ),
        )
        for k in range(settings.members if given is None else 0):
            options = _member_options(settings, data, seed, k, labels, before)
            name = f"{folder}/member-{k}"
            yield train_stage(output, name, "a member of the committee", options, branch=branch if number else ""), None
        committee = Committee(
            f"{by}/{len(data.start) + sum(sizes[:number])}/seed-{seed}", members, f"{folder}/committee"
        )
        yield ensemble_stage(committee.mean, members, branch=branch if number else ""), committee
        if number == len(sizes):
            return
        current = Round(f"{branch}/round-{number}", branch, by, number, sizes[number], seed * 1000 + number, members,
                        output / committee.mean / MODEL, tuple(requests), calibrated)  # fmt: skip
        explored = None
        if settings.source != "pool":
            explore = exploration_stage(settings, current)
            explored = output / explore.name / EXPLORED
            yield explore, None
        pick = pick_stage(settings, current, explored)
        request = output / pick.name / PICKED
        yield pick, None
        if settings.engine is None:
            label = pool_labels_stage(settings, current)
        else:
            spec = LabelSpec(settings.probes, hessian=settings.hessian)
            label = label_stage(
                f"{current.folder}/labels", f"label with {settings.engine}", request, settings.engine, spec,
                workers=settings.workers, branch=branch, weight=settings.label_weight,
            )  # fmt: skip
        yield label, None
        labels, requests = [*labels, output / label.name / LABELS], [*requests, request]
        calibration = calibration_stage(settings, current, labels[-1])
        calibrated = calibration.name
        yield calibration, None


def _member_options(
    settings: ActiveSettings, data: ActiveData, seed: int, k: int, labels: list[Path], before: tuple[Path, ...]
) -> dict[str, Any]:
    """Options of one member: its own network and, without a validation file, its own held-out structures."""
    files: dict[str, Any] = {"train": [*file_list(settings.start), *labels]}
    if settings.validation is not None:
        files["validation"] = list(file_list(settings.validation))
    else:
        files |= {"validation_fraction": settings.validation_fraction, "by_group": settings.by_group}
    options = settings.run_options(seed * settings.members + k, data=files)
    if labels and settings.label_weight != 1.0:
        options = merged({"batch": {"draw": "by-weight"}}, options)
    if before:
        options = merged(options, settings.updates)
    if before and settings.begin == "previous":
        options = {key: value for key, value in options.items() if key not in ("model", "repulsion")}
        options["init_from"] = str(before[k])
    return {**({"probe": {"source": "fresh"}} if data.full else {}), **options}


def _calibration(settings: ActiveSettings, committees: list[Committee]) -> Stage:
    """A stage with predicted and true errors of all committees on the test sets."""

    def work(stage: StageWork) -> Mapping[str, Any]:
        rows, points = [], []
        for test, file in settings.test.items():
            dataset = read_dataset(file)
            for committee in committees:
                if not all(member.exists() for member in committee.members):  # of a branch that has ended
                    continue
                summaries, single = test_calibration(settings, dataset, committee.members, stage)
                rows += [{"model": committee.name, "dataset": test, **row} for row in summaries]
                points += [{"model": committee.name, "dataset": test, **point} for point in single]
        atomic_write_text(stage.folder / "points.json", json.dumps(points) + "\n")
        return {"rows": rows}

    what = "does the disagreement tell the error on the test sets?"
    return Stage(CALIBRATION, what, work, products=("points.json",), always=True)


def active_summary(settings: ActiveSettings, records: Mapping[str, StageRecord]) -> str:
    """Errors against the number of labels, and the calibration of the last committees, as text.

    Args:
        settings: the configuration.
        records: records of the stages that are done.

    Returns:
        A line for each round of searches; with test sets a table, and a line for each calibration.
    """
    lines = [] if settings.source == "pool" else list(_candidate_errors(settings, records))
    if RESULTS not in records:
        return "\n".join(lines)
    lines.append(curve_table(records[RESULTS].results["rows"]))
    if CALIBRATION in records:
        rows = records[CALIBRATION].results["rows"]
        last = {}  # the committee with most labels of each branch comes last
        for row in rows:
            by, _, seed = row["model"].split("/")
            last[by, seed] = row["model"]
        lines += [
            f"{row['model']}, {row['dataset']}, {row['property']}: error / disagreement "
            f"{row['error_over_spread']:.2g}, rank correlation over {row['n']} structures {row['rank_correlation']:.2f}"
            for row in rows
            if row["model"] in last.values() and row["property"] in ("forces", "hvp")
        ]
    return "\n".join(lines)


def _candidate_errors(settings: ActiveSettings, records: Mapping[str, StageRecord]) -> Iterator[str]:
    """How wrong the forces of the committee are where its dynamics or searches lead, round by round. (At its stationary
    points its own forces vanish, so that these errors are the forces of the engine.)"""
    where = "samples" if settings.source == "dynamics" else "ends of searches"
    for name, record in records.items():
        branch, _, what = name.rpartition("/")
        if what != CALIBRATION or not branch:
            continue
        for row in record.results["rows"]:
            if row["property"] == "forces":
                text = f"forces at {row['n']} {where} differ from those of {settings.engine} by {row['error']:.3g} eV/Å"
                yield f"{branch}: {text}"
