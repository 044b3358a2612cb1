"""Probes of labels that are computed once: one of the distributions of `hesse.probes`, or designed for the geometry.

A designed probe needs no Hessian of the reference. It uses the Hessian that a molecule of these elements and distances
typically has (`hesse.harmonic.hessian_prior`), which costs nothing:

- `mass`, `soft-modes`, `free-energy`: `v = c P z` with independent random signs z and the matrix P of
  `hesse.harmonic.probe_weighting` for the typical Hessian;
- `softest`: `v = c u`, the displacement of its softest mode (a second probe: of its second mode, and so on).

`E[v vᵀ]` is not the identity, deliberately: the errors of some modes count more than those of others. The factor c
makes the products as large as those of other probes, `E|H v|² = ‖H‖²` for the typical Hessian H, so that the loss needs
no other weight.

Probes of crystals can be `symmetry-adapted`: displacements of single atoms from which the space group generates the
whole Hessian, scaled like `one-hot`. There are as many as the crystal needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray as Array
from torch import Tensor

from hesse.errors import GeometryError, RequestError, check_choice
from hesse.harmonic.hessian_prior import typical_hessian
from hesse.harmonic.irreducible_directions import count_irreducible_directions, irreducible_directions
from hesse.harmonic.normal_modes import normal_modes
from hesse.harmonic.probe_weighting import Weighting, probe_transform
from hesse.probes import PROBE_KINDS, ProbeSeed, make_probe
from hesse.structures import Structure, collate

__all__ = [
    "COUNTED_BY_STRUCTURE",
    "FIXED_PROBE_KINDS",
    "check_probe_kind",
    "count_fixed_probes",
    "draw_fixed_probes",
]

_WEIGHTINGS: Final[dict[str, Weighting]] = {"mass": "mass", "soft-modes": "soft-modes", "free-energy": "free-energy"}
_SOFTEST: Final = "softest"
_SYMMETRY: Final = "symmetry-adapted"

FIXED_PROBE_KINDS: Final = (*PROBE_KINDS, *_WEIGHTINGS, _SOFTEST, _SYMMETRY)
"""Names of probes of labels: the distributions, then those designed for molecules, then those of crystals."""

COUNTED_BY_STRUCTURE: Final = (_SYMMETRY,)
"""Those of which every structure decides the number."""

_CHUNK: Final = 256
"""Structures that are collated at a time."""


def check_probe_kind(kind: str, n_probes: int = 1) -> None:
    """Check the name and number of probes.

    Args:
        kind: one of `FIXED_PROBE_KINDS`.
        n_probes: number of probes per structure.

    Raises:
        UnknownOptionError: unknown name; the message has the nearest one.
        ConfigError: less than one probe.
    """
    check_choice(kind, FIXED_PROBE_KINDS, "probe")
    make_probe(kind if kind in PROBE_KINDS else "rademacher", n_probes)


def count_fixed_probes(structure: Structure, kind: str, n_probes: int = 1) -> int:
    """Count the probes of a structure.

    Args:
        structure: the structure.
        kind: one of `FIXED_PROBE_KINDS`.
        n_probes: number of probes that are asked for.

    Returns:
        That number; with `symmetry-adapted`, unless it is zero, as many as the crystal needs.

    Raises:
        GeometryError: symmetry-adapted probes of a molecule.
        MissingExtraError: they need spglib, which is not installed.
    """
    return count_irreducible_directions(structure) if kind in COUNTED_BY_STRUCTURE and n_probes else n_probes


def draw_fixed_probes(
    structures: Sequence[Structure], kind: str, *, n_probes: int = 1, seed: int = 0
) -> Float[Tensor, "probes atoms 3"]:
    """The probes of some structures. Each depends on the seed, on the id and geometry of its structure, and on its
    number only.

    Args:
        structures: one or more.
        kind: one of `FIXED_PROBE_KINDS`.
        n_probes: number of probes per structure.
        seed: seed of the random numbers; `softest` has none.

    Returns:
        Dimensionless directions in float64.

    Raises:
        UnknownOptionError: unknown name.
        ConfigError: less than one probe.
        GeometryError: a probe designed for molecules of a periodic structure, or one of crystals of a molecule.
        RequestError: more probes than a molecule has modes, or than a crystal has symmetry-adapted directions.
    """
    check_probe_kind(kind, n_probes)
    if kind in PROBE_KINDS:
        return _random(structures, kind, n_probes, seed)
    if kind == _SYMMETRY:
        return torch.cat([torch.from_numpy(_symmetry_adapted(structure, n_probes)) for structure in structures], dim=1)
    for structure in structures:
        if structure.periodic:
            raise GeometryError(
                f'structure "{structure.id}" is periodic: probes of kind {kind} are designed for molecules. Use one of '
                f"{', '.join(PROBE_KINDS)}"
            )
    if kind == _SOFTEST:
        return torch.cat([torch.from_numpy(_softest(structure, n_probes)) for structure in structures], dim=1)
    signs = _random(structures, "rademacher", n_probes, seed).split([len(s) for s in structures], dim=1)
    drawn = []
    for structure, z in zip(structures, signs, strict=True):
        matrix = torch.from_numpy(_scaled_transform(structure, _WEIGHTINGS[kind]))
        drawn.append((z.reshape(n_probes, -1) @ matrix.T).reshape(n_probes, -1, 3))
    return torch.cat(drawn, dim=1)


def _random(structures: Sequence[Structure], kind: str, n_probes: int, seed: int) -> Float[Tensor, "probes atoms 3"]:
    probe = make_probe(kind, n_probes)
    # Probes need no neighbors: any cutoff will do, and a short one is cheap.
    batches = (
        collate(list(structures[start : start + _CHUNK]), 0.1, dtype=torch.float64)
        for start in range(0, len(structures), _CHUNK)
    )
    return torch.cat([probe.draw(batch, ProbeSeed(seed)) for batch in batches], dim=1)


def _typical(structure: Structure) -> Float[Array, "n 3 n 3"]:
    n = len(structure)
    return typical_hessian(structure).mean.reshape(n, 3, n, 3)


def _scaled_transform(structure: Structure, weighting: Weighting) -> Float[Array, "3n 3n"]:
    """The matrix c P, with c such that `‖H c P‖ = ‖H‖` for the typical Hessian H."""
    n = len(structure)
    hessian = _typical(structure)
    matrix = probe_transform(structure, hessian, weighting).reshape(3 * n, 3 * n)
    flat = hessian.reshape(3 * n, 3 * n)
    products = np.linalg.norm(flat @ matrix)
    return matrix if products == 0.0 else matrix * (np.linalg.norm(flat) / products)  # an atom has no curvature


def _softest(structure: Structure, n_probes: int) -> Float[Array, "probes n 3"]:
    n = len(structure)
    hessian = _typical(structure)
    modes = normal_modes(structure, hessian)
    if len(modes) < n_probes and n > 1:
        raise RequestError(
            f'structure "{structure.id}" has {len(modes)} modes, fewer than the {n_probes} probes along softest modes '
            "that were asked for: ask for fewer, or for another kind of probe"
        )
    if n == 1:
        return np.eye(3)[np.arange(n_probes) % 3, None] * np.sqrt(3.0)
    directions = modes.unit_displacements[:n_probes].reshape(n_probes, 3 * n)
    flat = hessian.reshape(3 * n, 3 * n)
    products = np.linalg.norm(directions @ flat, axis=1)
    return (directions * (np.linalg.norm(flat) / products)[:, None]).reshape(n_probes, n, 3)


def _symmetry_adapted(structure: Structure, n_probes: int) -> Float[Array, "probes n 3"]:
    directions = irreducible_directions(structure)
    if len(directions) < n_probes:
        raise RequestError(
            f'structure "{structure.id}" has {len(directions)} symmetry-adapted directions, which determine its '
            f"Hessian; {n_probes} were asked for"
        )
    return directions[:n_probes] * np.sqrt(3.0 * len(structure))
