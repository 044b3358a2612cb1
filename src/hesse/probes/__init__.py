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
    project_out_rigid_body,
)

__all__ = [
    "PROBE_KINDS",
    "Gaussian",
    "OneHot",
    "Probe",
    "ProbeSeed",
    "Rademacher",
    "RigidBodyFree",
    "Sphere",
    "make_probe",
    "project_out_rigid_body",
]
