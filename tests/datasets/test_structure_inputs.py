"""Whatever people have becomes structures and data sets; anything else gets a reply."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ase.io
import pytest
from ase import Atoms
from ase.build import molecule

from hesse.datasets import (
    Dataset,
    Split,
    as_dataset,
    as_structure,
    as_structures,
    check_dataset,
    dataset_summary,
    diagnose_consistency,
    flag_suspect,
    negate_forces,
    open_dataset,
    read_dataset,
    select_probes,
    with_tag,
    write_dataset,
)
from hesse.errors import HesseError, RequestError
from hesse.structures import Structure, from_ase
from oracles import Morse, labeled, molecules

DATA = labeled(Morse(), molecules([3, 4, 5]), probes=1)
WATER = molecule("H2O")


def test_structures_from_everything(tmp_path: Path) -> None:
    write_dataset(tmp_path / "x.h5", DATA)
    ase.io.write(tmp_path / "water.xyz", WATER)
    h2o = from_ase(WATER)
    assert as_structures(h2o) == (h2o,)
    assert as_structures(WATER)[0].id == h2o.id
    assert [s.id for s in as_structures([WATER, h2o, WATER])] == [h2o.id, h2o.id, f"{h2o.id}-3"]
    assert as_structures(DATA) == DATA.structures
    assert [s.id for s in as_structures(str(tmp_path / "x.h5"))] == list(DATA.ids)
    assert len(as_structures(tmp_path / "water.xyz")[0]) == 3
    assert as_structure(SimpleNamespace(structure=h2o)) is h2o  # type: ignore[arg-type]
    assert as_structure(DATA[1]) is DATA.structures[1]
    assert as_structures(list(DATA)) == DATA.structures
    assert as_structures(DATA[1:]) == DATA.structures[1:]


def test_data_sets_from_everything(tmp_path: Path) -> None:
    write_dataset(tmp_path / "x.h5", DATA)
    same = DATA.content_hash()
    assert as_dataset(DATA) is DATA
    assert as_dataset(SimpleNamespace(dataset=DATA)) is DATA  # type: ignore[arg-type]
    assert as_dataset(tmp_path / "x.h5").content_hash() == same
    assert as_dataset(list(DATA)).content_hash() == same
    assert as_dataset(DATA.to_ase()).content_hash() == same
    assert as_dataset(DATA[0]).ids == DATA.ids[:1]
    assert not as_dataset(DATA.structures).has("energy")
    assert as_dataset(WATER).n_atoms.tolist() == [3]
    assert as_dataset([DATA.structures[0], DATA[1]]).mask("energy").tolist() == [False, True]


def test_writing_takes_the_same(tmp_path: Path) -> None:
    write_dataset(tmp_path / "x.h5", DATA.to_ase())
    write_dataset(tmp_path / "y.extxyz", tmp_path / "x.h5")
    assert read_dataset(tmp_path / "y.extxyz").content_hash() == DATA.content_hash()


@pytest.mark.parametrize("wrong", [None, 3, 1.5, [], [1], {"a": 1}, [WATER, 2], [WATER, DATA], object(), b"x.h5"])
@pytest.mark.parametrize("convert", [as_structures, as_structure, as_dataset])
def test_anything_else_gets_a_reply(convert: Any, wrong: Any) -> None:
    with pytest.raises(RequestError, match="expected"):
        convert(wrong)


def test_replies_name_files_and_numbers(tmp_path: Path) -> None:
    with pytest.raises(HesseError, match="no such file"):
        as_dataset(tmp_path / "none.h5")
    with pytest.raises(RequestError, match="expected one structure, got 3"):
        as_structure(DATA)
    with pytest.raises(RequestError, match=r"expected a data set: .* got list of Atoms and int"):
        as_dataset([WATER, 2])  # type: ignore[list-item]
    with pytest.raises(HesseError, match="at least one atom"):
        as_structures(Atoms())
    assert isinstance(as_dataset([Structure([1], [[0, 0, 0]])]), Dataset)


WRONG_CALLS: dict[str, Callable[[], object]] = {
    "transform of a path": lambda: negate_forces("x.h5"),  # type: ignore[arg-type]
    "tag of atoms": lambda: with_tag(WATER, "hot"),  # type: ignore[arg-type]
    "probes of None": lambda: select_probes(None, [0]),  # type: ignore[arg-type]
    "diagnosis of atoms": lambda: diagnose_consistency([WATER]),  # type: ignore[arg-type]
    "flags of a path": lambda: flag_suspect("x.h5"),  # type: ignore[arg-type]
    "path of None": lambda: read_dataset(None),  # type: ignore[arg-type]
    "writing to a number": lambda: write_dataset(3, DATA),  # type: ignore[arg-type]
    "opening a data set": lambda: open_dataset(DATA),  # type: ignore[arg-type]
    "a pair of atoms and labels": lambda: as_structures([(WATER, DATA.labels)]),  # type: ignore[list-item]
    "pairs of atoms": lambda: Dataset.from_pairs([WATER]),  # type: ignore[list-item]
    "Dataset of atoms": lambda: Dataset([WATER], DATA.labels),  # type: ignore[arg-type]
    "Dataset without labels": lambda: Dataset(DATA.structures, None),  # type: ignore[arg-type]
    "a fraction as text": lambda: DATA.split("0.5"),  # type: ignore[arg-type]
    "an id alone": lambda: DATA.with_ids(DATA.ids[0]),
    "an unknown label": lambda: DATA.has("dipole"),
    "a misspelled label": lambda: DATA.mask("force"),
    "selection by text": lambda: DATA.select("first"),  # type: ignore[arg-type]
    "index out of range": lambda: DATA.select([7]),
    "split by text": lambda: Split.from_dataset(DATA, train="none.h5"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("call", WRONG_CALLS)
def test_wrong_arguments_get_a_reply(call: str) -> None:
    with pytest.raises(HesseError):
        WRONG_CALLS[call]()


def test_summary_check_and_split_take_paths(tmp_path: Path) -> None:
    write_dataset(tmp_path / "x.h5", DATA)
    assert dataset_summary(tmp_path / "x.h5")["structures"] == dataset_summary(DATA.to_ase())["structures"] == 3
    assert [report.label for report in check_dataset(str(tmp_path / "x.h5"))] == ["hvp"]
    split = Split.from_dataset(DATA, train=DATA[:2], test=DATA[2:])
    assert split.parts == {"train": DATA.ids[:2], "test": DATA.ids[2:]}
