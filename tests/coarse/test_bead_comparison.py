"""The comparison of coarse dynamics with the reference: its errors mean what they say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hesse.coarse import compare_beads
from hesse.coarse.bead_comparison import first_minimum
from hesse.coarse.bead_distributions import BinnedDistribution
from hesse.datasets import Dataset, with_metadata
from hesse.errors import FileFormatError, GeometryError, RequestError
from hesse.structures import Properties, Structure, bead_number

pytest.importorskip("freud", reason="freud computes distributions of pairs")
TAG = "300K 1.000g/cm3"


def boxes(
    seed: int, *, frames: int = 40, n: int = 40, edge: float = 10.0, tag: str = TAG, shift: float = 0.0, kind: str = "W"
) -> list[Structure]:
    """Beads on a cubic lattice, shaken: a solid with a g(r) of broad peaks."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3)[:n] * 2.5
    return [
        Structure(
            [bead_number(kind)] * n,
            grid + rng.normal(0, 0.3 + shift, (n, 3)),
            id=f"run-{seed}{kind}{tag}/{k:04d}",
            cell=edge * np.eye(3),
            pbc=True,
            masses=[18.0] * n,
            tag=tag,
        )
        for k in range(frames)
    ]


def as_data(structures: list[Structure], **metadata: str) -> Dataset:
    pairs = [(s, Properties.single(n_atoms=len(s), energy=0.0)) for s in structures]
    return with_metadata(Dataset.from_pairs(pairs), **metadata)


def test_two_samples_of_the_same_system_differ_by_noise() -> None:
    found = compare_beads(boxes(1), boxes(2))
    (point,) = found.points
    assert [curve.name for curve in point.curves] == ["g(r) W-W", "angles at W"]
    for curve in point.curves:
        assert 0.5 < curve.error / curve.noise < 1.6
        assert not curve.significant
        assert 0 <= curve.low <= curve.high < curve.error + curve.noise
    assert np.isnan(point.speed_up)


def test_few_frames_have_no_noise_and_no_verdict() -> None:
    (point,) = compare_beads(boxes(1, frames=8), boxes(2)).points
    assert {curve.significant for curve in point.curves} == {None}
    assert all(np.isnan(curve.noise) for curve in point.curves)
    rows = compare_beads(boxes(1, frames=12), boxes(2), blocks=3).rows
    assert isinstance(rows[0]["significant"], bool)
    with pytest.raises(RequestError, match=r"has 40 frames, .* into 20 blocks .* at most 10 are possible"):
        compare_beads(boxes(1), boxes(2), blocks=20)


def test_failed_runs_are_named() -> None:
    names = [f"run-1W{TAG}", "run-9"]
    found = compare_beads(as_data(boxes(1), failed_runs="; ".join(names)), boxes(2))
    assert found.points[0].failed_runs == (names[0],)


def test_another_system_differs_by_more_than_noise() -> None:
    found = compare_beads(boxes(1, shift=0.3), boxes(2))
    curve = found.points[0].curves[0]
    assert curve.significant
    assert curve.error > 2 * curve.noise
    direct = np.abs(curve.model.mean - curve.reference.mean).mean()
    assert curve.error == pytest.approx(direct)
    assert 0.5 * direct < curve.low < curve.high < direct + curve.noise


@pytest.mark.slow
def test_the_noise_is_the_scatter_of_repeated_runs() -> None:
    errors, noises = [], []
    for seed in range(8):
        curve = compare_beads(boxes(2 * seed), boxes(2 * seed + 1)).points[0].curves[0]
        errors.append(curve.error)
        noises.append(curve.noise)
    assert np.mean(noises) == pytest.approx(np.mean(errors), rel=0.2)


def test_state_points_are_matched_by_their_tags_and_others_are_named() -> None:
    second = "350K 1.000g/cm3"
    found = compare_beads(boxes(1, tag=second), [*boxes(2), *boxes(3, tag=second)])
    assert [point.name for point in found.points] == [second]
    assert found.missing == (TAG,)


def test_a_single_state_point_needs_no_tag() -> None:
    found = compare_beads(boxes(1, tag=""), boxes(2))
    assert found.points[0].name == TAG


def test_rows_are_json_and_have_both_peaks() -> None:
    rows = compare_beads(as_data(boxes(1), frame_time="0.5 ps"), as_data(boxes(2), frame_time="0.25 ps")).rows
    json.dumps(rows, allow_nan=False)
    assert rows[0]["model_peak_distance"] == pytest.approx(rows[0]["reference_peak_distance"], abs=0.3)
    assert rows[0]["neighbors" if "neighbors" in rows[0] else "model_neighbors"] > 3
    assert rows[1]["kind"] == "adf"


def test_diffusion_of_random_walks_and_their_ratio() -> None:
    rng = np.random.default_rng(1)

    def walk(sigma: float, name: str) -> list[Structure]:
        path = np.cumsum(rng.normal(0, sigma, (60, 60, 3)), axis=0) + rng.uniform(0, 10, (60, 3))
        numbers = [bead_number("W")] * 60
        return [
            Structure(numbers, p, id=f"{name}/{k}", cell=10 * np.eye(3), pbc=True, masses=[18.0] * 60, tag=TAG)
            for k, p in enumerate(path)
        ]

    found = compare_beads(walk(0.4, "a"), walk(0.2, "b"), frame_time=1.0, reference_frame_time=2.0, angle_cutoff=4.0)
    model, reference = found.points[0].diffusion
    assert model == pytest.approx(0.08, rel=0.25)
    assert reference == pytest.approx(0.01, rel=0.25)
    assert found.points[0].speed_up == pytest.approx(8.0, rel=0.4)


def test_the_first_minimum_is_behind_the_peak() -> None:
    r = np.linspace(0.05, 9.95, 100)
    g = 1 + 2 * np.exp(-((r - 3) ** 2) / 0.1) - 0.5 * np.exp(-((r - 4.2) ** 2) / 0.2)
    assert first_minimum(BinnedDistribution(r, g[None])) == pytest.approx(4.2, abs=0.11)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (boxes(1, tag="400K 1.000g/cm3"), r'no state point in common: "400K 1.000g/cm3" and "300K 1.000g/cm3"'),
        (boxes(1, kind="MEOH"), "beads of type MEOH, the reference W"),
        (boxes(1, edge=12.0), r"density of W in the model is 0\.579 times"),
    ],
)
def test_what_cannot_be_compared_is_refused(model: list[Structure], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        compare_beads(model, boxes(2))


def test_a_cell_that_changes_is_refused_for_the_side_that_has_it() -> None:
    with pytest.raises(GeometryError, match='the reference, state point "300K'):
        compare_beads(boxes(1), [*boxes(2, frames=2), *boxes(3, frames=2, edge=10.2)])


def test_the_figure_has_both_curves_and_refuses_other_formats(tmp_path: Path) -> None:
    from hesse.reports import draw_bead_comparison

    found = compare_beads(boxes(1, frames=10), boxes(2, frames=10))
    draw_bead_comparison(found, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert "all-atom, mapped" in text
    assert "angles at W" in text
    assert ("noise unknown" in text) is (len(found.points[0].curves[0].model.blocks) < 2)
    with pytest.raises(FileFormatError, match="pictures are written as"):
        draw_bead_comparison(found, tmp_path / "a.pdf")
