"""Random directions (probes) for Hessian-vector products, reproducible for each structure."""

from hesse.probes.distributions import (
    PROBE_KINDS,
    Gaussian,
    OneHot,
    Probe,
    ProbeSeed,
    Rademacher,
    RigidBodyFree,
    Sphere,
    make_probe,
)
from hesse.probes.rigid_body import internal_dof, project_out_rigid_body, rigid_body_modes

__all__ = [
    "PROBE_KINDS",
    "Gaussian",
    "OneHot",
    "Probe",
    "ProbeSeed",
    "Rademacher",
    "RigidBodyFree",
    "Sphere",
    "internal_dof",
    "make_probe",
    "project_out_rigid_body",
    "rigid_body_modes",
]
