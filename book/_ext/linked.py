"""Links between chapters and API reference, both ways, made from what each says of the other.

A name such as ``sl.shrink`` in a chapter, in its text (there also ``shrink`` alone) or in its code, leads to its entry
in the reference. On the pages of the book, ``Chapter 7`` leads to that chapter and ``Chapter 7, "The automatic way"``
to that section; a section that the chapter does not have is a warning. Under each entry of the reference stand the
sections that use the name.
"""

import itertools
import os
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
PACKAGES = {"sl": "sobolev_lib", "iv": "sobolev_lib.interval"}  # under which names the chapters import what
PLACE = re.compile(r"Chapter\s+(\d+)(?:,\s+[\"“]([^\"”]+)[\"”])?")
IN_CODE = re.compile(r'()<span class="n">(sl|iv)</span>((?:<span class="o">\.</span><span class="n">\w+</span>){1,2})')
IN_TEXT = re.compile(r'(<span class="pre">)(sl|iv)((?:\.\w+){1,2})')
ALONE = re.compile(r'(?<!">)(<code class="docutils literal notranslate"><span class="pre">)(\w+)(?=\(|</span></code>)')
logger = logging.getLogger(__name__)


def plain(text: str) -> str:
    """Return a title as it is typed: straight quotes, single spaces."""
    return " ".join(text.translate({0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'}).split())


def where_used(name: str, said: str = "") -> str:
    """Say where chapters use a public name: of each chapter the first section that does; not what is said already."""
    short = [name.replace(package, alias, 1) for alias, package in PACKAGES.items() if name.startswith(package + ".")]
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, short))})\b")
    places = []
    for path in sorted(NOTEBOOKS.glob("[0-9]*.md")):
        head, *sections = re.split(r"^###? (?=\S)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        titles = [text.split("\n", 1)[0].strip() for text in sections if pattern.search(text)]
        if titles or pattern.search(head):
            places.append(f"Chapter {int(path.stem[:2])}" + (f', "{titles[0]}"' if titles else ""))
    places = [place for place in places if place not in plain(said)]
    return f"Used in {'; '.join(places)}." if places else ""


def add_uses(app: Sphinx, what: str, name: str, obj, options, lines: list[str]) -> None:
    """Add to a docstring where the book uses its name."""
    if what != "module":
        lines += ["", where_used(name, " ".join(lines)), ""]


def link_chapters(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Turn mentions of chapters and sections into links, on the pages that are no chapters."""
    others = nodes.literal | nodes.literal_block | nodes.reference | nodes.title
    for parent in list(doctree.findall(nodes.TextElement)) if docname.startswith("book/") else ():
        if isinstance(parent, others) or not PLACE.search(parent.astext()):
            continue
        children = []  # MyST makes a node of each line: put them together again
        for is_text, group in itertools.groupby(parent.children, lambda child: isinstance(child, nodes.Text)):
            run = list(group)
            children += link_places(app, "".join(run), docname) if is_text else run
        parent.clear()
        parent += children


def link_places(app: Sphinx, text: str, docname: str) -> list[nodes.Node]:
    """Return a text as nodes, with references where it names a chapter that there is."""
    chapters = {int(name[10:12]): name for name in app.env.found_docs if re.match(r"notebooks/\d\d_", name)}
    parts, done = [], 0
    for place in PLACE.finditer(text):
        if int(place[1]) in chapters:
            address = address_of(app, docname, chapters[int(place[1])], place[2])
            link = nodes.reference(place[0], place[0], refuri=address, internal=True)
            parts += [nodes.Text(text[done : place.start()]), link]
            done = place.end()
    return [*parts, nodes.Text(text[done:])]


def address_of(app: Sphinx, docname: str, chapter: str, title: str | None) -> str:
    """Return the address of a chapter or of its section as seen from a page."""
    address = app.builder.get_relative_uri(docname, chapter)
    if title is None:
        return address
    for entry in app.env.tocs[chapter].findall(nodes.reference):
        if plain(entry.astext()) == plain(title):
            return address + entry["anchorname"]
    logger.warning("linked: got the section %r in %s, need one that %s has", title, docname, chapter)
    return address


def link_names(app: Sphinx, exception: Exception | None) -> None:
    """Lead names of the library, wherever a page has them, to the reference; a name that it lacks is a warning."""
    if exception or app.builder.format != "html":
        return
    reference = Path(app.outdir, "book", "api.html")
    known = set(re.findall(r'\bid="([^"]+)"', reference.read_text(encoding="utf-8")))

    def linked(match: re.Match) -> str:
        before, package, rest = match.groups()
        names = re.findall(r"(?<=\.)\w+", re.sub("<[^>]*>", "", rest))
        full = (f"{PACKAGES[package]}.{'.'.join(names)}", f"{PACKAGES[package]}.{names[0]}", f"sobolev_lib.{names[0]}")
        target = next((name for name in (*full, f"module-sobolev_lib.{names[0]}") if name in known), None)
        if target is None:
            logger.warning("linked: %s has %s.%s, which the reference lacks", page, package, names[0])
            return match[0]
        return f'{before}<a class="name" href="{address}#{target}">{match[0].removeprefix(before)}</a>'

    def linked_alone(match: re.Match) -> str:
        name = f"sobolev_lib.{match[2]}"
        return f'{match[1]}<a class="name" href="{address}#{name}">{match[2]}</a>' if name in known else match[0]

    pages = [page for folder in ("notebooks", "book") for page in Path(app.outdir, folder).glob("*.html")]
    for page in pages:
        if page.stem == "changelog":  # it may speak of names that are gone
            continue
        address = os.path.relpath(reference, page.parent)
        html = page.read_text(encoding="utf-8")
        page.write_text(ALONE.sub(linked_alone, IN_TEXT.sub(linked, IN_CODE.sub(linked, html))), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the steps; docstrings come here after napoleon has read them."""
    app.connect("autodoc-process-docstring", add_uses, priority=900)
    app.connect("doctree-resolved", link_chapters)
    app.connect("build-finished", link_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
