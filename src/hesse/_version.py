"""Version number of the package. A module of its own, so that every floor can import it."""

__version__ = "0.1.0"
