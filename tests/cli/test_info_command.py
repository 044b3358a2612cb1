"""`hesse info`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from commands_in_process import succeed as run
from hesse.cli.app import app
from hesse.datasets import Dataset, dataset_summary, write_dataset
from hesse.errors import FileFormatError, HesseError, RequestError
from hesse.models import Ensemble, HipnnConfig, SumPotential, Zbl, build_model, save_model, save_weights
from hesse.structures import Properties, Structure, TrainingEnvironments
from oracles import Morse, crystal, labeled, molecules


@pytest.fixture(scope="module")
def data() -> Dataset:
    return labeled(Morse(), molecules([4, 5, 6], group="m"), probes=2, hessian=True)


def test_a_data_set(tmp_path: Path, data: Dataset) -> None:
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


def test_labels_that_are_not_finite_are_told(tmp_path: Path, data: Dataset) -> None:
    """Training refuses such a file, so a look at it must show why."""
    ids = [structure.id for structure in data.structures]
    forces, energy = data.labels.forces.clone(), data.labels.energy.clone()
    forces[:4] = torch.nan  # all of the first structure
    energy[1:] = torch.inf
    write_dataset(tmp_path / "nan.h5", replace(data, labels=data.labels.replace(forces=forces, energy=energy)))
    shown = run("info", tmp_path / "nan.h5", "--json", tmp_path / "card.json").stdout
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert f"not finite forces of 1 structure ({ids[0]}); training refuses them" in lines
    assert f"not finite energy of 2 structures ({ids[1]}, {ids[2]}); training refuses them" in lines
    card = json.loads((tmp_path / "card.json").read_text(encoding="utf-8"))
    assert {"label": "forces", "structures": 1, "first": ids[:1]} in card["not_finite"]
    assert dataset_summary(data)["not_finite"] == []


def test_a_data_set_without_labels(tmp_path: Path) -> None:
    """Unlabeled and periodic: unknown values are null, and inconsistent data are shown, not refused."""
    bare = labeled(Morse(), [crystal(1)], probes=0, forces=False)
    write_dataset(tmp_path / "a.xyz", bare)
    run("info", tmp_path / "a.xyz", "--json", tmp_path / "card.json")
    card = json.loads((tmp_path / "card.json").read_text(encoding="utf-8"))
    assert card["periodic"] == 1
    assert card["noise"] == {"forces": None, "hvp": None, "hessian": None}
    assert card["curvature"] is None
    wrong = labeled(Morse(), molecules([5] * 5), hessian=True)
    assert wrong.labels.forces is not None
    write_dataset(tmp_path / "b.h5", replace(wrong, labels=wrong.labels.replace(forces=-wrong.labels.forces)))
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
    assert card["training_environments"] is None
    model = build_model(config, (1, 6, 8))
    model.training_environments = TrainingEnvironments.from_structures(molecules([4, 5, 6]))
    save_model(tmp_path / "e.hesse", model)
    assert "of 3 structures; kept H " in run("info", tmp_path / "e.hesse").stdout
    (tmp_path / "bad.hesse").write_bytes((tmp_path / "m.hesse").read_bytes()[:100])
    with pytest.raises(FileFormatError, match=r"bad\.hesse"):
        run("info", tmp_path / "bad.hesse")


def test_a_potential_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wells_for_info.py").write_text(
        "from oracles import Morse\n\ndef make():\n    return Morse(cutoff=5.0)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    shown = run("info", "python:wells_for_info:make", "--json", tmp_path / "card.json").stdout
    for word in ("Morse", "cutoff", "5", "elements", "all"):
        assert word in shown
    card = json.loads((tmp_path / "card.json").read_text(encoding="utf-8"))
    assert (card["class"], card["cutoff"], card["elements"]) == ("Morse", 5.0, [])
    with pytest.raises(FileFormatError, match="none"):
        run("info", "mace:none.model")


def test_an_engine_by_its_name(tmp_path: Path) -> None:
    pytest.importorskip("tblite.interface", reason="tblite is not installed")
    shown = run("info", "gfn2?accuracy=0.1", "--json", tmp_path / "engine.json").output
    assert "GFN2-xTB" in shown
    assert "tblite's multiplier of convergence thresholds (default 1e-05)" in shown
    card = json.loads((tmp_path / "engine.json").read_text())
    assert card["recorded"]["accuracy"] == "0.1"
    assert card["settings"].keys() == {"accuracy", "max_iterations"}
    with pytest.raises(HesseError, match=r'no option "acuracy"\. Did you mean "accuracy"'):
        run("info", "gfn2?acuracy=0.1")


def test_json_must_not_overwrite_the_model(tmp_path: Path) -> None:
    path = tmp_path / "m.hesse"
    save_model(path, build_model(HipnnConfig(features=4, sensitivities=4), (1, 6)))
    with pytest.raises(RequestError, match=r"ends in \.json"):
        run("info", path, "--json", path)
    hessian = tmp_path / "hessian.json"
    hessian.write_text("{}")
    with pytest.raises(RequestError, match="this is an input"):
        run("info", hessian, "--json", hessian)


def test_a_model_that_started_from_another_shows_its_own_network(tmp_path: Path) -> None:
    """The configuration has the default network then, which was not used."""
    config = HipnnConfig(features=4, sensitivities=3, blocks=1, cutoff=4.25, longest=4.0)
    unused = {"init_from": "old.hesse", "model": {"kind": "hessenet", "cutoff": 5.0}, "repulsion": None, "steps": 7}
    save_model(tmp_path / "m.hesse", build_model(config, (1, 8)), {"config": unused})
    shown = run("info", tmp_path / "m.hesse", "--json", tmp_path / "card.json").stdout
    assert "hipnn" in shown
    assert "old.hesse" in shown
    assert "hessenet" not in shown
    card = json.loads((tmp_path / "card.json").read_text(encoding="utf-8"))
    assert card["provenance"]["config"] == {"init_from": "old.hesse", "steps": 7}
    assert card["model"]["kind"] == "hipnn"


def test_charges_and_multiplicities_of_data(tmp_path: Path) -> None:
    ions = [
        Structure([8, 1], [[0, 0, 0], [0, 0, 0.97]], charge=charge, multiplicity=multiplicity, id=f"{k}")
        for k, (charge, multiplicity) in enumerate([(-1, 1), (0, 2), (0, 2), (1, 3)])
    ]
    write_dataset(tmp_path / "ions.h5", Dataset.from_pairs([(s, Properties.single(2, energy=0.0)) for s in ions]))
    shown = run("info", tmp_path / "ions.h5", "--json", tmp_path / "card.json").stdout
    card = json.loads((tmp_path / "card.json").read_text(encoding="utf-8"))
    assert card["charges"] == {"-1": 1, "0": 2, "1": 1}
    assert card["multiplicities"] == {"1": 1, "2": 2, "3": 1}
    assert "-1: 1  0: 2  1: 1" in shown


def test_strict_refuses_what_is_not_read(tmp_path):
    (tmp_path / "a.xyz").write_text("1\nenergy=-1 mykey=3\nH 0 0 0\n")
    assert CliRunner().invoke(app, ["info", str(tmp_path / "a.xyz")]).exit_code == 0
    result = CliRunner().invoke(app, ["info", str(tmp_path / "a.xyz"), "--strict"])
    assert "not read: mykey" in str(result.exception)
