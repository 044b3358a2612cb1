"""Files as other programs write them, made from a data set whose labels are known, and damage done to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from hesse.datasets import Dataset
from hesse.units import ENERGY_UNITS, LENGTH_UNITS
from oracles import Morse, labeled, molecules

Array = NDArray[np.float64]
HARTREE, BOHR = ENERGY_UNITS["hartree"], LENGTH_UNITS["bohr"]


def known(sizes: tuple[int, ...] = (3, 4, 5), seed: int = 0) -> Dataset:
    """Molecules away from rest, with exact energies, forces and Hessians in eV and Å."""
    return labeled(Morse(), molecules(list(sizes), seed=seed), hessian=True)


def of(data: Dataset, i: int) -> tuple[NDArray[np.int64], Array, float, Array, Array]:
    """Numbers, positions, energy, forces and Hessian `[3n, 3n]` of one structure."""
    s, labels = data.structures[i], data.labels
    assert labels.energy is not None
    assert labels.forces is not None
    n = len(s)
    hessian = labels.hessian_of(i).numpy().reshape(3 * n, 3 * n)
    return s.numbers, s.positions, float(labels.energy[i]), labels.forces[labels.atom_slice(i)].numpy(), hessian


def write_openreact(path: Path, data: Dataset) -> None:
    """A group per structure, with two copies of it as its geometries; Hartree and Å, a stray key."""
    with h5py.File(path, "w") as file:
        for i in range(len(data)):
            z, x, e, f, h = of(data, i)
            group = file.create_group(f"M{i}")
            group["species"] = np.array([chemical_symbols[k].encode() for k in z])
            group["coordinates"] = np.stack([x, x])
            group["energies"] = np.array([e, e]) / HARTREE
            group["forces"] = np.stack([f, f]) / HARTREE
            group["hessian"] = np.stack([h, h]) / HARTREE
            group["smiles"] = np.array([b"C"])


def write_deepmd(folder: Path, data: Dataset, *, sign: float = 1.0, nopbc: bool = True) -> None:
    """A system per structure, below one folder."""
    for i in range(len(data)):
        z, x, e, f, h = of(data, i)
        system = folder / f"system{i}"
        chunk = system / "set.000"
        chunk.mkdir(parents=True)
        kinds = sorted(set(z.tolist()))
        (system / "type_map.raw").write_text("\n".join(chemical_symbols[k] for k in kinds) + "\n")
        (system / "type.raw").write_text(" ".join(str(kinds.index(k)) for k in z.tolist()))
        if nopbc:
            (system / "nopbc").touch()
        np.save(chunk / "coord.npy", x.reshape(1, -1))
        np.save(chunk / "energy.npy", np.array([[e]]))
        np.save(chunk / "force.npy", sign * f.reshape(1, -1))
        np.save(chunk / "hessian.npy", h.reshape(1, -1))
        np.save(chunk / "box.npy", 100.0 * np.eye(3).reshape(1, 9))


def gaussian_text(
    data: Dataset, i: int = 0, *, newline: str = "\n", bar: bool = False, route: str = "#P B97D/6-31G(d) Freq"
) -> str:
    """The end of a Gaussian output: one archive block, cut at 70 columns."""
    z, x, e, f, h = of(data, i)
    atoms = "\\".join(f"{chemical_symbols[k]},{a:.10f},{b:.10f},{c:.10f}" for k, (a, b, c) in zip(z, x, strict=True))
    lower = (h * BOHR**2 / HARTREE)[np.tril_indices(len(h))]
    words = (
        f"1\\1\\GINC-NODE\\Freq\\UB97D\\6-31G(d)\\C1\\ME\\01-Jan-2020\\0\\\\{route}\\\\a title\\\\"
        f"-1,2\\{atoms}\\\\Version=ES64L\\State=1-A\\HF={e / HARTREE:.7f}\\RMSD=1.0e-09\\PG=C01 [X]\\NImag=0\\\\"
        + ",".join(f"{v:.8f}" for v in lower)
        + "\\\\"
        + ",".join(f"{v:.8f}" for v in (-f * BOHR / HARTREE).ravel())
        + "\\\\\\@"
    )
    if bar:
        words = words.replace("\\", "|")
    lines = [f" {words[k : k + 70]}" for k in range(0, len(words), 70)]
    return newline.join([" Entering Gaussian System, Link 0=g09", *lines, "", " Normal termination of Gaussian 09", ""])


def checkpoint_text(data: Dataset, i: int = 0) -> str:
    """A formatted checkpoint file."""
    z, x, e, f, h = of(data, i)
    lower = (h * BOHR**2 / HARTREE)[np.tril_indices(len(h))]

    def block(name: str, kind: str, values: NDArray) -> str:
        per, shape = (6, "{:12d}") if kind == "I" else (5, "{:16.8E}")
        words = [shape.format(v) for v in values.ravel().tolist()]
        lines = ["".join(words[k : k + per]) for k in range(0, len(words), per)]
        return "\n".join([f"{name:<40}   {kind}   N={len(words):12d}", *lines])

    return "\n".join(
        [
            "a title",
            "Freq      RB3LYP                                                      6-31G(d)",
            f"{'Number of atoms':<40}   I     {len(z):12d}",
            f"{'Charge':<40}   I     {-1:12d}",
            f"{'Multiplicity':<40}   I     {2:12d}",
            block("Atomic numbers", "I", z),
            block("Current cartesian coordinates", "R", x / BOHR),
            f"{'Total Energy':<40}   R     {e / HARTREE:22.15E}",
            block("Cartesian Gradient", "R", -f * BOHR / HARTREE),
            block("Cartesian Force Constants", "R", lower),
            "",
        ]
    )


def hess_text(data: Dataset, i: int = 0) -> str:
    """A Hessian file of ORCA: columns in blocks of five."""
    z, x, e, _, h = of(data, i)
    matrix = h * BOHR**2 / HARTREE
    lines = ["", "$orca_hessian_file", "", "$act_energy", f"  {e / HARTREE:.6f}", "", "$hessian", str(len(h))]
    for start in range(0, len(h), 5):
        columns = range(start, min(start + 5, len(h)))
        lines.append(" ".join(f"{c:18d}" for c in columns))
        lines += [f"{r:5d} " + " ".join(f"{matrix[r, c]:18.10E}" for c in columns) for r in range(len(h))]
    lines += ["", "$atoms", str(len(z))]
    lines += [
        f" {chemical_symbols[k]:<3} 12.0 {a:18.12f} {b:18.12f} {c:18.12f}"
        for k, (a, b, c) in zip(z, x / BOHR, strict=True)
    ]
    return "\n".join([*lines, "", "$end", ""])


def engrad_text(data: Dataset, i: int = 0) -> str:
    """A gradient file of ORCA."""
    z, x, e, f, _ = of(data, i)
    rows = [f"{k} {a:.10f} {b:.10f} {c:.10f}" for k, (a, b, c) in zip(z, x / BOHR, strict=True)]
    gradient = [f"{v:.12f}" for v in (-f * BOHR / HARTREE).ravel()]
    return "\n".join(["#", "# atoms", "#", str(len(z)), "#", f"{e / HARTREE:.12f}", "#", *gradient, "#", *rows, ""])


def orca_output(data: Dataset, i: int = 0, *, gradient: bool = True) -> str:
    """An output of ORCA, as far as it is read."""
    z, x, e, f, _ = of(data, i)
    lines = ["    * O   R   C   A *", "|  1> ! PBE0 def2-SVP Freq", " Total Charge           Charge          ....   -1"]
    lines += [" Multiplicity           Mult            ....    2", "", "CARTESIAN COORDINATES (ANGSTROEM)", "-" * 33]
    lines += [f"  {chemical_symbols[k]:<4}{a:12.6f}{b:12.6f}{c:12.6f}" for k, (a, b, c) in zip(z, x, strict=True)]
    lines += ["", f"FINAL SINGLE POINT ENERGY     {e / HARTREE:.12f}", ""]
    if gradient:
        lines += ["CARTESIAN GRADIENT", "-" * 18, ""]
        lines += [
            f"{k + 1:4d}   {chemical_symbols[z[k]]:<3}:   {a:14.9f} {b:14.9f} {c:14.9f}"
            for k, (a, b, c) in enumerate(-f * BOHR / HARTREE)
        ]
    return "\n".join([*lines, "", "****ORCA TERMINATED NORMALLY****", ""])


def psi4_output(data: Dataset, i: int = 0) -> str:
    """A gradient job of Psi4, as far as cclib reads it."""
    z, x, e, f, _ = of(data, i)
    symbols = [chemical_symbols[k] for k in z]
    lines = ["          Psi4: An Open-Source Ab Initio Electronic Structure Package", " " * 31 + "Psi4 1.3.2 release"]
    lines += ["", "                         Git: Rev {HEAD} ecbda83", "", "  ==> Geometry <==", ""]
    lines += ["    Molecular point group: c1", "    Full point group: C1", ""]
    lines += ["    Geometry (in Angstrom), charge = -1, multiplicity = 2:", ""]
    lines += ["       Center              X                  Y                   Z               Mass", "    -----"]
    lines += [f"    {s:>6}{a:20.12f}{b:20.12f}{c:20.12f}" for s, (a, b, c) in zip(symbols, x, strict=True)]
    lines += ["", "  ==> Post-Iterations <==", "", f"  @UKS Final Energy: {e / HARTREE:22.14f}", ""]
    lines += ["  -Total Gradient:", "     Atom            X                  Y                   Z", "    ------"]
    lines += [f"    {k + 1:4d}{a:20.12f}{b:20.12f}{c:20.12f}" for k, (a, b, c) in enumerate(-f * BOHR / HARTREE)]
    return "\n".join([*lines, "", "", "*** Psi4 exiting successfully. Buy a developer a beer!", ""])


def qchem_output(data: Dataset, i: int = 0) -> str:
    """A frequency job of Q-Chem that prints its Hessian, as far as cclib reads it."""
    z, x, e, _, h = of(data, i)
    matrix, dashes = h * BOHR**2 / HARTREE, f" {'-' * 64}"
    lines = ["                  Welcome to Q-Chem", "     A Quantum Leap Into The Future Of Chemistry", " Q-Chem 5.1"]
    lines += ["$molecule", "-1 2", "read", "$end", dashes, "             Standard Nuclear Orientation (Angstroms)"]
    lines += ["    I     Atom           X                Y                Z", dashes]
    lines += [
        f"{k + 1:5d}      {chemical_symbols[z[k]]:<3}{a:17.10f}{b:17.10f}{c:17.10f}" for k, (a, b, c) in enumerate(x)
    ]
    lines += [dashes, f" Total energy in the final basis set = {e / HARTREE:.10f}", " Hessian of the SCF Energy"]
    for start in range(0, len(h), 6):
        columns = range(start, min(start + 6, len(h)))
        lines.append("     " + "".join(f"{c + 1:12d}" for c in columns))
        lines += [f"{r + 1:5d}" + "".join(f"{matrix[r, c]:12.7f}" for c in columns) for r in range(len(h))]
    return "\n".join([*lines, "", " Total job time:  1.00s(wall), 1.00s(cpu)", ""])


def damaged(content: bytes, seed: int, count: int) -> Iterator[bytes]:
    """The content cut off at many places, with bits turned, with a stretch of zeros, and doubled in part."""
    rng = np.random.default_rng(seed)
    yield b""
    for place in rng.integers(0, len(content), size=count):
        yield content[: int(place)]
        turned = bytearray(content)
        for where in rng.integers(0, len(content), size=3):
            turned[int(where)] ^= 1 << int(rng.integers(8))
        yield bytes(turned)
        yield content[: int(place)] + bytes(min(64, len(content) - int(place))) + content[int(place) + 64 :]
        yield content[: int(place)] + content[int(place) // 2 :]
