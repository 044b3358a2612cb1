"""Ways to take derivatives beside the plain one: several directions at once, forward mode, compiled."""

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

from hesse.checks.result import Finding, judged, note
from hesse.checks.subject import Subject, directions, relative_error
from hesse.curvature import evaluate
from hesse.errors import first_line
from hesse.structures import Batch, Request

__all__ = ["COMPILE_SECONDS", "check_compile", "check_forward_mode", "check_several_probes"]

COMPILE_SECONDS = 300
"""Longer than compiling a usual network takes on an idle machine (about a minute); some never end."""


def check_several_probes(subject: Subject) -> Finding:
    """`H v` for three directions in one vectorised pass (vmap over the backward pass), against one after another."""
    structures = subject.molecules
    batch = subject.batch(structures)
    probes = torch.stack([_probe(subject, seed) for seed in (71, 72, 73)])
    one_by_one = torch.cat([_hvp(subject, batch, p[None]) for p in probes])
    if not subject.potential.batched_gradients:
        return note("takes one direction at a time (batched_gradients is False): full Hessians cost more for it")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        together = _hvp(subject, batch, probes)
    error = relative_error(together.numpy(), one_by_one.numpy())
    slow = next((str(w.message).split(".")[0] for w in caught if "batching rule" in str(w.message)), "")
    detail = "three directions at once against one after another, relative" + (f" (slow: {slow})" if slow else "")
    return judged(error, subject.limit(1e-8, 1e-3), detail)


def check_forward_mode(subject: Subject) -> Finding:
    """Forward mode through the gradient, against reverse mode. Hesse does without; searches and others may want it."""
    batch, probe = subject.batch(subject.molecules), _probe(subject, 74)
    wanted = _hvp(subject, batch, probe[None])[0].numpy()

    def energy(positions: Tensor) -> Tensor:
        return subject.potential(batch.replace(positions=positions)).sum()

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns of itself when it first takes a forward derivative
            found = torch.func.jvp(torch.func.grad(energy), (batch.positions,), (probe.to(batch.positions),))[1]
    except Exception as error:  # whatever the operations inside say
        return note(f"no forward mode ({type(error).__name__}: {first_line(error)[:120]})")
    return judged(
        relative_error(found.detach().cpu().double().numpy(), wanted),
        subject.limit(1e-8, 1e-3),
        "H v by forward over reverse mode, against reverse over reverse, relative",
    )


def check_compile(subject: Subject) -> Finding:
    """Energy, forces and `H v` traced in one function and compiled (reverse over reverse; forward over reverse is
    miscompiled by some versions of PyTorch), against the same function run eagerly; two batches of different shape."""
    # As many structures in both, and no ids: the compiler takes these for constants, and would begin anew.
    count = max(1, len(subject.molecules) - 1)
    parts = (subject.molecules[:count], subject.molecules[-count:])
    # Its tables are found before, as in training.
    batches = [replace(subject.potential.prepare(subject.batch(structures)), ids=()) for structures in parts]
    torch._dynamo.reset()
    compiled = torch.compile(_curvature, dynamic=True, fullgraph=True)  # nothing may fall back to eager unseen
    errors, started = [], time.monotonic()
    try:
        with warnings.catch_warnings(), _at_most(COMPILE_SECONDS):
            warnings.simplefilter("ignore")  # of the compiler, about itself
            for batch in batches:
                along = torch.from_numpy(np.random.default_rng(75).normal(size=batch.positions.shape))
                along = along.to(batch.positions)
                wanted = _curvature(subject.potential, batch, batch.positions, along)
                found = compiled(subject.potential, batch, batch.positions, along)
                errors += [
                    relative_error(a.detach().cpu().double().numpy(), b.detach().cpu().double().numpy())
                    for a, b in zip(found, wanted, strict=True)
                ]
    except _TooLong:
        return note(f"not compiled within {COMPILE_SECONDS} s: stopped; eager derivatives are unharmed")
    except Exception as error:  # the compiler, or what it was given
        cause = f"{type(error).__name__}: {first_line(error)[:120]}"
        return note(f"cannot be compiled ({cause}); eager derivatives are unharmed")
    finally:
        torch._dynamo.reset()
    seconds = time.monotonic() - started
    detail = f"compiled against eager energy, forces and H v, relative (compiled in {seconds:.0f} s)"
    return judged(max(errors), subject.limit(1e-8, 1e-3), detail)


class _TooLong(BaseException):
    """Not an Exception: the compiler would take it for a failure of its own, and go on otherwise."""


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Ends the block with _TooLong after so much time; in the main thread, where signals arrive, and without limit
    elsewhere."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def _curvature(potential: torch.nn.Module, batch: Batch, positions: Tensor, along: Tensor) -> tuple[Tensor, ...]:
    """Energies, gradient and H v in one traceable function."""

    def energy(x: Tensor) -> tuple[Tensor, Tensor]:
        atomic = potential(batch.replace(positions=x))
        return atomic.sum(), batch.sum_by_structure(atomic)

    def slope(x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        gradient, energies = torch.func.grad(energy, has_aux=True)(x)
        return (gradient * along).sum(), (gradient, energies)

    product, (gradient, energies) = torch.func.grad(slope, has_aux=True)(positions)
    return energies, gradient, product


def _probe(subject: Subject, seed: int) -> Tensor:
    flat = np.concatenate(directions(subject.molecules, seed))
    return torch.from_numpy(flat).to(device=subject.device, dtype=subject.dtype)


def _hvp(subject: Subject, batch: Batch, probes: Tensor) -> Tensor:
    product = evaluate(subject.potential, batch, Request(probes=probes)).hvp
    assert product is not None
    return product.detach().to("cpu", torch.float64)
