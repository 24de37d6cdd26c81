"""Pages that ask no other host for anything: MathJax is copied into the book, thebe's scripts are taken out."""

import shutil
from importlib.util import find_spec
from pathlib import Path

from sphinx.application import Sphinx

# Of MathJax's 24 MB a page needs these. Jupyter Book puts every script below the source folder's _static on every
# page, so that they are copied after the pages are written.
NEEDED = ("tex-chtml.js", "output/chtml/fonts/woff-v2", "a11y", "sre")


def copy_mathjax(app: Sphinx, exception: Exception | None) -> None:
    """Copy the parts of MathJax that a page may load into the built pages."""
    if exception or app.builder.format != "html":
        return
    package = Path(next(iter(find_spec("sphinx-mathjax-offline").submodule_search_locations)))
    for name in NEEDED:
        source, target = package / "static" / "mathjax" / name, Path(app.outdir) / "_static" / "mathjax" / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def drop_thebe(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Take thebe's scripts and styles out of a page: they load from another host even when its button is off."""
    for kind in ("script_files", "css_files"):
        assets = context.get(kind, [])
        context[kind] = [asset for asset in assets if "thebe" not in str(getattr(asset, "filename", asset))]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the two steps; the second runs after sphinx-thebe has added its files."""
    app.connect("build-finished", copy_mathjax)
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
