"""Training: the one loop, its configuration and its record."""

from hesse.training.config import (
    BatchConfig,
    CurvatureConfig,
    DataConfig,
    OptimizerConfig,
    ProbeConfig,
    RampConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)
from hesse.training.config_file import load_config, validate_config
from hesse.training.run_log import read_log
from hesse.training.standalone_loss import ProjectedHessianLoss
from hesse.training.trainer import TrainResult, train

__all__ = [
    "BatchConfig",
    "CurvatureConfig",
    "DataConfig",
    "OptimizerConfig",
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
