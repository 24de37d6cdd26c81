"""Pages that a reader can touch: below a figure, sliders over the chapter's own networks and enclosures.

Everything stands in the page itself, for pages are opened from folders too, where a browser loads no modules. Without
JavaScript nothing is shown but the figure.
"""

import json
import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tools import live  # noqa: E402


def fragment(name: str) -> str:
    """Return the HTML that makes the networks of one chapter touchable, and nothing without JavaScript."""
    facts = json.loads((live.FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    modules = []
    for label, text in facts.pop("modules", {}).items():
        code = re.sub(r"(?m)^//.*\n", "", text).replace("export function surrogate", "return function surrogate")
        modules.append(f"{json.dumps(label)}: (() => {{\n{code}}})()")
    script = (live.FOLDER / "touch.js").read_text(encoding="utf-8")
    data = f"const networks = {{\n{','.join(modules)}}};\nconst facts = {json.dumps(facts, separators=(',', ':'))};"
    style = (live.FOLDER / "touch.css").read_text(encoding="utf-8")
    return (
        f'<style>{style}</style>\n<section class="touch" aria-label="Try it: move the sliders" hidden></section>\n'
        f'<script type="module">\n{data}\n{script}</script>\n'
    )


def add(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put a chapter's fragment below its figure."""
    name = docname.rpartition("/")[2]
    if app.builder.format != "html" or not (live.FOLDER / f"{name}.json").exists():
        return
    for figure in doctree.findall(nodes.figure):
        if live.FIGURES[name] in figure["ids"] + figure["names"]:
            figure.parent.insert(figure.parent.index(figure) + 1, nodes.raw("", fragment(name), format="html"))
            return
    raise ValueError(f"{docname}: got no figure {live.FIGURES[name]}, need the one below which the sliders stand")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the step."""
    app.connect("doctree-resolved", add)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
