"""A streamed data set gives the same results as one in memory."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from test_packed import require_identical

from hesse.datasets import (
    Dataset,
    PackedDataset,
    Split,
    StreamingDataset,
    negate_curvature,
    open_dataset,
    read_dataset,
    write_dataset,
)
from hesse.datasets.formats.hdf5.chunked import ChunkedReader
from hesse.errors import FileFormatError, InconsistentLabelsError, MissingLabelError, RequestError, UnitError
from hesse.structures import Properties, Structure
from oracles import Morse, crystal, labeled, molecules

LIMIT = 0.14
"""MiB; less than the memory of all structures of the file."""


def mixed(count: int = 24) -> Dataset:
    """Molecules in groups of two, some with curvature, crystals among them."""
    sizes = [2 + k % 5 for k in range(count)]
    curved = labeled(Morse(), molecules(sizes, seed=1), probes=2, hessian=True)
    plain = labeled(Morse(), molecules(sizes, seed=2), probes=0)
    solid = labeled(Morse(), [replace(crystal(k), id=f"crystal-{k}") for k in range(1, 4)], probes=1)
    parts = (plain, solid, curved)
    structures = tuple(
        replace(s, group=f"group-{k // 2}" if k % 7 else "")
        for k, s in enumerate(s for p in parts for s in p.structures)
    )
    return Dataset(structures, Properties.concatenate([p.labels for p in parts]), metadata={"level": "closed form"})


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("streamed") / "mixed.h5"
    write_dataset(path, mixed())
    return path


def opened(path: Path, limit: float = LIMIT, *, check: bool = True) -> StreamingDataset:
    data = open_dataset(path, memory_mib=limit, check=check)
    assert isinstance(data, StreamingDataset)
    return data


def test_content_equals_that_in_memory(path: Path) -> None:
    streamed, plain = opened(path), read_dataset(path)
    assert len(streamed) == len(plain)
    assert streamed.elements == plain.elements
    assert streamed.ids == plain.ids
    assert streamed.metadata == plain.metadata
    assert streamed.content_hash() == plain.content_hash()
    assert streamed.fingerprint() != plain.fingerprint()  # another order of the batches
    for name in ("rng_keys", "numbers", "n_atoms"):
        assert torch.equal(getattr(streamed, name).long(), getattr(plain, name))
    for name in ("energy", "forces", "hvp", "hessian", "stress"):
        assert torch.equal(streamed.mask(name), plain.mask(name)), name
        assert streamed.has(name) == plain.has(name)
    require_identical(streamed.energies(), plain.energies())
    with pytest.raises(MissingLabelError, match=r"'stress'.*found: energy, forces, hvp, hessian"):
        streamed.check_has_labels("energy", "stress")


def test_parts_equal_those_of_the_data_in_memory(path: Path) -> None:
    streamed, plain = opened(path), read_dataset(path)
    for actual, expected in zip(streamed.split(0.8, 0.2, seed=3), plain.split(0.8, 0.2, seed=3), strict=True):
        assert actual.ids == expected.ids
        assert actual.content_hash() == expected.content_hash()
    few = streamed.select([9, 4])
    assert isinstance(few, Dataset)  # fits
    assert few.ids == plain.select([4, 9]).ids
    for indices, part in streamed.iter_in_memory():
        assert part.content_hash() == plain.select(indices).content_hash()
    split = Split.from_dataset(streamed, train=streamed.select(range(30)), validation=streamed.select(range(30, 51)))
    assert split.apply(plain)["validation"].ids == split.apply(streamed)["validation"].ids
    with pytest.raises(RequestError, match='no structure "nobody"'):
        streamed.with_ids(["nobody"])


@pytest.mark.parametrize("labels", [("energy",), ("energy", "forces", "hvp"), ("forces", "hessian")])
def test_packed_blocks_equal_the_data_in_memory(path: Path, labels: tuple[str, ...]) -> None:
    plain = read_dataset(path)
    part = opened(path).split(0.85, 0.15)[0]
    assert isinstance(part, StreamingDataset)
    blocks = part.block_indices(4000, labels)
    assert len(blocks) > 2
    assert np.concatenate(blocks).tolist() == list(range(len(part)))
    actual = PackedDataset.concatenate([part.packed(b, 4.0, labels, dtype=torch.float32) for b in blocks])
    chosen = plain.with_ids(part.ids)
    reference = PackedDataset(chosen.packed(4.0).structures, chosen.labels.pick(labels), chosen.packed(4.0).pairs, 4.0)
    indices = [0, 30, 7, len(part) - 1]
    for one, other in zip(actual.batch(indices), reference.to("cpu", torch.float32).batch(indices), strict=True):
        require_identical(one, other)


def test_suspects_are_left_out(tmp_path: Path) -> None:
    data = mixed()
    suspect = torch.zeros(len(data), dtype=torch.bool)
    suspect[[2, 40]] = True
    write_dataset(tmp_path / "a.h5", replace(data, labels=data.labels.replace(suspect=suspect)))
    unflagged = opened(tmp_path / "a.h5").without_suspects()
    assert unflagged.content_hash() == read_dataset(tmp_path / "a.h5").without_suspects().content_hash()


def test_data_that_fit_are_read_into_memory(path: Path) -> None:
    assert isinstance(open_dataset(path, memory_mib=100), Dataset)
    assert isinstance(open_dataset(path), Dataset)


def test_a_limit_that_is_too_small(path: Path) -> None:
    with pytest.raises(RequestError, match=r"memory limit of 0\.01 MiB is too small.*Raise the limit to \d+ MiB"):
        open_dataset(path, memory_mib=0.01)


def test_files_that_cannot_be_streamed(tmp_path: Path, path: Path) -> None:
    write_dataset(tmp_path / "a.xyz", mixed())
    with pytest.raises(FileFormatError, match=r"only Hesse's own HDF5.*hesse convert a\.xyz a\.h5"):
        open_dataset(tmp_path / "a.xyz", memory_mib=LIMIT)
    with pytest.raises(FileFormatError, match="no such file"):
        open_dataset(tmp_path / "none.h5", memory_mib=LIMIT)
    other = tmp_path / "hartree.h5"
    other.write_bytes(path.read_bytes())
    with h5py.File(other, "a") as file:
        file.attrs["energy_unit"] = "hartree"
        del file.attrs["checksum"]
    with pytest.raises(UnitError, match=r"is in hartree.*hesse convert"):
        open_dataset(other, memory_mib=LIMIT)


def test_damage_is_found_before_training(tmp_path: Path, path: Path) -> None:
    content = bytearray(path.read_bytes())
    broken = tmp_path / "broken.h5"
    with h5py.File(path) as file:
        offset = file["labels/forces"].id.get_chunk_info(0).byte_offset
    content[offset + 40] ^= 1
    broken.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"broken\.h5: cannot be read as HDF5"):
        open_dataset(broken, memory_mib=LIMIT)
    changed = tmp_path / "changed.h5"
    changed.write_bytes(path.read_bytes())
    with h5py.File(changed, "a") as file:
        file["labels/energy"][3] += 0.1
    with pytest.raises(FileFormatError, match="does not match its checksum"):
        open_dataset(changed, memory_mib=LIMIT)


def test_inconsistent_labels_are_found(tmp_path: Path) -> None:
    write_dataset(tmp_path / "wrong.h5", negate_curvature(mixed()))
    with pytest.raises(InconsistentLabelsError, match=r"wrong\.h5"):
        open_dataset(tmp_path / "wrong.h5", memory_mib=LIMIT)
    opened(tmp_path / "wrong.h5", check=False)


def test_a_file_that_changes_while_it_is_used(tmp_path: Path, path: Path) -> None:
    copy = tmp_path / "copy.h5"
    copy.write_bytes(path.read_bytes())
    data = opened(copy)
    os.utime(copy, ns=(1, 1))
    with pytest.raises(FileFormatError, match="changed or removed while it was in use"):
        data.packed(data.block_indices(8000)[0], 4.0, ("energy",))
    copy.unlink()
    with pytest.raises(FileFormatError, match="changed or removed"):
        next(data.iter_in_memory())


def test_duplicate_ids(tmp_path: Path, path: Path) -> None:
    twice = tmp_path / "twice.h5"
    twice.write_bytes(path.read_bytes())
    with h5py.File(twice, "a") as file:
        file["structures/id"][1] = file["structures/id"][0]
        del file.attrs["checksum"]
    with pytest.raises(RequestError, match="occurs twice"):
        open_dataset(twice, memory_mib=LIMIT)


def test_a_block_equals_a_file_of_its_structures(path: Path, tmp_path: Path) -> None:
    """Reading structures 26 to 32 gives the content of a file with these structures only."""
    alone = tmp_path / "alone.h5"
    write_dataset(alone, read_dataset(path).select(range(26, 33)))
    block, content_alone = ChunkedReader(path).read(26, 33), ChunkedReader(alone).read(0, 7)
    for name in content_alone:
        assert np.array_equal(block[name], content_alone[name], equal_nan=block[name].dtype.kind == "f"), name


def test_structures_are_checked(tmp_path: Path, path: Path) -> None:
    close = tmp_path / "close.h5"
    data = mixed()
    squeezed = replace(data.structures[5], positions=data.structures[5].positions * 0.0)
    assert isinstance(squeezed, Structure)
    structures = (*data.structures[:5], squeezed, *data.structures[6:])
    write_dataset(close, replace(data, structures=structures))
    with pytest.raises(RequestError, match="apart"):
        open_dataset(close, memory_mib=LIMIT)
