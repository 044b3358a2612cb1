"""Calls that people try first: with ASE atoms, lists, paths, names, calculators and models. All of them work, and wrong
arguments get a reply instead of an AttributeError or TypeError."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

import hesse
from hesse.training.config import RunConfig

pytest.importorskip("tblite", reason="needs tblite")
ELEMENTS = (1, 6, 7, 8)


@dataclass(frozen=True)
class Things:
    """What a user has at hand: atoms, a trained model, labelled data, and their files."""

    water: Atoms
    atoms: list[Atoms]
    structure: hesse.Structure
    engine: hesse.Engine
    potential: hesse.Potential
    model_file: Path
    data: hesse.Dataset
    data_file: Path
    folder: Path


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Things:
    folder = tmp_path_factory.mktemp("natural")
    torch.manual_seed(0)
    potential = (
        hesse.HesseNet(hesse.HesseNetConfig(features=8, channels=4, radial=4, cutoff=4.0), ELEMENTS).double().eval()
    )
    model_file = folder / "model.hesse"
    hesse.save_model(model_file, potential)
    atoms = [molecule(name) for name in ("H2O", "NH3", "CH4")]
    data_file = folder / "data.h5"
    data = hesse.label(atoms, "gfn2", data_file, probes=1, hessian=True, workers=0, quiet=True).dataset
    return Things(
        atoms[0],
        atoms,
        hesse.from_ase(atoms[0]),
        hesse.make_engine("gfn2"),
        potential,
        model_file,
        data,
        data_file,
        folder,
    )


def flat_ammonia() -> Atoms:
    """Ammonia close to its planar saddle point."""
    atoms = molecule("NH3")
    atoms.positions[:, 2] *= 0.02
    return atoms


def inverted_ammonia() -> Atoms:
    """Ammonia turned inside out."""
    atoms = molecule("NH3")
    atoms.positions[:, 2] *= -1
    return atoms


class Charged(hesse.Potential):
    """Springs whose charges have a misspelled name."""

    cutoff = 3.0
    output_names = ("chrges",)

    def forward(self, batch: hesse.Batch) -> torch.Tensor:
        return batch.neighbor_vectors().square().sum(-1).sum(-1)


TINY: Mapping[str, Any] = {"steps": 1, "compile": "never", "model": {"features": 4, "channels": 2, "radial": 3}}

CALLS: dict[str, Callable[[Things], Any]] = {
    # energies and derivatives of anything
    "compute(atoms, name)": lambda t: hesse.compute(t.water, "gfn2").energy,
    "compute(list, name)": lambda t: hesse.compute(t.atoms, "gfn2", forces=True).forces,
    "compute(atoms, potential)": lambda t: hesse.compute(t.water, t.potential, hessian=True).hessian_of(0),
    "compute(atoms, path)": lambda t: hesse.compute(t.water, t.model_file, forces=True).forces,
    "compute(atoms, text path)": lambda t: hesse.compute(t.water, str(t.model_file), forces=True).forces,
    "compute(atoms, calculator)": lambda t: (
        hesse.compute(bulk("Cu", cubic=True), EMT(), forces=True, stress=True).stress
    ),
    "compute(structure, engine, probes=2)": lambda t: hesse.compute(t.structure, t.engine, probes=2).hvp,
    "compute(data, potential, probes=Probe)": lambda t: (
        hesse.compute(t.data, t.potential, probes=hesse.Gaussian(2)).hvp
    ),
    "compute(atoms, potential, probes=array)": lambda t: (
        hesse.compute(t.water, t.potential, probes=np.ones((3, 3))).hvp
    ),
    "compute(file, name)": lambda t: hesse.compute(t.data_file, "gfn2").energy,
    "engine.compute(atoms)": lambda t: t.engine.compute(t.water).forces,
    "engine.compute(structure)": lambda t: t.engine.compute(t.structure).energy,
    "evaluate_structures(potential, atoms)": lambda t: (
        hesse.evaluate_structures(t.potential, t.atoms, hesse.Request()).energy
    ),
    "HessianOperator(potential, atoms)": lambda t: hesse.HessianOperator(t.potential, t.water),
    "teacher_labels(atoms, potential)": lambda t: (
        hesse.teacher_labels(t.atoms, t.potential, atomic_energies=True, quiet=True).labels.atomic_energies
    ),
    "teacher_labels(data, [file, potential], folder)": lambda t: (
        hesse.teacher_labels(t.data, [t.model_file, t.potential], t.folder / "teachers", quiet=True).labels.forces_error
    ),
    # geometries
    "minimize(atoms, name)": lambda t: hesse.minimize(t.water, "gfn2", fmax=0.05).energy,
    "minimize(atoms, potential)": lambda t: hesse.minimize(t.water, t.potential, steps=2).energy,
    "minimize(atoms, model file)": lambda t: hesse.minimize(t.water, t.model_file, steps=2).energy,
    "minimize(...).to_ase()": lambda t: hesse.minimize(t.structure, t.engine, fmax=0.1).to_ase().get_potential_energy(),
    "vibrations(atoms, name).frequencies": lambda t: hesse.vibrations(t.water, "gfn2").frequencies,
    "vibrations(result, engine).zpe": lambda t: hesse.vibrations(hesse.minimize(t.water, t.engine), t.engine).zpe,
    "vibrations(atoms, calculator)": lambda t: hesse.vibrations(molecule("CO"), EMT()).frequencies,
    "vibrations(...).table()": lambda t: hesse.vibrations(t.water, t.potential).table(),
    "thermo(atoms, name).gibbs": lambda t: hesse.thermo(t.water, "gfn2").gibbs,
    "thermo(vibrations).table()": lambda t: hesse.thermo(hesse.vibrations(t.water, t.potential)).table(),
    "analyze_vibrations(atoms, potential)": lambda t: hesse.analyze_vibrations(t.water, t.potential)[0].zpe,
    "normal_modes(atoms, hessian)": lambda t: hesse.normal_modes(t.atoms[0], t.data[0][1].hessian_of(0)).frequencies,
    "lowest_modes(atoms, name)": lambda t: hesse.lowest_modes(t.atoms[1], "gfn2", 1).eigenvalues,
    "lowest_modes(atoms, potential)": lambda t: hesse.lowest_modes(t.atoms[1], t.potential, 1).eigenvalues,
    "saddle(atoms, name)": lambda t: hesse.saddle(flat_ammonia(), "gfn2").modes.frequencies[0],
    "saddle(atoms, name, mode=0)": lambda t: hesse.saddle(flat_ammonia(), "gfn2", mode=0).imaginary_frequency,
    "saddle(atoms, name, method=davidson)": lambda t: (
        hesse.saddle(flat_ammonia(), "gfn2", method="davidson").n_products
    ),
    "remove_imaginary_modes(atoms, name)": lambda t: hesse.remove_imaginary_modes(t.water, "gfn2", fmax=0.05).modes,
    "neb(atoms, atoms, name)": lambda t: hesse.neb(t.atoms[1], inverted_ammonia(), "gfn2", images=3, fmax=0.5).to_ase(),
    "neb(atoms, atoms, model file)": lambda t: (
        hesse.neb(t.atoms[1], inverted_ammonia(), t.model_file, images=3, steps=1, relax_ends=False).energies
    ),
    "saddle(neb(...), engine)": lambda t: (
        hesse.saddle(hesse.neb(t.atoms[1], inverted_ammonia(), t.engine, images=3, fmax=0.5), t.engine).energy
    ),
    "reaction(atoms, atoms, name).barrier": lambda t: (
        hesse.reaction(t.atoms[1], inverted_ammonia(), "gfn2", images=3, path_fmax=0.5).thermo.rate
    ),
    "irc(...).to_ase()": lambda t: hesse.irc(hesse.saddle(flat_ammonia(), t.engine), t.engine, steps=3).to_ase(),
    "run_md(atoms, name, settings)": lambda t: hesse.run_md(
        t.water, "gfn2", hesse.MDSettings(temperature=300, steps=3)
    ).to_ase(),
    "run_md(atoms, potential, temperature=)": lambda t: (
        hesse.run_md(t.water, t.potential, temperature=300, steps=3).times
    ),
    "sample_normal_modes(atoms, name)": lambda t: hesse.sample_normal_modes(
        t.water, "gfn2", workers=0, quiet=True
    ).to_ase(),
    "sample_normal_modes(atoms, name, temperatures=)": lambda t: (
        hesse.sample_normal_modes(t.water, "gfn2", temperatures=(300.0,), count=1, workers=0, quiet=True).structures
    ),
    "sample_rattled(atoms)": lambda t: hesse.sample_rattled(t.water).to_ase(),
    # labels
    "label(atoms, name, probes=2)": lambda t: hesse.label(t.water, "gfn2", probes=2, quiet=True).dataset,
    "label(list, engine)": lambda t: hesse.label(t.atoms, t.engine, quiet=True).dataset,
    "label(data, potential, hessian=True)": lambda t: (
        hesse.label(t.data, t.potential, hessian=True, quiet=True).dataset
    ),
    "label(atoms, calculator)": lambda t: hesse.label(bulk("Cu", cubic=True), EMT(), quiet=True).dataset,
    "label(atoms, name, spec=LabelSpec)": lambda t: hesse.label(
        t.water, "gfn2", spec=hesse.LabelSpec(n_probes=0), workers=0, quiet=True
    ),
    # data
    "data[0]": lambda t: t.data[0],
    "data[1:]": lambda t: t.data[1:],
    "data[-1]": lambda t: t.data[-1],
    "data[list]": lambda t: t.data[[2, 0]],
    "len(data)": lambda t: len(t.data),
    "for item in data": lambda t: list(t.data),
    "data + data": lambda t: t.data[:1] + t.data[1:],
    "data.filter(function)": lambda t: t.data.filter(lambda s: len(s) > 3),
    "data.to_ase()": lambda t: t.data.to_ase()[0].get_forces(),
    "Dataset.from_ase(list)": lambda t: hesse.Dataset.from_ase(t.data.to_ase()).labels.forces,
    "read_dataset(path)": lambda t: hesse.read_dataset(t.data_file),
    "write_dataset(path, data)": lambda t: hesse.write_dataset(t.folder / "copy.extxyz", t.data),
    "Structure.from_ase(atoms)": lambda t: hesse.Structure.from_ase(t.water).to_ase(),
    "fit_reference_energies(data)": lambda t: hesse.fit_reference_energies(t.data.structures, t.data.labels, ELEMENTS),
    # training and judging
    "train(data)": lambda t: hesse.train(t.data, config=hesse.TrainConfig(**TINY), output=t.folder / "a", quiet=True),
    "train(path)": lambda t: hesse.train(
        t.data_file, config=hesse.TrainConfig(**TINY), output=t.folder / "b", quiet=True
    ),
    "train(data, potential=path)": lambda t: hesse.train(
        t.data,
        config=hesse.TrainConfig(steps=1, compile="never"),
        potential=t.model_file,
        output=t.folder / "c",
        quiet=True,
    ),
    "evaluate(potential, data)": lambda t: hesse.evaluate(t.potential, t.data).rows,
    "evaluate(path, path).table()": lambda t: hesse.evaluate(t.model_file, t.data_file).table(),
    "evaluate(text path, data)": lambda t: hesse.evaluate(str(t.model_file), t.data).table(),
    "predict(path, data)": lambda t: hesse.predict(t.model_file, t.data),
    "check(potential)": lambda t: hesse.check(t.potential, only=["energy-slope"]),
    "check(path)": lambda t: hesse.check(t.model_file, only=["energy-slope"]),
    # use
    "make_engine(path)": lambda t: hesse.make_engine(str(t.model_file)),
    "make_engine(Path)": lambda t: hesse.make_engine(t.model_file),
    "make_potential(path)": lambda t: hesse.make_potential(str(t.model_file)),
    "load_model(path)": lambda t: hesse.load_model(t.model_file),
    "PotentialEngine(potential)": lambda t: hesse.PotentialEngine(t.potential).compute(t.water).energy,
    "HesseCalculator(path)": lambda t: hesse.HesseCalculator(t.model_file).get_potential_energy(t.water.copy()),
    "HesseCalculator(potential).get_hessian(atoms)": lambda t: hesse.HesseCalculator(t.potential).get_hessian(t.water),
    "calculator.hvp(v, atoms)": lambda t: hesse.HesseCalculator(t.potential).hvp(np.ones((3, 3)), t.water),
    "sample_normal_modes(temperatures=array)": lambda t: hesse.sample_normal_modes(
        t.water, "gfn2", temperatures=np.array([300.0, 600.0]), count=1, workers=0, quiet=True
    ),
    "LossWeights(hvp=)": lambda t: hesse.LossWeights(hvp=0.1),
    "TrainConfig(steps=)": lambda t: hesse.TrainConfig(steps=10),
    "LabelSpec(n_probes=)": lambda t: hesse.LabelSpec(n_probes=2),
    # loss, quantities and records
    "TrainConfig(weights=balance)": lambda t: hesse.TrainConfig(weights="balance").make_loss(),
    "TrainConfig(weights={balance, hvp})": lambda t: hesse.TrainConfig(weights={"balance": True, "hvp": 0.3}),
    "TrainConfig(weights={length_scale})": lambda t: hesse.TrainConfig(weights={"length_scale": 0.55}),
    "TrainConfig(loss=[{...}])": lambda t: hesse.TrainConfig(
        loss=[{"quantity": "energy", "form": "huber", "delta": 0.1}, {"quantity": "hvp", "mass_weighted": True}]
    ).make_loss(),
    "TrainConfig(loss=[LossTerm])": lambda t: hesse.TrainConfig(
        loss=[hesse.LossTerm(quantity="forces", form="mae"), hesse.LossTerm(quantity="forces", name="size")]
    ),
    "TrainConfig(probe=soft modes)": lambda t: hesse.TrainConfig(
        probe={"source": "fresh", "weighting": "soft-modes", "soft_below": 300}
    ),
    "train(data, weights=balance)": lambda t: hesse.train(
        t.data, config={**TINY, "weights": "balance"}, output=t.folder / "d", quiet=True
    ).table(),
    "Properties.single(n, energy=)": lambda t: hesse.Properties.single(3, energy=-1.0, forces=np.zeros((3, 3))),
    "Properties.single(n, tensor)": lambda t: hesse.Properties.single(3, energy=torch.ones((), requires_grad=True)),
    "labels.replace(hessian=None)": lambda t: t.data.labels.replace(hessian=None),
    "labels.select(list)": lambda t: t.data.labels.select([2, 0]).energy,
    "labels.select(mask)": lambda t: t.data.labels.select(t.data.labels.n_atoms > 3).energy,
    "labels.select(index)": lambda t: t.data.labels.select(1).energy,
    "labels.pick(name)": lambda t: t.data.labels.pick("energy").energy,
    "labels.hessian_of(-1)": lambda t: t.data.labels.hessian_of(-1),
    "name in labels": lambda t: "hessian" in t.data.labels or None,
    "labels[n_atoms]": lambda t: t.data.labels["n_atoms"],
    "pickle of labels": lambda t: pickle.loads(pickle.dumps(t.data.labels)).energy,
    "pickle of a Request": lambda t: pickle.loads(pickle.dumps(hesse.Request(forces=True))),
    "Request(...).replace(hessian=True)": lambda t: hesse.Request(forces=True).replace(hessian=True),
    "compute(atoms, name, outputs=())": lambda t: hesse.compute(t.water, "gfn2", outputs=()).energy,
}


@pytest.mark.parametrize("call", CALLS)
def test_natural_calls_work(call: str, things: Things, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(things.folder)
    result = CALLS[call](things)
    if call not in ("write_dataset(path, data)",):
        assert result is not None


WRONG: dict[str, tuple[Callable[[Things], Any], str]] = {
    "an unknown engine": (lambda t: hesse.minimize(t.water, "gfn3"), "gfn2"),
    "an engine that is None": (lambda t: hesse.compute(t.water, None), "expected an engine"),
    "structures that are None": (lambda t: hesse.compute(None, "gfn2"), "expected structures"),
    "an empty list": (lambda t: hesse.label([], "gfn2"), "structure"),
    "numbers in place of atoms": (lambda t: hesse.minimize(3, "gfn2"), "expected structures"),
    "two structures for a search": (lambda t: hesse.minimize(t.atoms, "gfn2"), "expected one structure, got 3"),
    "a file that does not exist": (lambda t: hesse.compute("nowhere.xyz", "gfn2"), "nowhere.xyz"),
    "a model that does not exist": (lambda t: hesse.evaluate("nowhere.hesse", t.data), "nowhere.hesse"),
    "a foreign module": (lambda t: hesse.evaluate(torch.nn.Linear(2, 2), t.data), "CallablePotential"),
    "a module for HesseCalculator": (lambda t: hesse.HesseCalculator(torch.nn.Linear(2, 2)), "expected a potential"),
    "an engine where a potential is wanted": (lambda t: hesse.check(t.engine), "expected a potential"),
    "data that are a list of numbers": (lambda t: hesse.evaluate(t.potential, [1, 2]), "expected"),
    "training without data": (lambda t: hesse.train(None, output="x"), "expected"),
    "an unknown option": (lambda t: hesse.TrainConfig(lr=1e-3), "lr"),
    "a misspelled option": (lambda t: hesse.TrainConfig(stepz=10), "steps"),
    "a value out of range": (lambda t: hesse.TrainConfig(steps=-1), "steps"),
    "a renamed option": (lambda t: hesse.TrainConfig(threads=1), "cpu_threads"),
    "an unknown loss weight": (lambda t: hesse.LossWeights(hessain=1.0), "hessian"),
    "probes that do not fit": (lambda t: hesse.compute(t.water, "gfn2", probes=np.ones((2, 2, 3))), "probes of shape"),
    "a negative number of probes": (lambda t: hesse.compute(t.water, "gfn2", probes=-1), "probes"),
    "processes for an engine object": (lambda t: hesse.label(t.water, t.engine, workers=2), "workers"),
    "the old name of a model": (lambda t: hesse.make_engine(f"model:{t.model_file}"), "model.hesse"),
    "an index out of range": (lambda t: t.data[17], "3 structures"),
    "a Hessian of another shape": (lambda t: hesse.normal_modes(t.water, np.eye(4)), r"Hessian of shape \(4, 4\)"),
    "a misspelled option of sampling": (
        lambda t: hesse.sample_normal_modes(t.water, "gfn2", temperature=300),
        "temperatures",
    ),
    "dynamics without a temperature": (lambda t: hesse.run_md(t.water, "gfn2", steps=3), "temperature"),
    "a positional Request": (lambda t: t.engine.compute(t.water, "hessian"), "Request"),
    "the class of a calculator": (lambda t: hesse.compute(t.water, EMT), r"the class EMT: make an object of it"),
    "the class of a potential": (lambda t: hesse.evaluate(hesse.HesseNet, t.data), "the class HesseNet"),
    "the class of structures": (lambda t: hesse.compute(Atoms, "gfn2"), "got the class Atoms"),
    "an empty path": (lambda t: hesse.compute("", "gfn2"), "got an empty text"),
    "a formula in place of a file": (lambda t: hesse.compute("H2O", "gfn2"), "H2O: there is no such file"),
    "atoms that overlap": (
        lambda t: hesse.lowest_modes(Atoms("H3", [[0, 0, 0], [0, 0, 0], [0, 0, 1]]), t.potential),
        "0.000 Å apart",
    ),
    "a limit that is text": (lambda t: hesse.minimize(t.water, "gfn2", fmax="0.01"), "fmax: expected a number"),
    "a limit that is None": (lambda t: hesse.minimize(t.water, "gfn2", fmax=None), "fmax: expected a number, got None"),
    "half a step": (lambda t: hesse.minimize(t.water, "gfn2", steps=1.5), "steps: expected a whole number, got 1.5"),
    "an optimizer that is None": (lambda t: hesse.minimize(t.water, "gfn2", optimizer=None), 'no optimizer "None"'),
    "images that are text": (lambda t: hesse.neb(t.water, t.water, "gfn2", images="a"), "images: expected a whole"),
    "another molecule as the product": (lambda t: hesse.neb(t.water, t.atoms[1], "gfn2"), "they are H2O and H3N"),
    "a mode that is text": (lambda t: hesse.saddle(t.water, "gfn2", mode="a"), "mode: expected a number"),
    "a trust radius that is text": (lambda t: hesse.saddle(t.water, "gfn2", trust="a"), "trust: expected a number"),
    "a Hessian that is text": (lambda t: hesse.saddle(t.water, "gfn2", hessian="h.npy"), "hessian: expected an array"),
    "a Hessian that is not finite": (
        lambda t: hesse.saddle(t.water, "gfn2", hessian=np.full((3, 3, 3, 3), np.nan)),
        "not finite",
    ),
    "a step of a path that is text": (lambda t: hesse.irc(t.water, "gfn2", step="a"), "step: expected a number"),
    "a tolerance that is text": (lambda t: hesse.lowest_modes(t.water, "gfn2", tolerance="a"), "tolerance: expected"),
    "a number of modes that is text": (lambda t: hesse.lowest_modes(t.water, "gfn2", "a"), "count: expected"),
    "a negative seed": (lambda t: hesse.lowest_modes(t.water, "gfn2", seed=-1), "seed must be zero or more"),
    "a seed that is text": (lambda t: hesse.compute(t.water, "gfn2", probes=1, seed="a"), "seed: expected"),
    "a temperature that is text": (lambda t: hesse.run_md(t.water, "gfn2", temperature="hot"), "temperature: expected"),
    "no temperature": (lambda t: hesse.run_md(t.water, "gfn2", temperature=None), "temperature: expected"),
    "steps that are None": (lambda t: hesse.run_md(t.water, "gfn2", temperature=9, steps=None), "steps: expected"),
    "one temperature for a list": (
        lambda t: hesse.sample_normal_modes(t.water, "gfn2", temperatures=300),
        '"temperatures" = 300: expected a list',
    ),
    "a size that is text": (
        lambda t: hesse.sample_rattled(t.water, sizes=("a",)),
        "= 'a': expected a number",
    ),
    "probes that are text": (lambda t: hesse.label(t.water, "gfn2", probes="a"), "n_probes: expected a whole number"),
    "a probe that is a number": (lambda t: hesse.label(t.water, "gfn2", probe=3), 'no probe "3"'),
    "a spec of another type": (lambda t: hesse.label(t.water, "gfn2", spec=3), "expected a hesse.LabelSpec"),
    "workers that are text": (lambda t: hesse.label(t.water, "gfn2", workers="a", quiet=True), "workers: expected"),
    "a timeout that is text": (lambda t: hesse.label(t.water, "gfn2", timeout="a", quiet=True), "timeout: expected"),
    "a memory limit that is text": (
        lambda t: hesse.evaluate(t.potential, t.data, memory_mib="a"),
        "memory_mib: expected",
    ),
    "a dtype that is text": (lambda t: hesse.evaluate(t.potential, t.data, dtype="float16"), "expected dtype"),
    "a check that is a number": (lambda t: hesse.check(t.potential, only=3), "expected names of checks"),
    "a run folder that is None": (lambda t: hesse.train(t.data, output=None), "expected the path of a folder"),
    "a fraction in place of a file": (
        lambda t: RunConfig(data={"train": "a.h5", "validation": 0.2}, output="x"),
        "for a fraction write validation_fraction: 0.2",
    ),
    "a number in place of a file": (
        lambda t: RunConfig(data={"train": 3}, output="x"),
        "expected the path of a file or folder",
    ),
    "a number in place of a section": (lambda t: hesse.TrainConfig(batch=3), "expected a mapping of options"),
    "isotopes that are a number": (lambda t: hesse.vibrations(t.water, "gfn2", isotopes=3), "isotopes: expected atoms"),
    "a temperature of thermochemistry that is text": (
        lambda t: hesse.thermo(t.water, "gfn2", temperature="x"),
        "expected numbers of K",
    ),
    "thermochemistry of a number": (lambda t: hesse.thermo(3), "expected a data set"),
    "masses that are text": (lambda t: hesse.vibrations(t.water, "gfn2", masses="x"), "expected 3 positive masses"),
    "a start that is text": (lambda t: hesse.lowest_modes(t.water, "gfn2", start="x"), "start: expected directions"),
    "differences of another type": (lambda t: hesse.label(t.water, "gfn2", differences=3), "FiniteDifferences"),
    "yes in place of True": (lambda t: hesse.label(t.water, "gfn2", hessian="yes"), "hessian: expected True or False"),
    "a filter that is no function": (lambda t: t.data.filter("relaxed"), "filter: expected a function"),
    "a data set from nothing": (lambda t: hesse.Dataset.from_ase(None), "expected ASE Atoms"),
    "pairs that are a number": (lambda t: hesse.Dataset.from_pairs(3), "expected"),
    "a unit that is a number": (
        lambda t: hesse.read_dataset(t.data_file, energy_unit=3),
        "expected the name of a unit",
    ),
    "no structure for ASE": (lambda t: hesse.to_ase(3), "expected a hesse.Structure"),
    "a configuration that is None": (lambda t: hesse.load_config(None), "expected the path of a YAML file"),
    "an unknown device": (lambda t: hesse.check(t.potential, device="gpu"), 'unknown device.*"cuda" for an NVIDIA GPU'),
    "a misspelled short form of weights": (lambda t: hesse.TrainConfig(weights="balanced"), "by name .*, or balance"),
    "one number for all weights": (lambda t: hesse.TrainConfig(weights=1), "by name .*, or balance"),
    "a quantity of one's own that is none": (
        lambda t: hesse.LossWeights(others={"hvp": 1.0}),
        "not a quantity of your own",
    ),
    "an unknown loss term": (lambda t: hesse.TrainConfig(loss=[{"quantity": "energi"}]), 'Did you mean "energy"'),
    "a misspelled option of a loss term": (
        lambda t: hesse.TrainConfig(loss=[{"quantity": "energy", "wieght": 1}]),
        'Did you mean "weight"',
    ),
    "a loss term with the name of another entry": (
        lambda t: hesse.LossTerm(quantity="energy", name="loss"),
        "another name",
    ),
    "two loss terms of one name": (
        lambda t: hesse.TrainConfig(loss=[{"quantity": "energy"}, {"quantity": "energy", "form": "mae"}]),
        "two loss terms are called 'energy'",
    ),
    "weights and loss": (
        lambda t: hesse.TrainConfig(loss=[{"quantity": "energy"}], weights={"hvp": 1}),
        "leave out weights",
    ),
    "factors beside loss": (
        lambda t: hesse.TrainConfig(loss=[{"quantity": "energy"}], weights={"balance": True, "hvp": 0.3}),
        "weights of the terms of loss",
    ),
    "two ramps of one term": (
        lambda t: hesse.TrainConfig(loss=[{"quantity": "energy", "ramp": {}}], weight_ramps={"energy": {}}),
        "give one",
    ),
    "a ramp of an unknown term": (lambda t: hesse.TrainConfig(weight_ramps={"hpv": {}}), 'Did you mean "hvp"'),
    "a wavenumber without soft modes": (lambda t: hesse.TrainConfig(probe={"soft_below": 300}), "soft-modes"),
    "weighted probes that are stored": (lambda t: hesse.TrainConfig(probe={"weighting": "mass"}), "source: fresh"),
    "a Loss of names": (lambda t: hesse.Loss(["energy"]), "expected loss terms"),
    "a Loss of one term": (lambda t: hesse.Loss(hesse.LossTerm(quantity="energy")), "expected a list"),
    "a term that a Loss lacks": (lambda t: hesse.LossWeights().loss()["stress"], "the loss has no term 'stress'"),
    "a record of lists": (lambda t: hesse.Properties(n_atoms=[3], energy=[1.0]), "Properties.single"),
    "a record with an array": (lambda t: t.data.labels.replace(energy=np.zeros(3)), "torch tensors, got energy"),
    "a label that is text": (lambda t: hesse.Properties.single(3, energy="a"), "energy = a: expected numbers"),
    "a label of rows of different lengths": (
        lambda t: hesse.Properties.single(2, forces=[[1, 2], [1, 2, 3]]),
        "expected numbers in a regular array",
    ),
    "a weight below zero": (lambda t: hesse.Properties.single(3, energy=1.0, weight=-1), "weight = -1.0: expected 0"),
    "atoms in place of their number": (lambda t: hesse.Properties.single(t.water, energy=1.0), "n_atoms: expected"),
    "an unknown property": (lambda t: t.data.labels.pick(["enrgy"]), 'Did you mean "energy"'),
    "a structure of a record": (lambda t: t.data.labels[0], r"select\(\[0, 1\]\)"),
    "a Hessian beyond the end": (lambda t: t.data.labels.hessian_of(7), "no structure 7: .* 3 structures"),
    "a number of probes in a Request": (lambda t: hesse.Request(probes=2), r"hesse.compute\(.*probes=2\)"),
    "text in a Request": (lambda t: hesse.Request(forces="yes"), "forces: expected True or False"),
    "products in a Request": (lambda t: hesse.Request(hvp=True), "by their probes"),
    "a further output that is unknown": (lambda t: hesse.compute(t.water, "gfn2", outputs=["dipole"]), "dipole"),
    "forces as a further output": (
        lambda t: hesse.compute(t.water, "gfn2", outputs=["forces"]),
        "its own argument: forces=True",
    ),
    "further labels that are None": (lambda t: hesse.label(t.water, "gfn2", outputs=None), "outputs: expected names"),
    "a weight of a quantity that is not registered": (lambda t: hesse.LossWeights(dipole=1.0), "register them before"),
    "a quantity that is a mapping": (lambda t: hesse.register_quantity({"name": "x"}), "expected hesse.Quantity"),
    "a quantity with a name of ASE": (
        lambda t: hesse.register_quantity(hesse.Quantity(name="charge", description="", per="structure")),
        "another meaning",
    ),
    "a quantity for each atoms": (lambda t: hesse.Quantity(name="q", description="", per="atoms"), '"atom"'),
    "a quantity with a number of components": (
        lambda t: hesse.Quantity(name="q", description="", per="atom", components=3),
        r"\(3,\) for a vector",
    ),
    "an output that is not registered": (lambda t: hesse.evaluate(Charged(), t.data), "'chrges' is not a registered"),
    "an unknown element": (lambda t: hesse.compute(molecule("SiH4"), t.potential), "Si"),
}


@pytest.mark.parametrize("call", WRONG)
def test_wrong_arguments_get_a_reply(call: str, things: Things, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(things.folder)
    function, reply = WRONG[call]
    with pytest.raises((hesse.HesseError, IndexError), match=reply):
        function(things)


def test_records_are_not_changed(things: Things) -> None:
    with pytest.raises(AttributeError, match="replace"):
        del things.data.labels.energy
    assert "energy" in things.data.labels


def test_file_with_an_unregistered_quantity(things: Things, tmp_path: Path) -> None:
    hesse.write_dataset(tmp_path / "dipoles.h5", things.data)
    with h5py.File(tmp_path / "dipoles.h5", "a") as file:
        file["labels/dipole"] = np.zeros((3, 3))
    with pytest.raises(hesse.HesseError, match="register them before"):
        hesse.read_dataset(tmp_path / "dipoles.h5")


def test_table_of_a_run_has_all_labels() -> None:
    scores = {"forces_rmse": 0.1, "atomic_energies_rmse": 0.2, "stress_rmse": 0.3}
    result = hesse.TrainResult(Charged(), Path("model.hesse"), 1, 1, scores, 1.0)
    rows = [line.split() for line in result.table().splitlines()]
    assert rows == [
        ["forces", "0.1", "eV/Å"],
        ["atomic_energies", "0.2", "eV"],
        ["stress", "0.3", "eV/Å³"],
    ]


def test_file_with_a_weight_below_zero(things: Things, tmp_path: Path) -> None:
    weights = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    labels = things.data.labels.replace(weight=weights)
    hesse.write_dataset(tmp_path / "weights.h5", hesse.Dataset(things.data.structures, labels))
    with pytest.raises(hesse.HesseError, match="weight = -1, expected 0 or more"):
        hesse.read_dataset(tmp_path / "weights.h5")


def test_loss_terms_are_shown_at_the_start(things: Things, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hesse.train(things.data, config={**TINY, "weights": "balance"}, output=tmp_path / "run")
    shown = capsys.readouterr().err
    assert "loss terms and weights: energy" in shown
    assert "weights balanced: energy : forces : hvp = 1 : " in shown


def test_old_names_name_the_new_ones() -> None:
    for old, new in {"Labels": "Properties", "assess": "evaluate", "Equivariant": "HesseNet"}.items():
        with pytest.raises(AttributeError, match=rf"hesse\.{new}"):
            getattr(hesse, old)


def test_request_takes_no_positional_arguments() -> None:
    with pytest.raises(TypeError):
        hesse.Request("hessian")  # type: ignore[misc,call-arg]
