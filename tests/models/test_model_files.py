"""Model files: what is written is read back, and nothing else is ever accepted."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save, save_file

from hesse import files
from hesse.curvature import evaluate
from hesse.errors import FileFormatError, UnknownOptionError, WriteError
from hesse.models import Hipnn, HipnnConfig, load_model, read_model_header, save_model
from hesse.models.files import tensor_digest
from hesse.structures import Request, collate
from oracles import Morse, molecules

CONFIG = HipnnConfig(features=4, sensitivities=3, blocks=2, onsite_layers=1, cutoff=4.0, longest=3.5)


def hipnn(dtype: torch.dtype = torch.float64) -> Hipnn:
    torch.manual_seed(0)
    return Hipnn(CONFIG, (1, 6, 8), torch.tensor([-13.6, -1029.5, -2042.0], dtype=torch.float64)).to(dtype)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "model.hesse"
    save_model(target, hipnn(), {"data_hash": "abc", "metrics": {"loss": 0.5}})
    return target


def parts_of(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    with safe_open(path, "pt") as handle:
        return dict(handle.metadata()), {n: handle.get_tensor(n) for n in handle.keys()}  # noqa: SIM118


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_comes_back_as_it_was(tmp_path: Path, dtype: torch.dtype) -> None:
    model = hipnn(dtype)
    save_model(tmp_path / "a.hesse", model, {"data_hash": "abc", "level": "GFN2-xTB"})
    back = load_model(tmp_path / "a.hesse")
    assert isinstance(back, Hipnn)
    assert back.config == model.config
    assert back.elements == (1, 6, 8)
    assert not back.training
    before, after = model.state_dict(), back.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert value.dtype == after[name].dtype
        assert torch.equal(value, after[name]), name
    batch = collate(molecules([5, 3]), 4.0, dtype=dtype)
    request = Request(forces=True, hessian=True)
    one, two = evaluate(model, batch, request), evaluate(back, batch, request)
    for name in ("energy", "forces", "hessian"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name
    header = read_model_header(tmp_path / "a.hesse")
    assert header["version"] == 2
    assert header["provenance"]["level"] == "GFN2-xTB"
    assert header["provenance"]["code_version"]


def test_the_type_can_be_asked_for(path: Path) -> None:
    narrow = load_model(path, dtype=torch.float32)
    assert {p.dtype for p in narrow.parameters()} == {torch.float32}
    assert narrow.state_dict()["references.energies"].dtype == torch.float64


def test_loading_leaves_the_random_state_alone(path: Path) -> None:
    torch.manual_seed(4)
    wanted = torch.rand(3)
    torch.manual_seed(4)
    load_model(path)
    assert torch.equal(torch.rand(3), wanted)


def test_writing_what_was_read_changes_nothing(path: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "b.hesse", load_model(path), read_model_header(path)["provenance"])
    (meta, tensors), (again, same) = parts_of(path), parts_of(tmp_path / "b.hesse")
    assert again == meta
    assert all(torch.equal(same[n], tensors[n]) for n in tensors)


def test_only_own_models_have_files(tmp_path: Path) -> None:
    with pytest.raises(UnknownOptionError, match="got a Morse"):
        save_model(tmp_path / "x.hesse", Morse())
    assert not list(tmp_path.iterdir())


# --- damage ----------------------------------------------------------------------------------------------------------


def test_every_truncation_is_found(path: Path, tmp_path: Path) -> None:
    whole, cut = path.read_bytes(), tmp_path / "cut.hesse"
    lengths = {*range(40), *np.linspace(40, len(whole) - 1, 60).astype(int).tolist(), len(whole) - 1}
    for length in sorted(lengths):
        cut.write_bytes(whole[:length])
        with pytest.raises(FileFormatError, match=r"cut\.hesse"):
            load_model(cut)
    cut.write_bytes(whole + b"\0")
    with pytest.raises(FileFormatError):
        load_model(cut)


def test_every_flipped_byte_is_found(path: Path, tmp_path: Path) -> None:
    """Anywhere: a changed weight or cutoff would otherwise be a model that nobody trained."""
    whole, bad = path.read_bytes(), tmp_path / "bad.hesse"
    rng = np.random.default_rng(0)
    places = {*range(16), *rng.integers(0, len(whole), size=400).tolist()}
    for place in sorted(places):
        changed = bytearray(whole)
        changed[place] ^= int(rng.integers(1, 256))
        bad.write_bytes(changed)
        try:
            load_model(bad)
        except FileFormatError:
            continue
        # What is left: spaces and the like, of which nothing is read, or the name of the digest.
        same_meta, same = parts_of(bad)
        meta, tensors = parts_of(path)
        for name in ("format", "version", "config", "provenance"):
            assert same_meta[name] == meta[name], place
        assert all(torch.equal(same[n], tensors[n]) for n in tensors), place


def rewritten(path: Path, *, meta: dict[str, Any] | None = None, tensors: dict[str, Any] | None = None) -> None:
    old_meta, old_tensors = parts_of(path)
    new = {k: v for k, v in {**old_meta, **(meta or {})}.items() if v is not None}
    kept = {k: v for k, v in {**old_tensors, **(tensors or {})}.items() if v is not None}
    new["digest"] = tensor_digest(new, kept)  # a file that lies consistently, not one that was damaged
    path.write_bytes(save(kept, metadata=new))


def with_config(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads(parts_of(path)[0]["config"])
    change(config)
    rewritten(path, meta={"config": json.dumps(config)})


CONFIG_DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "more features": lambda c: c["model"].update(features=5),
    "fewer blocks": lambda c: c["model"].update(blocks=1),
    "another order": lambda c: c["model"].update(l_max=2),
    "absurd blocks": lambda c: c["model"].update(blocks=10**9),
    "absurd layers": lambda c: c["model"].update(onsite_layers=10**9),
    "absurd features": lambda c: c["model"].update(features=10**12),
    "no number": lambda c: c["model"].update(features="many"),
    "unknown option": lambda c: c["model"].update(speed=3),
    "unknown kind": lambda c: c["model"].update(kind="hippn"),
    "missing element": lambda c: c.update(elements=[1, 6]),
    "same element twice": lambda c: c.update(elements=[1, 1, 8]),
    "no elements": lambda c: c.update(elements=[]),
    "infinite element": lambda c: c.update(elements=[1, float("inf"), 8]),
    "elements not a list": lambda c: c.update(elements=3),
    "model not a mapping": lambda c: c.update(model="hipnn"),
    "no model": lambda c: c.pop("model"),
}


@pytest.mark.parametrize("name", CONFIG_DAMAGE)
def test_a_configuration_that_does_not_fit_is_refused(path: Path, name: str) -> None:
    with_config(path, CONFIG_DAMAGE[name])
    with pytest.raises(FileFormatError, match=r"model\.hesse"):
        load_model(path)


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"version": "3"}, "newer than this Hesse reads"),
        ({"version": "one"}, "damaged"),
        ({"version": None}, "damaged"),
        ({"config": "{"}, "damaged"),
        ({"config": None}, "damaged"),
        ({"config": "[" * 100_000}, "damaged"),
        ({"config": "[]"}, "damaged"),
        ({"provenance": "nonsense"}, "damaged"),
        ({"format": "something-else"}, "not a Hesse model"),
        ({"format": None}, "not a Hesse model"),
    ],
    ids=lambda x: str(x)[:40],
)
def test_headers_that_cannot_be_are_refused(path: Path, meta: dict[str, Any], message: str) -> None:
    rewritten(path, meta=meta)
    with pytest.raises(FileFormatError, match=message):
        load_model(path)


@pytest.mark.parametrize(
    "tensors",
    [
        {"references.energies": None},
        {"readouts.0.weight": torch.zeros(1, 7)},
        {"extra": torch.zeros(1)},
        {"readouts.0.bias": torch.tensor([torch.nan])},
        {"references.energies": torch.tensor([1.0, torch.inf, 1.0], dtype=torch.float64)},
        {"readouts.0.weight": torch.zeros(1, 4, dtype=torch.int64)},
        {"readouts.0.weight": torch.zeros(1, 4, dtype=torch.float32)},
        {"references.energies": torch.zeros(3, dtype=torch.float32)},
    ],
    ids=lambda t: str(t)[:50],
)
def test_tensors_that_do_not_fit_are_refused(path: Path, tensors: dict[str, Any]) -> None:
    rewritten(path, tensors=tensors)
    with pytest.raises(FileFormatError, match=r"model\.hesse"):
        load_model(path)


def test_a_file_edited_by_hand_is_found(path: Path) -> None:
    meta, tensors = parts_of(path)
    path.write_bytes(save(tensors, metadata={**meta, "config": meta["config"].replace("4.0", "4.5")}))
    with pytest.raises(FileFormatError, match="do not match their digest"):
        load_model(path)


class Armed:
    """Unpickling this makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_files_of_other_kinds_are_refused_and_run_no_code(tmp_path: Path) -> None:
    mark, target = tmp_path / "executed", tmp_path / "evil.hesse"
    contents = {
        "pickle": pickle.dumps(Armed(mark)),
        "empty": b"",
        "text": b"energy = 1\n",
        "zip": b"PK\x03\x04" + bytes(100),
        "huge header": (2**62).to_bytes(8, "little") + b"{}",
    }
    for content in contents.values():
        target.write_bytes(content)
        for read in (load_model, read_model_header):
            with pytest.raises(FileFormatError, match=r"evil\.hesse"):
                read(target)
    torch.save({"model": Armed(mark)}, target)
    with pytest.raises(FileFormatError):
        load_model(target)
    save_file({"x": torch.zeros(2)}, target)
    with pytest.raises(FileFormatError, match="not a Hesse model"):
        load_model(target)
    assert not mark.exists()
    for missing in (tmp_path / "nothing.hesse", tmp_path):
        with pytest.raises(FileFormatError, match=r"no such model file|this is a folder, expected a model file"):
            load_model(missing)


def test_a_disk_that_fills_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(self: Path, data: bytes) -> int:
        with open(self, "wb") as handle:
            handle.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WriteError, match=r"model\.hesse: No space left on device.*unharmed"):
        save_model(path, hipnn(), {"data_hash": "other"})
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["model.hesse"]
    assert load_model(path)


def test_a_model_is_replaced_in_one_step(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between writing and renaming, the old file stands."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    before = path.read_bytes()
    monkeypatch.setattr(files.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_model(path, hipnn(), {"data_hash": "other"})
    assert path.read_bytes() == before
