"""Sella, geomeTRIC and pysisyphus with exact Hessians of a model."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.io import read, write

import hesse
from hesse import HesseCalculator, save_model
from moving_atoms import tetrahedron
from oracles import Morse, rhombus


def near_minimum() -> Atoms:
    atoms = tetrahedron()
    atoms.rattle(0.05, seed=4)
    return atoms


@pytest.mark.slow
def test_sella_takes_the_hessian() -> None:
    """It asks for the Hessian at the start, in its shape and unit, and reaches the minimum."""
    pytest.importorskip("sella", reason="needs sella (make engines)")
    from sella import Sella

    atoms, calls = near_minimum(), []
    atoms.calc = HesseCalculator(Morse(cutoff=12.0))

    def hessian(current: Atoms) -> np.ndarray:
        calls.append(len(current))
        return atoms.calc.get_hessian(current).reshape(3 * len(current), -1)

    assert Sella(atoms, order=0, eig=True, hessian_function=hessian, logfile=None).run(fmax=0.01, steps=50)
    assert calls
    assert np.abs(atoms.get_forces()).max() < 0.02
    assert np.linalg.eigvalsh(atoms.calc.get_hessian(atoms).reshape(12, 12))[0] > -0.1


@pytest.mark.slow
def test_geometric_takes_the_hessian(tmp_path: Path) -> None:
    """Its ASE engine with the calculator by name, and the Hessian of the start from a file, in atomic units."""
    pytest.importorskip("geometric", reason="needs geometric (make engines)")
    potential = hesse.Zbl(hesse.ZblConfig(), (1, 6, 8))
    save_model(tmp_path / "model.hesse", potential)
    start = near_minimum()
    write(tmp_path / "start.xyz", start, format="xyz")
    hessian = HesseCalculator(potential).get_hessian(start).reshape(12, 12)
    np.savetxt(tmp_path / "hessian.txt", hessian * units.Bohr**2 / units.Hartree)
    words = [
        "--engine",
        "ase",
        "--ase-class",
        "hesse.HesseCalculator",
        "--hessian",
        "file:hessian.txt",
        "--maxiter",
        "5",
    ]
    command = [
        sys.executable,
        "-m",
        "geometric.optimize",
        *words,
        '--ase-kwargs={"potential": "model.hesse"}',
        "start.xyz",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200)
    assert "Hessian data will be read from file" in done.stdout + done.stderr
    frames = read(tmp_path / "start_optim.xyz", ":")
    energies = [HesseCalculator(potential).get_potential_energy(frame) for frame in frames]
    assert len(frames) > 1
    assert energies[-1] < energies[0]


@pytest.mark.slow
def test_pysisyphus_takes_the_hessian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The calculator of the documentation: the numbers in Hartree and Bohr, and a saddle found with exact Hessians."""
    pytest.importorskip("pysisyphus", reason="needs pysisyphus (make engines)")
    page = (Path(hesse.__file__).parents[2] / "docs" / "deploy.md").read_text(encoding="utf-8")
    blocks = [block for block in re.findall(r"^```py\n(.*?)^```", page, re.DOTALL | re.MULTILINE) if "pysis" in block]
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    potential = Morse(cutoff=12.0)
    start = rhombus().to_ase()
    write("start.xyz", start, format="xyz")
    namespace: dict[str, Any] = {}
    exec(blocks[0], namespace)
    calculator = namespace["Hesse"](potential)
    coordinates = start.positions.ravel() / units.Bohr
    found = calculator.get_hessian(start.get_chemical_symbols(), coordinates)
    start.calc = HesseCalculator(potential)
    assert found["energy"] * units.Hartree == pytest.approx(start.get_potential_energy(), abs=1e-9)
    assert np.allclose(found["forces"] * units.Hartree / units.Bohr, start.get_forces().ravel(), atol=1e-9)
    energy = lambda x: calculator.get_energy(start.get_chemical_symbols(), x)["energy"]  # noqa: E731
    step, e = 1e-3, np.eye(12)[0]
    second = (energy(coordinates + step * e) - 2 * energy(coordinates) + energy(coordinates - step * e)) / step**2
    assert found["hessian"][0, 0] == pytest.approx(second, rel=1e-3)
    namespace["Hesse"] = lambda model: calculator
    exec(blocks[1], namespace)
    saddle = Atoms(start.symbols, namespace["geometry"].coords3d * units.Bohr, calculator=HesseCalculator(potential))
    assert np.abs(saddle.get_forces()).max() < 0.05
    curvature = np.linalg.eigvalsh(saddle.calc.get_hessian(saddle).reshape(12, 12))
    assert (curvature < -0.1).sum() == 1
