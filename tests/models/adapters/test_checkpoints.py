"""Checkpoints of other frameworks are read without running code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hesse.errors import ChargeStateWarning, FileFormatError, RequestError
from hesse.models.adapters import CallablePotential
from hesse.models.adapters.checkpoints import read_checkpoint
from hesse.potential import warn_of_charge_states
from hesse.structures import Structure

RAN: list[str] = []


class Hostile:
    """An object that runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return RAN.append, ("it ran",)


class Other:
    """An object that is not plain data."""


def test_plain_data_tensors_and_arrays_are_read(tmp_path: Path) -> None:
    content = {
        "a": torch.ones(2),
        "b": np.arange(3.0),
        "c": np.float64(2.5),
        "d": {"e": [1, "x", None]},
        "f": np.eye(2),
    }
    torch.save(content, tmp_path / "a.pth")
    read = read_checkpoint(tmp_path / "a.pth", "any")
    assert torch.equal(read["a"], content["a"])
    np.testing.assert_array_equal(read["b"], content["b"])
    np.testing.assert_array_equal(read["f"], content["f"])
    assert (read["c"], read["d"]) == (2.5, content["d"])


def test_code_in_a_file_does_not_run(tmp_path: Path) -> None:
    RAN.clear()
    torch.save({"a": Hostile()}, tmp_path / "a.pth")
    with pytest.raises(RequestError, match=r"holds objects of other kinds .*\?trust=pickle"):
        read_checkpoint(tmp_path / "a.pth", "any")
    assert RAN == []
    torch.save({"a": Other()}, tmp_path / "b.pth")
    with pytest.raises(RequestError, match=r"\(.*test_checkpoints\.Other\)"):
        read_checkpoint(tmp_path / "b.pth", "any")
    assert isinstance(read_checkpoint(tmp_path / "b.pth", "any", trust_pickle=True)["a"], Other)


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    for content in (b"", b"some text", pickle.dumps({"a": 1})):
        file.write_bytes(content)
        with pytest.raises(FileFormatError, match="not a checkpoint of any, which"):
            read_checkpoint(file, "any", trust_pickle=True)
    torch.save([1, 2], file)
    with pytest.raises(FileFormatError, match="a list, expected a dict"):
        read_checkpoint(file, "any")
    torch.save({"a": torch.ones(1000)}, file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError, match=r"x\.pth: not a"):
        read_checkpoint(file, "any")


def test_charges_that_a_model_was_not_trained_on_are_told_once() -> None:
    potential = CallablePotential(lambda positions, numbers, cell, pbc: positions.square().sum())
    ion = Structure([8, 1], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]], id="ion", charge=-1)
    warn_of_charge_states(potential, [ion])  # nothing is known
    potential.training_charges = (0,)
    with pytest.warns(ChargeStateWarning, match='"ion" has charge -1.*charge 0 only'):
        warn_of_charge_states(potential, [ion])
    radical = Structure([8, 1], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]], multiplicity=2)
    warn_of_charge_states(potential, [ion, radical])
