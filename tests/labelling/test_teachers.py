"""Labels from teachers: right means and spreads, nothing computed twice or lost, clear replies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from hesse.datasets import read_dataset, write_dataset
from hesse.errors import InterruptedRunError, RequestError, UnknownElementError
from hesse.labelling import spread_weights, teacher_labels
from hesse.models import Hipnn, HipnnConfig
from hesse.models.adapters import CallablePotential
from hesse.runtime.signals import StoppedError
from hesse.structures import Properties, Structure
from oracles import Harmonic, Morse, molecules

STRUCTURES = molecules([3, 5, 4, 2], seed=3)


def network(seed: int, elements: tuple[int, ...] = (1, 6, 8)) -> Hipnn:
    torch.manual_seed(seed)
    return Hipnn(HipnnConfig(features=4, l_max=0), elements).double()


TEACHERS = [network(k) for k in range(3)]


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the structures that teachers evaluate, once for each teacher."""
    import hesse.labelling.teachers as module

    ids: list[str] = []
    original = module.evaluate_structures

    def spy(potential: Hipnn, structures: Sequence[Structure], request: object) -> Properties:
        ids.extend(s.id for s in structures)
        return original(potential, structures, request)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "evaluate_structures", spy)
    return ids


def test_means_and_spreads_equal_closed_forms() -> None:
    teachers = [Harmonic(STRUCTURES, seed=1), Harmonic(STRUCTURES, seed=2), Morse()]
    data = teacher_labels(STRUCTURES, teachers, probes=2, hessian=True, quiet=True)
    labels = data.labels
    assert labels.hvp is not None
    assert labels.probes is not None
    for k, structure in enumerate(STRUCTURES):
        here = labels.atom_slice(k)
        exact = [teacher.exact(structure) for teacher in teachers]
        values = {
            "energy": np.array([e.energy for e in exact]),
            "forces": np.array([-e.gradient for e in exact]),
            "hessian": np.array([e.hessian for e in exact]),
        }
        products = np.array([np.einsum("iajb,pjb->pia", e.hessian, labels.probes[:, here].numpy()) for e in exact])
        got = {"energy": labels.energy[k], "forces": labels.forces[here], "hessian": labels.hessian_of(k)}
        for name, value in values.items():
            np.testing.assert_allclose(got[name], value.mean(0), rtol=1e-9, atol=1e-9)
            spread = np.sqrt(np.mean(np.var(value, axis=0, ddof=1)))
            np.testing.assert_allclose(labels[f"{name}_error"][k], spread, rtol=1e-9)
        np.testing.assert_allclose(labels.hvp[:, here], products.mean(0), rtol=1e-9, atol=1e-9)
        spread = np.sqrt(np.var(products, axis=0, ddof=1).mean(axis=(1, 2)))
        np.testing.assert_allclose(labels.hvp_error[:, k], spread, rtol=1e-9)


def test_one_teacher_has_no_spread_and_its_atoms_have_their_energies() -> None:
    data = teacher_labels(STRUCTURES, TEACHERS[0], probes=0, atomic_energies=True, quiet=True)
    assert data.labels.forces_error is None
    assert data.labels.hvp is None
    assert data.metadata["level"].startswith("model:Hipnn@")
    sums = torch.stack([part.sum() for part in data.labels.atomic_energies.split([3, 5, 4, 2])])
    torch.testing.assert_close(sums, data.labels.energy)
    with pytest.raises(RequestError, match="several teachers"):
        spread_weights(data.labels)


def test_nothing_is_computed_twice(tmp_path: Path, evaluated: list[str]) -> None:
    options = {"probes": 1, "atomic_energies": True, "quiet": True}
    first = teacher_labels(STRUCTURES[:2], TEACHERS, tmp_path, **options)
    assert len(evaluated) == 6
    moved = STRUCTURES[1].with_positions(STRUCTURES[1].positions + 0.01)
    wanted = [STRUCTURES[3], moved, STRUCTURES[0], STRUCTURES[2]]
    evaluated.clear()
    second = teacher_labels(wanted, TEACHERS[::-1], tmp_path, **options)  # the order of teachers does not matter
    assert sorted(evaluated) == sorted(3 * [STRUCTURES[3].id, moved.id, STRUCTURES[2].id])
    assert second.ids == tuple(s.id for s in wanted)
    again = teacher_labels(wanted, TEACHERS, tmp_path, **options)
    assert len(evaluated) == 9
    fresh = teacher_labels(wanted, TEACHERS, **options)
    for column, value in fresh.labels.items():
        torch.testing.assert_close(again.labels[column.name], value, msg=column.name, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(second.labels.select([2]).forces, first.labels.select([0]).forces)
    evaluated.clear()
    other = teacher_labels(STRUCTURES[:2], TEACHERS[:2], tmp_path, **options)  # other teachers, other labels
    assert len(evaluated) == 4
    assert other.metadata["level"] != first.metadata["level"]


def test_the_labels_are_an_ordinary_data_set(tmp_path: Path) -> None:
    data = teacher_labels(STRUCTURES, TEACHERS, tmp_path / "cache", probes=2, atomic_energies=True, quiet=True)
    weighted = data.labels.replace(weight=spread_weights(data.labels))
    for suffix in (".h5", ".extxyz"):
        path = tmp_path / f"labels{suffix}"
        write_dataset(path, [(s, weighted.select([k])) for k, s in enumerate(data.structures)])
        read = read_dataset(path)
        for name in ("energy", "forces", "hvp", "atomic_energies", "weight", "forces_error"):
            torch.testing.assert_close(read.labels[name], weighted[name], msg=name)


def test_an_interruption_keeps_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluated: list[str]
) -> None:
    import hesse.labelling.teachers as module

    monkeypatch.setattr(module, "CHUNK", 1)
    original = module._evaluate

    def interrupted(structures: Sequence[Structure], *args: object, **options: object) -> Properties:
        if len(evaluated) == 6:
            raise StoppedError
        return original(structures, *args, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(module, "_evaluate", interrupted)
        with pytest.raises(InterruptedRunError, match=r"after 2 of 4 structures.*the same command continues"):
            teacher_labels(STRUCTURES, TEACHERS, tmp_path, quiet=True)
    teacher_labels(STRUCTURES, TEACHERS, tmp_path, quiet=True)
    assert len(evaluated) == 12


def test_a_damaged_part_is_computed_again(
    tmp_path: Path, evaluated: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = teacher_labels(STRUCTURES, TEACHERS, tmp_path, quiet=True)
    (part,) = tmp_path.glob("*/part-0000.h5")
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 0xFF
    part.write_bytes(content)
    after = teacher_labels(STRUCTURES, TEACHERS, tmp_path, quiet=True)
    assert len(evaluated) == 24
    torch.testing.assert_close(after.labels.forces, before.labels.forces)
    assert "labeled again" in capsys.readouterr().err
    assert part.with_name("part-0000.h5.damaged").exists()
    teacher_labels(STRUCTURES, TEACHERS, tmp_path, quiet=True)
    assert len(evaluated) == 24


def test_labels_of_a_potential_that_nothing_identifies_are_not_reused(tmp_path: Path, evaluated: list[str]) -> None:
    for depth in (1.0, 2.0):
        data = teacher_labels(STRUCTURES, Morse(depth=depth), tmp_path, quiet=True)
        exact = Morse(depth=depth).exact(STRUCTURES[0])
        torch.testing.assert_close(data.labels.energy[0], torch.tensor(exact.energy, dtype=torch.float64))
    assert len(evaluated) == 8


def test_weights_fall_with_the_squared_spread() -> None:
    errors = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    labels = Properties(n_atoms=torch.tensor([2, 2, 2]), forces=torch.zeros(6, 3), forces_error=errors)
    expected = torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64)
    torch.testing.assert_close(spread_weights(labels), expected / expected.mean())


def test_replies_come_before_any_work(evaluated: list[str], tmp_path: Path) -> None:
    whole = CallablePotential(lambda positions, *_: positions.square().sum())
    with pytest.raises(RequestError, match="its atoms have no energies"):
        teacher_labels(STRUCTURES, [TEACHERS[0], whole], atomic_energies=True)
    with pytest.raises(UnknownElementError, match=r"structure .* holds .*; the teacher model:Hipnn@.* knows H only"):
        teacher_labels(STRUCTURES, network(0, (1,)))
    with pytest.raises(RequestError, match=r"GFN2-xTB is none.*hesse label"):
        teacher_labels(STRUCTURES, "gfn2")
    with pytest.raises(RequestError, match="expected a teacher"):
        teacher_labels(STRUCTURES, [])
    with pytest.raises(RequestError, match="occurs twice"):
        teacher_labels([STRUCTURES[0], STRUCTURES[0]], TEACHERS, tmp_path)
    assert evaluated == []
