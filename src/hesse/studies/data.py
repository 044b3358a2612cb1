"""The data of a study: one split for all runs, nested parts of the training data, fixed probes from stored Hessians.

Data that differ from the files of the user are written into the folder `data` of the study, once, with a record of what
they were made from; a study whose source files have changed is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from hesse.datasets import Dataset, draw_fixed_probes, open_datasets, select_probes, write_dataset
from hesse.errors import ConfigError, FileFormatError, MissingLabelError
from hesse.runtime.filesystem import atomic_write_text
from hesse.runtime.settings import validate_config
from hesse.structures import segment_ids
from hesse.studies.cells import Cell
from hesse.studies.study_config import StudyConfig
from hesse.training import DataConfig
from hesse.training.schedules import derive_seed

__all__ = ["CellData", "nested_part", "prepare_data", "with_fixed_pairs"]

_RECORD: Final = "data.json"


@dataclass(frozen=True)
class CellData:
    """Data of one cell.

    Attributes:
        options: the section `data` of its run.
        structures: number of training structures.
        groups: number of groups (molecules, reactions) among them.
    """

    options: Mapping[str, Any]
    structures: int
    groups: int


def prepare_data(study: StudyConfig, cells: Sequence[Cell], *, source: str) -> dict[str, CellData]:
    """Write the data that the cells need and that do not exist yet.

    If the base has no validation file, `validation_fraction` of the training data is held out once, with the seed of
    the base, so that all cells are validated on the same structures.

    Args:
        study: the configuration.
        cells: its cells.
        source: what to call the study in messages.

    Returns:
        The data of each cell by its name.

    Raises:
        ConfigError: the source files are no longer those of this study.
        MissingLabelError: a cell needs Hessians or pairs that the data do not have.
        RequestError: data that cannot be read or split.
    """
    folder = study.output / "data"
    folder.mkdir(parents=True, exist_ok=True)
    record = _read_record(folder / _RECORD)
    sections = list(dict.fromkeys(json.dumps(cell.options["data"], sort_keys=True) for cell in cells))
    result: dict[str, CellData] = {}
    for number, section in enumerate(sections):
        members = [cell for cell in cells if json.dumps(cell.options["data"], sort_keys=True) == section]
        config = validate_config(DataConfig, json.loads(section), source=f"{source}, [data]")
        writer = _DataWriter(study, config, folder, "train" if number == 0 else f"train-{number + 1}", record, source)
        for cell in members:
            result[cell.name] = writer.data_of(cell)
    return result


class _DataWriter:
    """The data of all cells with the same source files."""

    def __init__(
        self, study: StudyConfig, config: DataConfig, folder: Path, stem: str, record: dict[str, Any], source: str
    ) -> None:
        self.study, self.config, self.folder, self.stem = study, config, folder, stem
        self.record, self.source = record, source
        data = open_datasets(config.train_files)
        assert isinstance(data, Dataset)  # without a limit of memory
        self.hash, self.training = data.content_hash(), data
        self.options: dict[str, Any] = config.model_dump(mode="json")
        self.is_split = config.validation is None and config.validation_fraction > 0
        if self.is_split:
            seed = int(study.base.get("seed", 0))
            fraction = config.validation_fraction
            self.training, validation = data.split(1 - fraction, fraction, seed=seed, by_group=config.by_group)
            recipe = {"validation_fraction": fraction, "seed": seed, "by_group": config.by_group}
            file = self._file(f"{stem.replace('train', 'validation')}", recipe, lambda: validation)
            self.options |= {"validation": str(file)}
        self.done: dict[tuple[str, float, int], CellData] = {}

    def data_of(self, cell: Cell) -> CellData:
        key = (cell.pairs, cell.fraction, cell.probe_seed)
        if key not in self.done:
            self.done[key] = self._prepare(cell)
        return self.done[key]

    def _prepare(self, cell: Cell) -> CellData:
        part = nested_part(self.training, cell.fraction, seed=self.study.fraction_seed, by_group=self.config.by_group)
        groups = len(set(part.split_groups(by_group=self.config.by_group)[0])) if len(part) else 0
        options = dict(self.options)
        if self.is_split or _needs_other_data(cell):
            name = self.stem
            recipe: dict[str, Any] = {"split": self.is_split and self.options["validation_fraction"]}
            if cell.pairs != "stored":
                name += f"-{cell.pairs}"
                recipe |= {"pairs": cell.pairs, "probe_seed": cell.probe_seed}
                if cell.pairs.startswith("fixed-") and self.study.probe_seed == "seed":
                    name += f"-seed{cell.probe_seed}"
            if cell.fraction < 1:
                name += f"-{100 * cell.fraction:g}pct"
                recipe |= {"fraction": cell.fraction, "fraction_seed": self.study.fraction_seed}
            where = f"{self.source}, cell {cell.name}"
            file = self._file(name, recipe, lambda: with_pairs(part, cell.pairs, cell.probe_seed, where))
            options["train"] = str(file)
        return CellData(options, len(part), groups)

    def _file(self, name: str, recipe: Mapping[str, Any], make: Callable[[], Dataset]) -> Path:
        """A file of the study, written unless it exists."""
        path = self.folder / f"{name}.h5"
        entry = {
            "files": [str(file) for file in self.config.train_files],
            "data_hash": self.hash,
            "made": json.loads(json.dumps(recipe)),
        }
        known = self.record.get(path.name)
        if path.exists() and known is not None:
            if known["data_hash"] != entry["data_hash"] or known["made"] != entry["made"]:
                what = "its source files have changed" if known["made"] == entry["made"] else "its options have changed"
                raise ConfigError(
                    f"{path}: these data of the study were made earlier, and {what} since "
                    f"({', '.join(entry['files'])}). Restore them, or give the study another output."
                )
            return path.resolve()
        write_dataset(path, make())
        self.record[path.name] = entry
        atomic_write_text(self.folder / _RECORD, json.dumps(self.record, indent=1, ensure_ascii=False) + "\n")
        return path.resolve()


def _needs_other_data(cell: Cell) -> bool:
    """Whether a cell needs a part of the data, or chosen or new pairs."""
    return cell.pairs != "stored" or cell.fraction < 1


def nested_part(data: Dataset, fraction: float, *, seed: int = 0, by_group: bool = True) -> Dataset:
    """A part of a data set that contains every smaller part with the same seed.

    Whole groups (molecules, reactions) enter in an order that depends on their names and the seed only, until the
    number of structures is as close to the fraction as it gets.

    Args:
        data: the structures.
        fraction: fraction of the structures, above 0 and up to 1.
        seed: seed of the order.
        by_group: keep structures of one group together; otherwise only equal geometries.

    Returns:
        The part, at least one group, in the order of the data set.

    Raises:
        ConfigError: a fraction out of range.
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"expected a fraction above 0 and up to 1, got {fraction}")
    if fraction == 1:
        return data
    names, _ = data.split_groups(by_group=by_group)
    sizes: dict[str, int] = {}
    for name in names:
        sizes[name] = sizes.get(name, 0) + 1
    target, count = fraction * len(names), 0
    chosen: set[str] = set()
    for name in sorted(sizes, key=lambda name: (_order_number(seed, name), name)):
        if chosen and abs(count + sizes[name] - target) > abs(count - target):
            break
        chosen.add(name)
        count += sizes[name]
    return data.select([i for i, name in enumerate(names) if name in chosen])


def _order_number(seed: int, name: str) -> int:
    return derive_seed(seed, *name.encode())


def with_pairs(data: Dataset, pairs: str, seed: int, where: str) -> Dataset:
    """The data with other (probe, product) pairs.

    Args:
        data: the structures with their labels.
        pairs: "stored", "pair-K" (only the K-th stored pair) or "fixed-KIND" (made from Hessians).
        seed: seed of the probes of "fixed-KIND".
        where: what needs them, for the message.

    Returns:
        The data.

    Raises:
        MissingLabelError: no such pairs, or no Hessians.
    """
    if pairs == "stored":
        return data
    family, _, kind = pairs.partition("-")
    if family == "fixed":
        return with_fixed_pairs(data, kind, seed=seed, where=where)
    n_stored = 0 if data.labels.probes is None else len(data.labels.probes)
    if int(kind) >= n_stored:
        raise MissingLabelError(
            f"{where}: {pairs}: the data hold {n_stored} (probe, product) pairs of a structure, counted from 0"
        )
    return select_probes(data, [int(kind)])


def with_fixed_pairs(data: Dataset, kind: str, *, seed: int = 0, where: str = "fixed probes") -> Dataset:
    """Replace the stored pairs by one probe of each structure and its product with the stored Hessian.

    Args:
        data: structures with Hessians; those without one have no pair.
        kind: kind of the probes, one of `hesse.datasets.FIXED_PROBE_KINDS`.
        seed: seed of the probes, which depend on it and on the structures (random ones on their ids) only.
        where: what needs them, for the message.

    Returns:
        The data with one pair for each Hessian.

    Raises:
        MissingLabelError: there is no Hessian.
    """
    mask = data.labels.mask("hessian")
    if data.labels.hessian is None or not bool(mask.any()):
        raise MissingLabelError(
            f"{where}: one fixed {kind} probe for each structure is multiplied with its Hessian, and the data have no "
            "Hessians: make labels with `hesse label --hessian`, or use the stored pairs (probe: stored or pair-0)"
        )
    directions = draw_fixed_probes(data.structures, kind, seed=seed)
    products = data.labels.hessian_matvec(directions)
    absent = ~mask[segment_ids(data.labels.n_atoms)][None, :, None]
    labels = data.labels.replace(
        probes=directions.masked_fill(absent, torch.nan),
        hvp=products.masked_fill(absent, torch.nan),
        hvp_mask=mask[None, :].clone(),
        hvp_error=None,
    )
    metadata = {**data.metadata, "probe": kind, "probes": "1"}
    return Dataset(data.structures, labels, metadata=metadata, source=data.source)


def _read_record(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not all(
            isinstance(e, dict) and {"files", "data_hash", "made"} <= e.keys() for e in content.values()
        ):
            raise ValueError("expected files, data_hash and made of each file")
    except (OSError, ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: cannot be read as the data of a study ({error})") from error
    return content
