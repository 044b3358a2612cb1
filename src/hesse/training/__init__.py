"""Training: the one loop, its configuration and its record."""

from hesse.training.config import (
    BatchConfig,
    CurvatureConfig,
    DataConfig,
    OptimiserConfig,
    ProbeConfig,
    RampConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)
from hesse.training.log import read_log
from hesse.training.loop import TrainResult, train
from hesse.training.parse import load_config, validate_config
from hesse.training.plug_in import ProjectedHessianLoss

__all__ = [
    "BatchConfig",
    "CurvatureConfig",
    "DataConfig",
    "OptimiserConfig",
    "ProbeConfig",
    "ProjectedHessianLoss",
    "RampConfig",
    "RunConfig",
    "ScheduleConfig",
    "TrainConfig",
    "TrainResult",
    "load_config",
    "read_log",
    "train",
    "validate_config",
]
