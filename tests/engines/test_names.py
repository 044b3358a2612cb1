"""Names of potentials: every form, and replies to invalid ones."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

from hesse import HesseCalculator
from hesse.engines import POTENTIAL_NAMES, make_engine, make_potential
from hesse.engines.names import ADAPTERS, path_in_name, settings_model, with_base_folder
from hesse.engines.xtb import XtbEngine
from hesse.errors import FileFormatError, MissingExtraError, RequestError, UnknownOptionError
from hesse.models import Hipnn, HipnnConfig, Zbl, load_model, read_model_header, save_model, save_weights
from hesse.models.adapters import PUBLISHED, checkpoint_file
from hesse.structures import Request
from oracles import molecule


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = HipnnConfig(features=4, sensitivities=4, blocks=1, onsite_layers=1, cutoff=4.0, longest=3.5)
    save_model(tmp_path / "a.hesse", Hipnn(config, (1, 6, 8)))
    return tmp_path / "a.hesse"


def test_model_files_and_python_factories(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    potential = make_potential(str(model))
    assert isinstance(potential, Hipnn)
    assert not potential.training
    wide = make_potential(str(model), dtype=torch.float64)
    assert {p.dtype for p in wide.parameters()} == {torch.float64}
    monkeypatch.chdir(tmp_path)
    Path("my_potentials.py").write_text(
        "from hesse.models import Zbl\n"
        "def repulsion(): return Zbl(elements=(1, 8))\n"
        "def nothing(): return 3\n"
        "def broken(): raise ValueError('no weights here')\n"
    )
    repulsion = make_potential("python:my_potentials:repulsion")
    assert isinstance(repulsion, Zbl)
    assert repulsion.elements == (1, 8)
    with pytest.raises(RequestError, match=r"returned a int, expected a hesse\.Potential"):
        make_potential("python:my_potentials:nothing")
    with pytest.raises(RequestError, match=r"broken\(\) failed: ValueError: no weights here"):
        make_potential("python:my_potentials:broken")
    with pytest.raises(RequestError, match=r'no function "repulsoin".*repulsion'):
        make_potential("python:my_potentials:repulsoin")
    with pytest.raises(RequestError, match="expected python:package"):
        make_potential("python:my_potentials")
    Path("my_typo.py").write_text("def make(:\n")
    with pytest.raises(RequestError, match="importing my_typo failed: SyntaxError"):
        make_potential("python:my_typo:make")
    Path("my_endless.py").write_text(
        "import hesse\nclass Endless(hesse.Potential):\n    def forward(self, batch): return batch.positions.sum(-1)\n"
    )
    with pytest.raises(RequestError, match="returned a Endless without a cutoff"):
        make_potential("python:my_endless:Endless")
    save_weights("own.safetensors", repulsion)
    with pytest.raises(FileFormatError, match=r"only the weights of a .*Zbl.*python:package\.module:factory\.$"):
        make_potential("own.safetensors")
    # The same names are engines.
    engine = make_engine("python:my_potentials:repulsion")
    structure = molecule(3, 0, elements=(1, 8))
    close = structure.with_positions(structure.positions * 0.5, id="close")
    energy = engine.compute(close, Request()).energy
    assert energy is not None
    assert float(energy) > 1
    assert engine.level.startswith("python:my_potentials:repulsion@")
    assert "weights_digest" in engine.settings


@pytest.mark.parametrize(
    ("text", "error", "reply"),
    [
        ("nothing.hesse", FileFormatError, "no such model file"),
        ("mace:nothing.model?trust=pickle", FileFormatError, "no such model file of mace"),
        ("macee:x", UnknownOptionError, "no potential"),
        ("mace:{model}?trust=me", UnknownOptionError, 'no trust "me". Valid: pickle'),
        ("mace:{model}?hed=a", UnknownOptionError, 'no option "hed". Did you mean "head"'),
        ("mace:{model}?trust_pickle=yes", UnknownOptionError, 'no option "trust_pickle". Use "trust"'),
        ("nequip:{model}?types=C", UnknownOptionError, 'no option "types"'),
        ("chgnet:0.3", UnknownOptionError, 'neither a file nor published weights of chgnet. Did you mean "0.3.0"'),
        ("chgnet:0.3.0?modal=PBE", UnknownOptionError, 'no option "modal"'),
        ("sevenn:none", UnknownOptionError, "Valid: 7net-0, .*are not downloaded: give the path of their file"),
    ],
)
def test_invalid_names_get_a_reply(model: Path, text: str, error: type[Exception], reply: str) -> None:
    with pytest.raises(error, match=reply):
        make_potential(text.format(model=model))


def test_every_adapter_is_among_the_names_and_has_the_settings_of_its_files() -> None:
    assert {f"{name}:FILE" for name in ADAPTERS} < set(POTENTIAL_NAMES)
    assert {name: list(settings_model(f"{name}:FILE").model_fields) for name in ADAPTERS} == {
        "torchani": ["trust", "architecture"],
        "hippynn": ["trust", "energy_unit", "length_unit", "energy"],
        "mace": ["trust", "head"],
        "nequip": ["trust", "energy_unit", "length_unit"],
        "chgnet": ["trust"],
        "sevenn": ["trust", "modal"],
    }


def test_published_weights_are_names_and_not_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {f"{name}:{weights}" for name in PUBLISHED for weights in PUBLISHED[name]} < set(POTENTIAL_NAMES)
    for name in ("chgnet:0.3.0", "chgnet:R2SCAN", "sevenn:7net-mf-0?modal=PBE"):
        assert with_base_folder(name, tmp_path) == name
        assert path_in_name(name) is None
    assert with_base_folder("sevenn:a.pth", tmp_path) == f"sevenn:{tmp_path / 'a.pth'}"
    assert path_in_name("chgnet:a.pth.tar") == "a.pth.tar"
    # The package is found without importing it, and its absence has a reply.
    package = tmp_path / "chgnet"
    (package / "pretrained" / "0.3.0").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemError('imported')")
    file = package / PUBLISHED["chgnet"]["0.3.0"]
    file.touch()
    for module in [m for m in sys.modules if m.partition(".")[0] == "chgnet"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(tmp_path)
    assert checkpoint_file("chgnet", "0.3.0") == file
    with pytest.raises(FileFormatError, match=r"does not hold the weights 0\.2\.0"):
        checkpoint_file("chgnet", "0.2.0")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"sevenn, which is not installed: pip install \"hesse\[sevenn\]\""):
        make_potential("sevenn:7net-0")


def test_settings_of_engines_are_documented() -> None:
    """The table of PySCF's settings in the documentation has the names and defaults of the model."""
    assert list(settings_model("gfn2?accuracy=0.1").model_fields) == ["accuracy", "max_iterations"]
    for name in ("python:a:b", "ase:a:b"):
        assert not settings_model(name).model_fields
    with pytest.raises(UnknownOptionError, match='no engine "gfn3"'):
        settings_model("gfn3")
    text = (Path(__file__).parents[2] / "docs" / "engines.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", text.split("| setting | default |")[1].split("\n\n")[0], re.M))
    fields = settings_model("pyscf:hf/sto-3g").model_fields
    assert rows.keys() == fields.keys() - {"probes"}, "probes is explained with hvp"
    for key, written in rows.items():
        default = fields[key].default
        if isinstance(default, bool):
            assert written == ("yes" if default else "no")
        elif isinstance(default, float | int):
            assert float(written) == default
        elif default is not None:
            assert written == f"`{default}`"


def test_paths_in_names_are_relative_to_a_folder(tmp_path: Path) -> None:
    assert with_base_folder("a/m.hesse", tmp_path) == str(tmp_path / "a/m.hesse")
    assert with_base_folder("mace:m.model?trust=pickle", tmp_path) == f"mace:{tmp_path / 'm.model'}?trust=pickle"
    assert with_base_folder("python:a:b", tmp_path) == "python:a:b"
    assert with_base_folder("/x/m.hesse", tmp_path) == "/x/m.hesse"


@pytest.mark.parametrize("written", ["GFN2-xTB", "gfn2-xtb", "GFN2", "gfn2"])
def test_xtb_by_the_name_of_its_level(written: str, tmp_path: Path) -> None:
    """Labels and reports say GFN2-xTB; that is a name of the engine too."""
    pytest.importorskip("tblite")
    engine = make_engine(f"{written}?accuracy=0.1")
    plain = make_engine("gfn2?accuracy=0.1")
    assert (engine.name, engine.level, dict(engine.settings)) == (plain.name, plain.level, dict(plain.settings))
    assert make_engine(written.replace("2", "1")).level == "GFN1-xTB"
    assert settings_model(written) is settings_model("gfn2")
    assert with_base_folder(f"{written}?accuracy=0.1", tmp_path) == f"{written}?accuracy=0.1"
    with pytest.raises(RequestError, match="is an engine, not a potential"):
        make_potential(written)
    with pytest.raises(UnknownOptionError, match='no engine "GFN3-xTB"'):
        make_engine("GFN3-xTB")


def test_the_folder_of_a_run_is_its_model(model: Path, tmp_path: Path) -> None:
    """As engine, potential, calculator and model file, in Python and by name."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(FileFormatError, match="expected a model file or the folder of a run"):
        make_engine(str(run))
    model.rename(run / "model.hesse")
    assert make_engine(str(run)).level == make_engine(str(run / "model.hesse")).level
    assert load_model(run).elements == make_potential(run).elements == HesseCalculator(run).potential.elements
    assert tuple(read_model_header(run)["elements"]) == load_model(run).elements
    assert path_in_name(str(run)) == str(run / "model.hesse")
    (tmp_path / "data").mkdir()
    with pytest.raises(FileFormatError, match="a folder without a model"):
        load_model(tmp_path / "data")


def test_a_method_comes_before_a_run_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tblite", reason="needs tblite")
    monkeypatch.chdir(tmp_path)
    Path("gfn2").mkdir()
    Path("gfn2/metrics.jsonl").write_text("")
    assert make_engine("gfn2").level == make_engine("GFN2-xTB").level == XtbEngine("GFN2-xTB").level == "GFN2-xTB"
    with pytest.raises(FileFormatError, match="a folder without a model"):
        make_engine("./gfn2")
    with pytest.raises(RequestError, match="xTB method"):
        XtbEngine(2)  # type: ignore[arg-type]
