"""Names of potentials: every form, and replies to invalid ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hesse.engines import POTENTIAL_NAMES, make_engine, make_potential
from hesse.engines.names import ADAPTERS, with_base_folder
from hesse.errors import FileFormatError, RequestError, UnknownOptionError
from hesse.models import Hipnn, HipnnConfig, Zbl, save_model, save_weights
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
    assert engine.level == "python:my_potentials:repulsion"
    assert "weights_digest" in engine.settings


@pytest.mark.parametrize(
    ("text", "error", "reply"),
    [
        ("nothing.hesse", FileFormatError, "no such model file"),
        ("mace:nothing.model?trust=pickle", FileFormatError, "no such model file of mace"),
        ("macee:x", UnknownOptionError, "no potential"),
        ("mace:{model}?trust=me", RequestError, 'trust must be pickle, got "me"'),
        ("mace:{model}?hed=a", UnknownOptionError, "head"),
    ],
)
def test_invalid_names_get_a_reply(model: Path, text: str, error: type[Exception], reply: str) -> None:
    with pytest.raises(error, match=reply):
        make_potential(text.format(model=model))


def test_every_adapter_is_among_the_names() -> None:
    assert {f"{name}:FILE" for name in ADAPTERS} < set(POTENTIAL_NAMES)


def test_paths_in_names_are_relative_to_a_folder(tmp_path: Path) -> None:
    assert with_base_folder("a/m.hesse", tmp_path) == str(tmp_path / "a/m.hesse")
    assert with_base_folder("mace:m.model?trust=pickle", tmp_path) == f"mace:{tmp_path / 'm.model'}?trust=pickle"
    assert with_base_folder("python:a:b", tmp_path) == "python:a:b"
    assert with_base_folder("/x/m.hesse", tmp_path) == "/x/m.hesse"
