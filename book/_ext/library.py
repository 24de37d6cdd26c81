"""The API reference: the directive {public-names} documents what one module of the library exports, in its order."""

import ast
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import sobolev_lib

LIBRARY = Path(sobolev_lib.__file__).parent


def defined(module: str) -> list[tuple[str, str]]:
    """Return the autodoc directive and the name of everything that a module defines and the package exports."""
    path = LIBRARY / f"{module}.py"
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body if path.exists() else []:
        match node:
            case ast.FunctionDef(name=name):
                found.append(("autofunction", name))
            case ast.ClassDef(name=name):
                found.append(("autoclass", name))
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found.append(("autodata", name))
    return [(directive, name) for directive, name in found if name in getattr(sobolev_lib, "__all__", ())]


class PublicNames(SphinxDirective):
    """The documentation of one module's public names, taken from their docstrings."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Write autodoc directives for the names and have them parsed as reStructuredText."""
        module = self.arguments[0]
        self.env.note_dependency(str(LIBRARY / f"{module}.py"))
        lines = ["```{eval-rst}"]
        for directive, name in defined(module):
            lines += [f".. {directive}:: sobolev_lib.{name}"]
            if directive == "autoclass":
                lines += ["   :members:"]
            if directive == "autodata":
                lines += ["   :no-value:"]
            lines += [""]
        lines += ["```"]
        container = nodes.container()
        self.state.nested_parse(StringList(lines, f"{module}.py"), self.content_offset, container)
        return container.children


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("public-names", PublicNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
