"""The reaction benchmark: composition, continuation of a build, and the committed tiny version."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hesse.datasets import check_dataset, read_dataset
from hesse.harmonic.normal_modes import normal_modes
from hesse.structures import Structure

HERE = Path(__file__).parents[2] / "benchmarks" / "reactions"
sys.path.insert(0, str(HERE))
pytest.importorskip("networkx", reason="networkx is not installed")

import compose  # noqa: E402
import geometries  # noqa: E402
import journal  # noqa: E402
import tasks  # noqa: E402

TINY = HERE / "tiny"
SETS = ("rtp-train", "rtp-validation", "rtp-test", "irc", "nms")


@pytest.fixture(scope="module")
def tiny():
    return {name: read_dataset(TINY / f"{name}.h5") for name in SETS}


def test_tiny_is_small_and_valid(tiny):
    assert sum(path.stat().st_size for path in TINY.iterdir()) < 2**20
    for dataset in tiny.values():
        check_dataset(dataset)
        for label in ("energy", "forces", "hvp", "hessian"):
            assert dataset.labels.mask(label).all()
        assert len(dataset.labels.hvp) == 3
        assert dataset.metadata["probe"] == "rademacher, gaussian, one-hot"
        assert dataset.metadata["level"] == "GFN2-xTB"


def test_tiny_products_are_those_of_its_hessians(tiny):
    """Products by finite differences along a probe agree with Hessians by finite differences along coordinates."""
    for dataset in tiny.values():
        labels = dataset.labels
        for k in range(3):
            expected = labels.hessian_matvec(labels.probes[k : k + 1])[0]
            assert float((expected - labels.hvp[k]).abs().max()) < 2e-3


def test_tiny_probes_have_their_distributions(tiny):
    labels = tiny["irc"].labels
    rademacher, _, one_hot = labels.probes
    assert torch.equal(rademacher.abs(), torch.ones_like(rademacher))
    for i, n in enumerate(labels.n_atoms.tolist()):
        values = one_hot[labels.atom_slice(i)].flatten()
        assert int((values != 0).sum()) == 1
        assert float(values.square().sum()) == pytest.approx(3 * n)


def test_tiny_critical_points_have_the_right_number_of_imaginary_modes(tiny):
    for part in ("train", "validation", "test"):
        dataset = tiny[f"rtp-{part}"]
        for i, structure in enumerate(dataset.structures):
            modes = normal_modes(structure, dataset.labels.hessian_of(i).numpy())
            assert modes.n_imaginary == (structure.tag == "ts"), structure.id


def test_no_reaction_is_in_two_parts(tiny):
    parts = [{s.group for s in tiny[f"rtp-{part}"].structures} for part in ("train", "validation", "test")]
    assert not (parts[0] & parts[1])
    assert not (parts[0] & parts[2])
    assert not (parts[1] & parts[2])
    for name in ("irc", "nms"):
        assert {s.group for s in tiny[name].structures} <= parts[2]
    everything = [s.id for dataset in tiny.values() for s in dataset.structures]
    assert len(set(everything)) == len(everything)


def test_tiny_card_describes_the_files(tiny):
    card = json.loads((TINY / "card.json").read_text())
    assert {name: card["sets"][name]["structures"] for name in SETS} == {n: len(d) for n, d in tiny.items()}
    assert card["outcomes"]["transition states and paths"] == {"as published": 5, "conformers": 2}
    page = (TINY / "CARD.md").read_text()
    for name in SETS:
        assert f"| {name} | {len(tiny[name])} |" in page


def reaction(name, saddle=True):
    one = Structure([1, 6, 7], [[-1.1, 0, 0], [0, 0, 0], [1.2, 0, 0]])
    return geometries.Reaction(name, one, one, one if saddle else None)


def test_the_split_is_by_kind_seeded_and_complete():
    reactions = [reaction(f"p{k}") for k in range(50)] + [reaction(f"e{k}", saddle=False) for k in range(30)]
    paths = {f"p{k}": {"saddle": [], "kind": "as published" if k % 2 else "conformers"} for k in range(50)}
    parts = compose.split_reactions(reactions, paths, seed=3)
    assert parts == compose.split_reactions(reactions[::-1], paths, seed=3)
    assert parts != compose.split_reactions(reactions, paths, seed=4)
    for members in (
        [f"p{k}" for k in range(1, 50, 2)],
        [f"p{k}" for k in range(0, 50, 2)],
        [f"e{k}" for k in range(30)],
    ):
        counts = [sum(parts[m] == part for m in members) for part in compose.PARTS]
        assert counts[1] == counts[2] == round(0.1 * len(members))
        assert sum(counts) == len(members)


def test_a_shared_geometry_stays_in_the_test_part():
    reactions = [reaction(f"e{k}", saddle=False) for k in range(2)]
    ends = {"numbers": [1, 6, 7], "positions": [[-1.1, 0, 0], [0, 0, 0], [1.2, 0, 0]]}
    turned = {"numbers": [1, 6, 7], "positions": [[0, -1.1, 5], [0, 0, 5], [0, 1.2, 5]]}
    minima = {"e0/reactant": ends, "e1/product": turned, "e1/reactant": {"failure": "none"}}
    structures, left_out = compose.critical_points(reactions, {}, minima, {"e0": "train", "e1": "test"})
    assert [s.id for s in structures] == ["e1/product"]
    assert sum(left_out.values()) == 1


def test_points_are_spread_evenly_over_paths_of_test_reactions_only():
    def answer(n):
        points = [{"arc": 0.1 * (k - n // 2), "positions": np.eye(3).tolist(), "energy": 0.0} for k in range(n)]
        points[n // 2]["arc"] = 0.0
        return {"numbers": [1, 6, 7], "path": points, "kind": "as published"}

    paths = {"a": answer(81), "b": answer(11), "c": answer(41)}
    parts = {"a": "test", "b": "test", "c": "train"}
    structures = compose.path_points(paths, parts, 30)
    by_reaction = {name: [s for s in structures if s.group == name] for name in ("a", "b", "c")}
    assert len(by_reaction["a"]) == 20
    assert len(by_reaction["b"]) == 10  # all it has
    assert not by_reaction["c"]
    arcs = np.array([float(s.id.rpartition("/")[2]) for s in by_reaction["a"]])
    assert (np.abs(np.diff(arcs) - 0.4) < 0.11).all()
    assert 0.0 not in arcs
    assert len(compose.centers(structures, 4)) == 8


def test_bonds_do_not_depend_on_the_order_of_atoms():
    own = {r.name: r for r in geometries.read_own()}
    water = own["vinyl-alcohol"]
    order = [3, 1, 0, 2, 6, 5, 4]
    shuffled = Structure(water.reactant.numbers[order], water.reactant.positions[order])
    assert tasks.same_bonds(tasks.bonds(water.reactant), tasks.bonds(shuffled))
    assert not tasks.same_bonds(tasks.bonds(water.reactant), tasks.bonds(water.product))
    mirrored = own["ammonia-inversion"]
    assert tasks.same_bonds(tasks.bonds(mirrored.reactant), tasks.bonds(mirrored.product))


def doubled(spec):
    def work(task):
        if task == 13:
            raise ValueError("unlucky")
        return {"answer": 2 * task}

    return work


def test_a_journal_continues_where_it_was_cut(tmp_path, capsys):
    path = tmp_path / "j.jsonl"
    todo = [(f"t{k}", k) for k in (1, 2, 13)]
    first = journal.finish(path, "t", doubled, None, todo, workers=0)
    assert first["t2"]["answer"] == 4
    assert "unlucky" in first["t13"]["failure"]
    text = path.read_text()
    path.write_text(text[: text.rfind('{"name": "t13"') + 9])  # killed while it wrote
    computed = []

    def watched(spec):
        work = doubled(spec)
        return lambda task: computed.append(task) or work(task)

    again = journal.finish(path, "t", watched, None, [*todo, ("t4", 4)], workers=0)
    assert computed == [13, 4]
    assert [again[name].get("answer") for name in ("t1", "t2", "t13", "t4")] == [2, 4, None, 8]


@pytest.mark.long
def test_the_tiny_version_can_be_built_again(tmp_path):
    """Seven reactions from guesses to labels: the same ids, the same energies."""
    pytest.importorskip("tblite.interface", reason="tblite is not installed")
    import subprocess

    subprocess.run([sys.executable, HERE / "build.py", tmp_path, "--tiny"], check=True, stdout=subprocess.DEVNULL)
    for name in SETS:
        built, committed = read_dataset(tmp_path / f"{name}.h5"), read_dataset(TINY / f"{name}.h5")
        assert [s.id for s in built.structures] == [s.id for s in committed.structures]
        torch.testing.assert_close(built.labels.energy, committed.labels.energy, atol=1e-3, rtol=0.0)
