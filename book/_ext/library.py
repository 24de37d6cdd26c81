"""The API reference, written from the docstrings: what the library exports, by chapter and module, in their order."""

import ast
import importlib
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import sobolev_lib

LIBRARY = Path(sobolev_lib.__file__).parent
CHAPTERS = {
    "Chapter 1: simulation": ("noise", "models", "schemes"),
    "Chapter 2: payoffs and prices by formula": ("payoffs", "closed_form"),
    "Chapter 3: labels": ("labels", "case_study"),
    "Chapter 4: the surrogate": ("activations", "twin", "network"),
    "Chapter 5: intervals": ("rounding", "interval", "elementary"),
    "Chapter 6: interval adjoints": ("line", "zonotope", "adjoints"),
    "Chapter 7: significance and pruning": ("significance", "pruning"),
    "Chapter 8: Sobolev training": ("sobolev", "gauss_newton", "training"),
    "Chapter 9: errors": ("metrics",),
    "Chapter 10: deployment": ("export",),
    "All chapters: figures": ("plotting",),
}


def exported(module: str) -> list[tuple[str, str]]:
    """Return directive and full name of what a module defines and exports, in the order of definition.

    Exported are names in the package's ``__all__`` and, for a module whose functions are used as ``sl.interval.add``,
    those in its own.
    """
    path = LIBRARY / f"{module}.py"
    if not path.exists():
        return []
    own = getattr(importlib.import_module(f"sobolev_lib.{module}"), "__all__", ())
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.FunctionDef(name=name):
                directive = "autofunction"
            case ast.ClassDef(name=name):
                directive = "autoclass"
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                directive = "py:data"
            case _:
                continue
        if name in getattr(sobolev_lib, "__all__", ()):
            found.append((directive, f"sobolev_lib.{name}"))
        elif name in own:
            found.append((directive, f"sobolev_lib.{module}.{name}"))
    return found


def documentation(module: str) -> list[str]:
    """Return MyST lines that document one module, none if it exports nothing."""
    names = exported(module)
    if not names:
        return []
    lines = [f"### {module}", "", "```{eval-rst}"]
    for directive, name in names:
        lines.append(f".. {directive}:: {name}")
        if directive == "autoclass":
            lines.append("   :members:")
        if directive == "py:data":
            lines += ["", "   " + constants(module)[name.rpartition(".")[2]]]
        lines.append("")
    return [*lines, "```", ""]


def constants(module: str) -> dict[str, str]:
    """Return a module's constants with the string that follows each; autodoc would show the docstring of their type."""
    body = ast.parse((LIBRARY / f"{module}.py").read_text(encoding="utf-8")).body
    found = {}
    for node, after in zip(body, [*body[1:], None], strict=True):
        match node, after:
            case (
                ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = " ".join(text.split())
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)), _:
                found[name] = ""
    return found


class Library(SphinxDirective):
    """The documentation of all that the library exports."""

    def run(self) -> list[nodes.Node]:
        """Write headings and autodoc directives, and have them parsed where the directive stands."""
        lines = []
        for chapter, modules in CHAPTERS.items():
            parts = [line for module in modules for line in documentation(module)]
            lines += [f"## {chapter}", "", *parts] if parts else []
        for path in LIBRARY.glob("*.py"):
            self.env.note_dependency(str(path))
        place = nodes.section()
        self.state.nested_parse(StringList(lines, self.env.docname), self.content_offset, place, match_titles=True)
        return place.children


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("library", Library)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
