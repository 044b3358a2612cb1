"""The experiment of benchmarks/fine_tuning, on closed forms: splits, errors, tables."""

from __future__ import annotations

import sys
from pathlib import Path

import ase.data
import ase.units
import numpy as np
import pytest
import torch

import oracles

FOLDER = str(Path(__file__).parents[2] / "benchmarks" / "fine_tuning")


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    for name in ("fine_tune", "judge", "prepare", "kinks"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def springs(n: int, group: str, name: str, constant: float = 2.0):  # type: ignore[no-untyped-def]
    """A chain of atoms with E = ½ k |x|² and its exact labels."""
    import hesse

    positions = np.random.default_rng(n).normal(size=(n, 3)) + 3.0 * np.arange(n)[:, None]
    probe = np.random.default_rng(1).choice([-1.0, 1.0], size=(1, n, 3))
    hessian = constant * np.eye(3 * n).reshape(n, 3, n, 3)
    labels = hesse.Properties.single(
        n,
        energy=0.5 * constant * float((positions**2).sum()),
        forces=-constant * positions,
        hessian=hessian,
        probes=probe,
        hvp=constant * probe,
    )
    return hesse.Structure([1] * n, positions, id=name, group=group), labels


def data(count: int = 30):  # type: ignore[no-untyped-def]
    import hesse

    pairs = [springs(3 + i % 3, f"F{i % 10}", f"s{i}") for i in range(count)]
    return hesse.Dataset.from_pairs(pairs, level="springs")


def test_splits_share_no_formula_and_differ() -> None:
    from prepare import by_formula

    whole = data()
    seen = set()
    for split in range(3):
        train, test = by_formula(whole, split, 8)
        assert sorted(train + test) == list(range(len(whole)))
        assert len(test) >= 8
        assert not {whole.groups[i] for i in train} & {whole.groups[i] for i in test}
        seen.add(tuple(test))
    assert len(seen) == 3


def test_errors_of_a_potential_that_is_too_stiff() -> None:
    """All springs 3 instead of 2: every diagonal element of the Hessian is off by 1."""
    from judge import judge

    import hesse

    def energy(positions, numbers, cell, pbc):  # type: ignore[no-untyped-def]
        return 1.5 * positions.square().sum()

    result = judge(hesse.CallablePotential(energy), data(6))
    per_structure = [1 / np.sqrt(3 * n) for n in (3, 4, 5, 3, 4, 5)]
    assert list(result["hessians"].values()) == pytest.approx(per_structure)
    assert result["median hessian"] == pytest.approx(np.median(per_structure))
    assert result["negative modes"] == 1.0
    assert result["forces"] == pytest.approx(
        np.sqrt(np.square(np.concatenate([s.positions for s in data(6).structures])).mean())
    )
    frequency = np.sqrt(2.0 / ase.data.atomic_masses[1]) / ase.units.invcm * ase.units._hbar * 1e10  # cm⁻¹
    frequency *= np.sqrt(ase.units._e / ase.units._amu) / ase.units._e
    assert result["frequencies"] == pytest.approx((np.sqrt(1.5) - 1) * frequency, rel=1e-3)


def test_the_slope_of_a_smooth_loss_is_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    from kinks import STEPS, slopes

    import hesse
    from hesse.models import Ani, AniConfig

    torch.manual_seed(0)
    config = AniConfig(hidden=(6, 4), activation="smooth-celu", radial_shifts=(1.0, 2.0), angular_shifts=(1.5,))
    network = Ani(config, (1,)).double()
    structure = hesse.Structure([1] * 4, np.random.default_rng(1).normal(size=(4, 3)), id="a", group="F")
    dataset = hesse.Dataset.from_pairs([(structure, springs(4, "F", "a")[1])], level="springs")
    for name, predicted, measured in slopes(network, dataset):
        assert len(measured) == len(STEPS), name
        assert measured[0] == pytest.approx(predicted, rel=1e-3), name
        assert predicted < 0


def test_an_unknown_scheme_gets_a_reply() -> None:
    from fine_tune import parse_scheme

    with pytest.raises(SystemExit, match="no scheme 'E-G'"):
        parse_scheme("E-G")
    name, scheme = parse_scheme('slow={"smooth": true, "train": {"steps": 7}}')
    assert (name, scheme.smooth, scheme.train["steps"]) == ("slow", True, 7)


def test_tables_give_mean_and_range() -> None:
    from fine_tune import COLUMNS, START, tables

    section = {key.split("/")[1]: 1.0 for key in COLUMNS} | {"frequencies": 5.0}
    bands = {f"frequencies {b}": None for b in ("imaginary", "0_300", "300_1000", "1000_2000", "above_2000")}
    records = [
        {"name": START, "test": {**section, **bands, "forces": value}, "ordinary": section} for value in (1.0, 3.0)
    ]
    assert "| ANI-1x, one member | 2 | 1 (1 to 1) | 2 (1 to 3) |" in tables(records)


@pytest.mark.slow
def test_schemes_are_trained_judged_and_averaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start without training, a run of two steps for two members, and the mean of both."""
    import fine_tune

    import hesse
    from hesse.models import Ani, AniConfig

    def tiny(folder: Path, member: int, *, smooth: bool, twin: bool) -> Ani:
        torch.manual_seed(member)
        return Ani(AniConfig(hidden=(6, 4), activation="smooth-celu" if smooth else "celu", radial_shifts=(1.0, 2.0),
                             angular_shifts=(1.5,)), (1,))  # fmt: skip

    monkeypatch.setattr(fine_tune, "starting_point", tiny)
    monkeypatch.setattr(fine_tune, "prepare", lambda *_: None)
    (tmp_path / "data").mkdir()
    for name, count in (("horm", 30), ("ordinary", 3)):
        structures = [
            oracles.molecule(3 + k % 3, k, elements=(1,), name=f"{name}{k}", group=f"F{k % 10}") for k in range(count)
        ]
        labeled = oracles.labeled(oracles.Morse(depth=1.0, width=1.2), structures, hessian=True)
        hesse.write_dataset(tmp_path / "data" / f"{name}.h5", labeled)
    scheme = 'short={"smooth": true, "train": {"steps": 2, "weights": {"energy": 4, "forces": 3, "hvp": 1.5}}}'
    arguments = [str(tmp_path), "--ani", "a", "--horm", "h", "--split", "0", "--member", "0", "--member", "1"]
    monkeypatch.setattr(sys, "argv", ["fine_tune", *arguments, "--scheme", fine_tune.START, "--scheme", scheme])
    fine_tune.main()
    text = (tmp_path / "tables.md").read_text()
    for line in (f"| {fine_tune.START} | 2 |", "| short | 2 |", "| short, mean of 2 | 1 |"):
        assert line in text
