"""ANI: networks per element on atomic environment vectors."""

from hesse.models.ani.aev import aev_length, atomic_environment_vectors
from hesse.models.ani.ani_config import AniConfig
from hesse.models.ani.network import Ani

__all__ = ["Ani", "AniConfig", "aev_length", "atomic_environment_vectors"]
