"""The files that are mutated: small ones of every format, written here, and how each is read."""

from __future__ import annotations

import gzip
import json
import lzma
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write as write_with_ase

from foreign_files import (
    checkpoint_text,
    engrad_text,
    gaussian_text,
    hess_text,
    known,
    of,
    orca_output,
    psi4_output,
    qchem_output,
    write_deepmd,
    write_openreact,
)
from hesse.datasets import Dataset, Split, dataset_summary, read_dataset, write_dataset

__all__ = ["SEEDS", "Seed", "given_file"]


@dataclass(frozen=True)
class Seed:
    """One kind of file.

    Attributes:
        write: writes the files into an empty folder.
        main: the file to read; empty for the folder.
        read: reads it as a command would.
        text: whether the content is text.
        mutated: names of the files that are mutated; all by default.
    """

    write: Callable[[Path], None]
    main: str
    read: Callable[[Path], object]
    text: bool = True
    mutated: Sequence[str] = ()


@cache
def _data() -> Dataset:
    return known((3, 4))


def _read(path: Path) -> None:
    """Read and describe, as `hesse info`, and write, as `hesse convert`."""
    dataset = read_dataset(path, check=False)
    dataset_summary(dataset)
    _write_again(path, read_dataset(path))


def _read_with_units(path: Path) -> None:
    dataset = read_dataset(path, energy_unit="hartree", length_unit="bohr", check=False)
    dataset_summary(dataset)


def _read_all_of_it(path: Path) -> None:
    """Read, and refuse a folder if any of its files cannot be read."""
    _write_again(path, read_dataset(path, strict=True))


def _write_again(path: Path, dataset: Dataset) -> None:
    target = path.parent / ".fuzz"
    target.mkdir(exist_ok=True)
    for name in ("a.h5", "a.xyz"):
        write_dataset(target / name, dataset)
    shutil.rmtree(target)


def _text(name: str, make: Callable[[Dataset], str], *more: tuple[str, Callable[[Dataset], str]]) -> Seed:
    def write(folder: Path) -> None:
        for file, text in ((name, make), *more):
            (folder / file).write_text(text(_data()), encoding="utf-8")

    return Seed(write, name, _read)


def _outputs(folder: Path) -> None:
    """A folder of outputs in which one geometry occurs three times."""
    data = _data()
    for name, text in (
        ("a.log", gaussian_text(data)),
        ("a.fchk", checkpoint_text(data)),
        ("b.hess", hess_text(data, 1)),
        ("b.out", orca_output(data, 1)),
        ("c.out", qchem_output(data)),
    ):
        (folder / name).write_text(text, encoding="utf-8")


def _written(name: str, *, text: bool = True, select: Sequence[int] | None = None) -> Seed:
    """A file that Hesse writes."""
    return Seed(
        lambda folder: write_dataset(folder / name, _data() if select is None else _data().select(select)),
        name,
        _read,
        text=text,
    )


def _by_ase(name: str, ase_format: str, atoms: Callable[[], Atoms | list[Atoms]], *, text: bool = True) -> Seed:
    return Seed(lambda folder: write_with_ase(folder / name, atoms(), format=ase_format), name, _read, text=text)


def _crystal() -> Atoms:
    return bulk("NaCl", "rocksalt", a=5.6, cubic=True)


def _ethanol() -> Atoms:
    return molecule("CH3CH2OH")


def _labeled_frames() -> list[Atoms]:
    frames = []
    for step in range(3):
        atoms = _crystal()
        atoms.rattle(0.02, seed=step)
        atoms.calc = SinglePointCalculator(
            atoms, energy=-3.0, forces=np.zeros((len(atoms), 3)), stress=np.linspace(0.0, 0.01, 6)
        )
        frames.append(atoms)
    return frames


_MOL: Final = """water
  hand

  3  2  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.1190 O   0  0  0  0  0  0
    0.0000    0.7630   -0.4770 H   0  0  0  0  0  0
    0.0000   -0.7630   -0.4770 H   0  3  0  0  0  0
  1  2  1  0  0  0
  1  3  1  0  0  0
M  CHG  1   1   1
M  END
"""

_PLAIN_XYZ: Final = (
    '3\nLattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3:forces:R:3:move_mask:L:1 energy=-1.5 '
    'config_type="a b" pbc="T T T" stress="1 0 0 0 1 0 0 0 1" charge=0 spin=1 other=[1,2]\n'
    "O 0 0 0.119 0 0 0.1 T\nH 0 0.763 -0.477 0 0 -0.05 F\nH 0 -0.763 -0.477 0 0 -0.05 T\n"
    "2\ncarbon monoxide\nC 0 0 0\nO 0 0 1.13\n"
)


def _grouped(folder: Path) -> None:
    write_openreact(folder / "a.h5", _data())


def _uuid_groups(folder: Path) -> None:
    with h5py.File(folder / "a.h5", "w") as file:
        for i in range(len(_data())):
            z, x, _, _, h = of(_data(), i)
            group = file.create_group(f"0000-{i}")
            group["atomic_numbers"], group["coords"], group["hessian"] = z, x, h * 23.06
            group["coords"].attrs["unit"] = "angstrom"


def _packed_arrays(folder: Path) -> None:
    parts = [of(_data(), i) for i in range(len(_data()))]
    np.savez(
        folder / "a.npz",
        natoms=np.array([len(p[0]) for p in parts]),
        z=np.concatenate([p[0] for p in parts]),
        pos=np.concatenate([p[1] for p in parts]),
        energy=np.array([p[2] for p in parts]),
        forces=np.concatenate([p[3] for p in parts]),
        hessian=np.concatenate([p[4].ravel() for p in parts]),
        ids=np.array(["a", "b"]),
    )


def _numbered_arrays(folder: Path) -> None:
    arrays: dict[str, Any] = {"ids": np.arange(2), "energy": np.zeros(2), "formula": np.array(["a", "b"])}
    for i in range(2):
        z, x, _, f, h = of(_data(), i)
        arrays |= {f"z_{i:03d}": z, f"pos_{i:03d}": x, f"forces_{i:03d}": f, f"hessian_{i:03d}": h}
    np.savez(folder / "a.npz", **arrays)


def _trajectory_arrays(folder: Path) -> None:
    z, x, e, f, _ = of(_data(), 0)
    np.savez(
        folder / "a.npz",
        nuclear_charges=z,
        coords=np.stack([x, x + 0.01]),
        energies=np.array([e, e]),
        forces=np.stack([f, f]),
    )


# --- phonopy --------------------------------------------------------------------------------------------------------


def _constants(folder: Path) -> None:
    n = len(_data().structures[0])
    blocks = _data().labels.hessian_of(0).numpy().transpose(0, 2, 1, 3)
    lines = [f"{n} {n}"]
    for i in range(n):
        for j in range(n):
            lines += [f"{i + 1} {j + 1}", *(" ".join(f"{v:.15f}" for v in row) for row in blocks[i, j])]
    (folder / "FORCE_CONSTANTS").write_text("\n".join(lines))
    cell = ["Hesse", "1.0", "9 0 0", "0 9 0", "0 0 9", "H", str(n), "Cartesian"]
    cell += [" ".join(str(c) for c in x) for x in _data().structures[0].positions.tolist()]
    (folder / "SPOSCAR").write_text("\n".join(cell) + "\n")


@cache
def _phonopy_texts() -> tuple[str, str, str]:
    """The parameters, the displacements alone, and FORCE_SETS of a cell of two atoms."""
    points = [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]
    cell = {
        "lattice": (4.1 * np.eye(3)).tolist(),
        "points": [
            {"symbol": s, "coordinates": p, "mass": m}
            for s, p, m in zip(("Cs", "Cl"), points, (133, 35.5), strict=True)
        ],
    }
    force = [[[-0.1, 0.0, 0.0], [0.1, 0.0, 0.0]], [[0.1, 0.0, 0.0], [-0.1, 0.0, 0.0]]]
    displacements = [
        {"atom": i + 1, "displacement": [0.01, 0.0, 0.0], "forces": forces} for i, forces in enumerate(force)
    ]
    content = {
        "phonopy": {"version": "2.20.0", "frequency_unit_conversion_factor": 15.633302, "symmetry_tolerance": 1e-5},
        "physical_unit": {"atomic_mass": "AMU", "length": "angstrom", "force_constants": "eV/angstrom^2"},
        "supercell_matrix": np.eye(3, dtype=int).tolist(),
        "primitive_matrix": np.eye(3, dtype=int).tolist(),
        "primitive_cell": cell,
        "unit_cell": cell,
        "supercell": cell,
    }
    bare = [{key: entry[key] for key in ("atom", "displacement")} for entry in displacements]
    sets = ["2", "2", ""]
    for entry in displacements:
        sets += [str(entry["atom"]), "0.01 0 0", *(" ".join(map(str, row)) for row in entry["forces"]), ""]  # type: ignore[attr-defined]
    return (
        yaml.safe_dump({**content, "displacements": displacements}),
        yaml.safe_dump({**content, "displacements": bare}, default_flow_style=None),
        "\n".join(sets),
    )


def _phonopy_sets(folder: Path) -> None:
    (folder / "phonopy_disp.yaml").write_text(_phonopy_texts()[1])
    (folder / "FORCE_SETS").write_text(_phonopy_texts()[2])


def _phonopy_hdf5(folder: Path) -> None:
    (folder / "phonopy.yaml").write_text(_phonopy_texts()[1])
    with h5py.File(folder / "force_constants.hdf5", "w") as file:
        file["force_constants"] = np.zeros((2, 2, 3, 3))


# --- settings, models, runs -----------------------------------------------------------------------------------------

_CONFIG: Final = """
data: {train: train.h5, validation_fraction: 0.1, by_group: true}
output: run
seed: 3
steps: 10
model: &model
  kind: hipnn
  features: 4
  blocks: 1
  cutoff: 4.0
  longest: 3.5
weights: {energy: 1.0, forces: 0.3}
optimizer:
  learning_rate: 1.0e-3
  weight_decay: 1e-4
schedule: {kind: cosine, warmup: 3, final: 0.01}
batch: {structures: 2}
"""


def _load_config(path: Path) -> None:
    from hesse.training import load_config

    load_config(path)


def _model(folder: Path) -> None:
    import torch

    from hesse.models import Hipnn, HipnnConfig, save_model

    torch.manual_seed(0)
    options = HipnnConfig(features=4, sensitivities=4, blocks=1, onsite_layers=1, cutoff=4.0, longest=3.5)
    model = Hipnn(options, elements=(1, 6, 8))
    save_model(folder / "a.hesse", model, {"data": {"train": "a.h5"}, "note": "x"})


def _load_model(path: Path) -> None:
    from hesse.models import load_model, read_model_header

    read_model_header(path)
    load_model(path)


def _reseal(path: Path) -> None:
    """Give a changed model file a valid digest again, as an attacker would; files that are no longer readable stay."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save

    from hesse.runtime.tensor_files import tensor_digest

    try:
        with safe_open(path, "pt") as handle:
            meta = dict(handle.metadata() or {})
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        meta.pop("digest", None)
        path.write_bytes(save(tensors, metadata={**meta, "digest": tensor_digest(meta, tensors)}))
    except (SafetensorError, OSError, ValueError, RuntimeError, MemoryError):
        return


def _load_resealed_model(path: Path) -> None:
    _reseal(path)
    _load_model(path)


def _run(folder: Path) -> None:
    """A run of four steps, with its data and its configuration."""
    write_dataset(folder / "train.h5", known((3, 4, 3, 4), seed=1))
    options = yaml.safe_load(_CONFIG)
    options["weights"], options["steps"], options["output"] = {"energy": 1.0, "forces": 0.3}, 4, "run"
    options |= {"compile": "never", "checkpoint_every": 2, "validate_every": 2, "cpu_threads": 1, "dtype": "float64"}
    options["data"] = {"train": "train.h5", "validation_fraction": 0.25}
    (folder / "start.yaml").write_text(yaml.safe_dump(options))
    _continue_run(folder)


def _continue_run(path: Path) -> None:
    from hesse.training import load_config, read_log
    from hesse.training.config_file import run_from_config

    run_from_config(load_config(path / "start.yaml"), quiet=True)
    read_log(path / "run" / "metrics.jsonl")


def _split(folder: Path) -> None:
    data = _data()
    split = Split.from_dataset(data, train=data.select([0]), validation=data.select([1]))
    split.write(folder / "split.json")


def given_file(file: Path) -> Seed:
    """A seed of a file of the user.

    Args:
        file: the file; others of its folder with the same stem are copied too.

    Returns:
        The seed.
    """

    def write(folder: Path) -> None:
        for one in file.parent.glob(f"{file.stem}.*"):
            shutil.copy(one, folder)
        for one in folder.iterdir():
            one.chmod(0o644)

    return Seed(write, file.name, _read, mutated=(file.name,))


def _json_text(data: Dataset) -> str:
    from ase.io.jsonio import encode

    from hesse.datasets import to_vibrations_data

    return json.dumps(json.loads(encode(to_vibrations_data(data))), indent=1)


SEEDS: Final[dict[str, Seed]] = {
    "archive": _text("a.log", gaussian_text),
    "archives": _text("a.log", lambda data: gaussian_text(data) + gaussian_text(data, 1) + gaussian_text(data)),
    "fchk": _text("a.fchk", checkpoint_text),
    "orca": _text("a.out", orca_output),
    "hess": _text("a.hess", hess_text, ("a.engrad", engrad_text), ("a.out", orca_output)),
    "psi4": _text("a.out", psi4_output),
    "qchem": _text("a.out", qchem_output),
    "outputs": Seed(_outputs, "", _read_all_of_it),
    "extxyz": _written("a.extxyz"),
    "xyz": Seed(lambda folder: (folder / "a.xyz").write_text(_PLAIN_XYZ) and None, "a.xyz", _read),
    "hdf5": _written("a.h5", text=False),
    "grouped": Seed(_grouped, "a.h5", _read, text=False),
    "uuid_groups": Seed(_uuid_groups, "a.h5", _read, text=False),
    "npz_packed": Seed(_packed_arrays, "a.npz", _read_with_units, text=False),
    "npz_numbered": Seed(_numbered_arrays, "a.npz", _read_with_units, text=False),
    "npz_trajectory": Seed(_trajectory_arrays, "a.npz", _read_with_units, text=False),
    "deepmd": Seed(lambda folder: write_deepmd(folder, _data()), "", _read),
    "vibrations": _text("a.json", lambda data: _json_text(data.select([0]))),
    "force_constants": Seed(_constants, "FORCE_CONSTANTS", _read),
    "phonopy_params": Seed(
        lambda folder: (folder / "phonopy_params.yaml").write_text(_phonopy_texts()[0]) and None,
        "phonopy_params.yaml",
        _read,
    ),
    "phonopy_xz": Seed(
        lambda folder: (
            (folder / "phonopy_params.yaml.xz").write_bytes(lzma.compress(_phonopy_texts()[0].encode())) and None
        ),
        "phonopy_params.yaml.xz",
        _read,
    ),
    "phonopy_gz": Seed(
        lambda folder: (
            (folder / "phonopy_params.yaml.gz").write_bytes(gzip.compress(_phonopy_texts()[0].encode())) and None
        ),
        "phonopy_params.yaml.gz",
        _read,
    ),
    "force_sets": Seed(_phonopy_sets, "", _read),
    "phonopy_hdf5": Seed(_phonopy_hdf5, "", _read),
    "poscar": _by_ase("POSCAR", "vasp", _crystal),
    "cif": _by_ase("a.cif", "cif", _crystal),
    "pdb": _by_ase("a.pdb", "proteindatabank", _ethanol),
    "gen": _by_ase("a.gen", "gen", _crystal),
    "xsf": _by_ase("a.xsf", "xsf", _crystal),
    "mol": Seed(lambda folder: (folder / "a.mol").write_text(_MOL) and None, "a.mol", _read),
    "sdf": Seed(lambda folder: (folder / "a.sdf").write_text((_MOL + "$$$$\n") * 2) and None, "a.sdf", _read),
    "config": Seed(lambda folder: (folder / "a.yaml").write_text(_CONFIG) and None, "a.yaml", _load_config),
    "model": Seed(_model, "a.hesse", _load_model, text=False),
    "model_header": Seed(_model, "a.hesse", _load_resealed_model),
    "run": Seed(
        _run, "", _continue_run, mutated=("checkpoint.safetensors", "metrics.jsonl", "split.json", "config.yaml")
    ),
    "split": Seed(_split, "split.json", Split.read),
}
"""All kinds, by name."""
