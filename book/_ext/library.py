"""The API reference, written from the docstrings: what the library exports, by package and module, in their order."""

import ast
import inspect
import itertools
import re
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from linked import NOTEBOOKS, where_used
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import sobolev_lib

LIBRARY = Path(sobolev_lib.__file__).parent
Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


def contents(package: Path) -> dict[str, str]:
    """Return what the docstring of a package lists, in its order: name and what it is."""
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8")))
    return dict(re.findall(r"^(\w+) - (.*?)[;.]$", text, re.MULTILINE))


def source_of(module: str) -> Path:
    """Return the file of a module, named as `package.module`."""
    return LIBRARY / f"{module.replace('.', '/')}.py"


def is_exported(module: str) -> bool:
    """Return whether the package exports the module itself, as it does `sl.interval`."""
    name = module.split(".")[-1]
    return name in sobolev_lib.__all__ and inspect.ismodule(getattr(sobolev_lib, name))


def definitions(module: str) -> dict[str, Definition]:
    """Return what a module defines at its top, by name, in order."""
    found = {}
    for node in ast.parse(source_of(module).read_text(encoding="utf-8")).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found[name] = node
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = node
    return found


def mentioned(wanted: set[str]) -> set[str]:
    """Return all names that stand in the annotations of what is documented."""
    found = set()
    for path in LIBRARY.rglob("[!_]*.py"):
        module = ".".join(path.relative_to(LIBRARY).with_suffix("").parts)
        for name, node in definitions(module).items():
            shown = name in sobolev_lib.__all__ or f"{module}.{name}" in wanted
            for part in ast.walk(node) if shown else ():
                for annotation in (getattr(part, "annotation", None), getattr(part, "returns", None)):
                    if annotation is not None:
                        found |= {leaf.id for leaf in ast.walk(annotation) if isinstance(leaf, ast.Name)}
    return found


def pointed_to() -> set[str]:
    """Return full names of functions that chapters import, or that docstrings of exports say to see."""
    chapters = "\n".join(path.read_text(encoding="utf-8") for path in NOTEBOOKS.glob("[0-9]*.md"))
    imports = re.findall(r"^from sobolev_lib\.(\S+) import ([\w, ]+)$", chapters, re.MULTILINE)
    found = {f"{module}.{name.strip()}" for module, names in imports for name in names.split(",")}
    texts = [inspect.getdoc(getattr(sobolev_lib, name)) or "" for name in sobolev_lib.__all__]
    seen = set(re.findall(r"\bsee\s+``(\w+)``", "\n".join(texts)))
    for path in LIBRARY.rglob("[!_]*.py"):
        module = ".".join(path.relative_to(LIBRARY).with_suffix("").parts)
        found |= {f"{module}.{name}" for name in seen.intersection(definitions(module))}
    return found


def public_names(module: str) -> dict[str, str]:
    """Return what of a module is documented: its names, and under which full name each is known.

    These are the names that the package exports, the types that their signatures mention, what chapters and docstrings
    lead to, and the functions of a module that is exported itself.
    """
    wanted = pointed_to()
    types = mentioned(wanted)
    found = {}
    for name, node in definitions(module).items():
        exported = getattr(sobolev_lib, name, None) if name in sobolev_lib.__all__ else None
        if exported is not None and getattr(exported, "__module__", "") in ("", f"sobolev_lib.{module}"):
            found[name] = f"sobolev_lib.{name}"
        elif name.startswith("_"):
            continue
        elif (isinstance(node, ast.ClassDef) and name in types) or f"{module}.{name}" in wanted:
            found[name] = f"sobolev_lib.{module}.{name}"
        elif isinstance(node, ast.FunctionDef) and is_exported(module) and not name.endswith("_kernel"):
            found[name] = f"sobolev_lib.{module.split('.')[-1]}.{name}"
    return found


def documentation(module: str) -> list[str]:
    """Return MyST lines that document one module, none if nothing in it is public."""
    lines = []
    nodes_by_name = definitions(module)
    for name, full_name in public_names(module).items():
        match nodes_by_name[name]:
            case ast.FunctionDef():
                lines += [f".. autofunction:: {full_name}", ""]
            case ast.ClassDef():
                lines += [f".. autoclass:: {full_name}", "   :members:", ""]
            case node:
                text = f"{text_after(module, node)} {where_used(full_name)}"
                lines += [f".. py:data:: {full_name}", "", f"   {text}", ""]
    head = [f".. automodule:: sobolev_lib.{module}", "   :no-members:", "   :no-index:", ""]
    if is_exported(module):  # ``sl.directions`` leads to it
        head = [f".. py:module:: sobolev_lib.{module.split('.')[-1]}", "", *head]
    head += [".. py:currentmodule:: None", ""]
    return [f"### {module}", "", "```{eval-rst}", *head, *lines, "```", ""] if lines else []


def text_after(module: str, node: Definition) -> str:
    """Return the string that follows a constant; autodoc would show the docstring of the constant's type."""
    for line, after in itertools.pairwise(ast.parse(source_of(module).read_text(encoding="utf-8")).body):
        match after:
            case ast.Expr(value=ast.Constant(value=str(text))) if line.lineno == node.lineno:
                return " ".join(text.split())
    return ""


class Library(SphinxDirective):
    """The documentation of all that the library exports."""

    def run(self) -> list[nodes.Node]:
        """Write headings and autodoc directives, and have them parsed where the directive stands."""
        lines = []
        for package, text in contents(LIBRARY).items():
            modules = contents(LIBRARY / package)
            lines += [f"## {package}", "", f"{text[0].upper()}{text[1:]}.", ""]
            lines += [line for module in modules for line in documentation(f"{package}.{module}")]
        lines += ["## Figures", "", *documentation("plotting")]
        for path in LIBRARY.rglob("*.py"):
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
        names = (name, *(re.sub(rf"^sobolev_lib\.{cut}", "sobolev_lib.", name) for cut in (r"\w+\.\w+\.", r"\w+\.")))
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
