"""Suspect labels: detected for the correct reason, flagged in every format, and left out everywhere else."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

import oracles
from hesse.datasets import (
    Dataset,
    check_dataset,
    dataset_summary,
    find_issues,
    flag_suspect,
    principal_rigid_body_modes,
    read_dataset,
    write_dataset,
)
from hesse.errors import InconsistentLabelsError, LabelValueError, MissingLabelError
from hesse.structures import Properties, Structure


def good(count: int = 6, **options: object) -> Dataset:
    chosen = [oracles.molecule(3 + k % 3, k, name=f"m{k}") for k in range(count)]
    return oracles.labeled(oracles.Morse(), chosen, probes=2, hessian=True, **options)  # type: ignore[arg-type]


def with_labels(data: Dataset, **changes: torch.Tensor) -> Dataset:
    return replace(data, labels=data.labels.replace(**changes))


def flagged(data: Dataset, *chosen: int) -> Dataset:
    return with_labels(data, suspect=torch.tensor([i in chosen for i in range(len(data))]))


def with_wrong_hessian(data: Dataset, index: int) -> Dataset:
    """The data with the Hessian of one structure multiplied by -2."""
    hessian, lengths = data.labels.hessian.clone(), data.labels.hessian_lengths()
    start = int(lengths[:index].sum())
    hessian[start : start + int(lengths[index])] *= -2.0
    return with_labels(data, hessian=hessian)


def internal_antisymmetry(data: Dataset, index: int) -> torch.Tensor:
    """An antisymmetric matrix orthogonal to all rigid-body motions: only the comparison with its transpose shows it."""
    atoms = data.labels.atom_slice(index)
    rigid = principal_rigid_body_modes(data.structures).motions[:, atoms].reshape(6, -1)
    inside = torch.eye(rigid.shape[1], dtype=torch.float64) - rigid.T @ rigid
    random = torch.randn(inside.shape, dtype=torch.float64)
    return inside @ (random - random.T) @ inside


def test_correct_labels_have_no_issues():
    data = good()
    assert find_issues(data.structures, data.labels) == {}
    atom = oracles.atom()
    assert find_issues([atom], Properties.single(1, energy=0.0, forces=np.zeros((1, 3)))) == {}


def test_issues_name_label_probe_and_reason():
    data = good(3)
    labels = data.labels
    push = torch.zeros_like(labels.forces)
    push[labels.atom_slice(1).start, 0] = 30.0
    shifted = labels.hvp.clone()
    shifted[1, labels.atom_slice(1)] += 10.0
    skew = labels.hessian.clone()
    block = internal_antisymmetry(data, 1)
    start = int(labels.hessian_lengths()[0])
    skew[start : start + block.numel()] += 20.0 * block.reshape(-1)
    error = torch.zeros(2, 3, dtype=torch.float64)
    error[1, 1] = 9.0
    cases = {
        ("forces", 0, "translational sum rule: "): labels.replace(forces=labels.forces + push),
        ("hvp", 1, "translational sum rule: "): labels.replace(hvp=shifted),
        ("hvp", 1, "estimated error: 9"): labels.replace(hvp_error=error),
        ("hessian", 0, "rotational sum rule: "): labels.replace(forces=-labels.forces, hvp=None, probes=None),
        ("hessian", 0, "not symmetric"): labels.replace(hessian=skew, forces=None, hvp=None, probes=None),
    }
    for (label, probe, words), changed in cases.items():
        issues = find_issues(data.structures, changed)
        assert 1 in issues, words
        assert any((d.label, d.probe) == (label, probe) and words in d.reason for d in issues[1]), (words, issues)


def test_flags_survive_selecting_and_joining():
    labels = flagged(good(4), 1, 3).labels
    assert labels.select(torch.tensor([3, 0, 1])).suspect_mask().tolist() == [True, False, True]
    joined = Properties.concatenate([good(2).labels, labels])
    assert joined.suspect_mask().tolist() == [False, False, False, True, False, True]
    assert Properties.concatenate([good(2).labels]).suspect is None
    assert labels.to(dtype=torch.float32).suspect_mask().tolist() == [False, True, False, True]
    assert "2 suspect" in repr(labels)


@pytest.mark.parametrize("suffix", [".h5", ".extxyz"])
def test_flags_survive_files_and_flagged_files_can_be_read(tmp_path, suffix):
    data = flagged(with_wrong_hessian(good(), 2), 2)
    path = tmp_path / f"x{suffix}"
    write_dataset(path, data)
    back = read_dataset(path)
    assert back.labels.suspect_mask().tolist() == [i == 2 for i in range(6)]
    assert back.content_hash() == data.content_hash()
    write_dataset(path, with_labels(data, suspect=None))
    with pytest.raises(InconsistentLabelsError, match="--flag-suspect"):
        read_dataset(path)


def test_only_files_with_suspects_need_a_newer_reader(tmp_path):
    path = tmp_path / "x.h5"
    for data, version in ((good(2), 1), (flagged(good(2)), 1), (flagged(good(2), 0), 2)):
        write_dataset(path, data)
        with h5py.File(path) as file:
            assert file.attrs["version"] == version
    assert flagged(good(2)).content_hash() == good(2).content_hash()


def test_a_flag_in_extended_xyz_is_true_or_false(tmp_path):
    path = tmp_path / "x.extxyz"
    path.write_text('1\nProperties=species:S:1:pos:R:3 suspect="maybe"\nH 0 0 0\n')
    with pytest.raises(LabelValueError, match="T or F"):
        read_dataset(path)
    path.write_text("1\nProperties=species:S:1:pos:R:3 suspect=F\nH 0 0 0\n")
    assert not bool(read_dataset(path).labels.suspect_mask().any())


def test_structures_that_would_be_refused_are_flagged():
    data = with_wrong_hessian(good(8), 3)
    energy = data.labels.energy.clone()
    energy[5] = torch.nan
    close = Structure([1, 1], [[0, 0, 0], [0, 0, 0.05]], id="clash")
    clash = Dataset.from_pairs([(close, Properties.single(2, energy=0.0))])
    data = with_labels(data, energy=energy)
    data = Dataset((*data.structures, *clash.structures), Properties.concatenate([data.labels, clash.labels]))
    with pytest.raises(LabelValueError, match="--flag-suspect"):
        check_dataset(data)
    mended, reasons = flag_suspect(data)
    assert sorted(reasons) == ["clash", "m3", "m5"]
    assert "0.050 Å" in reasons["clash"]
    assert "NaN" in reasons["m5"]
    assert "contradicts" in reasons["m3"]
    assert [v.status for v in check_dataset(mended)] == ["consistent", "consistent"]
    again, nothing = flag_suspect(mended)
    assert again.labels.suspect_mask().tolist() == mended.labels.suspect_mask().tolist()
    assert set(nothing) <= set(reasons)


def test_a_mistake_in_all_structures_flags_none():
    data = with_labels(good(), forces=-good().labels.forces)
    same, reasons = flag_suspect(data)
    assert not reasons
    with pytest.raises(InconsistentLabelsError, match="--negate-forces"):
        check_dataset(same)


def test_flagged_structures_are_left_out_unless_all_are_flagged():
    data = flagged(good(4), 1)
    assert [s.id for s in data.without_suspects().structures] == ["m0", "m2", "m3"]
    assert good(2).without_suspects().labels.suspect is None
    with pytest.raises(MissingLabelError, match="all 2 structures are flagged suspect"):
        flagged(good(2), 0, 1).without_suspects()
    assert check_dataset(flagged(good(2), 0, 1)) == []


def test_the_summary_lists_suspects_and_describes_the_others():
    data = flagged(with_wrong_hessian(good(), 2), 2)
    card = dataset_summary(data)
    assert card["suspect"]["structures"] == 1
    (entry,) = card["suspect"]["first"]
    assert entry["id"] == "m2"
    assert "rotational" in entry["reason"]
    assert {c["verdict"] for c in card["consistency"]} == {"consistent"}
    assert dataset_summary(flagged(good(2), 0, 1))["suspect"]["structures"] == 2


def test_impossible_labels_are_flagged_and_a_wrong_unit_is_not() -> None:
    data = good()
    assert data.labels.energy is not None
    energy = data.labels.energy.clone()
    energy[2] = 1e9
    flagged, reasons = flag_suspect(replace(data, labels=data.labels.replace(energy=energy)))
    assert reasons == {data.ids[2]: "energy = 1e+09 eV, which no structure of atoms can have"}
    assert flagged.labels.suspect_mask().tolist() == [k == 2 for k in range(6)]
    assert flag_suspect(replace(data, labels=data.labels.replace(energy=energy + 1e9)))[1] == {}
