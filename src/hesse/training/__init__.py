"""Training: one loop, its settings, its record, and the loss for other training loops."""

from hesse.losses import RampConfig
from hesse.runtime.settings import validate_config
from hesse.training.config import (
    BatchConfig,
    CurvatureConfig,
    DataConfig,
    OptimizerConfig,
    ProbeConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)
from hesse.training.config_file import load_config, run_from_config
from hesse.training.run_data import run_data
from hesse.training.run_log import read_log
from hesse.training.standalone_loss import ProjectedHessianLoss
from hesse.training.train_function import train
from hesse.training.train_result import TrainResult

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
    "run_data",
    "run_from_config",
    "train",
    "validate_config",
]
