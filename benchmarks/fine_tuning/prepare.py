"""Data and starting points of the fine-tuning experiment, made once: reactive structures, ordinary molecules, ANI-1x.

Ordinary molecules are those of the G2 collection, as they are and displaced along the normal modes of one member of
ANI-1x at 300 and 1000 K. Their labels are those of the ensemble itself: a network that forgets nothing has the errors
of a single member. They are divided by formula into molecules to replay (energies and forces) and molecules that
judge (also Hessians).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

import hesse
from hesse.models.adapters.torchani import TorchAniPotential, ani_from_torchani
from hesse.sampling import NormalModeSampling

MEMBERS = 8
JUDGED = 0.35
"""Share of the formulas of ordinary molecules that judge."""


def read_horm(path: Path) -> hesse.Dataset:
    """The reactive structures, with symmetric Hessians and one product along a Rademacher probe of each.

    Args:
        path: `horm_sample_dev.npz`.

    Returns:
        The data; groups are formulas.
    """
    pairs = []
    with np.load(path, allow_pickle=False) as archive:
        for name, formula in zip(archive["ids"], archive["formula"], strict=True):
            key = f"{int(name):03d}"
            numbers = archive[f"z_{key}"].astype(int)
            n = len(numbers)
            hessian = archive[f"hessian_{key}"].astype(float)
            hessian = 0.5 * (hessian + hessian.T)
            probe = np.random.default_rng(zlib.crc32(key.encode())).choice([-1.0, 1.0], size=3 * n)
            structure = hesse.Structure(
                numbers, archive[f"pos_{key}"].astype(float), id=f"horm-{key}", group=str(formula)
            )
            labels = hesse.Properties.single(
                n,
                energy=float(archive["energy"][len(pairs)]),
                forces=archive[f"forces_{key}"].astype(float),
                hessian=hessian.reshape(n, 3, n, 3),
                probes=probe.reshape(1, n, 3),
                hvp=(hessian @ probe).reshape(1, n, 3),
            )
            pairs.append((structure, labels))
    return hesse.Dataset.from_pairs(pairs, level="wb97x/6-31g*")


def label_by(teacher: hesse.Potential, structures: list[hesse.Structure], *, hessian: bool) -> hesse.Dataset:
    """Energies and forces of a teacher, and its Hessians.

    Args:
        teacher: any potential.
        structures: geometries.
        hessian: whether to compute Hessians.

    Returns:
        The labeled structures.
    """
    pairs = [(s, hesse.compute(s, teacher, forces=True, hessian=hessian)) for s in structures]
    return hesse.Dataset.from_pairs(pairs, level="wb97x/6-31g*")


def ordinary_geometries(modes_from: hesse.Potential) -> list[hesse.Structure]:
    """Molecules of the G2 collection and two displaced copies of each.

    Args:
        modes_from: its Hessians give the normal modes.

    Returns:
        The geometries; groups are names of molecules.
    """
    molecules = hesse.g2_molecules()
    sampling = NormalModeSampling(temperatures=(300.0, 1000.0), count=1, relax=False)
    displaced = hesse.sample_normal_modes(molecules, modes_from, sampling, workers=0, quiet=True).structures
    return [*molecules, *displaced]


def formula_of(structure: hesse.Structure) -> str:
    """Formula in the order of Hill."""
    return str(Atoms(numbers=np.asarray(structure.numbers)).get_chemical_formula("hill"))


def prepare(folder: Path, ani: Path, horm: Path) -> None:
    """Write what is missing of `horm.h5`, `replay.h5`, `ordinary.h5`, `ensemble.hesse` and `member-K.hesse`.

    Args:
        folder: where to.
        ani: state dict of ANI-1x.
        horm: the reactive structures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "horm.h5").exists():
        hesse.write_dataset(folder / "horm.h5", read_horm(horm))
    if not (folder / "ensemble.hesse").exists():
        potential = hesse.make_potential(f"torchani:{ani}?architecture=ani1x")
        assert isinstance(potential, TorchAniPotential)
        ensemble = ani_from_torchani(potential.original)
        assert isinstance(ensemble, hesse.Ensemble)
        for k, member in enumerate(ensemble.parts):
            hesse.save_model(folder / f"member-{k}.hesse", member)
        hesse.save_model(folder / "ensemble.hesse", ensemble)
    if not (folder / "replay.h5").exists():
        geometries = ordinary_geometries(hesse.load_model(folder / "member-0.hesse"))
        formulas = sorted({formula_of(s) for s in geometries})
        judges = set(np.random.default_rng(0).permutation(formulas)[: round(JUDGED * len(formulas))])
        teacher = hesse.load_model(folder / "ensemble.hesse")
        for name, is_judge in (("ordinary.h5", True), ("replay.h5", False)):
            chosen = [s for s in geometries if (formula_of(s) in judges) == is_judge]
            hesse.write_dataset(folder / name, label_by(teacher, chosen, hessian=is_judge))
            print(f"{name}: {len(chosen)} structures", flush=True)


TWIN: Mapping[str, Any] = {
    "steps": 2000,
    "batch": {"structures": 16},
    "weights": {"energy": 4.0, "forces": 3.0, "hvp": 1.5},
    "optimizer": {"learning_rate": 1e-3, "ema_decay": 0.98},
    "compile": "never",
    "cpu_threads": 1,
    "checkpoint_every": 200,
}


def make_twin(folder: Path) -> None:
    """Write `twin.hesse`, if it is missing: one smooth network (activation and cutoff), the mean of the eight members.

    It starts from member 0 and is trained on energies, forces and two products of the ensemble for displaced ordinary
    molecules (300, 600 and 1000 K, those of the formulas to replay). No reactive structure is used.

    Args:
        folder: of `prepare`.
    """
    if (folder / "twin.hesse").exists():
        return
    known = {formula_of(s) for s in hesse.read_dataset(folder / "replay.h5").structures}
    molecules = [m for m in hesse.g2_molecules() if formula_of(m) in known]
    sampling = NormalModeSampling(temperatures=(300.0, 600.0, 1000.0), count=5, relax=False, seed=1)
    member = starting_point(folder, 0, smooth=True)
    sampled = hesse.sample_normal_modes(molecules, member, sampling, workers=0, quiet=True).structures
    data = hesse.teacher_labels([*molecules, *sampled], str(folder / "ensemble.hesse"), probes=2, quiet=True)
    member = member.with_functions(cutoff_function="smooth")
    result = hesse.train(data, None, TWIN, output=folder / "twin", potential=member, quiet=True)
    hesse.save_model(folder / "twin.hesse", result.potential)


def by_formula(data: hesse.Dataset, split: int, n_test: int = 20) -> tuple[list[int], list[int]]:
    """Indices of training and test structures, which have no formula in common.

    Args:
        data: structures whose groups are formulas.
        split: number of the split.
        n_test: at least so many test structures.

    Returns:
        Both lists.
    """
    groups, held_out = np.array(data.groups), []
    for formula in np.random.default_rng(split).permutation(sorted(set(data.groups))):
        if np.isin(groups, held_out).sum() >= n_test:
            break
        held_out.append(formula)
    is_test = np.isin(groups, held_out)
    return np.flatnonzero(~is_test).tolist(), np.flatnonzero(is_test).tolist()


def starting_point(folder: Path, member: int, *, smooth: bool = False, twin: bool = False) -> hesse.Ani:
    """One member of ANI-1x, or the smooth twin of all eight.

    Args:
        folder: of `prepare`.
        member: 0 to 7.
        smooth: with a smooth activation in place of the CELU.
        twin: the network of `make_twin` instead.

    Returns:
        The network; every parameter can be trained.
    """
    torch.set_num_threads(1)
    if twin:
        make_twin(folder)
    network = hesse.load_model(folder / ("twin.hesse" if twin else f"member-{member}.hesse"))
    assert isinstance(network, hesse.Ani)
    return network.with_functions(activation="smooth-celu") if smooth else network
