"""Parts of the training data are nested; fixed pairs are products with the stored Hessians."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from tiny_study import grouped, study, write_data

from hesse.datasets import draw_fixed_probes, read_dataset
from hesse.errors import ConfigError, MissingLabelError
from hesse.studies import expand_cells, nested_part, with_fixed_pairs
from hesse.studies.data import prepare_data
from hesse.studies.study_config import study_from_mapping


def test_parts_of_the_data_are_nested_and_keep_groups_together() -> None:
    data = grouped([2 + k % 3 for k in range(60)], seed=1, n_groups=20)
    parts = [nested_part(data, f, seed=3) for f in (0.02, 0.1, 0.35, 0.5, 0.9, 1.0)]
    ids = [set(part.ids) for part in parts]
    assert all(small <= large for small, large in itertools.pairwise(ids))
    assert [len(part) for part in parts] == [3, 6, 21, 30, 54, 60]
    for part in parts:
        groups = set(part.groups)
        assert {i for i, g in zip(data.ids, data.groups, strict=True) if g in groups} == set(part.ids)
    assert set(nested_part(data, 0.5, seed=4).ids) != ids[3]
    assert nested_part(data, 0.5, seed=3).ids == parts[3].ids
    with pytest.raises(ConfigError, match="above 0"):
        nested_part(data, 0.0)


def test_fixed_pairs_are_one_probe_for_each_structure_times_its_hessian() -> None:
    data = grouped([3, 4, 2], seed=1, n_groups=3)
    made = with_fixed_pairs(data, "gaussian", seed=5)
    assert made.labels.probes is not None
    assert made.labels.hvp is not None
    assert made.labels.probes.shape == (1, 9, 3)
    start = 0
    for k, structure in enumerate(data.structures):
        end = start + len(structure)
        hessian = data.labels.hessian_of(k).reshape(3 * len(structure), -1)
        expected = hessian @ made.labels.probes[0, start:end].reshape(-1)
        assert torch.allclose(made.labels.hvp[0, start:end].reshape(-1), expected)
        start = end
    assert torch.equal(with_fixed_pairs(data.select([1]), "gaussian", seed=5).labels.probes, made.labels.probes[:, 3:7])
    other = with_fixed_pairs(data, "gaussian", seed=6).labels.probes
    assert other is not None
    assert not torch.equal(other, made.labels.probes)
    assert made.metadata["probe"] == "gaussian"


def test_runs_of_other_seeds_can_have_other_fixed_probes(tmp_path: Path) -> None:
    write_data(tmp_path)
    axes = {"probe": ["fixed-free-energy"], "seed": [0, 3]}
    config = study_from_mapping(study(axes=axes, probe_seed="seed"), tmp_path, source="study")
    made = prepare_data(config, expand_cells(config), source="study")
    files = [Path(data.options["train"]) for data in made.values()]
    assert [file.name for file in files] == [f"train-fixed-free-energy-seed{seed}.h5" for seed in (0, 3)]
    source = read_dataset(tmp_path / "train.h5")
    for file, seed in zip(files, (0, 3), strict=True):
        probes = read_dataset(file).labels.probes
        expected = draw_fixed_probes(source.structures, "free-energy", seed=seed)
        torch.testing.assert_close(probes, expected, rtol=0, atol=1e-12)


def test_fixed_pairs_need_hessians() -> None:
    data = grouped([3, 2], seed=1, n_groups=2)
    bare = type(data)(data.structures, data.labels.replace(hessian=None, hessian_mask=None))
    with pytest.raises(MissingLabelError, match=r"cell x: one fixed sphere probe.*no Hessians.*hesse label --hessian"):
        with_fixed_pairs(bare, "sphere", where="cell x")
