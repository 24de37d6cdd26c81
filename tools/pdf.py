"""Print the built pages and bind them into one PDF: the chapters and what stands around them, in the book's order.

    python -m tools.pdf _build/sobolev-pruning.pdf

Chromium prints each page as it shows it, in the light and with every solution unfolded. A link to another page of the
book leads to that page in the PDF; `make pdf` does all of this.
"""

import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from playwright.sync_api import Page, sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, Destination, FloatObject, NameObject, NullObject

from tools import programs

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
UNFOLD = """
document.querySelectorAll('.toggle-hidden').forEach(e => e.classList.remove('toggle-hidden'));
document.querySelectorAll('button.toggle-button, .headerlink, .toctree-wrapper').forEach(e => e.remove());
window.MathJax?.startup.promise.then(() => true)
"""


def pages() -> list[str]:
    """Return the names of all pages in the order of the table of contents, without suffix."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [chapter for part in toc.get("parts", [toc]) for chapter in part["chapters"]]
    return [toc["root"], *(chapter["file"] for chapter in chapters)]


def print_page(page: Page, name: str, target: Path) -> str:
    """Print one page to a file and return its title."""
    page.goto((HTML / f"{name}.html").as_uri())
    page.evaluate(UNFOLD)
    margin = {"top": "18mm", "bottom": "18mm", "left": "16mm", "right": "16mm"}
    page.pdf(path=target, format="A4", margin=margin, scale=0.75, print_background=True)
    return page.title().split(" — ")[0]


def bind(parts: dict[str, Path], titles: dict[str, str], target: Path) -> int:
    """Write all parts as one file, whole or not at all, and return the number of sheets.

    Each part has a bookmark; links between pages of the book lead within the file.
    """
    writer, starts, places = PdfWriter(), {}, []
    for name, path in parts.items():
        starts[name] = len(writer.pages)
        part = PdfReader(path)
        writer.append(part, import_outline=False)
        writer.add_outline_item(title=titles[name], page_number=starts[name])
        within = {key: place(part, goal, starts[name]) for key, goal in part.named_destinations.items()}
        places += [within] * len(part.pages)
    for page, within in zip(writer.pages, places, strict=True):
        for reference in page.get("/Annots", []):
            lead_within(reference.get_object(), writer, starts, within)
    writer.add_metadata({"/Title": "Sobolev Pruning"})
    draft = target.with_name(f".{target.name}")
    try:
        writer.write(draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return len(writer.pages)


def place(part: PdfReader, goal: Destination, start: int) -> tuple[int, float]:
    """Return the number of a destination's sheet in the whole, and its height on the sheet."""
    return start + part.get_destination_page_number(goal), float(goal.top or 0)


def lead_within(annotation, writer: PdfWriter, starts: dict[str, int], within: dict[str, tuple[int, float]]) -> None:
    """Turn a link to a place by name, or to a file of the book, into one to a sheet."""
    address = urlsplit(str(annotation.get("/A", {}).get("/URI", "")))
    if isinstance(annotation.get("/Dest"), str):
        number, top = within[annotation["/Dest"]]
        view = [NameObject("/XYZ"), NullObject(), FloatObject(top), NullObject()]
    elif address.scheme == "file":
        del annotation["/A"]
        name = Path(unquote(address.path)).relative_to(HTML).with_suffix("").as_posix()
        if name not in starts:
            return
        number, view = starts[name], [NameObject("/Fit")]
    else:
        return
    annotation[NameObject("/Dest")] = ArrayObject([writer.pages[number].indirect_reference, *view])


def write(names: list[str], target: Path) -> int:
    """Print and bind the pages of these names, and return the number of sheets."""
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        flags = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=programs.find("browser"), args=flags)
        page = browser.new_page(color_scheme="light")
        page.set_default_timeout(120_000)  # a busy machine is no fault
        parts = {name: Path(folder, f"{number}.pdf") for number, name in enumerate(names)}
        titles = {name: print_page(page, name, path) for name, path in parts.items()}
        browser.close()
        return bind(parts, titles, target)


def main() -> int:
    """Print the book into the file that the command line names."""
    if len(sys.argv) != 2 or not HTML.exists():
        raise SystemExit("usage: python tools/pdf.py FILE.pdf, after make book")
    target = Path(sys.argv[1]).resolve()
    print(f"{target}: {write(pages(), target)} sheets")
    return 0


if __name__ == "__main__":
    sys.exit(main())
