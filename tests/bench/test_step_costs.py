"""Cost of training steps: the timed function is a training step, the same for all cases; contents of the rows."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import hesse.cli.bench_command
import hesse.cli.sample_command  # noqa: F401  (a second verb: with one alone the command line has no verbs)
from hesse.bench import HesseCase, StepPlan, measure_step_costs, named_potentials, untrained_network
from hesse.bench.cases import SCHEME_WEIGHTS, StepSpec
from hesse.bench.timing import peak_memory_mib, repeats_within, time_interleaved
from hesse.bench.workloads import (
    random_molecules,
    random_molecules_in_range,
    random_subset,
    rocksalt_cell,
    with_random_labels,
)
from hesse.cli.app import app
from hesse.curvature import evaluate
from hesse.datasets import write_dataset
from hesse.errors import ConfigError, HesseError, UnknownElementError, UnknownOptionError
from hesse.losses import weighted_loss
from hesse.models import save_model
from hesse.structures import Request

CPU = torch.device("cpu")
TINY = "hipnn?features=4,sensitivities=4,blocks=1,onsite_layers=1"
KEYS = {"subject", "scheme", "mode", "dtype", "device", "structures", "atoms", "seconds", "peak_mib", "ratio_to_ef"}


def tiny(structures):
    return untrained_network(TINY, sorted({int(z) for s in structures for z in s.numbers}))


def test_random_molecules_do_not_overlap_and_are_reproducible():
    molecules = random_molecules([1, 5, 14, 14, 30])
    assert [len(m) for m in molecules] == [1, 5, 14, 14, 30]
    for molecule in molecules[1:]:
        assert 0.7 < molecule.closest_pair()[0] < 1.3
        assert set(molecule.numbers) <= {1, 6, 7, 8}
    again = random_molecules([1, 5, 14, 14, 30])
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(molecules, again, strict=True))
    assert not np.allclose(molecules[2].positions, molecules[3].positions)
    sizes = [len(m) for m in random_molecules_in_range(3, 6, 40)]
    assert (min(sizes), max(sizes), len(sizes)) == (3, 6, 40)
    assert [m.id for m in random_subset(molecules, 2)] == [m.id for m in random_subset(molecules, 2)]
    assert len(random_subset(molecules, 9)) == 5


@pytest.mark.parametrize(("atoms", "actual"), [(8, 8), (100, 96), (1000, 1000), (4000, 4032)])
def test_crystals_have_one_density_and_are_nearly_cubes(atoms, actual):
    cell = rocksalt_cell(atoms)
    assert len(cell) == actual
    assert np.linalg.det(cell.cell) / actual == pytest.approx(4.21**3 / 8)
    assert cell.pbc == (True, True, True)
    edges = cell.cell.diagonal()
    assert edges.max() / edges.min() <= 1.5
    assert (cell.numbers == 12).sum() == actual // 2


def test_peak_memory_is_that_of_tensors_alive_at_the_same_time():
    def work():
        for _ in range(3):
            torch.ones(2**18)  # 1 MiB each, one after the other
        tensor = torch.ones(2**19)
        return tensor + 1.0

    assert peak_memory_mib(work, CPU) == pytest.approx(4.0, rel=0.01)


def test_repetitions_are_interleaved():
    order = []
    works = {name: lambda name=name: order.append(name) for name in "ab"}
    timings = time_interleaved(works, CPU, {"a": 3, "b": 2})
    assert order == ["a", "b", "a", "b", "a"]
    assert (len(timings["a"].wall), len(timings["b"].process)) == (3, 2)
    assert timings["a"].ratio_to(timings["a"], wall_time=True) == 1.0
    assert (repeats_within(10.0, 1.0, 7), repeats_within(10.0, 3.0, 7), repeats_within(10.0, 60.0, 7)) == (7, 3, 1)


@pytest.mark.parametrize("scheme", ["ef", "ef_hvp", "ef_h"])
def test_the_timed_function_computes_the_loss_and_its_gradient(scheme, monkeypatch):
    """Compared with one evaluation and one backward pass of the whole batch."""
    structures = random_molecules_in_range(3, 5, 5)
    potential = tiny(structures).double()
    data = with_random_labels(structures, probes=2, hessian=True)
    subject = HesseCase("tiny", potential)
    seen = {}
    monkeypatch.setattr(
        torch.nn.Module, "zero_grad", lambda self, set_to_none=True: seen.update(self.named_parameters()), raising=True
    )
    loss = subject.make_step(StepSpec(data, scheme, "eager", torch.float64, CPU, n_microbatches=2))()
    batch, labels = data.batch(range(5), potential.cutoff)
    request = Request(forces=True, probes=labels.probes if scheme == "ef_hvp" else None, hessian=scheme == "ef_h")
    expected, _ = weighted_loss(evaluate(potential, batch, request, create_graph=True), labels, SCHEME_WEIGHTS[scheme])
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-12)
    expected.backward()
    for name, parameter in potential.named_parameters():
        torch.testing.assert_close(seen[name].grad, parameter.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_rows():
    structures = random_molecules_in_range(3, 4, 4)
    plan = StepPlan(dtypes=("float64", "float32"), repeats=2, probes=2)
    subjects = [HesseCase("one", tiny(structures)), HesseCase("two", tiny(structures))]
    rows = measure_step_costs(subjects, structures, plan, quiet=True).rows
    assert [(r.dtype, r.subject, r.scheme) for r in rows] == [
        (dtype, name, scheme)
        for dtype in ("float32", "float64")
        for name in ("one", "two")
        for scheme in ("ef", "ef_hvp", "ef_h")
    ]
    for row in rows:
        assert asdict(row).keys() >= KEYS
        assert (row.structures, row.atoms, row.mode, row.device) == (4, sum(map(len, structures)), "eager", "cpu")
        assert min(row.seconds, row.process_seconds, row.peak_mib) > 0
        assert (row.repeats, row.probes, row.threads, row.parts) == (2, 2, 1, 1)
    assert [r.ratio_to_ef for r in rows if r.scheme == "ef"] == [1.0] * 4
    for first, second in ((0, 3), (1, 4), (2, 5)):  # two identical cases
        assert rows[first].loss == rows[second].loss
    for single, double in zip(rows[:3], rows[6:9], strict=True):
        assert single.loss == pytest.approx(double.loss, rel=1e-3)


def test_hessians_beyond_the_memory_are_split_or_left_out():
    structures = random_molecules_in_range(6, 6, 4)
    subjects = [HesseCase("tiny", tiny(structures))]

    def within(memory):
        plan = StepPlan(schemes=("ef_h",), repeats=1, memory_mib=memory)
        return measure_step_costs(subjects, structures, plan, quiet=True)

    full = within(4096.0)
    tight = within(0.4 * full.rows[0].peak_mib)
    assert full.rows[0].parts == 1
    assert 1 < tight.rows[0].parts <= 4
    assert tight.rows[0].loss == pytest.approx(full.rows[0].loss, rel=1e-5)
    assert tight.rows[0].peak_mib < full.rows[0].peak_mib
    assert full.rows[0].ratio_to_ef is None
    none = measure_step_costs(subjects, structures, StepPlan(repeats=1, memory_mib=0.01), quiet=True)
    assert [r.scheme for r in none.rows] == ["ef", "ef_hvp"]
    assert "E-F-H step on 6 atoms would need about" in none.left_out[0]


def test_a_step_that_cannot_be_compiled_is_left_out():
    structures = random_molecules_in_range(3, 3, 1)
    potential = tiny(structures)
    potential.noise = torch.nn.Dropout(0.1)
    plan = StepPlan(schemes=("ef", "ef_hvp"), modes=("eager", "compiled"), repeats=1)
    result = measure_step_costs([HesseCase("tiny", potential)], structures, plan, quiet=True)
    assert {r.mode for r in result.rows} == {"eager"}
    assert result.left_out[0].startswith("tiny, compiled, float32: it draws random numbers")


@pytest.mark.long
def test_compiled_steps_have_the_same_loss():
    structures = random_molecules_in_range(3, 6, 6)
    plan = StepPlan(modes=("eager", "compiled"), dtypes=("float64",), repeats=1)
    rows = measure_step_costs([HesseCase("tiny", tiny(structures))], structures, plan, quiet=True).rows
    assert [(r.mode, r.scheme) for r in rows] == [
        ("eager", "ef"), ("eager", "ef_hvp"), ("eager", "ef_h"), ("compiled", "ef"), ("compiled", "ef_hvp")
    ]  # fmt: skip
    for eager, compiled in zip(rows[:2], rows[3:], strict=True):
        assert compiled.loss == pytest.approx(eager.loss, rel=1e-10)


def test_bad_requests():
    structures = random_molecules_in_range(3, 3, 1)
    for options, words in (
        ({"schemes": ()}, "needs schemes"),
        ({"schemes": ("e-f",)}, "no scheme"),
        ({"modes": ("fast",)}, "no mode"),
        ({"dtypes": ("half",)}, "no dtype"),
        ({"repeats": 0}, "at least one"),
        ({"time_budget": 0.0}, "above zero"),
    ):
        with pytest.raises(ConfigError, match=words):
            StepPlan(**options)
    with pytest.raises(ConfigError, match="something to train"):
        measure_step_costs([], structures)
    twice = HesseCase("a", tiny(structures))
    with pytest.raises(ConfigError, match="once"):
        measure_step_costs([twice, twice], structures)
    with pytest.raises(ConfigError, match="at least 8"):
        rocksalt_cell(2)
    with pytest.raises(ConfigError, match="1 or more atoms"):
        random_molecules_in_range(5, 3, 2)
    for text in ("hipn", "hipnn?feature=4"):
        with pytest.raises(UnknownOptionError, match="Did you mean"):
            untrained_network(text, (1,))
    with pytest.raises(ConfigError, match="features"):
        untrained_network("hipnn?features=-1", (1,))
    with pytest.raises(ConfigError, match="name=value"):
        untrained_network("hipnn?features", (1,))
    with pytest.raises(ConfigError, match="once"):
        named_potentials([], ["hipnn", "hipnn"], structures)


@pytest.mark.filterwarnings("ignore:Using non-standard custom kernel implementation")
@pytest.mark.parametrize("peer", ["torchani", "hippynn"])
def test_other_programs_compute_the_same_step(peer):
    pytest.importorskip(peer, reason=f"{peer} is not installed")
    from hesse.bench.baselines import baseline_cases

    if peer == "hippynn":
        pytest.importorskip("hippynn").set_custom_kernels("_pytorch_raw")  # others are compiled first
    structures = random_molecules_in_range(4, 6, 3)
    data = with_random_labels(structures, probes=2)
    subjects = baseline_cases(peer, sorted({int(z) for s in structures for z in s.numbers}))
    for scheme in ("ef", "ef_hvp"):
        losses = {s.name: float(s.make_step(StepSpec(data, scheme, dtype=torch.float64))()) for s in subjects}
        for group in (0, 1) if peer == "hippynn" else (None,):
            alike = [loss for name, loss in losses.items() if group is None or name.endswith(f"l = {group}")]
            assert len(alike) == 3
            assert alike == pytest.approx([alike[0]] * 3, rel=1e-6)  # copies of float32 weights
    with pytest.raises(UnknownOptionError, match="torchani"):
        baseline_cases("torchanni", (1,))


def run(*words):
    return CliRunner().invoke(app, ["bench", "step", *(str(word) for word in words)])


@pytest.mark.slow
def test_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_model("model.hesse", untrained_network(TINY, (1, 6, 7, 8)), {})
    small = ["--structures", 3, "--atoms", "3-4", "--quick", "--repeats", 1, "--quiet"]
    done = run("model.hesse", "--kind", TINY, *small, "--json", "rows.json")
    assert done.exit_code == 0, done.output
    assert "a step on 3 structures" in done.stdout
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(r["subject"], r["scheme"]) for r in rows] == [
        (name, scheme) for name in ("model.hesse", TINY) for scheme in ("ef", "ef_hvp", "ef_h")
    ]
    cells = run(
        "--kind", TINY, "--periodic", "8,16", "--scheme", "ef", "--scheme", "ef_hvp", "--quick", "--repeats", 1,
        "--quiet", "--json", "cells.json", "--picture", "cells.png",
    )  # fmt: skip
    assert cells.exit_code == 0, cells.output
    assert "one periodic cell" in cells.stdout
    assert [r["atoms"] for r in json.loads((tmp_path / "cells.json").read_text())] == [8, 8, 16, 16]
    assert (tmp_path / "cells.png").read_bytes()[:4] == b"\x89PNG"


def test_the_command_with_a_data_file_and_a_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dataset("data.h5", with_random_labels(random_molecules_in_range(3, 5, 6), probes=0))
    (tmp_path / "run.yaml").write_text(
        "data: {train: data.h5}\noutput: run\nweights: {hvp: 0}\n"
        "model: {kind: hipnn, features: 4, sensitivities: 4, blocks: 1, onsite_layers: 1}\n"
    )
    options = ["--structures", 4, "--scheme", "ef", "--quick", "--repeats", 1, "--quiet", "--json", "rows.json"]
    for words, subject in ((["--data", "data.h5", "--kind", TINY], TINY), (["--config", "run.yaml"], "run.yaml")):
        done = run(*words, *options)
        assert done.exit_code == 0, (done.output, done.exception)
        row = json.loads((tmp_path / "rows.json").read_text())[0]
        assert (row["subject"], row["structures"]) == (subject, 4)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_command_refuses_bad_requests(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model("model.hesse", untrained_network(TINY, (1, 14)), {})
    for words, kind, message in (
        (["--atoms", "few"], ConfigError, "--atoms"),
        (["--periodic", "8;16"], ConfigError, "--periodic"),
        (["--periodic", "8", "--peers", "torchani"], ConfigError, "leave out"),
        (["--picture", "a.png"], ConfigError, "--periodic"),
        (["--peers", "torch-ani"], UnknownOptionError, "torchani"),
        (["--device", "abacus"], ConfigError, "abacus"),
        (["model.hesse"], UnknownElementError, "--data"),
        (["--json", "no/where.json"], HesseError, "no folder"),
        (["model.hesse", "--json", "model.hesse"], HesseError, "ends in .json"),
    ):
        refused = run(*words, "--quick", "--quiet")
        assert isinstance(refused.exception, kind), (words, refused.output, refused.exception)
        assert message in str(refused.exception)
        assert refused.exception.exit_code == 2
