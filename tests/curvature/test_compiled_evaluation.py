"""Compiled energies, forces and stress have the values of the plain ones, or are refused."""

import copy
from collections.abc import Callable

import pytest
import torch
from ase.build import bulk, molecule

import hesse
import oracles
from hesse.curvature import CompiledEvaluation, evaluate
from hesse.curvature.compiled_evaluation import CHECK_EVERY, TOLERANCE
from hesse.errors import CompilationError, UnknownElementError
from hesse.models import AniConfig, HesseNetConfig, HipnnConfig, build_model
from hesse.potential import Potential
from hesse.sampling import run_replicas
from hesse.structures import Batch, Properties, Request, collate

pytestmark = pytest.mark.slow

FORCES = Request(forces=True, atomic_energies=True)


@pytest.fixture(scope="module")
def hessenet() -> Potential:
    torch.manual_seed(0)
    return build_model(HesseNetConfig(features=8, channels=4, radial=4), (1, 6, 8)).double().eval()


@pytest.fixture(scope="module")
def network() -> Potential:
    """A network that is compiled in a third of the time."""
    torch.manual_seed(0)
    config = HipnnConfig(features=4, sensitivities=4, blocks=1, onsite_layers=1, l_max=0, cutoff=4.0, longest=3.5)
    return build_model(config, (1, 6, 8)).double().eval()


def batch_of(network: Potential, *names: str) -> Batch:
    return collate([hesse.as_structure(molecule(name)) for name in names], network.cutoff)


def carbon(network: Potential) -> Batch:
    crystal = bulk("C", cubic=True)
    crystal.rattle(0.05, seed=1)
    return collate([hesse.as_structure(crystal)], network.cutoff)


def assert_same(compiled: Properties, plain: Properties) -> None:
    for name in ("energy", "forces", "atomic_energies", "stress"):
        values, reference = getattr(compiled, name), getattr(plain, name)
        assert (values is None) == (reference is None), name
        if reference is not None:
            torch.testing.assert_close(values, reference, rtol=1e-10, atol=1e-10, equal_nan=True)


def test_values_are_those_of_the_plain_path(network: Potential) -> None:
    compiled = CompiledEvaluation(network, backend="aot_eager")
    for batch in (batch_of(network, "CH3CH2OH"), batch_of(network, "C6H6", "H2O", "CH4")):
        assert_same(compiled(batch, FORCES), evaluate(network, batch, FORCES))
    with_stress, crystal = FORCES.replace(stress=True), carbon(network)
    assert_same(compiled(crystal, with_stress), evaluate(network, crystal, with_stress))
    assert compiled.n_compiled == 3
    assert compiled.largest_difference < 1e-10


def test_values_of_the_default_network(hessenet: Potential) -> None:
    compiled = CompiledEvaluation(hessenet, backend="aot_eager")
    request, crystal = FORCES.replace(stress=True), carbon(hessenet)
    assert_same(compiled(crystal, request), evaluate(hessenet, crystal, request))
    assert compiled.n_compiled == 1


@pytest.mark.parametrize(
    "request_",
    [Request(), Request(hessian=True), Request(forces=True, probes=torch.ones(1, 3, 3))],
    ids=["energy", "hessian", "products"],
)
def test_other_properties_are_computed_without_compiling(network: Potential, request_: Request) -> None:
    compiled = CompiledEvaluation(network, backend="aot_eager")
    batch = batch_of(network, "H2O")
    result, plain = compiled(batch, request_), evaluate(network, batch, request_)
    for column, values in plain.items():
        torch.testing.assert_close(getattr(result, column.name), values)
    assert compiled.n_compiled == 0


@pytest.mark.parametrize("name", ["O2", "O"])
def test_smallest_structures_are_computed_without_compiling(network: Potential, name: str) -> None:
    compiled = CompiledEvaluation(network, backend="aot_eager")
    batch = collate([hesse.as_structure(molecule(name))], network.cutoff)
    assert_same(compiled(batch, FORCES), evaluate(network, batch, FORCES))
    assert compiled.n_compiled == 0


def test_parameters_may_change_later(network: Potential) -> None:
    compiled = CompiledEvaluation(network, backend="aot_eager")
    batch = batch_of(network, "CH4")
    before = compiled(batch, FORCES)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.01)
    after = compiled(batch, FORCES)
    assert_same(after, evaluate(network, batch, FORCES))
    assert not torch.equal(before.forces, after.forces)


def faulty(function: Callable[..., tuple[torch.Tensor, ...]]) -> Callable[..., tuple[torch.Tensor, ...]]:
    """A compiled function with an error of 1e-6 in the gradient."""

    def call(*args: object) -> tuple[torch.Tensor, ...]:
        atomic, gradient, stress = function(*args)
        return atomic, gradient * (1 + 1e-6), stress

    return call


def test_wrong_code_of_the_compiler_is_an_error(network: Potential, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = CompiledEvaluation(network, backend="aot_eager")
    batch = batch_of(network, "H2O")
    right = compiled._function
    monkeypatch.setattr(compiled, "_function", faulty(right))
    with pytest.raises(CompilationError, match=r"compiled forces differ from plain ones by 1\.0e-06"):
        compiled(batch, FORCES)
    # ... and so is an error that begins later.
    compiled = CompiledEvaluation(network, backend="aot_eager")
    compiled(batch, FORCES)
    monkeypatch.setattr(compiled, "_function", faulty(right))
    compiled.n_compiled = CHECK_EVERY - 2
    compiled(batch, FORCES)  # not compared
    with pytest.raises(CompilationError, match="compiled forces differ"):
        compiled(batch, FORCES)


def test_rounding_in_float32_is_no_error(network: Potential, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forces of a nearly perfect crystal are sums that cancel: their rounding is large relative to them."""
    monkeypatch.setitem(TOLERANCE, torch.float32, 1e-9)
    single = copy.deepcopy(network).float()
    batch = carbon(network)
    rounding = (evaluate(single, batch, FORCES).forces - evaluate(network, batch, FORCES).forces).std()
    compiled = CompiledEvaluation(single, backend="aot_eager")
    right = compiled._function

    def with_noise(size: float) -> Callable[..., tuple[torch.Tensor, ...]]:
        def call(*args: object) -> tuple[torch.Tensor, ...]:
            atomic, gradient, stress = right(*args)
            noise = torch.randn(gradient.shape, generator=torch.manual_seed(0))
            return atomic, gradient + size * float(rounding) * noise, stress

        return call

    compiled._function = with_noise(1.0)  # type: ignore[assignment]
    compiled(batch, FORCES)
    assert compiled.largest_difference > 1e-9
    compiled = CompiledEvaluation(single, backend="aot_eager")
    compiled._function = with_noise(30.0)  # type: ignore[assignment]
    with pytest.raises(CompilationError, match="compiled forces differ"):
        compiled(batch, FORCES)


def test_dropout_and_unknown_elements_are_refused(network: Potential) -> None:
    class WithDropout(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Dropout(0.1)

    with pytest.raises(CompilationError, match="draws random numbers"):
        CompiledEvaluation(WithDropout())  # type: ignore[arg-type]
    compiled = CompiledEvaluation(network, backend="aot_eager")
    with pytest.raises(UnknownElementError):
        compiled(batch_of(network, "NH3"), FORCES)


def test_a_potential_that_cannot_be_compiled_is_named() -> None:
    class WithBranch(oracles.Morse):
        def forward(self, batch: Batch) -> torch.Tensor:
            if float(batch.positions.sum()) > 1e9:  # Python decides by a value
                return batch.positions.sum(-1)
            return super().forward(batch)

    compiled = CompiledEvaluation(WithBranch(), backend="aot_eager")
    batch = collate([hesse.as_structure(molecule("CH4"))], 6.0)
    with pytest.raises(CompilationError, match=r"^WithBranch cannot be compiled \(.*\)\. Use it without compile"):
        compiled(batch, Request(forces=True))


@pytest.mark.long
@pytest.mark.parametrize(
    "config",
    [HesseNetConfig(features=8, channels=4, radial=4), HipnnConfig(features=8, l_max=1), AniConfig()],
    ids=["hessenet", "hipnn", "ani"],
)
def test_generated_code_of_every_network(config: HesseNetConfig | HipnnConfig | AniConfig) -> None:
    torch.manual_seed(0)
    network = build_model(config, (1, 6, 8)).double().eval()
    compiled = CompiledEvaluation(network)
    for batch in (batch_of(network, "CH3CH2OH"), batch_of(network, "C60"), batch_of(network, "H2O")):
        assert_same(compiled(batch, FORCES), evaluate(network, batch, FORCES))
    with_stress = FORCES.replace(stress=True)
    assert_same(compiled(carbon(network), with_stress), evaluate(network, carbon(network), with_stress))
    assert compiled.n_compiled == 4


def test_calculator_and_dynamics_can_be_compiled(network: Potential) -> None:
    atoms, plain = molecule("CH3CH2OH"), molecule("CH3CH2OH")
    atoms.calc, plain.calc = hesse.HesseCalculator(network, compile=True), hesse.HesseCalculator(network)
    assert abs(atoms.get_forces() - plain.get_forces()).max() < 1e-10
    assert abs(atoms.calc.get_hessian() - plain.calc.get_hessian()).max() < 1e-10
    settings = {"ensemble": "nve", "temperature": 300, "time": 0.005, "stride": 5, "relax": False}
    runs = [
        run_replicas([molecule("CH3CH2OH")], network, seeds=1, compile=compile, quiet=True, **settings).dataset
        for compile in (True, False)
    ]
    assert len(runs[0]) == len(runs[1]) > 2
    for one, other in zip(runs[0].structures, runs[1].structures, strict=True):
        assert abs(one.positions - other.positions).max() < 1e-9
