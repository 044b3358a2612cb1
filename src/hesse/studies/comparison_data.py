"""The data on which runs are compared: given files, the test sets of their study, or their validation data.

Which ones they are follows from the arguments and the folders alone, never from what earlier commands happened to
evaluate: the same comparison twice gives the same tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hesse.datasets import Dataset, names_of_files, read_dataset
from hesse.errors import FileFormatError, RequestError
from hesse.models import best_model
from hesse.recipes.judging import SUITES, Suite, check_suite
from hesse.recipes.set_errors import SetErrors, cached_errors, evaluate_run
from hesse.recipes.training_overlap import training_overlap_note
from hesse.studies.run_labels import provenance_of
from hesse.studies.study import STUDY_FILE
from hesse.training import run_data

__all__ = ["Judge", "StudyTests", "errors_with_given", "open_tests", "overlap_notes", "study_of", "validation_errors"]

Judge = Callable[[Path, Dataset], SetErrors]
"""Errors of the model of a run on a data set."""


@dataclass(frozen=True)
class _StudyTest:
    """A test set of a study: its file, its hash and its suite."""

    file: Path
    data_hash: str
    suite: Suite


class StudyTests:
    """The test sets of a study, which are read only if errors of a run are missing."""

    def __init__(self, content: Mapping[str, Any], *, hessian: bool) -> None:
        """Take the test sets from the record of a study.

        Args:
            content: the record.
            hessian: errors of Hessians are wanted.

        Raises:
            ValueError: an unknown suite.
            KeyError: an incomplete record.
        """
        self._tests = {
            str(name): _StudyTest(Path(entry["file"]), str(entry["data_hash"]), _suite(entry["suite"]))
            for name, entry in content["test"].items()
        }
        self._hessian = hessian and bool(content["config"]["hessian"])
        self._read: dict[str, Dataset] = {}

    @property
    def names(self) -> list[str]:
        """Names of the test sets."""
        return list(self._tests)

    def holds(self, name: str, data_hash: str, suite: str) -> bool:
        """Whether a test set has this name, this content and this suite.

        Args:
            name: the name.
            data_hash: hash of the data.
            suite: the suite.

        Returns:
            True if it does.
        """
        test = self._tests.get(name)
        return test is not None and (test.data_hash, test.suite) == (data_hash, suite)

    def errors(self, run: Path) -> dict[str, SetErrors]:
        """Errors of a run on all test sets, computed where they are not known yet.

        Args:
            run: folder of the run.

        Returns:
            The errors by name of the test set.

        Raises:
            RequestError: the file of a test set has changed since.
            FileFormatError: it cannot be read.
        """
        result = {}
        for name, test in self._tests.items():
            stored = cached_errors(run, test.data_hash, suite=test.suite, hessian=self._hessian)
            if stored is None:  # computed without Hessians, or the model has changed
                stored = evaluate_run(run, self._dataset(name), suite=test.suite, hessian=self._hessian)
            result[name] = stored
        return result

    def _dataset(self, name: str) -> Dataset:
        if name not in self._read:
            test = self._tests[name]
            dataset = read_dataset(test.file)
            if dataset.content_hash() != test.data_hash:
                raise RequestError(
                    f'{test.file}: this file has changed since it was the test set "{name}" of this study, so that '
                    "errors on it cannot stand beside the older ones. Run `hesse study` again, which evaluates every "
                    "run on the new file."
                )
            self._read[name] = dataset
        return self._read[name]


def _suite(name: Any) -> Suite:
    match: Suite | None = next((suite for suite in SUITES if suite == name), None)
    if match is None:
        raise ValueError(f"no suite {name!r}")
    return match


def study_of(folders: Sequence[Path]) -> Path | None:
    """The study to which all runs belong.

    Args:
        folders: folders of runs.

    Returns:
        The folder of the study; None if there is none, or there are several.
    """
    studies = {folder.resolve().parent.parent for folder in folders if folder.resolve().parent.name == "runs"}
    study = studies.pop() if len(studies) == 1 else None
    inside = study is not None and all(folder.resolve().parent == study / "runs" for folder in folders)
    return study if study is not None and inside and (study / STUDY_FILE).exists() else None


def open_tests(
    data: str | Path | Sequence[str | Path] | Mapping[str, str | Path], *, suite: Suite, hessian: bool
) -> dict[str, Dataset]:
    """Read test sets that were given.

    Args:
        data: a file, files, or files by name.
        suite: what will be judged on them.
        hessian: errors of Hessians are wanted.

    Returns:
        The data by name: the stem of the file, its path where several have the same stem.

    Raises:
        RequestError: something else than files, or the same data twice.
        MissingLabelError: data without what the suite compares.
        HesseError: a file that cannot be read.
    """
    if isinstance(data, str | Path):
        data = [data]
    values = list(data.values()) if isinstance(data, Mapping) else data
    if not isinstance(values, list | tuple) or not all(isinstance(file, str | Path) for file in values):
        raise RequestError("data: expected a file, a list of files, or files by name")
    names = list(data) if isinstance(data, Mapping) else names_of_files([Path(file) for file in values])
    result: dict[str, Dataset] = {}
    known: dict[str, str | Path] = {}
    for name, file in zip(names, values, strict=True):
        dataset = read_dataset(file)
        digest = dataset.content_hash()
        other = known.get(digest, file)
        if digest in known or name in result:
            raise RequestError(f"{other} and {file} hold the same structures and labels: give one of them")
        check_suite(dataset, suite, hessian=hessian)
        known[digest], result[name] = file, dataset
    return result


def errors_with_given(
    run: Path, own: StudyTests, given: Mapping[str, Dataset], judge: Judge, suite: Suite
) -> dict[str, SetErrors]:
    """Errors of a run of a study on its test sets and on further ones.

    Args:
        run: folder of the run.
        own: the test sets of the study.
        given: further ones. One whose name the study has for other data or another suite gets its path as its name.
        judge: evaluates a run.
        suite: what `judge` judges.

    Returns:
        The errors by name of the test set.

    Raises:
        RequestError: two test sets of the same name.
    """
    errors = own.errors(run)
    for name, dataset in given.items():
        if own.holds(name, dataset.content_hash(), suite):
            continue
        free = next((text for text in (name, dataset.source) if text not in errors), None)
        if free is None:
            raise RequestError(f'"{name}" is the name of a test set of the study: give {dataset.source} another name')
        errors[free] = judge(run, dataset)
    return errors


def overlap_notes(folders: Sequence[Path], given: Mapping[str, Dataset]) -> tuple[str, ...]:
    """Notes about structures of given test sets that runs were trained on.

    Args:
        folders: folders of the runs. Of runs with the same training data one is read.
        given: the test sets by name.

    Returns:
        A note for each test set and training set with common structures.
    """
    by_training: dict[str, list[Path]] = {}
    for folder in folders if given else ():
        by_training.setdefault(str(provenance_of(folder).get("data_hash")), []).append(folder)
    notes = []
    for name, dataset in given.items():
        for members in by_training.values():
            note = training_overlap_note(best_model(members[0]), dataset)
            whose = f"{name} ({', '.join(folder.name for folder in members)})" if len(by_training) > 1 else name
            if note is not None:
                notes.append(f"{whose}: {note}")
    return tuple(notes)


def validation_errors(folders: Sequence[Path], judge: Judge) -> tuple[list[dict[str, SetErrors]], str]:
    """Errors on the validation data that all runs have in common.

    Args:
        folders: folders of the runs.
        judge: evaluates a run.

    Returns:
        The errors of each run by name of the data, and a note about them.

    Raises:
        RequestError: runs without validation data, or with different ones.
    """
    parts = []
    for folder in folders:
        try:
            parts.append(run_data(folder, "validation"))
        except (RequestError, FileFormatError) as error:
            raise RequestError(f"{error} To compare runs on other data: `hesse compare RUN... --data FILE`.") from error
    if len({part.content_hash() for part in parts}) > 1:
        raise RequestError(
            "these runs held out different validation structures, on which they cannot be compared: give test data, "
            "`hesse compare RUN... --data FILE`"
        )
    name = _validation_name(folders[0], parts[0])
    note = (
        f"without --data, runs are compared on the validation data that they have in common ({name}, {len(parts[0])} "
        "structures), by which their best models were chosen; --data FILE compares them on other data"
    )
    return [{name: judge(folder, parts[0])} for folder in folders], note


def _validation_name(folder: Path, part: Dataset) -> str:
    """The stem of the file, with "validation" for a part of a file; "validation" for parts of several files."""
    file = Path(part.source)
    if not file.is_file():
        return "validation"
    return f"{file.stem}, validation" if (folder / "split.json").exists() else file.stem
