"""Results as tables in notebooks: HTML beside the plain text that a terminal shows.

A result class calls `table` in its `_repr_html_`. A table has a caption, says which cells are headings (a screen reader
reads them with each figure), aligns digits, sets no colours, so that it is read in the dark, and scrolls by itself on a
narrow screen.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from torch import Tensor

ROWS = 12  # of many alike, the most that are shown

_FIGURES = 'style="text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap"'
_WORDS = 'style="text-align: left"'


class Table(str):
    """Plain text that a notebook shows as an HTML table."""

    html = ""
    __repr__ = str.__str__

    def _repr_html_(self) -> str:
        return self.html


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[object]], note: str = "") -> str:
    """Return an HTML table; the first cell of each row is its heading."""
    rows = [[str(cell) for cell in row] for row in rows]
    sides = [_style(cell) for cell in rows[0]] if rows else [_WORDS] * len(header)
    head = "".join(f'<th scope="col" {side}>{escape(cell)}</th>' for cell, side in zip(header, sides, strict=True))
    lines = [f"<thead><tr>{head}</tr></thead>", "<tbody>"]
    for first, *others in rows:
        cells = "".join(f"<td {_style(cell)}>{escape(cell)}</td>" for cell in others)
        lines.append(f'<tr><th scope="row" {_style(first)}>{escape(first)}</th>{cells}</tr>')
    caption, note = escape(caption), f"<p>{escape(note)}</p>" * bool(note)
    opening = f'<div class="result" role="group" tabindex="0" aria-label="{caption}" style="overflow-x: auto">'
    body = "\n".join([f"{opening}<table><caption>{caption}</caption>", *lines])
    return f"{body}\n</tbody></table></div>{note}"


def _style(cell: str) -> str:
    return _FIGURES if cell.lstrip("+-")[:1].isdigit() else _WORDS


def points(caption: str, columns: Mapping[str, Tensor]) -> str:
    """Return a table with one row per point, of which the first are shown; a column (n, d) takes d columns."""
    count = max(len(column.reshape(-1, 1)) if column.ndim < 2 else len(column) for column in columns.values())
    named = {}
    for name, column in columns.items():
        parts = column.reshape(count, -1)[:ROWS].T.tolist()
        named |= {f"{name} {k}" if column.ndim > 1 else name: part for k, part in enumerate(parts, start=1)}
    rows = [(i, *(f"{number:.4g}" for number in row)) for i, row in enumerate(zip(*named.values(), strict=True))]
    return table(caption, ["point", *named], rows, f"The first {ROWS} of {count:,}." if count > ROWS else "")
