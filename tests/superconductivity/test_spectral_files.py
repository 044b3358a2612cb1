"""Files of α²F and λ: each known form, and what is wrong with others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import hesse
from hesse.cli.app import app
from hesse.errors import FileFormatError, HesseError, RequestError, UnitError
from hesse.superconductivity import SpectralFunction, read_alpha2f, read_lambda_table, read_mode_couplings
from hesse.superconductivity.frequency_units import FREQUENCY_UNITS

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "qe_a2f_al" / "Recover_example" / "reference_1"
GRID = np.linspace(0.0005, 0.04, 80)
VALUES = 0.4 * np.exp(-0.5 * ((GRID - 0.02) / 0.005) ** 2)
COUPLING = 2 * np.trapezoid(VALUES / GRID, GRID)


def matdyn(scale: float = 1.0) -> str:
    rows = "".join(
        f"  {w / FREQUENCY_UNITS['Ry']:.10f} {v:.8f}\n {v / 2:.8f} {v / 4:.8f} {v / 4:.8f}\n"
        for w, v in zip(GRID, VALUES, strict=True)
    )
    head = "\n # Eliashberg function a2F (per both spin)\n #  frequencies in Rydberg\n # a2F_total, a2F(mode)\n\n"
    return f"{head}{rows}  lambda =  {scale * COUPLING:.12E}         Delta =    6.1E-005\n"


def epw(columns: int = 2) -> str:
    integral = np.cumsum(2 * VALUES / GRID) * (GRID[1] - GRID[0])
    rows = "".join(
        f"{1e3 * w:12.7f}{''.join(f'{(k + 1) * v:12.7f}' for k in range(columns))}"
        f"{''.join(f'{(k + 1) * i:12.7f}' for k in range(columns))}\n"
        for w, v, i in zip(GRID, VALUES, integral, strict=True)
    )
    last = "".join(f"{(k + 1) * COUPLING:12.7f}" for k in range(columns))
    return (
        f" w[meV] a2f and integrated 2*a2f/w for   10 smearing values\n{rows} Integrated el-ph coupling\n"
        f"  #         {last}\n Phonon smearing (meV)\n  #   0.05\nElectron smearing (eV)   0.1\n"
    )


def lambda_x() -> str:
    rows = "".join(
        f"{w / FREQUENCY_UNITS['THz']:8.4f}{v:10.5f}{2 * v:10.5f}\n" for w, v in zip(GRID, VALUES, strict=True)
    )
    return f"# E(THz)     0.005     0.010\n{rows}"


def test_the_unit_of_terahertz_is_the_energy_of_a_quantum():
    assert FREQUENCY_UNITS["THz"] == pytest.approx(4.135667e-3, rel=1e-6)
    assert FREQUENCY_UNITS["K"] * 11604.52 == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize(
    ("text", "options", "factor"),
    [
        (matdyn(), {}, 1),
        (epw(), {}, 1),
        (epw(), {"column": 2}, 2),
        (epw(1), {"unit": "meV"}, 1),
        (lambda_x(), {"column": 2}, 2),
        (
            "\n".join(f"{w / FREQUENCY_UNITS['cm-1']:.6f}, {v:.8f}" for w, v in zip(GRID, VALUES, strict=True)),
            {"unit": "cm^-1"},
            1,
        ),
        ("# ω α²F\n" + "\n".join(f"{w:.6f} {v:.8f} # x" for w, v in zip(GRID, VALUES, strict=True)), {"unit": "ev"}, 1),
    ],
    ids=["matdyn", "epw", "epw column", "epw unit", "lambda.x", "cm-1", "plain"],
)
def test_known_forms(tmp_path, text, options, factor):
    (tmp_path / "a2f").write_text(text)
    spectrum = read_alpha2f(tmp_path / "a2f", **options)
    assert spectrum.coupling == pytest.approx(factor * COUPLING, rel=2e-3)
    weights = VALUES / GRID
    assert spectrum.omega_log == pytest.approx(np.exp(weights @ np.log(GRID) / weights.sum()), rel=5e-3)


@pytest.mark.parametrize(
    ("text", "options", "error", "message"),
    [
        (matdyn(1.1), {}, FileFormatError, "the file says λ = .* but the integral"),
        (matdyn(), {"unit": "THz"}, UnitError, "states its unit"),
        (epw(), {"column": 3}, RequestError, "column 3 does not exist, there are 2"),
        (lambda_x(), {}, RequestError, r"choose one with --column: 1 \(broadening 0.005 Ry\)"),
        ("1 2\n2 3\n", {}, UnitError, "add --unit"),
        ("1 2\n2 3\n", {"unit": "parsec"}, UnitError, "unknown unit"),
        ("1 2\n2 3 4\n", {"unit": "meV"}, FileFormatError, "row 2 has 3"),
        ("1\n2\n", {"unit": "meV"}, FileFormatError, "got one column"),
        ("1 2\n2 three\n", {"unit": "meV"}, FileFormatError, "expected numbers .* got: 2 three"),
        ("", {"unit": "meV"}, FileFormatError, "no numbers"),
        ("\x89HDF\r\n\x1a\n\x00\x00", {"unit": "meV"}, FileFormatError, "a2f: not a text file: expected columns"),
        ("omega a2f\n1 2\n2 3\n", {"unit": "meV"}, FileFormatError, "got: omega a2f. .* begin it with #"),
        ("2 1\n1 1\n", {"unit": "meV"}, RequestError, "ascend"),
        ("# a2F Rydberg\n 1 2\n 1 2 3\n 1 2\n", {}, FileFormatError, "expected rows"),
    ],
)
def test_files_that_are_wrong(tmp_path, text, options, error, message):
    (tmp_path / "a2f").write_text(text)
    with pytest.raises(error, match=message):
        read_alpha2f(tmp_path / "a2f", **options)


def test_missing_file(tmp_path):
    with pytest.raises(HesseError, match="nothing"):
        hesse.tc(tmp_path / "nothing")


def test_command_line(tmp_path):
    (tmp_path / "a2F.dos").write_text(matdyn())
    run = CliRunner().invoke(
        app,
        ["tc", str(tmp_path / "a2F.dos"), "--mu-star", "0.1", "--mu-star", "0.13", "--json", str(tmp_path / "tc.json"),
         "--plot", str(tmp_path / "tc.png")],
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    rows = json.loads((tmp_path / "tc.json").read_text())
    assert [row["mu_star"] for row in rows] == [0.1, 0.13]
    assert rows[0]["lambda"] == pytest.approx(COUPLING, rel=2e-3)
    assert rows[0]["tc_eliashberg"] > rows[1]["tc_eliashberg"] > 0
    assert {"omega_log", "omega_2", "tc_mcmillan", "tc_allen_dynes"} <= rows[0].keys()
    assert f"{rows[0]['tc_eliashberg']:.3f}" in run.output
    assert (tmp_path / "tc.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_line_tells_of_a_unit_that_is_wrong(tmp_path):
    np.savetxt(tmp_path / "a2f.txt", np.column_stack([GRID / FREQUENCY_UNITS["THz"], VALUES]))
    run = CliRunner().invoke(app, ["tc", str(tmp_path / "a2f.txt"), "--unit", "eV"])
    assert run.exit_code == 0
    assert "warning: the highest frequency of α²F is 9672 meV: no phonon is above 600 meV. Is the unit" in run.output


def test_the_picture_is_checked_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "a2F.dos").write_text(matdyn())
    monkeypatch.setattr("hesse.superconductivity.tc", lambda *_, **__: pytest.fail("work before the check"))
    run = CliRunner().invoke(app, ["tc", str(tmp_path / "a2F.dos"), "--plot", str(tmp_path / "a.xyz")])
    assert isinstance(run.exception, FileFormatError)
    assert "pictures are written as .png or .svg" in str(run.exception)


@pytest.mark.parametrize("count", [20, 160])
def test_the_sums_in_the_picture_are_smooth(count):
    """λ(ω) between the data: neither steps nor ripples, and the whole λ at the end."""
    from hesse.reports.alpha2f_figure import _spacing, _sums

    w = np.linspace(1e-3, 0.04, count)
    spectrum = SpectralFunction.from_grid(w, np.interp(w, [0, 0.04], [0, 0.5]))
    grid = np.linspace(0, 0.045, 600)
    sums = _sums(spectrum, grid, max(4e-4, 0.7 * _spacing(spectrum)))
    assert sums[-1] == pytest.approx(spectrum.coupling, rel=1e-3)
    slopes = np.diff(sums)[80:450]
    assert np.ptp(slopes) < 0.12 * slopes.mean()
    assert _spacing(SpectralFunction.from_modes([[0.01, 0.02, 0.03]], [[0.1, 0.1, 0.1]])) == 0


def test_lambda_tables(tmp_path):
    (tmp_path / "lambda").write_text(" Broadening   0.0050 lambda       0.2189 dos(Ef)  1.3392\n" * 2)
    rows = read_lambda_table(tmp_path / "lambda")
    assert [(row.broadening, row.coupling, row.omega_log) for row in rows] == [(0.005, 0.2189, None)] * 2
    (tmp_path / "lambda.dat").write_text(
        "# degauss   lambda    int alpha2F  <log w>     N(Ef)\n  0.020    0.374486    0.374547   344.0    2.2\n"
    )
    row = read_lambda_table(tmp_path / "lambda.dat")[0]
    assert row.omega_log == pytest.approx(344.0 * 8.617333e-5, rel=1e-5)
    (tmp_path / "other").write_text("nothing")
    with pytest.raises(FileFormatError, match="expected a table"):
        read_lambda_table(tmp_path / "other")


def test_couplings_of_modes(tmp_path):
    for k, values in enumerate(((0.1, 0.2), (0.3, 0.4)), 1):
        (tmp_path / f"elph.inp_lambda.{k}").write_text(
            f"  0.0 0.0 {k / 2}    1     2\n  {(1e-3 * k) ** 2:.6E}  {(2e-3 * k) ** 2:.6E}\n"
            "     Gaussian Broadening:   0.020 Ry, ngauss=   0\n"
            "     DOS =  2.2 states/spin/Ry/Unit Cell at Ef=  8.3 eV\n"
            + "".join(f"     lambda({i:5d})=  {v:.4f}   gamma=    0.02 GHz\n" for i, v in enumerate(values, 1))
        )
    files = sorted(tmp_path.iterdir())
    modes = read_mode_couplings(files, 0.02)
    ry = FREQUENCY_UNITS["Ry"]
    np.testing.assert_allclose(modes.frequencies, ry * np.array([[1e-3, 2e-3], [2e-3, 4e-3]]), rtol=1e-6)
    assert modes.spectrum([1, 3]).coupling == pytest.approx(0.25 * 0.3 + 0.75 * 0.7)
    softer = modes.spectrum([1, 3], frequencies=0.5 * modes.frequencies)
    assert softer.coupling == pytest.approx(4 * modes.spectrum([1, 3]).coupling)
    terahertz = modes.frequencies / FREQUENCY_UNITS["THz"]
    in_terahertz = modes.spectrum([1, 3], frequencies=0.6 * terahertz, unit="THz")
    assert in_terahertz.coupling == pytest.approx(modes.spectrum([1, 3]).coupling / 0.36)
    with pytest.raises(RequestError, match=r'frequencies: expected the same phonons.* unit="THz" fits'):
        modes.spectrum([1, 3], frequencies=terahertz)
    with pytest.raises(RequestError, match=r"no broadening of 0.5 Ry, there are 0.02"):
        read_mode_couplings(files, 0.5)
    files[0].write_text("other")
    with pytest.raises(FileFormatError, match=r"expected a q point"):
        read_mode_couplings(files, 0.02)


@pytest.mark.skipif(
    not SHARED.exists(), reason="needs the reference data of aluminium, which are not in the repository"
)
def test_aluminium_by_quantum_espresso():
    """λ of ten broadenings, as matdyn.x prints it from the same files."""
    table = read_lambda_table(SHARED / "lambda")
    for k, row in enumerate(table, 1):
        found = read_alpha2f(SHARED / f"a2F.dos{k}", allow_negative=True).coupling
        assert found == pytest.approx(row.coupling, abs=1.5e-4)  # four digits are printed
    with pytest.raises(RequestError, match="negative values are 56 %"):
        read_alpha2f(SHARED / "a2F.dos1")
