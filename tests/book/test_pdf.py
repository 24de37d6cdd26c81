"""The book as one PDF: bookmarks, and links that lead to its own pages."""

from pathlib import Path

import pytest
from pypdf import PdfReader

from tools import pdf

BOOK = ["book/bibliography", "book/notation", "notebooks/00_at_a_glance"]

pytestmark = pytest.mark.skipif(not pdf.HTML.exists(), reason="no built pages: run make book")


@pytest.fixture(scope="module")
def printed(tmp_path_factory, program) -> PdfReader:
    """Three pages of the book."""
    program("browser")
    target = tmp_path_factory.mktemp("pdf") / "book.pdf"
    pdf.write(BOOK, target)
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    return PdfReader(target)


def test_all_pages_of_the_book_are_printed_in_its_order():
    names = pdf.pages()
    assert names[:2] == ["book/intro", "notebooks/00_at_a_glance"]
    built = {path.relative_to(pdf.HTML).with_suffix("").as_posix() for path in pdf.HTML.glob("*/*.html")}
    assert set(names) == {name for name in built if name.startswith(("book/", "notebooks/"))}


def test_each_part_has_a_bookmark_at_its_title(printed):
    assert len(printed.outline) == len(BOOK)
    for mark in printed.outline:
        text = " ".join(printed.pages[printed.get_destination_page_number(mark)].extract_text().split())
        assert mark.title in text[: len(mark.title) + 40]


def test_links_lead_to_pages_of_the_file_or_out_of_it(printed):
    links = [a.get_object() for page in printed.pages for a in page.get("/Annots", [])]
    assert [link for link in links if str(link.get("/A", {}).get("/URI", "")).startswith("file")] == []
    goals = [printed.pages.index(link["/Dest"][0].get_object()) for link in links if "/Dest" in link]
    starts = [printed.get_destination_page_number(mark) for mark in printed.outline]
    assert starts[0] in goals  # a source that the last part cites
    assert max(goals) > starts[2]  # a figure or formula within the last part


def test_solutions_are_printed_and_long_lines_are_whole(printed):
    text = "".join(page.extract_text() for page in printed.pages)
    source = (Path(__file__).resolve().parents[2] / "notebooks" / "00_at_a_glance.md").read_text("utf-8")
    line = max((line.strip() for line in source.splitlines() if line.startswith("    print(f")), key=len)
    assert "".join(line.split()) in "".join(text.split())
    assert "Solution to" in text
