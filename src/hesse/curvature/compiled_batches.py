"""Functions of batches that `torch.compile` translates once for all sizes: what training steps and inference share."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import torch
import torch.fx.experimental._config as shapes
from torch import Tensor, nn

from hesse.errors import CompilationError, first_line
from hesse.potential import Potential
from hesse.structures import Batch

__all__ = [
    "OutputModule",
    "compile_for_batches",
    "compiled_shape",
    "min_dimension",
    "own_storage",
    "refuse_random_layers",
]


Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def compile_for_batches(
    function: Callable[Arguments, Result], *, backend: str = "inductor", cpp_wrapper: bool = False
) -> Callable[Arguments, Result]:
    """Compile a function of tensors and batches of any sizes.

    The first call compiles. The compiler treats dimensions of size 0 and 1 as constants, so that a batch with such a
    dimension is compiled separately.

    Args:
        function: the function; an operation in it that cannot be compiled is an error, no silent fallback.
        backend: backend of `torch.compile`; "aot_eager" traces without generating code, for debugging.
        cpp_wrapper: also translate the calls of the generated loops from Python to C++, for functions that take about a
            millisecond.

    Returns:
        The compiled function. It raises CompilationError if the compiler fails.
    """
    options: dict[str, str | int | bool | Any] | None = None
    if backend == "inductor":
        # Without a minimum size of parallel loops, which would compile small batches separately.
        options = {"cpp.min_chunk_size": 1, "cpp_wrapper": cpp_wrapper}
    compiled = torch.compile(function, dynamic=True, fullgraph=True, backend=backend, options=options)

    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            with _compiler_settings():
                return compiled(*args, **kwargs)
        except Exception as error:  # compilers raise errors of many classes
            raise CompilationError(f"{type(error).__name__}: {first_line(error)[:160]}") from error

    return call


def refuse_random_layers(potential: Potential) -> None:
    """Check that a potential draws no random numbers, which compiled code would draw in another order.

    Args:
        potential: any potential.

    Raises:
        CompilationError: it has dropout.
    """
    layers = (m for m in potential.modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.p)
    if (layer := next(layers, None)) is not None:
        raise CompilationError(f"it draws random numbers ({type(layer).__name__}), in another order when compiled")


def min_dimension(batch: Batch) -> int:
    """The smallest of all tensor dimensions that differ between batches.

    Args:
        batch: the structures; its precomputed tables count too.

    Returns:
        The dimension.
    """
    return min((size for tensor in _iter_tensors(batch) for size in tensor.shape), default=0)


def _iter_tensors(value: Any) -> Iterator[Tensor]:
    """Tensors whose shapes differ between batches."""
    if isinstance(value, Batch):
        yield from (value.n_atoms, value.numbers, value.neighbors)
        yield from _iter_tensors(value.precomputed)
    elif isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _iter_tensors(item)


def compiled_shape(batch: Batch) -> tuple[object, ...]:
    """A key of what the compiler treats as constant: dimensions below two, and the kind of the precomputed tables.

    Args:
        batch: the structures, with precomputed tables.

    Returns:
        A key; batches of equal keys share a compilation.
    """
    sizes = tuple(min(size, 2) for tensor in _iter_tensors(batch) for size in tensor.shape)
    return (type(batch.precomputed), batch.cell_shifts is None, len(batch) > 1, sizes)


def own_storage(value: Any) -> Any:
    """Replace views by copies: a tensor that is a view in some batches only would be compiled twice.

    Args:
        value: a tensor, a tuple of them, or anything else, which is returned as it is.

    Returns:
        The same values.
    """
    if isinstance(value, Tensor):
        return value.clone() if value._is_view() else value
    if isinstance(value, tuple):
        items = [own_storage(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value


class OutputModule(nn.Module):
    """A module whose `forward` returns energies, for `torch.func.functional_call` with other parameters.

    Args:
        potential: any potential.
    """

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Atomic energies and the further outputs of the potential.

        Args:
            batch: the structures.

        Returns:
            Values by name.
        """
        return self.potential.outputs(batch)


@contextmanager
def _compiler_settings() -> Iterator[None]:
    """Settings for calls of the compiled function.

    Several networks and kinds of batches may be compiled in one process (recompile_limit). Dimensions that are equal in
    the first batch differ in later ones (use_duck_shape). The gradient in parameters is taken inside (no_grad).
    """
    with (
        warnings.catch_warnings(),
        torch._dynamo.config.patch(recompile_limit=64),
        shapes.patch(use_duck_shape=False),  # type: ignore[attr-defined]
        torch.no_grad(),
    ):
        warnings.simplefilter("ignore")  # warnings of the compiler about itself
        yield
