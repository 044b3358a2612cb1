"""Random directions for curvature, reproducible per structure."""

from hesse.probes.families import (
    PROBE_KINDS,
    AbstractProbe,
    Gaussian,
    Internal,
    OneHot,
    ProbeStream,
    Rademacher,
    Sphere,
    make_probe,
)
from hesse.probes.rigid import internal_dimensions, rigid_motions, without_rigid_motions

__all__ = [
    "PROBE_KINDS",
    "AbstractProbe",
    "Gaussian",
    "Internal",
    "OneHot",
    "ProbeStream",
    "Rademacher",
    "Sphere",
    "internal_dimensions",
    "make_probe",
    "rigid_motions",
    "without_rigid_motions",
]
