"""The verbs `coarse md` and `coarse compare`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from commands_in_process import hesse
from hesse.datasets import read_dataset, write_dataset
from hesse.errors import ConfigError, ExecutionError, FileFormatError, RequestError
from hesse.models import BeadPrior, BeadPriorConfig, PairRepulsion, save_model
from hesse.structures import Structure, bead_number

pytest.importorskip("freud", reason="freud computes distributions of pairs")
SHORT = ("--time", 0.16, "--stride", 4, "--quiet")


def coarse(*arguments: object, folder: Path) -> Result:
    return hesse("coarse", *arguments, folder=folder)


@pytest.fixture
def beads(tmp_path: Path) -> Path:
    """A model of soft spheres, and one frame at each of two state points."""
    pair = PairRepulsion(types=("W", "W"), taper=2.6, strength=0.5)
    save_model(tmp_path / "model.hesse", BeadPrior(BeadPriorConfig(pairs=(pair,)), (bead_number("W"),)))
    grid = 3.1 * np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    frames = [
        Structure(
            [bead_number("W")] * 27, grid, cell=9.3 * np.eye(3), pbc=True, masses=[18.0] * 27, tag=tag, id=tag[:4]
        )
        for tag in ("300K 1.004g/cm3", "350K 1.004g/cm3")
    ]
    write_dataset(tmp_path / "beads.h5", frames)
    return tmp_path


def test_dynamics_and_their_comparison(beads: Path) -> None:
    done = coarse(
        "md", "model.hesse", "beads.h5", "a.h5", *SHORT, "--seeds", 2, "--json", "a.json", "--pressure", folder=beads
    )
    assert "beads x steps per second" in done.output
    assert "not that of the atoms" in done.output
    rows = json.loads((beads / "a.json").read_text())
    assert [row["state_point"] for row in rows] == ["300K 1.004g/cm3"] * 2 + ["350K 1.004g/cm3"] * 2
    assert rows[0]["virial_bar"] > 0
    frames = read_dataset(beads / "a.h5")
    assert len(frames) == 4 * 11
    assert frames.metadata["frame_time"] == "0.016 ps"
    coarse("md", "model.hesse", "beads.h5", "b.h5", *SHORT, "--state-point", "350K 1.004g/cm3", folder=beads)
    done = coarse("compare", "b.h5", "--reference", "a.h5", "--figure", "c.png", "--json", "c.json", folder=beads)
    assert "350K 1.004g/cm3: 11 frames of the model, 22 of the reference" in done.output
    assert "not compared, without frames of the model: 300K 1.004g/cm3" in done.output
    assert "difference" in done.output
    assert "noise unknown: too few frames" in done.output
    assert "less than twice the noise" not in done.output
    assert "beads diffuse" in done.output
    assert (beads / "c.png").stat().st_size > 5000
    assert json.loads((beads / "c.json").read_text())[0]["curve"] == "g(r) W-W"


def test_the_box_can_be_repeated(beads: Path) -> None:
    coarse("md", "model.hesse", "beads.h5", "big.h5", "--repeat", 2, "--time", 0.008, "--stride", 1, folder=beads)
    assert len(read_dataset(beads / "big.h5").structures[0]) == 8 * 27


def test_a_run_of_fewer_steps_than_the_stride_is_noted(beads: Path) -> None:
    done = coarse("md", "model.hesse", "beads.h5", "o.h5", "--time", 0.02, "--stride", 1000, "--quiet", folder=beads)
    assert "--stride 1000 is longer than a run of 5 steps: only its first frame is kept" in done.output


def test_runs_that_all_fail_end_with_an_error_and_the_comparison_tells_it(beads: Path) -> None:
    pair = PairRepulsion(types=("W", "W"), taper=4.0, strength=20.0)
    save_model(beads / "bad.hesse", BeadPrior(BeadPriorConfig(pairs=(pair,)), (bead_number("W"),)))
    frames = read_dataset(beads / "beads.h5").structures
    moved = [s.with_positions(s.positions + np.linspace(0, 0.3, 27)[:, None] ** 2, id=s.id) for s in frames]
    write_dataset(beads / "moved.h5", moved)
    with pytest.raises(ExecutionError, match=r"every run failed \(2 of 2\)"):
        coarse("md", "bad.hesse", "moved.h5", "o.h5", "--time", 0.4, "--stride", 1, "--quiet", folder=beads)
    run = read_dataset(beads / "o.h5").structures[0].id.rpartition("/")[0]
    done = coarse("compare", "o.h5", "--reference", "beads.h5", folder=beads)
    assert f"the frames include those of runs that failed, up to the failure: {run}" in done.output
    assert "diffusion not compared: give --reference-frame-time" in done.output


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("md", "none.hesse", "beads.h5", "o.h5"), FileFormatError, "no such model file"),
        (("md", "model.hesse", "beads.h5", "beads.h5"), RequestError, "is an input"),
        (("md", "model.hesse", "beads.h5", "o.h5", "--state-point", "1K"), RequestError, 'no state point "1K"'),
        (("md", "model.hesse", "beads.h5", "o.h5", "--json", "beads.h5"), RequestError, "ends in .json"),
        (("md", "model.hesse", "beads.h5", "o.h5", "--json", "o.h5"), RequestError, "ends in .json"),
        (("md", "model.hesse", "beads.h5", "o.h5", "--time", "-1"), ConfigError, "--time: .* of ps above 0, got -1"),
        (("md", "model.hesse", "beads.h5", "o.h5", "--time", "nan"), ConfigError, "--time: .* got nan"),
        (("md", "model.hesse", "beads.h5", "o.h5", "--time", "0.001"), ConfigError, "--time: .* less than a time step"),
        (("md", "model.hesse", "beads.h5", "o.h5", "--step", "0"), ConfigError, "--step: .* of fs above 0"),
        (("md", "model.hesse", "beads.h5", "o.h5", "--friction", "-1"), ConfigError, "--friction: .* of 1/fs above 0"),
        (("md", "model.hesse", "beads.h5", "o.h5", "--temperature", "-1"), ConfigError, "--temperature: .* of K above"),
        (("compare", "beads.h5", "--reference", "beads.h5", "--r-max", "-1"), ConfigError, "--r-max: .* of Å above 0"),
        (("compare", "beads.h5", "--reference", "beads.h5", "--skip", "1"), RequestError, "give it .*--frame-time"),
        (
            ("compare", "beads.h5", "--reference", "beads.h5", "--blocks", "50"),
            RequestError,
            r"the model.* has 1 frames, which cannot be divided into 50 blocks \(--blocks\) of at least 4",
        ),
        (("compare", "beads.h5", "--reference", "none.h5"), FileFormatError, "no such file"),
        (("compare", "beads.h5", "--reference", "beads.h5", "--figure", "x.pdf"), FileFormatError, "written as"),
        (("compare", "beads.h5", "--reference", "beads.h5", "--json", "beads.h5"), RequestError, "ends in .json"),
    ],
)
def test_wrong_input_gets_a_reply_and_damages_nothing(
    beads: Path, arguments: tuple[str, ...], error: type, words: str
) -> None:
    before = (beads / "beads.h5").read_bytes()
    with pytest.raises(error, match=words):
        coarse(*arguments, folder=beads)
    assert (beads / "beads.h5").read_bytes() == before
    assert not (beads / "o.h5").exists()
