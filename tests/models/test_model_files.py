"""Model files: reading returns what was written, and rejects everything else."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save, save_file

from hesse.curvature import evaluate
from hesse.errors import ConfigError, FileFormatError, RequestError, UnknownOptionError, WriteError
from hesse.models import (
    AniConfig,
    Ensemble,
    HesseNetConfig,
    Hipnn,
    HipnnConfig,
    ReferenceEnergies,
    SumPotential,
    Zbl,
    ZblConfig,
    build_model,
    from_description,
    load_model,
    load_weights,
    read_model_header,
    read_training_environments,
    save_model,
    save_weights,
    to_description,
)
from hesse.models.bead_prior import BeadPrior, BeadPriorConfig, PairRepulsion
from hesse.models.model_files import FORMAT_VERSION, MIGRATIONS
from hesse.models.registry import COMPOSITES, NETWORKS, PARAMETER_FREE
from hesse.potential import Potential
from hesse.runtime import filesystem
from hesse.runtime.tensor_files import tensor_digest
from hesse.structures import Request, Structure, TrainingEnvironments, bead_number, collate
from oracles import Morse, molecules

CONFIG = HipnnConfig(features=4, sensitivities=3, blocks=2, onsite_layers=1, cutoff=4.0, longest=3.5)


def hipnn(dtype: torch.dtype = torch.float64) -> Hipnn:
    torch.manual_seed(0)
    return Hipnn(CONFIG, (1, 6, 8), torch.tensor([-13.6, -1029.5, -2042.0], dtype=torch.float64)).to(dtype)


BEADS = (bead_number("A"), bead_number("B"))
SMALL: dict[str, Callable[[], Potential]] = {
    "hipnn": lambda: hipnn(),
    "ani": lambda: build_model(AniConfig(hidden=(4, 3)), (1, 6, 8)).double(),
    "hessenet": lambda: build_model(HesseNetConfig(features=4, channels=2, radial=3), (1, 6, 8)).double(),
    "zbl": lambda: Zbl(ZblConfig(reach=1.5), (1, 6)),
    "references": lambda: ReferenceEnergies((1, 6), torch.tensor([-13.6, -1029.5], dtype=torch.float64)),
    "bead-prior": lambda: BeadPrior(
        BeadPriorConfig(pairs=(PairRepulsion(types=("A", "B"), taper=3.0, strength=0.1),)), BEADS
    ),
    "sum": lambda: SumPotential([Zbl(), ReferenceEnergies((1, 6, 8)), hipnn(torch.float32)]),
    "ensemble": lambda: Ensemble([SumPotential([Zbl(), hipnn()]), hipnn(), hipnn()]),
}
"""One model of every kind that can be stored."""
every_kind = pytest.mark.parametrize("kind", SMALL)


def test_the_list_has_every_kind_of_model() -> None:
    assert {*NETWORKS, *COMPOSITES, *PARAMETER_FREE} == set(SMALL)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "model.hesse"
    save_model(target, hipnn(), {"data_hash": "abc", "metrics": {"loss": 0.5}})
    return target


def parts_of(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    with safe_open(path, "pt") as handle:
        return dict(handle.metadata()), {n: handle.get_tensor(n) for n in handle.keys()}  # noqa: SIM118


def test_the_summary_of_the_training_data_is_kept(tmp_path: Path) -> None:
    model, data = hipnn(torch.float32), molecules([5, 3, 6, 4, 7])
    assert read_training_environments(Path(__file__).parent / "frozen" / "format-2.hesse") is None
    model.training_environments = TrainingEnvironments.from_structures(data)
    save_model(tmp_path / "a.hesse", model)
    loaded = load_model(tmp_path / "a.hesse", dtype=torch.float64)
    save_model(tmp_path / "b.hesse", Ensemble([loaded, hipnn(torch.float64)]))
    for found in (loaded.training_environments, read_training_environments(tmp_path / "b.hesse")):
        assert found is not None
        assert [found.compare(s) for s in data] == [model.training_environments.compare(s) for s in data]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip(tmp_path: Path, dtype: torch.dtype) -> None:
    model = hipnn(dtype)
    save_model(tmp_path / "a.hesse", model, {"data_hash": "abc", "level": "GFN2-xTB"})
    loaded = load_model(tmp_path / "a.hesse")
    assert isinstance(loaded, Hipnn)
    assert loaded.config == model.config
    assert loaded.elements == (1, 6, 8)
    assert not loaded.training
    before, after = model.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert value.dtype == after[name].dtype
        assert torch.equal(value, after[name]), name
    batch = collate(molecules([5, 3]), 4.0, dtype=dtype)
    request = Request(forces=True, hessian=True)
    one, two = evaluate(model, batch, request), evaluate(loaded, batch, request)
    for name in ("energy", "forces", "hessian"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name
    header = read_model_header(tmp_path / "a.hesse")
    assert header["version"] == 2
    assert header["provenance"]["level"] == "GFN2-xTB"
    assert header["provenance"]["code_version"]


@every_kind
def test_round_trip_of_every_kind(tmp_path: Path, kind: str) -> None:
    model = SMALL[kind]()
    save_model(tmp_path / "a.hesse", model)
    loaded = load_model(tmp_path / "a.hesse")
    assert to_description(loaded) == to_description(model)
    assert loaded.elements == model.elements
    assert loaded.cutoff == model.cutoff
    before, after = model.state_dict(), loaded.state_dict()
    assert {n: v.dtype for n, v in before.items()} == {n: v.dtype for n, v in after.items()}
    assert all(torch.equal(before[name], after[name]) for name in before)
    structures = molecules([5, 3], elements=(1, 6))
    if kind == "bead-prior":
        types = [np.where(s.numbers == 1, *BEADS) for s in structures]
        structures = [replace(s, numbers=t, masses=np.ones(len(t))) for s, t in zip(structures, types, strict=True)]
    batch = collate(structures, 8.0)
    request = Request(forces=True, hessian=True)
    one, two = evaluate(model, batch, request), evaluate(loaded, batch, request)
    for name in ("energy", "forces", "hessian"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name
    # A description alone gives tensors of the same shapes, and a second file is identical.
    assert {n: v.shape for n, v in from_description(to_description(model)).state_dict().items()} == {
        n: v.shape for n, v in before.items()
    }
    save_model(tmp_path / "b.hesse", loaded)
    assert parts_of(tmp_path / "a.hesse")[0] == parts_of(tmp_path / "b.hesse")[0]


@every_kind
def test_damage_to_any_kind_is_found(tmp_path: Path, kind: str) -> None:
    """Truncated anywhere, or any bit flipped: a clear error or an unharmed model, in bounded memory."""
    path = tmp_path / "a.hesse"
    save_model(path, SMALL[kind]())
    content, bad = path.read_bytes(), tmp_path / "bad.hesse"
    rng = np.random.default_rng(1)
    for _ in range(60):
        changed = bytearray(content)
        offset = int(rng.integers(0, len(content)))
        if rng.random() < 0.5:
            changed = changed[:offset]
        else:
            changed[offset] ^= 1 << int(rng.integers(0, 8))
        bad.write_bytes(changed)
        try:
            result = load_model(bad).state_dict()
        except FileFormatError:
            continue
        good = load_model(path).state_dict()
        assert all(torch.equal(value, good[name]) for name, value in result.items())


def test_tensors_of_several_dtypes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="several types"):
        save_model(tmp_path / "a.hesse", SumPotential([hipnn(torch.float32), hipnn(torch.float64)]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("version", sorted(MIGRATIONS), ids=lambda v: f"format {v}")
def test_files_of_every_earlier_format_are_read(version: int) -> None:
    """The files were written by the release of their format; its predictions are stored beside them."""
    check_frozen(f"format-{version}")


def test_the_current_format_is_frozen_too() -> None:
    """For the time when it is an earlier format."""
    assert read_model_header(FROZEN / f"format-{FORMAT_VERSION}.hesse")["version"] == FORMAT_VERSION
    check_frozen(f"format-{FORMAT_VERSION}")


FROZEN = Path(__file__).parent / "frozen"


def check_frozen(stem: str) -> None:
    expected = json.loads((FROZEN / f"{stem}.json").read_text())
    model = load_model(FROZEN / f"{stem}.hesse")
    structure = Structure(expected["numbers"], expected["positions"], id="frozen")
    probe = torch.tensor([expected["probe"]], dtype=torch.float64)
    result = evaluate(model, collate([structure], model.cutoff), Request(forces=True, probes=probe))
    assert result.energy is not None
    assert result.forces is not None
    assert result.hvp is not None
    assert result.energy.item() == pytest.approx(expected["energy"], rel=1e-12)
    np.testing.assert_allclose(result.forces, expected["forces"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(result.hvp[0], expected["hvp"], rtol=0, atol=1e-10)


def test_the_dtype_can_be_chosen(path: Path) -> None:
    narrow = load_model(path, dtype=torch.float32)
    assert {p.dtype for p in narrow.parameters()} == {torch.float32}
    assert narrow.state_dict()["references.energies"].dtype == torch.float64


def test_loading_does_not_change_the_random_state(path: Path) -> None:
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    load_model(path)
    assert torch.equal(torch.rand(3), expected)


def test_writing_what_was_read_changes_nothing(path: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "b.hesse", load_model(path), read_model_header(path)["provenance"])
    (meta, tensors), (rewritten_meta, same) = parts_of(path), parts_of(tmp_path / "b.hesse")
    assert rewritten_meta == meta
    assert all(torch.equal(same[n], tensors[n]) for n in tensors)


def test_the_old_name_of_hessenet_is_read() -> None:
    """At any depth of a description; a model never writes it."""
    description = to_description(SumPotential([Zbl(), SMALL["hessenet"]()]))
    old = json.loads(json.dumps(description).replace('"hessenet"', '"equivariant"'))
    assert old != description
    assert to_description(from_description(old)) == description


def test_wrong_arguments_get_a_reply(path: Path) -> None:
    with pytest.raises(RequestError, match="the path first"):
        save_model(hipnn(), path)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"hesse.Potential to save, got a Linear"):
        save_model(path, torch.nn.Linear(2, 2))  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"its potential is in \.potential"):
        save_model(path, SimpleNamespace(potential=hipnn()))  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="expected the path"):
        load_model(hipnn())  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"hesse\.make_potential reads such names"):
        load_model("mace:model.pt")
    with pytest.raises(ConfigError, match="atomic numbers"):
        Hipnn(CONFIG, ("H", "C"))  # type: ignore[arg-type]


def test_only_own_models_have_files(tmp_path: Path) -> None:
    with pytest.raises(UnknownOptionError, match="got a Morse"):
        save_model(tmp_path / "x.hesse", Morse())
    assert not list(tmp_path.iterdir())


# --- damage ----------------------------------------------------------------------------------------------------------


def test_every_truncation_is_found(path: Path, tmp_path: Path) -> None:
    content, cut = path.read_bytes(), tmp_path / "cut.hesse"
    lengths = {*range(40), *np.linspace(40, len(content) - 1, 60).astype(int).tolist(), len(content) - 1}
    for length in sorted(lengths):
        cut.write_bytes(content[:length])
        with pytest.raises(FileFormatError, match=r"cut\.hesse"):
            load_model(cut)
    cut.write_bytes(content + b"\0")
    with pytest.raises(FileFormatError):
        load_model(cut)


def test_every_flipped_byte_is_found(path: Path, tmp_path: Path) -> None:
    """Anywhere: a changed weight or cutoff must not be accepted."""
    content, bad = path.read_bytes(), tmp_path / "bad.hesse"
    rng = np.random.default_rng(0)
    offsets = {*range(16), *rng.integers(0, len(content), size=400).tolist()}
    for offset in sorted(offsets):
        changed = bytearray(content)
        changed[offset] ^= int(rng.integers(1, 256))
        bad.write_bytes(changed)
        try:
            load_model(bad)
        except FileFormatError:
            continue
        # What is left: spaces and the like, of which nothing is read, or the name of the digest.
        same_meta, same = parts_of(bad)
        meta, tensors = parts_of(path)
        for name in ("format", "version", "config", "provenance"):
            assert same_meta[name] == meta[name], offset
        assert all(torch.equal(same[n], tensors[n]) for n in tensors), offset


def rewritten(path: Path, *, meta: dict[str, Any] | None = None, tensors: dict[str, Any] | None = None) -> None:
    old_meta, old_tensors = parts_of(path)
    new = {k: v for k, v in {**old_meta, **(meta or {})}.items() if v is not None}
    new_tensors = {k: v for k, v in {**old_tensors, **(tensors or {})}.items() if v is not None}
    new["digest"] = tensor_digest(new, new_tensors)  # consistent but wrong, not damaged
    path.write_bytes(save(new_tensors, metadata=new))


def with_config(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads(parts_of(path)[0]["config"])
    change(config)
    rewritten(path, meta={"config": json.dumps(config)})


def nested(config: dict[str, Any], depth: int) -> dict[str, Any]:
    """The model inside nested sums."""
    text = json.dumps(config["model"])
    opening = '{"kind": "sum", "parts": [{"elements": [1, 6, 8], "model": '
    return {"model": json.loads(opening * 8 + text + "}]}" * 8) if depth > 900 else {}}


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
    "a sum without parts": lambda c: c.update(model={"kind": "sum"}),
    "a sum of nothing": lambda c: c.update(model={"kind": "sum", "parts": []}),
    "a sum of rubbish": lambda c: c.update(model={"kind": "sum", "parts": [3]}),
    "a sum in itself": lambda c: c.update(nested(c, 2000)),
    "too many parts": lambda c: c.update(model={"kind": "sum", "parts": [dict(c)] * 100}),
    "absurd elements": lambda c: c.update(elements=list(range(1, 10**5))),
    "half an element": lambda c: c.update(elements=[1.5, 6, 8]),
    "only a repulsion": lambda c: c.update(model={"kind": "zbl"}),
    "true as an element": lambda c: c.update(elements=[True, 6, 8]),
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
        ({"environments": "{"}, "damaged"),
        ({"environments": "[" * 100_000}, "damaged"),
        ({"environments": "[]"}, "damaged"),
        ({"environments": "{}"}, "damaged"),
        ({"format": "something-else"}, "not a Hesse model"),
        ({"format": None}, "not a Hesse model"),
    ],
    ids=lambda x: str(x)[:40],
)
def test_invalid_headers_are_refused(path: Path, meta: dict[str, Any], message: str) -> None:
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
    """Unpickling this creates a folder."""

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
        with pytest.raises(FileFormatError, match=r"no such model file|a folder without a model"):
            load_model(missing)


def test_a_disk_that_fills_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(self: Path, data: bytes) -> int:
        with open(self, "wb") as handle:
            handle.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WriteError, match=r"model\.hesse: No space left on device.*existing file is unchanged"):
        save_model(path, hipnn(), {"data_hash": "other"})
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["model.hesse"]
    assert load_model(path)


def test_a_model_is_replaced_in_one_step(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the process is killed between writing and renaming, the old file is unchanged."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    before = path.read_bytes()
    monkeypatch.setattr(filesystem.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_model(path, hipnn(), {"data_hash": "other"})
    assert path.read_bytes() == before


HOSTILE = """
import json, resource, sys, torch
from safetensors.torch import save
from hesse.errors import FileFormatError
from hesse.models import load_model
from hesse.runtime.tensor_files import tensor_digest

def attack(name, model, elements=(1, 6, 8), tensors=None):
    tensors = {"x": torch.zeros(3)} if tensors is None else tensors
    meta = {"format": "hesse-model", "version": "2", "provenance": "{}",
            "config": json.dumps({"model": model, "elements": list(elements)})}
    meta["digest"] = tensor_digest(meta, tensors)
    with open("hostile.hesse", "wb") as handle:
        handle.write(save(tensors, metadata=meta))
    refused(name)

def refused(name):
    try:
        load_model("hostile.hesse")
    except FileFormatError as error:
        assert "hostile.hesse" in str(error)
    else:
        sys.exit(name + ": loaded")

load = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
big = 10**6
attack("wide", {"kind": "hipnn", "features": big, "sensitivities": big})
attack("deep", {"kind": "hipnn", "blocks": 64, "onsite_layers": 64, "features": big})
attack("ani", {"kind": "ani", "hidden": [big, big, big]}, range(1, 119))
attack("deep ani", {"kind": "ani", "hidden": [1] * 100_000})
attack("deep ani", {"kind": "ani", "hidden_of": {"H": [1] * 100_000}})
attack("hessenet", {"kind": "hessenet", "features": big})
part = {"model": {"kind": "hipnn", "features": big}, "elements": [1, 6, 8]}
attack("many", {"kind": "ensemble", "parts": [part] * 100})
part = {"model": {"kind": "hipnn", "blocks": 64, "onsite_layers": 64}, "elements": [1, 6, 8]}
attack("many and deep", {"kind": "ensemble", "parts": [part] * 200})
attack("too many", {"kind": "ensemble", "parts": [part] * 300})
for shape, size in (([10**12], 4), ([2**31, 2**31], 4), ([-1], 4), ([1, 3], 12)):
    mark = {"format": "hesse-model"}
    header = {"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}, "__metadata__": mark}
    text = json.dumps(header).encode()
    with open("hostile.hesse", "wb") as handle:
        handle.write(len(text).to_bytes(8, "little") + text + bytes(size))
    refused(f"declared shape {shape}")
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - load) / 1024
print(f"{grown:.0f} MiB")
sys.exit(grown > 300)
"""


@pytest.mark.slow
def test_no_header_can_allocate_much_memory(tmp_path: Path) -> None:
    """Configurations and shapes of terabytes are refused while the process stays small."""
    done = subprocess.run([sys.executable, "-c", HOSTILE], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


# --- weights of any module -------------------------------------------------------------------------------------------


def test_round_trip_of_the_weights_of_any_module(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    save_weights(path, module, {"level": "GFN2-xTB"})
    other = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    provenance = load_weights(path, other)
    assert provenance["level"] == "GFN2-xTB"
    assert all(torch.equal(v, other.state_dict()[n]) for n, v in module.state_dict().items())
    with pytest.raises(FileFormatError, match=r"do not fit this Linear: the first that differs is 0\.bias"):
        load_weights(path, torch.nn.Linear(3, 2))
    with pytest.raises(FileFormatError, match=r"the first that differs is 0\.weight"):
        load_weights(path, torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.BatchNorm1d(2)))
    save_model(tmp_path / "m.hesse", hipnn())
    with pytest.raises(FileFormatError, match='its format is "hesse-model"'):
        load_weights(tmp_path / "m.hesse", module)
    with pytest.raises(FileFormatError, match="not a Hesse model"):
        load_model(path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(FileFormatError, match="not a readable weights file"):
        load_weights(path, module)


def test_weights_that_share_memory(tmp_path: Path) -> None:
    tied = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])
    tied[1].weight = tied[0].weight
    save_weights(tmp_path / "a.safetensors", tied)
    load_weights(tmp_path / "a.safetensors", tied)


@pytest.mark.parametrize(
    "config",
    [
        HesseNetConfig(features=10**9),
        HesseNetConfig(features=20_000),
        HipnnConfig(sensitivities=10**7),
        AniConfig(hidden=(10**6, 10**6)),
    ],
    ids=lambda config: config.kind,
)
def test_a_network_of_absurd_size_is_refused_before_it_is_built(config: Any) -> None:
    with pytest.raises(ConfigError, match=r"cannot be built|more than the 1e\+09 allowed"):
        build_model(config, (1, 8))
