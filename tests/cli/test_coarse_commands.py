"""`hesse coarse map`, `prior` and `forces` as a user calls them, and their replies to wrong input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from commands_in_process import succeed
from hesse.datasets import Dataset, read_dataset, write_dataset
from hesse.errors import HesseError
from hesse.structures import Properties, Structure, species_names

WATER = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """27 waters near a grid, in six frames."""
    rng = np.random.default_rng(0)
    grid = 3.6 * np.stack(np.meshgrid(*[range(3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    structures = []
    for k in range(6):
        places = grid + rng.uniform(-0.2, 0.2, size=grid.shape)
        positions = np.concatenate([WATER @ np.linalg.qr(rng.normal(size=(3, 3)))[0] + p for p in places])
        structures.append(
            Structure(np.array([8, 1, 1] * 27), positions, id=str(k), cell=10.8 * np.eye(3), pbc=(True, True, True))
        )
    forces = torch.from_numpy(rng.normal(size=(6 * 81, 3)))
    path = tmp_path / "frames.h5"
    write_dataset(path, Dataset(tuple(structures), Properties(n_atoms=torch.full((6,), 81), forces=forces)))
    return path


def call(*words: object) -> str:
    return succeed("coarse", *words).output


def test_map_prior_and_forces(frames: Path, tmp_path: Path) -> None:
    beads, prior = tmp_path / "beads.h5", tmp_path / "prior.hesse"
    text = call("map", frames, beads, "--temperature", 300, "--name", "H2O=W", "--quiet")
    assert "27 in the first frame, 18.015 u each" in text
    assert set(species_names(read_dataset(beads, check=False).structures[0].numbers)) == {"W"}
    text = call("prior", beads, prior, "--plot", tmp_path / "prior.png", "--json", tmp_path / "prior.json")
    assert text.startswith("pair  W-W")
    assert json.loads((tmp_path / "prior.json").read_text())[0]["term"] == "pair"
    assert (tmp_path / "prior.png").stat().st_size > 5000
    text = call("forces", prior, beads, "--json", tmp_path / "forces.json")
    assert "300K" in text
    assert "unknown" in text
    row = json.loads((tmp_path / "forces.json").read_text())[0]
    assert abs(row["explained"]) < 0.2, "random forces"


def test_groups_from_a_file(frames: Path, tmp_path: Path) -> None:
    groups = tmp_path / "beads.yaml"
    groups.write_text("H2O: [{type: O, atoms: [O]}, {type: HH, atoms: [1, 2]}]\n")
    text = call("map", frames, tmp_path / "b.h5", "--temperature", 300, "--groups", groups, "--quiet")
    assert "beads HH" in text
    groups.write_text("H2O: [O, HH]\n")
    with pytest.raises(HesseError, match="expected a list of beads, each with a type and its atoms"):
        call("map", frames, tmp_path / "c.h5", "--temperature", 300, "--groups", groups)
    assert not (tmp_path / "c.h5").exists()


@pytest.mark.parametrize(
    ("words", "reply"),
    [
        (["--name", "H20=W"], 'no molecule called "H20"'),
        (["--name", "H2O=W", "--groups", "x.yaml"], "exclude each other"),
        (["--bead", "O=name OW"], "give a topology"),
        (["--drop", "H2O"], "the mapping has no beads"),
        (["--name", "H2O=a bead"], "name of a bead type"),
        (["--name", "CO"], '--name: expected OLD=NEW, for example CH4O=MEOH, got "CO"'),
        (["--lammps-units", "lj"], "--lammps-units.* no effect"),
        (["--timestep", "2"], "--timestep.* no effect"),
        (["--frame-time", "-2"], "--frame-time: expected a number of ps above 0, got -2"),
        (["--molecule-size", "2"], "81 atoms are no multiple"),
        (["--start", "100"], r"no frames from 100 on: it has 6, numbered 0 to 5"),
        (["--start", "3", "--stop", "2"], "--stop 2: expected a frame behind the first one, --start 3"),
        (["--bead", "O=name OW", "--drop", "H2O", "--topology", "x.gro"], "--drop has no effect with --bead"),
        (["--bead", "OW", "--topology", "x.gro"], "--bead: expected TYPE=SELECTION"),
    ],
)
def test_wrong_options(frames: Path, tmp_path: Path, words: list[str], reply: str) -> None:
    with pytest.raises(HesseError, match=reply):
        call("map", frames, tmp_path / "beads.h5", "--temperature", 300, *words)


def test_inputs_are_checked_before_any_work(frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*arguments: object, **options: object) -> None:
        raise AssertionError("work has begun")

    for name in ("hesse.coarse.open_trajectory", "hesse.coarse.fit_prior", "hesse.coarse.explained_forces"):
        monkeypatch.setattr(name, work)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("H2O: [O, HH]\n")
    prior, model = ("prior", frames, tmp_path / "p.hesse"), ("forces", tmp_path / "m.hesse", frames)
    for words, reply in (
        (("map", frames, tmp_path / "o.h5", "--temperature", -200), "--temperature: .* K above 0, got -200"),
        (("map", frames, tmp_path / "o.h5", "--temperature", 300, "--groups", wrong), "expected a list of beads"),
        ((*prior, "--plot", tmp_path / "p.pdf"), "pictures are written as .png or .svg"),
        ((*prior, "--json", tmp_path / "a.png"), "ends in .json"),
        ((*prior, "--json", frames), "ends in .json"),
        ((*prior, "--temperature", 0), "--temperature: .* K above 0, got 0"),
        ((*model, "--json", frames), "ends in .json"),
    ):
        with pytest.raises(HesseError, match=reply):
            call(*words)
    assert not (tmp_path / "p.hesse").exists()


def test_frames_of_a_known_time(frames: Path, tmp_path: Path) -> None:
    call("map", frames, tmp_path / "b.h5", "--temperature", 300, "--frame-time", 0.5, "--quiet")
    assert read_dataset(tmp_path / "b.h5", check=False).metadata["frame_time"] == "0.5 ps"


def test_files_that_exist_are_kept(frames: Path, tmp_path: Path) -> None:
    (tmp_path / "beads.h5").write_text("precious")
    with pytest.raises(HesseError, match="exists already"):
        call("map", frames, tmp_path / "beads.h5", "--temperature", 300)
    with pytest.raises(HesseError, match=r"expected OUT\.hesse"):
        call("prior", frames, tmp_path / "prior.h5")
    with pytest.raises(HesseError, match="names no temperature"):
        call("prior", frames, tmp_path / "prior.hesse")
