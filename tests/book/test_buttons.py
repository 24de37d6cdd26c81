"""Buttons that lead to the repository: there when the book is built with its address, and not otherwise."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]
REPO = "https://github.com/someone/a-book"
TOC = "format: jb-book\nroot: book/notation\nchapters:\n  - file: notebooks/00_at_a_glance\n"


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    """Two pages of the book, built with an address."""
    folder = tmp_path_factory.mktemp("book")
    shutil.copytree(ROOT / "book", folder / "book", ignore=shutil.ignore_patterns("__pycache__", "api.md"))
    (folder / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "00_at_a_glance.ipynb", folder / "notebooks")
    shutil.copy(ROOT / "_config.yml", folder)
    (folder / "_toc.yml").write_text(TOC, encoding="utf-8")
    lines = (folder / "_config.yml").read_text("utf-8").splitlines()  # without the two that need the reference
    settings = [line for line in lines if line.strip() not in ("library: book/_ext", "linked: book/_ext")]
    assert len(lines) - len(settings) == 2
    (folder / "_config.yml").write_text("\n".join(settings), encoding="utf-8")
    command = [Path(sys.executable).with_name("jupyter-book"), "build", folder, "--quiet"]
    done = subprocess.run(command, env=os.environ | {"REPO": REPO + ".git/"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "_build" / "html"


def links(page: Path) -> set[str]:
    """The addresses of a page's header that lead out of the book."""
    soup = BeautifulSoup(page.read_text("utf-8"), "html.parser")
    return {tag["href"].split("?title")[0] for tag in soup.select(".article-header-buttons a[href^=http]")}


def test_with_an_address_a_chapter_can_be_launched_edited_and_complained_about(book):
    assert links(book / "notebooks" / "00_at_a_glance.html") == {
        REPO,
        f"{REPO}/edit/main/notebooks/00_at_a_glance.md",
        f"{REPO}/issues/new",
        "https://colab.research.google.com/github/someone/a-book/blob/main/notebooks/00_at_a_glance.ipynb",
        "https://mybinder.org/v2/gh/someone/a-book/main?urlpath=lab/tree/notebooks/00_at_a_glance.ipynb",
    }


def test_with_an_address_a_page_can_be_edited_but_not_launched(book):
    page = book / "book" / "notation.html"
    assert links(page) == {REPO, f"{REPO}/edit/main/book/notation.md", f"{REPO}/issues/new"}


def test_without_an_address_no_page_leads_to_a_repository():
    pages = sorted((ROOT / "_build" / "html").rglob("*.html"))
    address = ROOT / "_build" / ".repo"
    if not pages or (address.exists() and address.read_text("utf-8").strip()):
        pytest.skip("no built pages, or pages that were built with an address")
    assert {page.name: links(page) for page in pages if links(page)} == {}
