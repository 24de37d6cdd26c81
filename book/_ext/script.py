"""Each chapter can also be downloaded as a Python script, its text as comments."""

from pathlib import Path

import jupytext
from docutils import nodes
from sphinx.application import Sphinx

BUTTON = {
    "type": "link",
    "text": ".py",
    "icon": "fas fa-file-code",
    "tooltip": "Download as a script",
    "label": "download-script-button",
}


def add_button(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """Add the script to the downloads of a chapter's page, after the notebook."""
    if not context.get("sourcename", "").endswith(".ipynb"):
        return
    (downloads,) = [button for button in context["header_buttons"] if button.get("label") == "download-buttons"]
    url = f"{context['pathto']('_sources', 1)}/{page}.py"
    downloads["buttons"].insert(1, BUTTON | {"url": url})


def write_scripts(app: Sphinx, exception: Exception | None) -> None:
    """Write the scripts beside the notebooks that the book offers."""
    if exception or app.builder.format != "html":
        return
    for path in Path(app.outdir, "_sources").rglob("*.ipynb"):
        jupytext.write(jupytext.read(path), path.with_suffix(".py"), fmt="py:percent")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the steps, the first after the theme has made its buttons."""
    app.connect("html-page-context", add_button, priority=502)
    app.connect("build-finished", write_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
