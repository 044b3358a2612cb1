"""ANI: networks per element on atomic environment vectors."""

from hesse.models.ani.config import AniConfig
from hesse.models.ani.environment import environment_width, environments
from hesse.models.ani.network import Ani

__all__ = ["Ani", "AniConfig", "environment_width", "environments"]
