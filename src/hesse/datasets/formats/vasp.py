"""Outputs of VASP: OUTCAR and vasprun.xml, read by ASE. Labels count only where the file shows that the electrons of
that step converged."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from ase import Atoms

from hesse.datasets.dataset import Dataset
from hesse.datasets.formats.ase_files import dataset_of_frames
from hesse.errors import FileFormatError
from hesse.runtime.filesystem import check_input_file

__all__ = ["is_vasp_output", "read_vasp_output"]

_LABELS: Final = ("energy", "free_energy", "forces", "stress")
_UNCONVERGED: Final = "energy, forces and stress of steps whose electrons are not known to have converged"
_NOTE: Final = "energies are the free energies of the electrons (TOTEN), of which the forces are derivatives"
_WHOLE: Final = 0.01
"""e; difference between the electrons and the valence charges that counts as rounding."""
_HEAD_BYTES: Final = 4 << 20
"""Part of the file in which the numbers of electrons are stated."""


def is_vasp_output(path: Path) -> bool:
    """Whether a file is an OUTCAR or vasprun.xml, by its name.

    Args:
        path: the file.

    Returns:
        True for OUTCAR, OUTCAR.1, vasprun.xml, vasprun.xml-001, name.outcar.
    """
    name = path.name.lower()
    return name.startswith("outcar") or name.endswith(".outcar") or (name.startswith("vasprun") and ".xml" in name)


def read_vasp_output(path: str | Path) -> Dataset:
    """Read all ionic steps of a calculation with VASP.

    Args:
        path: OUTCAR or vasprun.xml.

    Returns:
        Structures, energies (free energies of the electrons, which belong to the forces), forces and stresses. The
        charge of the cell is that of the electrons and valence charges that the file states.

    Raises:
        FileFormatError: damaged, another kind of file, or XML that declares entities.
    """
    path = Path(path)
    check_input_file(path)
    is_xml = "outcar" not in path.name.lower()
    converged = _converged_of_xml(path) if is_xml else _converged_of_outcar(path)
    charge = _charge(path, is_xml=is_xml)
    left_out: Counter[str] = Counter()

    def frames() -> Iterator[Atoms]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield from _frames(path, is_xml, converged, charge, left_out)

    dataset = dataset_of_frames(path, frames)
    not_read = Counter(dataset.not_read) + left_out
    not_read.pop("free_energy", None)
    has_energy = dataset.labels.energy is not None
    return replace(dataset, not_read=not_read, metadata={"source_note": _NOTE} if has_energy else {})


def _frames(
    path: Path, is_xml: bool, converged: list[bool], charge: float | None, left_out: Counter[str]
) -> Iterator[Atoms]:
    from ase.io import read  # imports half of ASE

    images = list(read(path, index=":", format="vasp-xml" if is_xml else "vasp-out"))
    if len(images) > len(converged):
        raise FileFormatError(f"{len(images)} geometries, but the end of {len(converged)} electronic loops")
    for atoms, is_converged in zip(images, converged, strict=False):
        if atoms.calc is not None:
            results = atoms.calc.results
            if is_converged and results.get("free_energy") is not None:
                results["energy"] = results["free_energy"]
            elif any(results.get(name) is not None for name in _LABELS):
                left_out[_UNCONVERGED] += 1
                for name in _LABELS:
                    results.pop(name, None)
            atoms.calc.results = {k: v for k, v in results.items() if v is not None}
        if charge is not None and abs(charge - round(charge)) <= _WHOLE:
            atoms.info["charge"] = round(charge)
        elif charge is not None:
            left_out[f"the charge of the cell, {charge:g}, no whole number"] += 1
        yield atoms


def _converged_of_outcar(path: Path) -> list[bool]:
    """For each ionic step, whether its electronic loop ended because EDIFF was reached."""
    steps, reached = [], False
    with open(path, encoding="utf-8", errors="replace") as handle:
        for line in handle:
            if "aborting loop" in line:
                reached = "EDIFF is reached" in line
            elif "FREE ENERGIE OF THE ION-ELECTRON SYSTEM" in line:
                steps.append(reached)
                reached = False
    return steps


def _converged_of_xml(path: Path) -> list[bool]:
    """For each ionic step, whether its electronic loop ended before the largest number of iterations (NELM)."""
    _refuse_entities(path)
    iterations: list[int] = []
    complete, largest = 0, 0
    try:
        for event, element in ElementTree.iterparse(path, events=("start", "end")):
            if event == "start" and element.tag == "calculation":
                iterations.append(0)
            elif event == "end" and element.tag == "scstep" and iterations:
                iterations[-1] += 1
            elif event == "end" and element.tag == "calculation":
                complete += 1
                element.clear()
            elif event == "end" and element.tag == "i" and element.get("name") == "NELM":
                largest = int(element.text or 0)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        if not complete:
            raise FileFormatError(
                f"{path}: truncated before the end of the first step, or damaged ({error})"
            ) from error
    return [0 < n < largest and k < complete for k, n in enumerate(iterations)]


def _refuse_entities(path: Path) -> None:
    """Entities can make a small file huge, or name other files; VASP writes none."""
    with open(path, "rb") as handle:
        tail = b""
        while block := handle.read(1 << 20):
            if b"<!" in tail + block and any(word in tail + block for word in (b"<!DOCTYPE", b"<!ENTITY")):
                raise FileFormatError(f"{path}: declares entities or a document type, which VASP never writes")
            tail = block[-16:]


def _charge(path: Path, *, is_xml: bool) -> float | None:
    """Valence charges minus electrons, in e; None if the file does not state both."""
    with open(path, encoding="utf-8", errors="replace") as handle:
        head = handle.read(_HEAD_BYTES)
    if is_xml:
        electrons = re.search(r'<i name="NELECT">\s*([\d.]+)', head)
        block = re.search(r'<array name="atomtypes"\s*>(.*?)</array>', head, re.DOTALL)
        rows = re.findall(
            r"<rc>\s*<c>\s*(\d+)\s*</c>\s*<c>[^<]*</c>\s*<c>[^<]*</c>\s*<c>\s*([\d.]+)", block.group(1) if block else ""
        )
        pairs = [(int(n), float(z)) for n, z in rows]
    else:
        electrons = re.search(r"NELECT\s*=\s*([\d.]+)", head)
        counts = re.search(r"ions per type\s*=((?:\s+\d+)+)", head)
        valences = re.search(r"Ionic Valenz\s*\n\s*ZVAL\s*=((?:\s+[\d.]+)+)", head)
        ns = [int(n) for n in counts.group(1).split()] if counts else []
        zs = [float(z) for z in valences.group(1).split()] if valences else []
        pairs = list(zip(ns, zs, strict=True)) if len(ns) == len(zs) else []
    if electrons is None or not pairs:
        return None
    return sum(n * z for n, z in pairs) - float(electrons.group(1))
