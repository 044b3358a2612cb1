"""Figures inside pages."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass

__all__ = ["Drawing"]


@dataclass(frozen=True)
class Drawing:
    """A figure of a page.

    Attributes:
        svg: SVG text.
        description: words for screen readers.
        scene: the molecule of the drawing for a page that can turn it, see `hesse.reports.molecule_scene`; "" for other
            figures.
    """

    svg: str
    description: str
    scene: str = ""

    @property
    def source(self) -> str:
        """The address of an image. As an image, a drawing cannot mix its identifiers and styles with those of the page
        or of other drawings."""
        return "data:image/svg+xml;base64," + b64encode(self.svg.encode()).decode()
