"""The API reference, written from the docstrings: what the library exports, by chapter and module, in their order."""

import ast
import inspect
import itertools
import re
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from linked import where_used
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import sobolev_lib

LIBRARY = Path(sobolev_lib.__file__).parent
CHAPTERS = {
    "Chapter 1: simulation": ("noise", "models", "schemes"),
    "Chapter 2: payoffs and prices by formula": ("payoffs", "closed_form"),
    "Chapter 3: labels": ("labels", "directions", "case_study"),
    "Chapter 4: the surrogate": ("activations", "twin", "network"),
    "Chapter 5: intervals": ("rounding", "interval", "elementary", "affine"),
    "Chapter 6: interval adjoints": ("zonotope", "sweeps", "adjoints", "certify"),
    "Chapter 7: significance and pruning": (
        *("significance", "rivals", "pruning", "selection", "linearise"),
        *("shrinking", "growing"),
    ),
    "Chapter 8: Sobolev training": ("sobolev", "gauss_newton", "checkpoint", "training"),
    "Chapter 9: errors": ("metrics",),
    "Chapter 10: deployment": ("export",),
    "All chapters: figures": ("plotting",),
}
FILES = {
    "labels": ("_samples", "labels"),
    "shrinking": ("_candidates", "shrinking"),
}  # modules that are shown as one; all others stand for themselves
Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


def definitions(module: str) -> dict[str, Definition]:
    """Return what a module defines at its top, by name, in order."""
    path = LIBRARY / f"{module}.py"
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body if path.exists() else []:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found[name] = node
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = node
    return found


def mentioned() -> set[str]:
    """Return all names that stand in the annotations of what the package exports."""
    found = set()
    for path in LIBRARY.glob("*.py"):
        for name, node in definitions(path.stem).items():
            for part in ast.walk(node) if name in sobolev_lib.__all__ else ():
                for annotation in (getattr(part, "annotation", None), getattr(part, "returns", None)):
                    if annotation is not None:
                        found |= {leaf.id for leaf in ast.walk(annotation) if isinstance(leaf, ast.Name)}
    return found


def public_names(module: str) -> dict[str, str]:
    """Return what of a module is documented: its names, and under which full name each is known.

    These are the names that the package exports, the types that their signatures mention, and the functions of a module
    that is exported itself.
    """
    types = mentioned()
    found = {}
    for name, node in definitions(module).items():
        if name in sobolev_lib.__all__:
            found[name] = f"sobolev_lib.{name}"
        elif name.startswith("_"):
            continue
        elif isinstance(node, ast.ClassDef) and name in types:
            found[name] = f"sobolev_lib.{module}.{name}"
        elif isinstance(node, ast.FunctionDef) and module in sobolev_lib.__all__ and not name.endswith("_kernel"):
            found[name] = f"sobolev_lib.{module}.{name}"
    return found


def documentation(module: str) -> list[str]:
    """Return MyST lines that document one module, none if nothing in it is public."""
    lines = []
    for file in FILES.get(module, (module,)):
        nodes_by_name = definitions(file)
        for name, full_name in public_names(file).items():
            match nodes_by_name[name]:
                case ast.FunctionDef():
                    lines += [f".. autofunction:: {full_name}", ""]
                case ast.ClassDef():
                    lines += [f".. autoclass:: {full_name}", "   :members:", ""]
                case node:
                    text = f"{text_after(file, node)} {where_used(full_name)}"
                    lines += [f".. py:data:: {full_name}", "", f"   {text}", ""]
    head = [f".. automodule:: sobolev_lib.{module}", "   :no-members:"]
    if module not in sobolev_lib.__all__ or not inspect.ismodule(getattr(sobolev_lib, module)):
        head += ["   :no-index:"]  # nothing leads to it, as ``sl.directions`` does, and a function may have its name
    head += ["", ".. py:currentmodule:: None", ""]
    return [f"### {module}", "", "```{eval-rst}", *head, *lines, "```", ""] if lines else []


def text_after(module: str, node: Definition) -> str:
    """Return the string that follows a constant; autodoc would show the docstring of the constant's type."""
    for line, after in itertools.pairwise(ast.parse((LIBRARY / f"{module}.py").read_text(encoding="utf-8")).body):
        match after:
            case ast.Expr(value=ast.Constant(value=str(text))) if line.lineno == node.lineno:
                return " ".join(text.split())
    return ""


class Library(SphinxDirective):
    """The documentation of all that the library exports."""

    def run(self) -> list[nodes.Node]:
        """Write headings and autodoc directives, and have them parsed where the directive stands."""
        lines = []
        for chapter, modules in CHAPTERS.items():
            parts = [line for module in modules for line in documentation(module)]
            place = re.match(r"Chapter \d+", chapter)
            lead = [f"Derived in {place[0]}.", ""] if place else []
            lines += [f"## {chapter}", "", *lead, *parts] if parts else []
        for path in LIBRARY.glob("*.py"):
            self.env.note_dependency(str(path))
        section = nodes.section()
        self.state.nested_parse(StringList(lines, self.env.docname), self.content_offset, section, match_titles=True)
        return section.children


def mend_back_links(app: Sphinx, exception: Exception | None) -> None:
    """Lead links from source to where the reference has the name: in the package if exported, else in its module."""
    if exception or app.builder.format != "html":
        return
    reference = Path(app.outdir, "book", "api.html").read_text(encoding="utf-8")
    known = set(re.findall(r'\bid="([^"]+)"', reference))

    def mended(link: re.Match) -> str:
        page, name = link.groups()
        names = (name, re.sub(r"^sobolev_lib\.\w+\.", "sobolev_lib.", name))
        return next((f'{page}#{name}"' for name in names if name in known), f'{page}"')

    for path in Path(app.outdir, "_modules").rglob("*.html"):
        source = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r'(book/api\.html)#([\w.]+)"', mended, source), encoding="utf-8")


def readable_signature(app: Sphinx, what: str, name: str, obj, options, signature: str | None, returns: str | None):
    """Write a default that a factory makes as the empty dictionary it is, and of a protocol only its name."""
    if signature == "(*args, **kwargs)":
        return "", returns
    return signature and signature.replace("<factory>", "{}"), returns


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive and the step after it."""
    app.add_directive("library", Library)
    app.connect("autodoc-process-signature", readable_signature)
    app.connect("build-finished", mend_back_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
