"""HTML elements of a report: the page, sections, figures and tables. The page refers to no other file."""

from __future__ import annotations

from html import escape
from typing import Final

__all__ = ["figure", "grid", "page", "section", "table"]

_CSS: Final[str] = """
:root { color-scheme: light dark; --font: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  --paper: #fdfdfc; --card: #ffffff; --ink: #1c2126; --muted: #8a9199; --soft: #59626b; --rule: #e3e5e8;
  --baseline: #d55e00; --other: #0072b2; --good: #0b6b4f; --bad: #a3321a; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --card: #1b1f23; --ink: #e6e9ec; --muted: #7d868f;
  --soft: #a5adb5; --rule: #2d3338; --baseline: #ee7f2d; --other: #4aa8dc; --good: #5cc4a0; --bad: #ef8f78; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 var(--font); }
main { max-width: 1060px; margin: 0 auto; padding: 2.2rem 1.1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .6rem; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 2.8rem 0 .5rem; padding-top: .9rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p, figcaption, li { max-width: 72ch; }
.lead { font-size: 1.08rem; margin: 0 0 .4rem; }
.note, figcaption { color: var(--soft); font-size: .9rem; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th, td { padding: .36rem 0 .36rem .9rem; text-align: right; vertical-align: top; white-space: nowrap; }
thead th { font-weight: 600; border-bottom: 1px solid var(--muted); }
tbody tr + tr > * { border-top: 1px solid var(--rule); }
tbody tr.group > * { border-top: 0; padding-top: 1.1rem; font-weight: 600; }
tr.group small { display: inline; margin-left: .5em; }
th:first-child, td:first-child { padding-left: 0; }
th.text, td.text { text-align: left; font-weight: 400; }
thead th.text { font-weight: 600; }
.unit { color: var(--soft); font-size: .82em; margin-left: .3em; white-space: nowrap; }
td small, th small { display: block; color: var(--soft); font-size: .82em; font-weight: 400; }
td.cited small { display: inline; } td.cited div { white-space: nowrap; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
.swatch { display: inline-block; width: .7em; height: .7em; border-radius: 2px; margin-right: .4em; }
.baseline { background: var(--baseline); } .other { background: var(--other); }
.grid { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr));
  margin: .8rem 0; }
figure { margin: 0; }
.grid > figure { background: var(--card); border: 1px solid var(--rule); border-radius: 6px; padding: .5rem; }
.grid > figure > svg { display: block; width: 100%; max-width: 460px; height: auto; margin: 0 auto; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
dl { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: .25rem 1.2rem; font-size: .92rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
details { margin: 1rem 0; } summary { cursor: pointer; color: var(--soft); }
@media (max-width: 520px) { main { padding-top: 1.3rem; } h1 { font-size: 1.4rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
@media (max-width: 520px) { table { font-size: .84rem; } th, td { padding-left: .55rem; }
  td.text { white-space: normal; min-width: 5.5rem; } }
.grid.pairs { grid-template-columns: 1fr; }
@media (min-width: 560px) { .grid.pairs { grid-template-columns: 1fr 1fr; } }
@media (min-width: 900px) { .grid.pairs { grid-template-columns: none; grid-template-rows: 1fr 1fr;
  grid-auto-flow: column; grid-auto-columns: minmax(0, 1fr); } }
@media print { .grid > figure, tr { break-inside: avoid; } }
"""


def page(title: str, body: str) -> str:
    """The complete HTML document.

    Args:
        title: title of the window, as text.
        body: content, as HTML.

    Returns:
        The document, with its style sheet.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def section(heading: str, *parts: str) -> str:
    """A section of the page.

    Args:
        heading: heading, as text.
        parts: contents, as HTML.

    Returns:
        HTML.
    """
    return f"<section>\n<h2>{escape(heading)}</h2>\n" + "\n".join(parts) + "\n</section>"


def figure(svg: str, description: str) -> str:
    """One figure.

    Args:
        svg: the drawing, an `<svg>` element.
        description: text for screen readers.

    Returns:
        HTML.
    """
    labeled = svg.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)
    return f"<figure>{labeled}</figure>"


def grid(figures: list[str], caption: str) -> str:
    """Figures in a grid: side by side on a wide screen, below each other on a phone.

    Args:
        figures: the figures, as HTML.
        caption: text below the grid.

    Returns:
        HTML.
    """
    return f'<div class="grid">\n{"".join(figures)}\n</div>\n<p class="note">{escape(caption)}</p>'


def table(head: str, rows: list[str], caption: str) -> str:
    """A table, which scrolls sideways on a narrow screen.

    Args:
        head: the head row, as HTML.
        rows: the other rows, as HTML.
        caption: text above the table.

    Returns:
        HTML.
    """
    body = "\n".join(rows)
    return (
        f'<p class="note">{escape(caption)}</p>\n<div class="scroll"><table>\n<thead>{head}</thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )
