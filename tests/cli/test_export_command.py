"""`hesse export`: files for each program, what is checked before, and the answer to ORCA."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.io import read, write

from commands_in_process import succeed
from hesse import save_model
from hesse.deploy.orca_external import answer
from hesse.errors import FileFormatError, RequestError, UnknownElementError
from moving_atoms import by_ase, ethanol, network


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_model("model.hesse", network())
    write("ethanol.xyz", ethanol())
    turned = bulk("Si")
    turned.rotate(35.0, (1.0, 0.3, -0.2), rotate_cell=True)
    write("silicon.extxyz", turned)
    return tmp_path


def run(*words: str) -> str:
    return succeed("export", *words).stdout


@pytest.mark.parametrize("target", ["lammps", "orca"])
def test_the_model_of_a_run_has_an_absolute_path(folder: Path, target: str) -> None:
    (folder / "run").mkdir()
    (folder / "run" / "metrics.jsonl").write_text("")
    (folder / "model.hesse").rename(folder / "run" / "model.hesse")
    run("run", "out", "--to", target, "--structure", "ethanol.xyz")
    texts = [file.read_text() for file in (folder / "out").iterdir()]
    assert any(str(folder / "run" / "model.hesse") in text for text in texts)


@pytest.mark.parametrize("target", ["i-pi", "lammps", "openmm", "torch-sim", "orca"])
def test_a_folder_of_files(folder: Path, target: str) -> None:
    text = run("model.hesse", "out", "--to", target, "--structure", "ethanol.xyz")
    written = {file.name for file in (folder / "out").iterdir()}
    assert "start.extxyz" in written
    for name in written:
        assert name in text
        if name.endswith(".py"):
            source = (folder / "out" / name).read_text()
            compile(source, name, "exec")
            assert str(folder / "model.hesse") in source  # it runs in any folder
    with pytest.raises(RequestError, match="--overwrite"):
        run("model.hesse", "out", "--to", target, "--structure", "ethanol.xyz")
    run("model.hesse", "out", "--to", target, "--structure", "ethanol.xyz", "--overwrite")


@pytest.mark.parametrize("target", ["i-pi", "lammps"])
def test_compiled_forces(folder: Path, target: str) -> None:
    run("model.hesse", "out", "--to", target, "--structure", "ethanol.xyz", "--dtype", "float32", "--compile")
    source = "".join(file.read_text() for file in (folder / "out").glob("*.py"))
    assert "dtype='float32', compile=True)" in source
    with pytest.raises(RequestError, match=r"compiled forces are for lammps and i-pi: leave --compile out for openmm"):
        run("model.hesse", "other", "--to", "openmm", "--structure", "ethanol.xyz", "--compile")
    assert not (folder / "other").exists()


@pytest.mark.parametrize("target", ["i-pi", "lammps"])
def test_a_turned_crystal(folder: Path, target: str) -> None:
    """Programs want the first lattice vector along x: the crystal is turned, and its energy stays."""
    run("model.hesse", "out", "--to", target, "--structure", "silicon.extxyz")
    start = read("out/start.extxyz")
    assert np.allclose(np.triu(start.cell, 1), 0.0)
    assert by_ase(network(), start)[0] == pytest.approx(by_ase(network(), read("silicon.extxyz"))[0], abs=1e-8)


def test_refusals(folder: Path) -> None:
    write("sulfur.xyz", molecule("SH2"))
    with pytest.raises(UnknownElementError, match="holds S; HesseNet knows H, C, O, Si only"):
        run("model.hesse", "out", "--to", "lammps", "--structure", "sulfur.xyz")
    with pytest.raises(RequestError, match="needs the atoms at the start: --structure"):
        run("model.hesse", "out", "--to", "i-pi")
    with pytest.raises(RequestError, match="--device is for metatomic"):
        run("model.hesse", "out", "--to", "openmm", "--structure", "ethanol.xyz", "--device", "cpu")
    with pytest.raises(RequestError, match="expected a folder"):
        run("model.hesse", "ethanol.xyz", "--to", "openmm", "--structure", "ethanol.xyz")
    assert not (folder / "out").exists()


def test_orca_finds_the_program_and_may_start_it(folder: Path) -> None:
    (folder / "my files").mkdir()
    text = run("model.hesse", "my files/out", "--to", "orca", "--structure", "ethanol.xyz")
    program = folder / "my files" / "out" / "hesse-orca"
    assert os.access(program, os.X_OK)
    assert not os.access(program.with_name("orca.inp"), os.X_OK)
    assert f'ProgExt "{program}"\n' in program.with_name("orca.inp").read_text()
    assert "chmod" not in text


@pytest.mark.slow
def test_the_answer_to_orca(folder: Path) -> None:
    """Energy and gradient in Hartree and Bohr, by the program that ORCA calls."""
    write("job_EXT.xyz", ethanol(), format="xyz")
    (folder / "job_EXT.extinp.tmp").write_text("job_EXT.xyz # geometry\n0 # charge\n1\n1 # cores\n1 # gradient\n")
    run("model.hesse", "my run", "--to", "orca", "--structure", "ethanol.xyz")
    done = subprocess.run(
        [folder / "my run" / "hesse-orca", "job_EXT.extinp.tmp"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = (folder / "job_EXT.engrad").read_text().splitlines()
    numbers = [float(line) for line in lines if not line.startswith("#")]
    assert len(lines) == 3 + 1 + 3 + 1 + 3 + 27  # ORCA 5 counts the comments
    energy, forces, _ = by_ase(network(), read("job_EXT.xyz"))
    assert numbers[0] == 9
    assert numbers[1] * units.Hartree == pytest.approx(energy, abs=1e-9)
    assert np.allclose(np.reshape(numbers[2:], (9, 3)) * units.Hartree / units.Bohr, -forces, atol=1e-9)


def test_wrong_requests_of_orca(folder: Path) -> None:
    request = folder / "job_EXT.extinp.tmp"
    with pytest.raises(FileFormatError, match="no such file of ORCA"):
        answer("model.hesse", request)
    request.write_text("job_EXT.xyz\nzero\n")
    with pytest.raises(FileFormatError, match="charge, multiplicity"):
        answer("model.hesse", request)
    write("job_EXT.xyz", ethanol(), format="xyz")
    request.write_text("job_EXT.xyz\n0\n1\n1\n1\ncharges.pc\n")
    with pytest.raises(RequestError, match="point charges"):
        answer("model.hesse", request)
