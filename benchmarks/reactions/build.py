"""Build the reaction benchmark: critical points (RTP), points along reaction paths (IRC) and normal-mode samples around
them (NMS), with energies, forces, Hessians and three fixed probes each.

    python benchmarks/reactions/build.py OUT --data FOLDER --workers 2

FOLDER contains the published geometries (see geometries.py). The same command continues an interrupted build. With
--tiny the geometries are those beside this file, and FOLDER is not needed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from card import write_card
from compose import PARTS, centers, critical_points, path_points, split_reactions
from geometries import Reaction, read_own, read_reactions
from journal import finish
from tasks import set_up_minima, set_up_paths

from hesse import __version__
from hesse.datasets import Dataset, read_dataset, write_dataset
from hesse.harmonic.normal_modes import normal_modes
from hesse.labelling import LabelSpec, label
from hesse.runtime.filesystem import atomic_write_text, lock_folder
from hesse.sampling import NormalModeSampling, sample_normal_modes
from hesse.structures import Properties, Structure

PROBES = ("rademacher", "gaussian", "one-hot")
"""Distributions of the fixed probes, in the order in which they are stored."""
GRAIN = 2.0**-20
"""Hessians are stored in multiples of this value (eV/Å²), so that they compress well. Rounding adds 2.8e-7 eV/Å² (root
mean square), which is included in their error estimates."""
TEMPERATURES = (300.0, 600.0)


@dataclass(frozen=True)
class Size:
    """Size of a build.

    Attributes:
        pairs: number of reactions of which only the ends were published; the first ones are taken.
        irc: minimum number of points along paths.
        centers: points per path around which normal modes are sampled.
        samples: samples per center and temperature.
    """

    pairs: int
    irc: int
    centers: int
    samples: int


FULL = Size(pairs=300, irc=1600, centers=9, samples=3)
TINY = Size(pairs=0, irc=24, centers=4, samples=2)


def main(
    out: Annotated[Path, typer.Argument(help="Folder to build in.")],
    data: Annotated[Path | None, typer.Option(help="Folder of the published geometries.")] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="Seven small reactions, in seconds.")] = False,
    limit: Annotated[int | None, typer.Option(help="Maximum number of reactions (for a trial).")] = None,
    engine: Annotated[str, typer.Option(help="Level of theory of everything.")] = "gfn2",
    workers: Annotated[int, typer.Option(min=1)] = 2,
    seed: int = 0,
) -> None:
    """Build the benchmark, or continue a build."""
    if (data is None) != tiny:
        raise typer.BadParameter("give either --data FOLDER (the full benchmark) or --tiny")
    out.mkdir(parents=True, exist_ok=True)
    with lock_folder(out):
        reactions, left_out = (read_own(), {}) if data is None else read_reactions(data)
        size = TINY if tiny else FULL
        known = [r for r in reactions if r.guess is not None][:limit]
        pairs = [r for r in reactions if r.guess is None][: min(size.pairs, limit or size.pairs)]
        _Build(out, engine, workers, seed, size, [*known, *pairs], left_out).run()


class _Build:
    """One build in stages; the results of each stage are in `out/work`."""

    def __init__(
        self,
        out: Path,
        engine: str,
        workers: int,
        seed: int,
        size: Size,
        reactions: Sequence[Reaction],
        left_out: dict[str, int],
    ) -> None:
        self.out, self.engine, self.workers, self.seed, self.size = out, engine, workers, seed, size
        self.reactions, self.left_out = reactions, left_out
        self.work = out / "work"
        self.work.mkdir(exist_ok=True)
        self._require_same_plan()

    def run(self) -> None:
        paths = self._journal("paths", set_up_paths, [(r.name, r) for r in self.reactions if r.guess is not None])
        ends = [(r, tag, end) for r in self.reactions if r.guess is None for tag, end in _ends(r)]
        minima = self._journal("minima", set_up_minima, [(f"{r.name}/{tag}", end) for r, tag, end in ends])
        parts = split_reactions(self.reactions, paths, self.seed)
        rtp, repeated = critical_points(self.reactions, paths, minima, parts)
        irc = path_points(paths, parts, self.size.irc)
        first, failures = self._labeled("rtp-irc", [*rtp, *irc])
        first, wrong = _with_the_right_modes(first)
        by_id = {s.id: s for s in irc}
        around = first.with_ids([n for n in centers(irc, self.size.centers) if n in {s.id for s in first.structures}])
        samples, unsampled = self._samples(around)
        second, more = self._labeled("nms", samples)
        sets = {
            f"rtp-{part}": _of(first, lambda s, p=part: s.id not in by_id and parts[s.group] == p) for part in PARTS
        }
        sets |= {"irc": _of(first, lambda s: s.id in by_id), "nms": second}
        sets = {name: dataset for name, dataset in sets.items() if dataset is not None}
        for name, dataset in sets.items():
            write_dataset(self.out / f"{name}.h5", _rounded(dataset))
        write_card(
            self.out,
            {name: read_dataset(self.out / f"{name}.h5") for name in sets},
            answers={"transition states and paths": paths, "minima": minima},
            left_out={**self.left_out, **repeated, **wrong},
            failures={
                "labels of critical points and paths": failures,
                "normal-mode samples": unsampled,
                "labels of normal-mode samples": more,
            },
            seconds=json.loads((self.work / "seconds.json").read_text()),
            workers=self.workers,
        )
        typer.echo((self.out / "CARD.md").read_text())

    def _journal(self, name: str, set_up: Any, tasks: Sequence[tuple[str, Any]]) -> dict[str, dict[str, Any]]:
        with self._timed(name):
            return finish(self.work / f"{name}.jsonl", name, set_up, self.engine, tasks, workers=self.workers)

    def _labeled(self, name: str, structures: Sequence[Structure]) -> tuple[Dataset, dict[str, str]]:
        """Energies, forces, Hessians, and one product for each distribution of probes."""
        target = self.work / f"{name}.h5"
        requests = [LabelSpec(n_probes=1, probe=kind, seed=self.seed, hessian=True) for kind in PROBES]
        with self._timed(f"labels of {name}"):
            reports = [
                label(structures, self.engine, target, spec=request, workers=self.workers) for request in requests
            ]
        common = set.intersection(*({s.id for s in r.dataset.structures} for r in reports))
        families = [r.dataset.with_ids([s.id for s in structures if s.id in common]) for r in reports]
        failures = {failure.id: failure.reason for report in reports for failure in report.failures}
        return _stacked(families), failures

    def _samples(self, around: Dataset) -> tuple[list[Structure], dict[str, str]]:
        """Geometries around points of paths, displaced along all modes except the path direction."""
        sampling = NormalModeSampling(
            TEMPERATURES, self.size.samples, seed=self.seed, relax=False, project_out_path=True
        )
        with self._timed("samples"):
            samples = sample_normal_modes(around, self.engine, sampling, workers=self.workers)
        return list(samples.structures), {failure.id: failure.reason for failure in samples.failures}

    def _require_same_plan(self) -> None:
        """A folder belongs to one plan: the results in its journals are those of its settings."""
        plan = {
            "engine": self.engine, "seed": self.seed, "size": vars(self.size), "code_version": __version__,
            "reactions": [r.name for r in self.reactions],
        }  # fmt: skip
        path = self.work / "plan.json"
        if path.exists() and json.loads(path.read_text()) != plan:
            raise typer.BadParameter(f"{self.out} contains a build with other settings; choose another folder")
        atomic_write_text(path, json.dumps(plan, indent=1) + "\n")

    @contextmanager
    def _timed(self, stage: str) -> Any:
        """Add the wall time of a stage to that of earlier runs."""
        path, start = self.work / "seconds.json", time.monotonic()
        try:
            yield
        finally:
            spent = json.loads(path.read_text()) if path.exists() else {}
            spent[stage] = round(spent.get(stage, 0.0) + time.monotonic() - start, 1)
            atomic_write_text(path, json.dumps(spent, indent=1) + "\n")


def _ends(reaction: Reaction) -> tuple[tuple[str, Structure], ...]:
    return ("reactant", reaction.reactant), ("product", reaction.product)


def _of(dataset: Dataset, condition: Callable[[Structure], bool]) -> Dataset | None:
    names = [s.id for s in dataset.structures if condition(s)]
    return dataset.with_ids(names) if names else None


def _stacked(families: Sequence[Dataset]) -> Dataset:
    """The first data set with the probes and products of all data sets."""
    labels = families[0].labels

    pairs = {
        name: torch.cat([getattr(family.labels, name) for family in families])
        for name in ("probes", "hvp", "hvp_error")
    }
    pairs["hvp_mask"] = torch.cat([family.labels.mask("hvp") for family in families])
    suspects = torch.stack([family.labels.suspect_mask() for family in families]).any(0)
    attributes = {**families[0].metadata, "probe": ", ".join(PROBES), "probes": str(len(PROBES))}
    combined = labels.replace(**pairs, suspect=suspects if bool(suspects.any()) else None)
    return replace(families[0], labels=combined, metadata=attributes)


def _with_the_right_modes(dataset: Dataset) -> tuple[Dataset, dict[str, int]]:
    """Remove transition states without exactly one imaginary mode, and minima with imaginary modes."""
    expected = {"ts": 1, "reactant": 0, "product": 0}
    ids, wrong = [], 0
    for i, structure in enumerate(dataset.structures):
        if structure.tag in expected:
            modes = normal_modes(structure, dataset.labels.hessian_of(i).numpy())
            if modes.n_imaginary != expected[structure.tag]:
                wrong += 1
                continue
        ids.append(structure.id)
    return dataset.with_ids(ids), {"another number of imaginary modes by its label": wrong}


def _rounded(dataset: Dataset) -> Dataset:
    labels: Properties = dataset.labels
    assert labels.hessian is not None
    assert labels.hessian_error is not None
    rounded = labels.replace(
        hessian=(labels.hessian / GRAIN).round() * GRAIN,
        hessian_error=torch.hypot(labels.hessian_error, torch.full_like(labels.hessian_error, GRAIN / 12**0.5)),
    )
    return replace(dataset, labels=rounded, metadata={**dataset.metadata, "hessian_grain": f"{GRAIN:.3g} eV/Å²"})


if __name__ == "__main__":
    typer.run(main)
