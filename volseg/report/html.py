"""A page that is one file: nothing that it shows lies elsewhere, and nothing is loaded from the network."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2024; background: #fff; margin: 2rem auto; max-width: 64rem;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
p.sub { color: #60646c; margin-top: .2rem; }
div.wide { overflow-x: auto; }
table { margin: .6rem 0; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem .3rem 0; text-align: right; border-bottom: 1px solid #e0e1e6; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 9rem; }
img { width: 100%; min-width: 38rem; max-width: 64rem; height: auto; display: block; margin: .6rem 0; }
summary { cursor: pointer; margin: .6rem 0; }
figcaption { color: #60646c; } figure { margin: 1rem 0; }
pre { background: #f4f4f6; padding: .8rem; overflow-x: auto; font-size: 13px; }
"""


class Page:
    """A page, from top to bottom.

    Parameters
    ----------
    title, subtitle
        Title and subtitle of the page. Every text is escaped.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = html.escape(title)
        self.parts = [f"<h1>{self.title}</h1>", f'<p class="sub">{html.escape(subtitle)}</p>']

    def heading(self, text: str) -> None:
        """Begin a section."""
        self.parts.append(f"<h2>{html.escape(text)}</h2>")

    def paragraph(self, text: str) -> None:
        """Add a paragraph."""
        self.parts.append(f"<p>{html.escape(text)}</p>")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], folded: str = "") -> None:
        """Add a table; its first column is of names, the others of numbers. `folded` is a title to open it on."""
        cells = "".join(f"<th>{html.escape(text)}</th>" for text in head)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in row) + "</tr>" for row in rows)
        table = f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>'
        self.parts.append(_folded(folded, table) if folded else table)

    def picture(self, png: bytes, caption: str) -> None:
        """Add a PNG picture."""
        data = base64.b64encode(png).decode()
        alt = html.escape(caption, quote=True)
        self.parts.append(
            f'<figure><div class="wide"><img alt="{alt}" src="data:image/png;base64,{data}"></div>'
            f"<figcaption>{alt}</figcaption></figure>"
        )

    def folded(self, title: str, text: str) -> None:
        """Add a text of fixed width that opens on a click."""
        self.parts.append(_folded(title, f"<pre>{html.escape(text)}</pre>"))

    def render(self) -> str:
        """The page as HTML."""
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{self.title}</title><style>{_STYLE}</style></head>\n<body>\n"
            + "\n".join(self.parts)
            + "\n</body></html>\n"
        )


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{html.escape(title)}</summary>{content}</details>"
