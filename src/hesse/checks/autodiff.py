"""Checks of ways to differentiate other than plain reverse mode: several directions at once, forward mode, compiled.

Signature of all checks: see `hesse.checks.catalog.Check`.
"""

from __future__ import annotations

import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hesse.checks.check_result import Outcome, compare_to_limit, info
from hesse.checks.context import CheckContext, random_directions, relative_error
from hesse.curvature import evaluate
from hesse.errors import first_line
from hesse.structures import Batch, Request

MAX_COMPILE_SECONDS = 300
"""Time limit. A usual network takes about a minute on an idle machine; some compilations never end."""


def check_vmap(context: CheckContext) -> Outcome:
    """`H v` for three directions in one vectorized pass (vmap over the backward pass), compared with one by one."""
    structures = context.molecules
    batch = context.batch(structures)
    probes = torch.stack([_random_probe(context, seed) for seed in (71, 72, 73)])
    sequential = torch.cat([_hvp(context, batch, p[None]) for p in probes])
    if not context.potential.supports_vmap:
        return info("takes one direction at a time (supports_vmap is False), which makes full Hessians slower")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        vectorized = _hvp(context, batch, probes)
    error = relative_error(vectorized.numpy(), sequential.numpy())
    slow = next((str(w.message).split(".")[0] for w in caught if "batching rule" in str(w.message)), "")
    detail = "three directions at once, compared with one by one, relative" + (f" (slow: {slow})" if slow else "")
    return compare_to_limit(error, context.tolerance(1e-8, 1e-3), detail)


def check_forward_mode(context: CheckContext) -> Outcome:
    """Forward mode over the gradient, compared with reverse mode. Hesse does not use it; other programs may."""
    batch, probe = context.batch(context.molecules), _random_probe(context, 74)
    expected = _hvp(context, batch, probe[None])[0].numpy()

    def energy(positions: Tensor) -> Tensor:
        return context.potential(batch.with_positions(positions=positions)).sum()

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's own warning about its forward mode
            actual = torch.func.jvp(torch.func.grad(energy), (batch.positions,), (probe.to(batch.positions),))[1]
    except Exception as error:  # third-party code
        return info(f"no forward mode ({type(error).__name__}: {first_line(error)[:120]})")
    return compare_to_limit(
        relative_error(actual.detach().cpu().double().numpy(), expected),
        context.tolerance(1e-8, 1e-3),
        "H v by forward over reverse mode, compared with reverse over reverse, relative",
    )


def check_compile(context: CheckContext) -> Outcome:
    """Energy, forces and `H v` as one compiled function, compared with the same function run eagerly, for two different
    batch shapes. Reverse over reverse: some versions of PyTorch miscompile forward over reverse."""
    # The same number of structures and no ids in both: they are constants to the compiler, and would trigger a second
    # compilation.
    count = max(1, len(context.molecules) - 1)
    groups = (context.molecules[:count], context.molecules[-count:])
    # Index tables are precomputed, as in training.
    batches = [replace(context.potential.precompute(context.batch(structures)), ids=()) for structures in groups]
    torch._dynamo.reset()
    compiled = torch.compile(_curvature, dynamic=True, fullgraph=True)  # raise instead of falling back to eager
    errors, started = [], time.monotonic()
    try:
        with warnings.catch_warnings(), _time_limit(MAX_COMPILE_SECONDS):
            warnings.simplefilter("ignore")  # of the compiler
            for batch in batches:
                along = torch.from_numpy(np.random.default_rng(75).normal(size=batch.positions.shape))
                along = along.to(batch.positions)
                expected = _curvature(context.potential, batch, batch.positions, along)
                actual = compiled(context.potential, batch, batch.positions, along)
                errors += [
                    relative_error(a.detach().cpu().double().numpy(), b.detach().cpu().double().numpy())
                    for a, b in zip(actual, expected, strict=True)
                ]
    except _TimeLimitExceeded:
        return info(f"not compiled within {MAX_COMPILE_SECONDS} s: stopped; eager derivatives are not affected")
    except Exception as error:  # of the compiler, or third-party code
        cause = f"{type(error).__name__}: {first_line(error)[:120]}"
        return info(f"cannot be compiled ({cause}); eager derivatives are not affected")
    finally:
        torch._dynamo.reset()
    seconds = time.monotonic() - started
    detail = f"compiled energy, forces and H v, compared with eager ones, relative (compiled in {seconds:.0f} s)"
    return compare_to_limit(max(errors), context.tolerance(1e-8, 1e-3), detail)


class _TimeLimitExceeded(BaseException):
    """The time limit was exceeded. Not a subclass of `Exception`, which the compiler would catch and treat as its own
    failure."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise _TimeLimitExceeded in the block after this time. In the main thread only, which receives signals; no
    limit in others."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise _TimeLimitExceeded

    previous_handler = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous_handler)


def _curvature(potential: torch.nn.Module, batch: Batch, positions: Tensor, along: Tensor) -> tuple[Tensor, ...]:
    """Energies, gradient and H v as one function that can be traced."""

    def energy(x: Tensor) -> tuple[Tensor, Tensor]:
        atomic = potential(batch.with_positions(positions=x))
        return atomic.sum(), batch.sum_over_atoms(atomic)

    def directional_derivative(x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        gradient, energies = torch.func.grad(energy, has_aux=True)(x)
        return (gradient * along).sum(), (gradient, energies)

    product, (gradient, energies) = torch.func.grad(directional_derivative, has_aux=True)(positions)
    return energies, gradient, product


def _random_probe(context: CheckContext, seed: int) -> Tensor:
    flat = np.concatenate(random_directions(context.molecules, seed))
    return torch.from_numpy(flat).to(device=context.device, dtype=context.dtype)


def _hvp(context: CheckContext, batch: Batch, probes: Tensor) -> Tensor:
    product = evaluate(context.potential, batch, Request(probes=probes)).hvp
    assert product is not None
    return product.detach().to("cpu", torch.float64)
