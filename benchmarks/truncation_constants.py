"""Measurement of the constants in `hesse.engines.finite_differences`: growth of the derivatives of a gradient by order.

    python benchmarks/truncation_constants.py

GFN2-xTB, three randomly displaced geometries of each closed-shell molecule of the G2 set, three families of directions.
It takes a minute.
"""

from __future__ import annotations

import numpy as np
from label_errors import closed_shells, jittered, sixth_order

from hesse.engines import XtbEngine
from hesse.engines.finite_differences import relative_motion

STEP, WIDE = 4e-4, 5e-3  # Å
NEGLIGIBLE = 1e-3  # eV/Å⁴ and eV/Å⁶: directions with a smaller truncation error are left out
FAMILIES = ("Rademacher", "Gaussian", "one-hot")


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def directions(signs: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    gaussian = rng.normal(size=signs.shape)
    one = np.zeros(signs.size)
    one[rng.integers(signs.size)] = 1.0
    return {"Rademacher": signs, "Gaussian": gaussian / np.abs(gaussian).max(), "one-hot": one.reshape(signs.shape)}


def main() -> None:
    results: dict[str, list[tuple[float, ...]]] = {family: [] for family in FAMILIES}
    for number, (structure, signs) in enumerate(jittered(closed_shells(), 3)):
        surface = XtbEngine("gfn2", accuracy=1e-8).energy_function(structure)
        x = structure.positions
        for family, v in directions(signs, number).items():
            rates = relative_motion(structure, v)[:, None]
            exact = sixth_order(surface, x, v, 2e-3)
            at = {k: -surface(x + k * v).forces for k in (0, STEP, -STEP, WIDE, -WIDE, 2 * WIDE, -2 * WIDE)}
            first = (at[STEP] - at[-STEP]) / (2 * STEP)
            second = (at[STEP] + at[-STEP] - 2 * at[0]) / STEP**2
            plain = rms(first - exact) / STEP**2
            inner, outer = at[WIDE] - at[-WIDE], at[2 * WIDE] - at[-2 * WIDE]
            fourth = at[2 * WIDE] + at[-2 * WIDE] - 4 * (at[WIDE] + at[-WIDE]) + 6 * at[0]
            wide = rms((8 * inner - outer) / (12 * WIDE) - exact) / WIDE**4
            if min(plain, wide) > NEGLIGIBLE and rms(second * rates) > 0:
                third_over_second = 6 * plain / rms(second * rates)
                fifth_over_fourth = 30 * wide / (rms(fourth * rates) / WIDE**4)
                fall = rms(second) ** 2 / rms(first) / (6 * plain)
                results[family].append((plain, wide, third_over_second, fifth_over_fourth, fall))
    for family, rows in results.items():
        plain, wide, third, fifth, fall = np.array(rows).T
        print(f"{family}, {len(rows)} directions")
        print(f"  error / e²: median {np.median(plain):.3g} eV/Å⁴, 5 % to 95 % {quantiles(plain)}")
        print(f"  Richardson's error / e⁴: median {np.median(wide):.3g} eV/Å⁶, 5 % to 95 % {quantiles(wide)}")
        for name, ratios, constant in (("third from second", third, 5.0), ("fifth from fourth", fifth, 7.0)):
            print(f"  {name}: median {np.median(ratios):.2f} per Å; {within(constant / ratios)} of {constant:g}")
        print(f"  third from the fall of the first two: {within(fall)}")


def quantiles(values: np.ndarray) -> str:
    return f"{np.quantile(values, 0.05):.2g} to {np.quantile(values, 0.95):.2g}"


def within(ratios: np.ndarray) -> str:
    return f"{100 * np.mean((ratios > 1 / 3) & (ratios < 3)):.1f} % within a factor of 3"


if __name__ == "__main__":
    main()
