"""The jinja2 environment that all pages share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hesse.reports.formatting import (
    ev_to_kcal,
    format_noise_floor,
    format_number,
    format_percent,
    kcal_unit,
    property_title,
)

__all__ = ["page_environment"]


def page_environment(**filters: Callable[..., Any]) -> Environment:
    """The settings of the templates of pages: text is escaped, and an unknown name is an error.

    Args:
        filters: further filters, by name.

    Returns:
        The environment, with the filters that write numbers.
    """
    environment = Environment(
        loader=PackageLoader("hesse.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "number": format_number,
        "percent": format_percent,
        "noise_floor": format_noise_floor,
        "kcal": ev_to_kcal,
        "kcal_unit": kcal_unit,
        "property_title": property_title,
        **filters,
    }
    return environment
