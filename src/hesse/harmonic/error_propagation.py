"""Error bars of frequencies and of sums over modes, from the estimated error of a Hessian.

The estimate is one number, the root mean square σ of the errors of the elements. How they are distributed depends on
their origin, and two cases are added as variances:

- noise is the same everywhere: independent errors of the elements on and above the diagonal. To first order the
  eigenvalue of mode k changes by `c_kᵀ ΔH c_k`, with its Cartesian displacements `c_k` per unit of the mass-weighted
  coordinate, so that the changes of two eigenvalues have the covariance `σ² (2 (c_k·c_l)² − Σ_i c_ki² c_li²)`. This is
  the larger part for soft modes;
- errors of finite steps are largest in stiff bonds: an error in proportion to the Hessian, `ΔH = ε H` with ε the
  ratio of σ to the root mean square of the elements. Each eigenvalue changes by `ε λ_k`. This is the larger part for
  stretches.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.errors import RequestError, check_numbers
from hesse.harmonic.normal_modes import NormalModes
from hesse.units import HBAR, INVERSE_CM

__all__ = ["eigenvalue_covariance", "error_of_sum", "frequency_errors"]


def eigenvalue_covariance(
    modes: NormalModes, hessian_error: float, *, proportional: bool = True
) -> Float[Array, "modes modes"]:
    """Covariance of the eigenvalues of a Hessian with errors.

    Args:
        modes: normal modes of the Hessian.
        hessian_error: root mean square error of its elements, eV/Å².
        proportional: add errors in proportion to the Hessian to independent ones.

    Returns:
        (eV/(Å² u))², `[modes, modes]`.

    Raises:
        ConfigError: an error that is not a number.
        RequestError: an error that is negative or not finite.
    """
    check_numbers(hessian_error=hessian_error)
    if not (np.isfinite(hessian_error) and hessian_error >= 0):
        raise RequestError(f"the error of a Hessian must be a number of eV/Å², not below zero; got {hessian_error}")
    n, eigenvalues = len(modes.masses), modes.eigenvalues
    vectors = modes.cartesian.reshape(len(modes), 3 * n)
    squares = vectors**2
    covariance: Float[Array, "modes modes"] = hessian_error**2 * (
        2.0 * (vectors @ vectors.T) ** 2 - squares @ squares.T
    )
    if proportional:
        # H = Σ_k λ_k d_k d_kᵀ with d_k = M c_k
        dual = (modes.vectors * np.sqrt(modes.masses)[:, None]).reshape(len(modes), 3 * n)
        squared_norm = float(eigenvalues @ (dual @ dual.T) ** 2 @ eigenvalues)
        n_elements = (3 * (n if modes.atoms is None else len(modes.atoms))) ** 2
        if squared_norm > 0:
            covariance += hessian_error**2 * n_elements / squared_norm * np.outer(eigenvalues, eigenvalues)
    return covariance


def frequency_errors(modes: NormalModes, hessian_error: float, *, proportional: bool = True) -> Float[Array, "modes"]:
    """Standard errors of the frequencies.

    Args:
        modes: normal modes of the Hessian.
        hessian_error: root mean square error of its elements, eV/Å².
        proportional: see `eigenvalue_covariance`.

    Returns:
        cm⁻¹, `[modes]`: half the difference between the frequencies at both ends of the error bar of the eigenvalue.
        For soft modes these ends can lie on both sides of zero.

    Raises:
        RequestError: an error that is negative or not finite.
    """
    widths = np.sqrt(np.diagonal(eigenvalue_covariance(modes, hessian_error, proportional=proportional)))
    eigenvalues = modes.eigenvalues
    result: Float[Array, "modes"] = 0.5 * (_wavenumber(eigenvalues + widths) - _wavenumber(eigenvalues - widths))
    return result


def error_of_sum(
    modes: NormalModes,
    hessian_error: float,
    terms: Callable[[Float[Array, "modes"]], Float[Array, "*rows modes"]],
    *,
    proportional: bool = True,
) -> Float[Array, "*rows"]:
    """Standard errors of sums over modes, such as a zero-point energy or an entropy.

    Args:
        modes: normal modes of the Hessian.
        hessian_error: root mean square error of its elements, eV/Å².
        terms: contributions of the modes as a function of their frequencies (cm⁻¹), the last axis being the modes.
        proportional: see `eigenvalue_covariance`.

    Returns:
        The standard errors, in the unit of the terms. Slopes are taken over the width of each error bar, so that soft
        modes count with the error they have, not with their infinite slope at zero.

    Raises:
        RequestError: an error that is negative or not finite.
    """
    covariance = eigenvalue_covariance(modes, hessian_error, proportional=proportional)
    eigenvalues, widths = modes.eigenvalues, np.sqrt(np.diagonal(covariance))
    # Imaginary modes do not contribute; a real one stays real.
    steps = np.maximum(widths, 1e-6 * np.abs(eigenvalues) + 1e-12)
    upper = eigenvalues + np.where(eigenvalues > 0, steps, 0.0)
    lower = np.where(eigenvalues > 0, np.maximum(eigenvalues - steps, 0.25 * eigenvalues), eigenvalues)
    change = terms(_wavenumber(upper)) - terms(_wavenumber(lower))
    slopes = change / np.where(upper > lower, upper - lower, 1.0)
    variance = np.einsum("...k,kl,...l->...", slopes, covariance, slopes)
    result: Float[Array, "*rows"] = np.sqrt(np.maximum(variance, 0.0))
    return result


def _wavenumber(eigenvalues: Float[Array, "modes"]) -> Float[Array, "modes"]:
    result: Float[Array, "modes"] = np.sign(eigenvalues) * np.sqrt(np.abs(eigenvalues)) * HBAR / INVERSE_CM
    return result
