"""Pages that ask no other host for anything: MathJax is copied into the book, thebe's scripts are taken out."""

import shutil
from importlib.util import find_spec
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

# Of MathJax's 24 MB a page needs these. Jupyter Book puts every script below the source folder's _static on every
# page, so that they are copied after the pages are written.
NEEDED = ("tex-chtml.js", "output/chtml/fonts/woff-v2")


def copy_mathjax(app: Sphinx, exception: Exception | None) -> None:
    """Copy the parts of MathJax that a page loads into the built pages."""
    if exception or app.builder.format != "html":
        return
    package = Path(next(iter(find_spec("sphinx-mathjax-offline").submodule_search_locations)))
    for name in NEEDED:
        source, target = package / "static" / "mathjax" / name, Path(app.outdir) / "_static" / "mathjax" / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def drop_thebe_settings(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Take out the settings that sphinx-thebe appends to each page's text."""
    for node in list(doctree.findall(nodes.raw)):
        if "thebe" in node.astext() or "kernelName" in node.astext():
            node.parent.remove(node)


def drop_thebe_assets(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Take thebe's scripts and styles out of a page: they load from another host even when its button is off."""
    for kind in ("script_files", "css_files"):
        context[kind] = [asset for asset in context.get(kind, []) if "thebe" not in f"{asset} {vars(asset)}"]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the steps, each after the one of sphinx-thebe that it undoes."""
    app.connect("build-finished", copy_mathjax)
    app.connect("doctree-resolved", drop_thebe_settings, priority=900)
    app.connect("html-page-context", drop_thebe_assets, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
