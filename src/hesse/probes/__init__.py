"""Random directions for curvature, reproducible per structure."""

from hesse.probes.families import (
    PROBE_KINDS,
    Probe,
    Gaussian,
    RigidBodyFree,
    OneHot,
    ProbeSeed,
    Rademacher,
    Sphere,
    make_probe,
)
from hesse.probes.rigid import internal_dof, rigid_body_modes, project_out_rigid_body

__all__ = [
    "PROBE_KINDS",
    "Probe",
    "Gaussian",
    "RigidBodyFree",
    "OneHot",
    "ProbeSeed",
    "Rademacher",
    "Sphere",
    "internal_dof",
    "make_probe",
    "rigid_body_modes",
    "project_out_rigid_body",
]
