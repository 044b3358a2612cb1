"""Readers of α²F: files of Quantum ESPRESSO and EPW, and plain columns."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.errors import FileFormatError, RequestError, UnitError
from hesse.runtime.filesystem import check_input_file
from hesse.superconductivity.frequency_units import FREQUENCY_UNITS, frequency_unit
from hesse.superconductivity.spectral_function import SpectralFunction

__all__ = ["read_alpha2f"]

MAX_BYTES: Final = 64 * 2**20
NORMALIZATION_LIMIT: Final = 0.02
"""Largest relative difference between λ from the integral and λ in the file."""


def read_alpha2f(
    path: str | Path, *, unit: str | None = None, column: int | None = None, allow_negative: bool = False
) -> SpectralFunction:
    """Read α²F(ω).

    Known are `a2F.dos*` of matdyn.x (Rydberg), `alpha2F.dat` of lambda.x (THz, a column for each broadening), `.a2f` of
    EPW (meV), and plain text of columns with the frequency first. If the file says what λ is, it is compared with the
    integral.

    Args:
        path: the file.
        unit: unit of the frequencies of a plain file: eV, meV, Ry, Ha, THz, cm-1 or K.
        column: the column of α²F if there are several, counted from 1 after the frequency.
        allow_negative: compute with an α²F that is negative beyond noise.

    Returns:
        The spectral function.

    Raises:
        FileFormatError: not such a file, or λ in the file differs from the integral of its α²F.
        RequestError: α²F that is negative, or a choice of columns that does not exist or is missing.
        UnitError: a plain file without unit, or an unknown one.
    """
    path = Path(path)
    check_input_file(path)
    if path.stat().st_size > MAX_BYTES:
        raise FileFormatError(f"{path}: {path.stat().st_size / 2**20:.0f} MiB are more than any file of α²F has")
    content = path.read_bytes()
    if b"\0" in content[:4096]:
        raise FileFormatError(f"{path}: not a text file: expected columns of numbers, the frequency and α²F")
    text = content.decode("utf-8", errors="replace")
    head = text[:2000]
    if "a2F" in head and "Rydberg" in head:
        table, factor, stated = _matdyn(path, text)
    elif re.search(r"w\[meV\].*a2f", head):
        table, factor, stated = _epw(path, text, column)
    elif re.match(r"\s*#\s*E\(THz\)", head):
        table, factor, stated = _lambda_x(path, text, column)
    else:
        table, factor, stated = _plain(path, text, unit, column)
    if unit is not None and not np.isclose(frequency_unit(unit), factor):
        raise UnitError(f"{path}: this file states its unit, which is not {unit}: leave the unit out")
    try:
        spectrum = SpectralFunction.from_grid(factor * table[:, 0], table[:, 1], allow_negative=allow_negative)
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from None
    if stated is not None and abs(spectrum.coupling - stated) > NORMALIZATION_LIMIT * max(stated, 0.05):
        raise FileFormatError(
            f"{path}: the file says λ = {stated:g}, but the integral of its α²F gives {spectrum.coupling:.4g}. It was "
            "cut, scaled, or has another unit"
        )
    if stated is not None:
        spectrum = replace(spectrum, notes=(*spectrum.notes, f"λ in the file is {stated:g}"))
    return spectrum


_Table = tuple[Float[Array, "n 2"], float, float | None]


def _matdyn(path: Path, text: str) -> _Table:
    """`a2F.dos`: every row has frequency, α²F and the parts of the modes, wrapped over several lines."""
    body, _, tail = text.partition("lambda")
    numbers = _numbers(path, [line for line in body.splitlines() if line.strip() and not line.lstrip().startswith("#")])
    lengths = [len(row) for row in numbers]
    starts = [k for k, n in enumerate(lengths) if n == lengths[0]] if numbers else []
    # The first line of a row has two numbers or more, those of modes follow until the next row; all rows are alike.
    per_row = next((p for p in range(1, len(lengths) // 2 + 1) if _is_periodic(lengths, p)), None)
    if per_row is None or not starts or lengths[0] < 2:
        raise FileFormatError(f"{path}: expected rows of frequency, α²F, and α²F of the modes, as matdyn.x writes them")
    rows = [row[:2] for row in numbers[::per_row]]
    match = re.match(r"\s*=\s*([-+.\dEeDd]+)", tail)
    return np.array(rows), FREQUENCY_UNITS["Ry"], None if match is None else _float(path, match[1])


def _is_periodic(lengths: list[int], period: int) -> bool:
    return len(lengths) % period == 0 and lengths == lengths[:period] * (len(lengths) // period)


def _epw(path: Path, text: str, column: int | None) -> _Table:
    """`.a2f`: frequency, α²F for every smearing of phonons, and its integrals, which are as many."""
    body, _, tail = text.partition("Integrated el-ph coupling")
    rows = _numbers(path, body.splitlines()[1:])
    table = _rectangle(path, rows)
    n = (table.shape[1] - 1) // 2
    if table.shape[1] != 2 * n + 1 or n < 1:
        raise FileFormatError(f"{path}: expected as many columns of α²F as of its integral, got {table.shape[1] - 1}")
    chosen = _choose(path, column, [f"smearing {k + 1}" for k in range(n)], default=1)
    stated = re.match(r"\s*#?((?:\s+[-+.\dEe]+)+)", tail)
    values = [] if stated is None else stated[1].split()
    coupling = _float(path, values[chosen - 1]) if len(values) >= chosen else None
    return table[:, [0, chosen]], FREQUENCY_UNITS["meV"], coupling


def _lambda_x(path: Path, text: str, column: int | None) -> _Table:
    """`alpha2F.dat`: frequency in THz, and α²F for every electronic broadening."""
    lines = text.splitlines()
    broadenings = lines[0].partition(")")[2].split()
    table = _rectangle(path, _numbers(path, lines[1:]))
    names = [f"broadening {value} Ry" for value in broadenings] or [""] * (table.shape[1] - 1)
    if len(names) != table.shape[1] - 1:
        raise FileFormatError(
            f"{path}: {len(names)} broadenings in the first line, but {table.shape[1] - 1} columns of α²F"
        )
    return table[:, [0, _choose(path, column, names)]], FREQUENCY_UNITS["THz"], None


def _plain(path: Path, text: str, unit: str | None, column: int | None) -> _Table:
    rows = _numbers(path, [line.split("#")[0].split("!")[0] for line in text.splitlines()])
    table = _rectangle(path, rows)
    if table.shape[1] < 2:
        raise FileFormatError(f"{path}: expected columns of frequency and α²F, got one column")
    if unit is None:
        raise UnitError(
            f"{path}: plain columns do not say in which unit the frequencies are: add --unit "
            f"({', '.join(FREQUENCY_UNITS)})"
        )
    chosen = _choose(path, column, [""] * (table.shape[1] - 1))
    return table[:, [0, chosen]], frequency_unit(unit), None


def _choose(path: Path, column: int | None, names: list[str], *, default: int | None = None) -> int:
    """The number of the column of α²F, from 1."""
    if column is None:
        if len(names) > 1 and default is None:
            listed = ", ".join(f"{k} ({name})" if name else str(k) for k, name in enumerate(names, 1))
            raise RequestError(f"{path}: there are several columns of α²F, choose one with --column: {listed}")
        return default or 1
    if not 1 <= column <= len(names):
        raise RequestError(f"{path}: column {column} does not exist, there are {len(names)} of α²F")
    return column


def _numbers(path: Path, lines: list[str]) -> list[list[float]]:
    result = []
    for line in lines:
        if line.strip():
            try:
                result.append(
                    [float(word.replace("D", "E").replace("d", "e")) for word in line.replace(",", " ").split()]
                )
            except ValueError:
                shown = line.strip()[:60]
                remark = "" if re.search(r"\d\.|\b\d", shown) else ". If this line is a remark, begin it with #"
                raise FileFormatError(f"{path}: expected numbers (frequency and α²F), got: {shown}{remark}") from None
    if not result:
        raise FileFormatError(f"{path}: there are no numbers in this file")
    return result


def _rectangle(path: Path, rows: list[list[float]]) -> Float[Array, "n columns"]:
    if len({len(row) for row in rows}) != 1:
        k = next(k for k, row in enumerate(rows) if len(row) != len(rows[0]))
        raise FileFormatError(
            f"{path}: rows differ: the first has {len(rows[0])} numbers, row {k + 1} has {len(rows[k])}"
        )
    return np.array(rows)


def _float(path: Path, text: str) -> float:
    try:
        return float(text.replace("D", "E").replace("d", "e"))
    except ValueError:
        raise FileFormatError(f"{path}: expected a number after λ, got {text!r}") from None
