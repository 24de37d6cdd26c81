"""Run times on the page are measured, not typed: they come from what ``tools/execute.py`` wrote to status.json.

A chapter writes {measured}`seconds` for its own run time ("45 s") and {measured}`memory` for its peak memory; any page
may write {measured}`total` for the run time of all chapters. The directive {status-table} is the status page's table.
"""

import json
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

STATUS = Path(__file__).resolve().parents[1] / "status.json"
COLUMNS = ("Chapter", "Run time", "Peak memory", "Outputs checked", "Not checked", "Figures", "Measured on")
logger = logging.getLogger(__name__)


def status() -> dict[str, dict]:
    """Return what was measured for each chapter."""
    return json.loads(STATUS.read_text(encoding="utf-8")) if STATUS.exists() else {}


def duration(seconds: float) -> str:
    """Return a run time as a reader wants it: seconds, or minutes from two minutes on."""
    return f"{max(1, round(seconds))} s" if seconds < 120 else f"{seconds / 60:.0f} min"


class Measured(SphinxRole):
    """A measured quantity of the chapter that it stands in."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the quantity as text, with a warning (and so a failed build) where none was measured."""
        self.env.note_dependency(str(STATUS))
        if self.text == "total":
            return [nodes.Text(duration(sum(chapter["seconds"] for chapter in status().values())))], []
        chapter = status().get(Path(self.env.docname).name)
        shown = {
            "seconds": lambda: duration(chapter["seconds"]),
            "memory": lambda: f"{chapter['memory_mb']} MB",
        }
        if chapter is None or self.text not in shown:
            logger.warning(
                "measured: got %r in %s, need one of %s and a run of tools/execute.py",
                self.text,
                self.env.docname,
                ", ".join((*shown, "total")),
                location=self.get_location(),
            )
            return [nodes.Text("?")], []
        return [nodes.Text(shown[self.text]())], []


class StatusTable(SphinxDirective):
    """A table of all chapters: run time, memory, outputs, date and environment."""

    def run(self) -> list[nodes.Node]:
        """Write the table in MyST and have it parsed, so that the chapter links are ordinary ones."""
        self.env.note_dependency(str(STATUS))
        rows = ["| " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * 5 + "---|"]
        for name, chapter in status().items():
            rows.append(
                f"| {{doc}}`/notebooks/{name}` | {duration(chapter['seconds'])} | {chapter['memory_mb']} MB "
                f"| {chapter['checked']} | {chapter['unchecked']} | {chapter['figures']} | {chapter['date']} |"
            )
        kinds = [f"Python {c['python']}, torch {c['torch']}, {c['machine']}" for c in status().values()]
        rows += ["", f"Measured with {'; '.join(dict.fromkeys(kinds))}."]
        container = nodes.container(classes=["status-table"])
        self.state.nested_parse(StringList(rows, str(STATUS)), self.content_offset, container)
        return [container]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the role and the directive."""
    app.add_role("measured", Measured())
    app.add_directive("status-table", StatusTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
