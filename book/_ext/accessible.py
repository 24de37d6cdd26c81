"""Accessibility faults of the theme and of Sphinx's HTML writer, mended in the pages they wrote.

Each entry of MENDS is a fault that axe reports on an untouched page; the page tests fail when one stops to apply.
"""

from pathlib import Path

from sphinx.application import Sphinx

MENDS = (
    # The side bar stands outside every landmark.
    ('<div id="pst-primary-sidebar" class', '<div id="pst-primary-sidebar" role="navigation" aria-label="Book" class'),
    # An entry of the bibliography: a deprecated role that a list may not contain.
    ('role="doc-biblioentry"', 'role="listitem"'),
)


def mend(page: str) -> str:
    """Return a page without the faults."""
    for fault, mended in MENDS:
        page = page.replace(fault, mended)
    return page


def mend_pages(app: Sphinx, exception: Exception | None) -> None:
    """Mend all pages once they are written."""
    if exception or app.builder.format != "html":
        return
    for path in Path(app.outdir).rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        path.write_text(mend(page), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the step."""
    app.connect("build-finished", mend_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
