"""Names of levels of theory: valid ones, and those refused because PySCF would compute something else."""

from __future__ import annotations

import pytest

from hesse.errors import RequestError, UnknownOptionError

pytest.importorskip("pyscf", reason="PySCF is not installed")
pytest.importorskip("pyscf.dispersion", reason="pyscf-dispersion is not installed")

from hesse.engines.pyscf import parse_method


@pytest.mark.parametrize(
    ("text", "xc", "dispersion", "level"),
    [
        ("wb97x/6-31g*", "wb97x", None, "wb97x/6-31g*"),
        ("wB97X/6-31G(d)", "wb97x", None, "wb97x/6-31g*"),
        ("HF/6-31G(d,p)", None, None, "hf/6-31g**"),
        ("uhf/sto-3g", None, None, "hf/sto-3g"),
        ("hf-d3bj/def2-svp", None, "d3bj:hf", "hf-d3bj/def2-svp"),
        ("b3lyp-d3bj/6-31g*", "b3lyp", "d3bj:b3lyp", "b3lyp-d3bj/6-31g*"),
        ("r2scan-d4/def2-svp", "r2scan", "d4:r2scan", "r2scan-d4/def2-svp"),
        ("m06-2x-d3zero/def2-svp", "m06-2x", "d3zero:m06-2x", "m06-2x-d3zero/def2-svp"),
        ("wb97x-d3bj/6-31g*", "wb97x_v", "d3bj:wb97x", "wb97x-d3bj/6-31g*"),
        ("wb97m-d3bj/6-31g*", "wb97m_v", "d3bj:wb97m", "wb97m-d3bj/6-31g*"),
        ("wb97x-d4/6-31g*", "wb97x_v", "d4:wb97x", "wb97x-d4/6-31g*"),
        ("lda,vwn/sto-3g", "lda,vwn", None, "lda,vwn/sto-3g"),
    ],
)
def test_levels_of_theory(text, xc, dispersion, level):
    method = parse_method(text)
    assert (method.xc, method.dispersion, method.level) == (xc, dispersion, level)


@pytest.mark.parametrize(
    ("text", "error", "reply"),
    [
        ("wb97xd/6-31g*", RequestError, "HYB_GGA_XC_WB97X_D but not the dispersion term.*without a warning"),
        ("wb97x_d3/6-31g*", RequestError, "HYB_GGA_XC_WB97X_D3 but not the dispersion"),
        ("b97d/sto-3g", RequestError, "GGA_XC_B97_D but not"),
        ("wb97x-d/6-31g*", RequestError, "similar method: wb97x-d3bj"),
        ("wb97x-d3/6-31g*", RequestError, "similar method: wb97x-d3bj"),
        ("wb97x-d3zero/6-31g*", RequestError, "does not have the dispersion term that this name means"),
        ("b97-d3bj/6-31g*", RequestError, "does not have the dispersion term that this name means"),
        ("pbe-d3/sto-3g", RequestError, "-d3bj, -d3zero and -d4"),
        ("r2scan-3c/def2-svp", RequestError, "composite methods"),
        ("b97-3c/def2-svp", RequestError, "composite methods"),
        ("wb97x-v/def2-svp", RequestError, "VV10"),
        ("svwn-d3bj/sto-3g", RequestError, 'no parameters for "svwn"'),
        ("b2plyp/def2-svp", RequestError, "double hybrids"),
        ("mp2/6-31g*", RequestError, "no correlated methods"),
        ("ccsd(t)/6-31g*", RequestError, "no correlated methods"),
        ("lda/sto-3g", RequestError, 'exchange without correlation.*write "lda,"'),
        ("pbee/6-31g*", UnknownOptionError, 'Did you mean "pbe"'),
        ("pbe/6-31h*", UnknownOptionError, r'no basis set "6-31h\*".*Did you mean "6-31g\*"'),
        ("wb97x", RequestError, "expected pyscf:METHOD/BASIS"),
        ("/6-31g*", RequestError, "expected pyscf:METHOD/BASIS"),
        ("wb97x/", RequestError, "expected pyscf:METHOD/BASIS"),
    ],
)
def test_names_that_mean_something_else_are_refused(text, error, reply):
    with pytest.raises(error, match=reply):
        parse_method(text)
