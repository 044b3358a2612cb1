"""`hesse convert` and `hesse info`."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from hesse.cli.app import app
from hesse.datasets import Dataset, dataset_summary, read_dataset, write_dataset
from hesse.errors import FileFormatError, HesseError, InconsistentLabelsError, LabelValueError, RequestError, UnitError
from hesse.models import Ensemble, HipnnConfig, SumPotential, Zbl, build_model, save_model, save_weights
from oracles import Morse, crystal, labeled, molecules


@pytest.fixture(scope="module")
def data() -> Dataset:
    return labeled(Morse(), molecules([4, 5, 6], group="m"), probes=2, hessian=True)


def run(*words: object) -> Result:
    result = CliRunner().invoke(app, [str(w) for w in words])
    if isinstance(result.exception, HesseError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_convert_there_and_back(tmp_path: Path, data: Dataset) -> None:
    write_dataset(tmp_path / "a.h5", data)
    told = run("convert", tmp_path / "a.h5", tmp_path / "b.extxyz", "--level", "Morse", "--tag", "hot")
    assert "Hessians agree with the forces" in told.stderr
    assert told.stdout == ""
    quiet = run("convert", tmp_path / "b.extxyz", tmp_path / "c.h5", "--quiet", "--limit", 2)
    assert quiet.output == ""
    back = read_dataset(tmp_path / "c.h5")
    assert len(back) == 2
    assert back.metadata["level"] == "Morse"
    assert back.structures[0].tag == "hot"
    torch.testing.assert_close(back.labels.hessian_of(1), data.labels.hessian_of(1), rtol=0, atol=0)


def test_gradients_are_refused_then_mended(tmp_path: Path, data: Dataset) -> None:
    assert data.labels.forces is not None
    wrong = replace(data, labels=replace(data.labels, forces=-data.labels.forces))
    write_dataset(tmp_path / "wrong.extxyz", wrong)
    target = tmp_path / "out.h5"
    with pytest.raises(InconsistentLabelsError, match=r"wrong\.extxyz.*--negate-forces"):
        run("convert", tmp_path / "wrong.extxyz", target)
    assert not target.exists()
    run("convert", tmp_path / "wrong.extxyz", target, "--negate-forces")
    assert read_dataset(target).content_hash() == data.content_hash()
    run("convert", tmp_path / "wrong.extxyz", target, "--no-check")


def test_symmetrize(tmp_path: Path, data: Dataset) -> None:
    noisy = data.labels.hessian
    assert noisy is not None
    noisy = noisy + 1e-3 * torch.randn(noisy.shape, dtype=noisy.dtype)
    write_dataset(tmp_path / "a.h5", replace(data, labels=replace(data.labels, hessian=noisy)))
    run("convert", tmp_path / "a.h5", tmp_path / "b.h5", "--symmetrize")
    h = read_dataset(tmp_path / "b.h5").labels.hessian_of(2).reshape(18, 18)
    torch.testing.assert_close(h, h.T)


def test_requests_that_cannot_be(tmp_path: Path, data: Dataset) -> None:
    with pytest.raises(FileFormatError, match="no such file"):
        run("convert", tmp_path / "none.h5", tmp_path / "b.h5")
    with pytest.raises(FileFormatError, match=r"written as \.h5"):  # before anything is read
        run("convert", tmp_path / "none.h5", tmp_path / "b.csv")
    write_dataset(tmp_path / "a.h5", data)
    with pytest.raises(RequestError, match="no folder"):
        run("convert", tmp_path / "a.h5", tmp_path / "missing" / "b.h5")
    with pytest.raises(UnitError, match="--energy-unit"):
        run("info", tmp_path / "a.npz")
    assert data.labels.energy is not None
    nan = replace(data, labels=replace(data.labels, energy=data.labels.energy * math.nan))
    write_dataset(tmp_path / "nan.h5", nan)
    with pytest.raises(LabelValueError, match="energy holds NaN"):
        run("convert", tmp_path / "nan.h5", tmp_path / "b.h5")


def test_exit_codes_of_the_program(tmp_path: Path, data: Dataset) -> None:
    (tmp_path / "cut.xyz").write_text("3\nwater\nO 0 0 0\n")
    done = subprocess.run(
        [sys.executable, "-m", "hesse", "convert", "cut.xyz", "b.h5"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "FileFormatError: cut.xyz: frame 0 (line 1) is cut off" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_card(tmp_path: Path, data: Dataset) -> None:
    write_dataset(tmp_path / "a.h5", data)
    shown = run("info", tmp_path / "a.h5", "--json", tmp_path / "card.json").stdout
    card = json.loads((tmp_path / "card.json").read_text(encoding="utf-8"))
    assert card == json.loads(json.dumps({**dataset_summary(data), "source": str(tmp_path / "a.h5")}))
    assert card["structures"] == 3
    assert card["atoms"] == 15
    assert card["atoms_per_structure"] == {"smallest": 4, "median": 5.0, "largest": 6}
    assert sum(card["elements"].values()) == 15
    assert card["probes_per_structure"] == 2
    assert card["tags"][0]["hvp"] == card["tags"][0]["hessian"] == 3
    assert card["noise"]["hessian"] < 1e-12
    assert [c["verdict"] for c in card["consistency"]] == ["consistent", "consistent"]
    assert card["data_hash"] == data.content_hash()
    values = [torch.linalg.eigvalsh(data.labels.hessian_of(i).reshape(3 * n, 3 * n)) for i, n in enumerate((4, 5, 6))]
    assert card["curvature"]["lowest_eigenvalue"] == pytest.approx(float(min(v[0] for v in values)))
    assert card["curvature"]["structures_with_negative_curvature"] == sum(bool(v[0] < -0.5) for v in values)
    for word in ("eV, Å", "Hessians agree", data.content_hash(), "closed form", "energy 3, forces 3, hvp 3"):
        assert word in shown


def test_a_card_of_little(tmp_path: Path) -> None:
    """Unlabeled and periodic: what is unknown is null, and broken data are shown, not refused."""
    bare = labeled(Morse(), [crystal(1)], probes=0, forces=False)
    write_dataset(tmp_path / "a.xyz", bare)
    run("info", tmp_path / "a.xyz", "--json", tmp_path / "card.json")
    card = json.loads((tmp_path / "card.json").read_text(encoding="utf-8"))
    assert card["periodic"] == 1
    assert card["noise"] == {"forces": None, "hvp": None, "hessian": None}
    assert card["curvature"] is None
    wrong = labeled(Morse(), molecules([5] * 5), hessian=True)
    assert wrong.labels.forces is not None
    write_dataset(tmp_path / "b.h5", replace(wrong, labels=replace(wrong.labels, forces=-wrong.labels.forces)))
    assert "broken" in run("info", tmp_path / "b.h5").stdout


def test_a_composed_model_and_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_model(HipnnConfig(features=4, sensitivities=4), (1, 6))
    save_model(tmp_path / "m.hesse", SumPotential([Zbl(elements=(1, 6)), Ensemble([network, network])]))
    shown = run("info", tmp_path / "m.hesse").stdout
    for text in ("sum of 2", "part 1", "reach", "ensemble of 2", "part 2, part 1", "sensitivities"):
        assert text in shown
    save_weights(tmp_path / "w.safetensors", torch.nn.Linear(2, 2), {"level": "GFN2-xTB"})
    shown = run("info", tmp_path / "w.safetensors", "--json", tmp_path / "card.json").stdout
    assert "GFN2-xTB" in shown
    assert json.loads((tmp_path / "card.json").read_text())["module"] == "torch.nn.modules.linear.Linear"
    (tmp_path / "w.safetensors").write_bytes(b"nothing")
    with pytest.raises(FileFormatError, match="not a readable weights file"):
        run("info", tmp_path / "w.safetensors")


def test_a_model_file(tmp_path: Path) -> None:
    config = HipnnConfig(features=4, sensitivities=3, blocks=1, cutoff=4.25, longest=4.0)
    provenance = {"data_hash": "abc", "metrics": {"forces_rmse": 0.0123456789, "by_tag": {"hot": 0.5}}}
    save_model(tmp_path / "m.hesse", build_model(config, (1, 8)), provenance)
    shown = run("info", tmp_path / "m.hesse", "--json", tmp_path / "card.json").stdout
    for word in ("H O", "4.25", "hipnn", "abc", "forces_rmse", "0.0123457", "by_tag.hot"):
        assert word in shown
    card = json.loads((tmp_path / "card.json").read_text(encoding="utf-8"))
    assert card["model"]["cutoff"] == 4.25
    assert card["elements"] == [1, 8]
    assert card["provenance"]["metrics"] == provenance["metrics"]
    (tmp_path / "bad.hesse").write_bytes((tmp_path / "m.hesse").read_bytes()[:100])
    with pytest.raises(FileFormatError, match=r"bad\.hesse"):
        run("info", tmp_path / "bad.hesse")


def test_published_data_come_through_the_door(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "horm_sample" / "horm_sample_dev.npz"
    if not source.is_file():
        pytest.skip("no HORM sample")
    target = tmp_path / "horm.h5"
    with pytest.raises(UnitError):
        run("convert", source, target)
    run("convert", source, target, "--energy-unit", "eV", "--length-unit", "angstrom", "--symmetrize")
    card = dataset_summary(read_dataset(target))
    # As its own description says: 78 structures of 42 formulas, 8 to 21 atoms, 30 with negative curvature.
    assert (card["structures"], card["groups"]) == (78, 42)
    assert (card["atoms_per_structure"]["smallest"], card["atoms_per_structure"]["largest"]) == (8, 21)
    assert card["curvature"]["structures_with_negative_curvature"] == 30
