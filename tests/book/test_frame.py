"""The frame that holds library and book together: import order, public names, prose, citations, settings."""

import ast
import importlib
import inspect
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from pathlib import Path

import nbformat
import pytest
import torch

import sobolev_lib
from tools import check, execute

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "sobolev_lib"


def contents(package: Path) -> list[str]:
    """Return the names that the docstring of a package lists, in its order: `name - what it is`."""
    return re.findall(r"^(\w+) - ", ast.get_docstring(ast.parse((package / "__init__.py").read_text("utf-8"))), re.M)


PACKAGES = contents(LIBRARY)
ROOMS = [f"{room}.{module}" for room in PACKAGES for module in contents(LIBRARY / room)]
ORDER = ["_check", "_files", "_show", *ROOMS, "plotting"]
STRANGERS = {  # what is independent of what
    "simulation": {"network", "enclosure", "training", "certificates", "pruning"},
    "network": {"simulation", "enclosure"},
    "enclosure": {"simulation", "training"},
    "training": {"simulation", "enclosure"},
    "certificates": {"simulation"},
}
FILES = [path.relative_to(LIBRARY).with_suffix("") for path in LIBRARY.rglob("*.py") if path.stem != "__init__"]
MODULES = sorted(".".join(path.parts) for path in FILES)
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split("\n")
PROSE = [ROOT / "README.md", *sorted((ROOT / "book").glob("*.md"))]


def imported(module: str) -> set[str]:
    """Return the modules of the library that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse((LIBRARY / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sobolev_lib"):
            inner = node.module.removeprefix("sobolev_lib").strip(".")
            names = {f"{inner}.{alias.name}".strip(".") for alias in node.names}
            found |= {name if name in MODULES else inner for name in names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively"
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("sobolev_lib")]
            found |= {name.removeprefix("sobolev_lib.") for name in names}
    return found


def test_the_docstrings_of_the_packages_list_every_module():
    assert sorted(ORDER) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_those_before_it(module):
    assert imported(module) <= set(ORDER[: ORDER.index(module)])


@pytest.mark.parametrize("module", [module for module in MODULES if "." in module])
def test_independent_packages_know_nothing_of_each_other(module):
    used = {name.split(".")[0] for name in imported(module)}
    assert used & STRANGERS.get(module.split(".")[0], set()) == set()


def test_public_names_are_flat_unique_and_documented():
    names = sobolev_lib.__all__
    assert names
    assert len(set(names)) == len(names)
    modules = [importlib.import_module(f"sobolev_lib.{module}") for module in MODULES]
    declared = [name for module in modules for name in getattr(module, "__all__", ())]
    assert sorted(names) == sorted([*declared, "directions", "interval"])
    for name in names:
        value = getattr(sobolev_lib, name)
        if callable(value):
            assert value.__doc__, name
            assert value.__module__.startswith("sobolev_lib."), name


def public_callables() -> dict[str, object]:
    """Return what the package exports, and what the modules export that it exports, by name."""
    found = {}
    for name in sobolev_lib.__all__:
        value = getattr(sobolev_lib, name)
        if inspect.ismodule(value):
            functions = inspect.getmembers(value, inspect.isfunction)
            found |= {f"{name}.{f}": v for f, v in functions if v.__module__ == value.__name__ and f[0] != "_"}
        elif callable(value):
            found[name] = value
    return {name: value for name, value in found.items() if not name.endswith("_kernel")}


MADE_BY = {  # whose example shows them
    **{"Extreme": "error_bound", "ErrorBound": "error_bound", "Repaired": "repair", "CertifiedCut": "cut_certified"},
    **{"Enclosure": "enclose", "Path": "shrink"},
    "History": "fit",
}
FIGURES = {"use_style"}


@pytest.mark.parametrize(("name", "value"), public_callables().items())
def test_a_public_docstring_has_an_example_its_errors_and_its_chapter(name, value):
    text, source = inspect.getdoc(value), inspect.getsource(value)
    assert ">>>" in text or MADE_BY[name] in text
    assert re.search(r"\bChapter \d", text) or name in FIGURES
    checks = inspect.isfunction(value) and re.search(r"_check\.|\braise ", source)
    assert not checks or "Raises:" in text or name.startswith("interval.")  # whose module says it for all


def test_the_package_is_typed_and_its_version_agrees():
    assert (LIBRARY / "py.typed").exists()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_every_pin_is_exact():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    assert lines == sorted(lines, key=str.lower)


@pytest.mark.parametrize(
    ("schema", "path"),
    [("github-workflows", ".github/workflows/book.yml"), ("citation-file-format", "CITATION.cff")],
)
def test_files_for_others_follow_their_schemas(schema, path):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prose_pages_hold_no_number_that_no_chapter_computed():
    known = set().union(*(check.computed(check.load(source)) for source in execute.sources(ROOT / "notebooks", [])))
    pages = [page for page in PROSE if page.stem not in ("changelog", "status")]
    assert {page.name: faults for page in pages if (faults := check.unsupported(page.read_text("utf-8"), known))} == {}


def test_every_source_is_cited_and_every_citation_has_a_source():
    keys = set(re.findall(r"^@\w+\{(\S+),", (ROOT / "book" / "references.bib").read_text("utf-8"), re.MULTILINE))
    pages = [*PROSE, *execute.sources(ROOT / "notebooks", [])]
    roles = re.findall(r"\{cite[:\w]*\}`([^`]+)`", "\n".join(page.read_text("utf-8") for page in pages))
    cited = {key.strip() for role in roles for key in role.split(",")}
    assert cited == keys


DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef


def test_every_source_that_a_docstring_names_is_in_the_bibliography():
    entries = re.split(r"^@", (ROOT / "book" / "references.bib").read_text("utf-8"), flags=re.MULTILINE)[1:]
    authors = {}  # surnames by year
    for entry in entries:
        names = re.search(r"author\s*= \{(.*)\},", entry)[1].translate({ord(c): None for c in "{}\\'\""})
        year = re.search(r"year\s*= \{(\d+)\}", entry)[1]
        authors.setdefault(year, set()).update(name.split(",")[0] for name in names.split(" and "))
    unknown = []
    for path in sorted(LIBRARY.rglob("*.py")):
        nodes = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, DOCUMENTED)]
        for text in filter(None, map(ast.get_docstring, nodes)):
            for match in re.finditer(r"(?<=[\s(])((?:18|19|20)\d\d)(?=[);:,-])", text):
                before = text[max(0, match.start() - 220) : match.start()].replace("'", "")
                if not any(name in before for name in authors.get(match[1], ())):
                    unknown.append(f"{path.stem}: {' '.join(before[-60:].split())} {match[1]}")
    assert unknown == []


def test_every_term_is_defined_once_and_every_definition_is_used():
    blocks = re.findall(r"```\{glossary\}\n(.*?)```", (ROOT / "book" / "glossary.md").read_text("utf-8"), re.DOTALL)
    defined = [line.strip().lower() for block in blocks for line in block.splitlines() if re.match(r"\S", line)]
    pages = [*PROSE, *execute.sources(ROOT / "notebooks", [])]
    roles = re.findall(r"\{term\}`(?:[^`<]*<)?([^`>]+)>?`", "\n".join(page.read_text("utf-8") for page in pages))
    used = {" ".join(role.split()).lower() for role in roles}
    assert sorted(defined) == sorted(set(defined))
    assert used <= set(defined)
    assert sorted(set(defined) - used) == []


def test_every_chapter_is_in_the_table_of_contents_and_has_been_measured():
    toc = (ROOT / "_toc.yml").read_text("utf-8")
    for source in execute.sources(ROOT / "notebooks", []):
        assert f"notebooks/{source.stem}\n" in toc
        assert f'"{source.stem}"' in execute.STATUS.read_text("utf-8")


LOOSE_ENDS = re.compile(
    r"/(?:home|root|tmp|work|opt|Users)/\w|\b(?:TODO|FIXME|XXX|HACK|NotImplementedError)\b|\bissue #?\d|\bworktree\b"
)


@pytest.mark.parametrize("name", [name for name in TRACKED if name and Path(name).name != "test_frame.py"])
def test_a_file_points_to_nothing_outside_the_repository_and_to_no_open_end(name):
    path = ROOT / name
    if not path.exists() or path.suffix in (".png", ".svg"):
        return
    text = re.sub(r'"image/png": "[^"]*"', "", path.read_text(encoding="utf-8"))
    assert LOOSE_ENDS.findall(text) == []


def test_the_lines_of_the_readme_run(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(blocks[0], names)
    for code, lines in zip(blocks[1:], (3, 5), strict=True):  # ship it; your own model
        assert len(code.splitlines()) == lines
        exec(code, names)
    assert torch.equal(names["same"](names["x"]), names["small"](names["x"]))
    assert (tmp_path / "price.c").read_text().count("int price(") == 1 and len(names["samples"]) == 8192
    # A call at the money on one Gaussian basket: strike 0.1 away, volatility of the basket 0.218.
    truth = sobolev_lib.bachelier([1.0], strike=1.1, volatility=0.25 * (0.04 + 0.09 + 0.06) ** 0.5 * 2, maturity=1.0)
    assert abs(names["price"].item() / truth.price.item() - 1) < 0.04
    assert (names["delta"] / (0.5 * truth.delta) - 1).abs().max() < 0.04
    assert torch.allclose(names["exact"].price, truth.price, rtol=1e-9)
    assert (names["net"].parameter_count, names["small"].parameter_count) == (1185, 15)


def test_the_readme_shows_what_the_first_chapter_computed():
    notebook = nbformat.read(ROOT / "notebooks" / "00_at_a_glance.ipynb", as_version=4)
    ((file, content),) = execute.pictures(notebook).items()
    assert file.read_bytes() == content


# --- size: code lines, without docstrings, comments and blank lines -------------------------------------------------

LIMITS = {ast.Module: 350, ast.ClassDef: 120, ast.FunctionDef: 60}
MOST = 5500  # in the whole library: it may fall, not rise


def code_lines(text: str) -> dict[ast.AST, int]:
    """Return how many lines of code a module has, and each class and function in it."""
    tree = ast.parse(text)
    silent = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = {line for t in tokens if t.type not in silent for line in range(t.start[0], t.end[0] + 1)}
    for node in ast.walk(tree):
        match node:  # a string that stands alone is a docstring
            case ast.Expr(value=ast.Constant(value=str())):
                lines -= set(range(node.lineno, node.end_lineno + 1))
    found = {tree: len(lines)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found[node] = sum(node.lineno <= line <= node.end_lineno for line in lines)
    return found


def test_modules_classes_functions_and_the_library_are_small():
    counts = {path: code_lines(path.read_text(encoding="utf-8")) for path in sorted(LIBRARY.rglob("*.py"))}
    large = [
        f"{path.relative_to(LIBRARY)}: {getattr(node, 'name', 'the module')} has {count} lines"
        for path, found in counts.items()
        for node, count in found.items()
        if count > LIMITS[type(node)]
    ]
    assert large == []
    totals = [count for found in counts.values() for node, count in found.items() if isinstance(node, ast.Module)]
    assert sum(totals) <= MOST


def test_lines_of_code_are_counted_without_docstrings_comments_and_blank_lines():
    text = '"""Module."""\n\n# why\ndef f(x):\n    """Doc\n    more."""\n    return (\n        x\n    )\n'
    assert [count for count in code_lines(text).values()] == [4, 4]
