"""i-PI: real runs with the files of `hesse export`, open and periodic, and with beads."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

import hesse
from hesse import save_model
from moving_atoms import by_ase, ethanol, network, silicon

pytest.importorskip("ipi", reason="i-PI needs the package ipi (make engines)")


def run(folder: Path, atoms: Atoms, *, steps: int, beads: int = 1) -> np.ndarray:
    """Columns of i-PI: step, time, conserved quantity, temperature, kinetic and potential energy."""
    save_model(folder / "model.hesse", network())
    hesse.export(folder / "model.hesse", "i-pi", folder / "run", structure=atoms)
    address = f"hesse-{time.time_ns()}"
    for name, changes in {
        "input.xml": {
            "<address> hesse <": f"<address> {address} <",
            "<total_steps> 400 <": f"<total_steps> {steps} <",
            "nbeads='1'": f"nbeads='{beads}'",
        },
        "driver.py": {'unixsocket="hesse"': f'unixsocket="{address}"'},
    }.items():
        text = (folder / "run" / name).read_text()
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        (folder / "run" / name).write_text(text)
    program = Path(sys.executable).parent / "i-pi"
    with (folder / "i-pi.log").open("w") as log:
        server = subprocess.Popen([sys.executable, str(program), "input.xml"], cwd=folder / "run", stdout=log)
        try:
            while not Path(f"/tmp/ipi_{address}").exists():
                assert server.poll() is None, (folder / "i-pi.log").read_text()
                time.sleep(0.1)
            driver = subprocess.run([sys.executable, "driver.py"], cwd=folder / "run", timeout=300, check=False)
            assert driver.returncode == 0
            server.wait(timeout=60)
        finally:
            server.kill()
            server.wait()
    return np.loadtxt(folder / "run" / "run.out")


@pytest.mark.slow
@pytest.mark.parametrize("atoms", [ethanol(), silicon(cubic=False)], ids=["open", "primitive"])
def test_energy_and_conservation(tmp_path: Path, atoms: Atoms) -> None:
    """The first energy is that of the ASE calculator; the conserved quantity stays."""
    table = run(tmp_path, atoms, steps=30)
    assert table[0, 5] == pytest.approx(by_ase(network(), atoms)[0], rel=1e-6, abs=1e-6)
    assert np.ptp(table[:, 2]) < 1e-3 * len(atoms)
    assert np.ptp(table[:, 4]) > 10 * np.ptp(table[:, 2]) or np.ptp(table[:, 4]) < 1e-4


@pytest.mark.slow
def test_path_integrals(tmp_path: Path) -> None:
    table = run(tmp_path, ethanol(), steps=10, beads=4)
    assert np.ptp(table[:, 2]) < 2e-3 * 9
