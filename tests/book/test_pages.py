"""The built pages, opened as a reader opens them: from a folder, without a network, on a phone, in the dark."""

import contextlib
import inspect
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright

import sobolev_lib
from tools.pdf import HTML

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(page.relative_to(HTML).as_posix() for page in HTML.rglob("*.html") if "_static" not in page.parts)
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
DESK, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}

pytestmark = pytest.mark.skipif(not PAGES, reason="no built pages: run make book")


@pytest.fixture(scope="module")
def chromium(program):
    return program("browser")


@pytest.fixture(scope="module")
def browser(chromium):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield browser
        browser.close()


SCREENS = {"light-desk": ("light", DESK), "dark-desk": ("dark", DESK), "dark-phone": ("dark", PHONE)}


@pytest.fixture(params=SCREENS.values(), ids=SCREENS.keys())
def context(browser, request):
    scheme, size = request.param
    with browser.new_context(color_scheme=scheme, viewport=size) as context:
        context.set_default_timeout(120_000)  # a busy machine is no fault
        yield context


@pytest.fixture
def page(context):
    """A page that notes what goes wrong on it and what it asks for."""
    page = context.new_page()
    page.faults, page.requests = [], []
    page.on("console", lambda message: message.type in ("error", "warning") and page.faults.append(message.text))
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("requestfailed", lambda request: page.faults.append(f"failed: {request.url}"))
    page.on("request", lambda request: page.requests.append(request.url))
    return page


def open_page(page, name: str) -> None:
    page.goto((HTML / name).as_uri())
    page.evaluate("window.MathJax?.startup.promise.then(() => true)")


def violations(page) -> list[str]:
    """Return what axe finds, one line for each element."""
    found = Axe().run(page).response["violations"]
    return [f"{rule['id']}: {node['html'][:120]}" for rule in found for node in rule["nodes"]]


def test_the_front_door_leads_to_the_landing_page(browser):
    page = browser.new_page()
    page.goto((HTML / "index.html").as_uri())
    page.wait_for_url("**/book/intro.html")
    assert page.locator("h1").first.inner_text().startswith("Sobolev Pruning")


@pytest.mark.parametrize("name", [name for name in PAGES if name != "index.html"])
def test_a_page_works_offline_on_any_screen_and_with_a_screen_reader(page, name):
    open_page(page, name)
    assert page.faults == []
    assert [url for url in page.requests if urlsplit(url).scheme not in ("file", "data")] == []

    # Math is rendered, without errors. (MathJax marks what it cannot read by merror.)
    written = page.locator(".math").count()
    assert page.locator("mjx-container").count() >= written
    assert page.locator("mjx-merror").count() == 0

    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    assert violations(page) == []


def test_no_formula_within_a_line_shows_a_scroll_bar(browser, chromium):
    """On a desktop, scroll bars take room; the driver hides them unless it is told not to."""
    options = dict(executable_path=chromium, args=list(FLAGS), ignore_default_args=["--hide-scrollbars"])
    with contextlib.closing(browser.browser_type.launch(**options)) as other:
        page = other.new_page(viewport=DESK)
        page.set_default_timeout(120_000)  # a busy machine is no fault
        open_page(page, "notebooks/01_sde_simulation.html")
        heights = page.evaluate(
            "[...document.querySelectorAll('.bd-article span.math')].map(e => e.offsetHeight - e.clientHeight)"
        )
    assert len(heights) > 50
    assert max(heights) < 8


def test_signatures_in_the_reference_are_readable():
    text = BeautifulSoup((HTML / "book" / "api.html").read_text("utf-8"), "html.parser").get_text()
    assert "~torch" not in text
    assert "*args" not in text


def test_the_status_page_has_a_table_of_its_own_kind():
    soup = BeautifulSoup((HTML / "book" / "status.html").read_text("utf-8"), "html.parser")
    assert len(soup.select(".status-table tbody tr")) == len(CHAPTERS)


class Quiet(SimpleHTTPRequestHandler):
    """A file server that does not log."""

    def log_message(self, *args):
        pass


def test_a_page_works_below_a_path_of_a_server(browser, tmp_path):
    (tmp_path / "some" / "where").mkdir(parents=True)
    (tmp_path / "some" / "where" / "book").symlink_to(HTML, target_is_directory=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        page, lost = browser.new_page(), []
        page.on("response", lambda answer: answer.status >= 400 and lost.append(answer.url))
        page.goto(f"http://127.0.0.1:{server.server_port}/some/where/book/book/notation.html")
        page.evaluate("window.MathJax.startup.promise.then(() => true)")
        assert page.locator("mjx-container").count() > 0
        assert lost == []
        page.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("word", "page_of_it"), [("significance", "07_significance_pruning.html"), ("gamma", "00_at_a_glance.html")]
)
def test_search_finds_what_the_book_is_about(browser, word, page_of_it):
    page = browser.new_page()
    page.goto((HTML / "search.html").as_uri() + f"?q={word}")
    page.wait_for_selector("ul.search li")
    found = page.locator(f"ul.search li a[href*='{page_of_it}']")
    found.first.wait_for(timeout=60_000)
    assert found.count() > 0
    page.close()


def test_the_keyboard_reaches_the_text_first(browser):
    page = browser.new_page()
    open_page(page, "book/intro.html")
    page.keyboard.press("Tab")
    assert "skip" in page.evaluate("document.activeElement.textContent").lower()


CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_can_be_downloaded_as_a_notebook_and_as_a_script(chapter):
    soup = BeautifulSoup((HTML / "notebooks" / f"{chapter.stem}.html").read_text("utf-8"), "html.parser")
    links = [link["href"] for link in soup.select(".dropdown-download-buttons a")]
    assert links == [f"../_sources/notebooks/{chapter.name}", f"../_sources/notebooks/{chapter.stem}.py"]
    assert (HTML / "_sources" / "notebooks" / chapter.name).read_bytes() == chapter.read_bytes()
    script = (HTML / "_sources" / "notebooks" / f"{chapter.stem}.py").read_text("utf-8")
    cells = [cell.source for cell in nbformat.read(chapter, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell in script for cell in cells[1:] if "%pip" not in cell)
    compile(script, chapter.stem, "exec")  # the first cell's commands are comments, as IPython alone knows them


@pytest.fixture(scope="module")
def anchors() -> dict[Path, tuple[set[str], list[str]]]:
    """For each page the ids in it and the addresses that it links to."""
    found = {}
    for name in PAGES:
        soup = BeautifulSoup((HTML / name).read_text(encoding="utf-8"), "html.parser")
        ids = {tag["id"] for tag in soup.find_all(id=True)}
        links = [tag[key] for key in ("href", "src") for tag in soup.find_all(attrs={key: True})]
        found[(HTML / name).resolve()] = ids, links
    return found


def test_every_link_within_the_book_leads_somewhere(anchors):
    dead = []
    for page, (_, links) in anchors.items():
        for link in links:
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            target = (page.parent / unquote(address.path)).resolve() if address.path else page
            lost = not target.exists() or (
                address.fragment and target in anchors and unquote(address.fragment) not in anchors[target][0]
            )
            if lost:
                dead.append(f"{page.relative_to(HTML.resolve())}: {link}")
    assert dead == []


def test_no_link_is_absolute_so_that_the_book_works_below_any_address(anchors):
    assert [link for _, links in anchors.values() for link in links if link.startswith("/")] == []


def test_every_public_name_is_in_the_reference(anchors):
    ids, _ = anchors[(HTML / "book" / "api.html").resolve()]
    names = {name: getattr(sobolev_lib, name) for name in sobolev_lib.__all__}
    flat = [name for name, value in names.items() if not inspect.ismodule(value)]
    assert [name for name in flat if f"sobolev_lib.{name}" not in ids] == []
    for module in set(names) - set(flat):
        assert any(anchor.startswith(f"sobolev_lib.{module}.") for anchor in ids), module


@pytest.mark.parametrize("name", [name for name in PAGES if name.startswith("notebooks/")])
def test_every_name_of_the_library_in_a_chapter_leads_to_the_reference(name):
    chapter = BeautifulSoup((HTML / name).read_text(encoding="utf-8"), "html.parser")
    for remark in chapter.select("pre .c1, pre .sd"):  # comments and docstrings
        remark.decompose()
    code = [block.get_text() for block in chapter.select("div.cell_input pre, code.literal")]
    written = sum(len(re.findall(r"(?<![\w.])(?:sl|iv)\.\w", text)) for text in code)
    links = [link["href"] for link in chapter.select("a.name") if link.get_text().startswith(("sl.", "iv."))]
    assert written > 0
    assert len(links) == written
    assert [link for link in links if not link.startswith("../book/api.html#")] == []


def test_an_entry_of_the_reference_leads_to_the_section_that_derives_or_uses_it():
    reference = BeautifulSoup((HTML / "book" / "api.html").read_text(encoding="utf-8"), "html.parser")
    entries = {name: reference.find(id=f"sobolev_lib.{name}") for name in sobolev_lib.__all__}
    links = {name: entry.parent.select('a[href^="../notebooks/"]') for name, entry in entries.items() if entry}
    without = [name for name, found in links.items() if not any("#" in link["href"] for link in found)]
    assert without == []


@pytest.mark.parametrize("name", ["api", "glossary", "ten_questions"])
def test_what_a_page_calls_by_a_chapters_number_is_a_link(name):
    page = BeautifulSoup((HTML / "book" / f"{name}.html").read_text(encoding="utf-8"), "html.parser").article
    links = page.select('a[href^="../notebooks/"]')
    assert [link.get_text() for link in links if str(link.next_sibling or "").startswith(", “")] == []  # half a link
    for other in page.select("h1, h2, h3, a"):
        other.decompose()
    assert re.findall(r".{20}Chapter\s+\d.{20}", page.get_text()) == []
