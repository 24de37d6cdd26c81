"""What a page lets a reader touch: its numbers against the library's, by keyboard, on a phone, in the dark."""

import json

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from book._ext import touch
from tools import live

NAMES = sorted(path.stem for path in live.FOLDER.glob("*.json"))  # written when a chapter is executed


def numbers(page):
    """What the table holds, by row."""
    rows = page.locator("section.touch tbody tr").all()
    values = "row => [...row.querySelectorAll('td')].map(cell => Number(cell.dataset.value))"
    return {row.locator("th").inner_text().strip(): row.evaluate(values) for row in rows}


@pytest.fixture(scope="module")
def browser(program):
    chromium = program("browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def opened(browser, folder, name, theme="light", **options):
    """A page with nothing but the fragment, opened from a folder without a network."""
    colours = "background:#121212;color:#eee" if theme == "dark" else "background:#fff;color:#111"
    head = f'<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8"><title>t</title></head>'
    body = f'<body style="{colours}"><main><h1>t</h1>{touch.fragment(name)}</main></body></html>'
    (folder / "page.html").write_text(head + body, encoding="utf-8")
    page = browser.new_context(offline=True, **options).new_page()
    page.faults = []
    page.on("console", lambda message: message.type in ("error", "warning") and page.faults.append(message.text))
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.goto((folder / "page.html").as_uri())
    return page


@pytest.mark.parametrize("name", NAMES)
def test_the_page_says_what_the_library_says(browser, tmp_path, name):
    facts = json.loads((live.FOLDER / f"{name}.json").read_text("utf-8"))
    page = opened(browser, tmp_path, name)
    for check in facts["checks"]:
        for slider, value in (("level", check["index"]), ("spread", round(100 * check["by"]))):
            page.locator(f"#touch-{slider}").fill(str(value))
        page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        found = numbers(page)
        assert found.pop("exact") == facts["exact"][check["index"]]
        assert found.keys() == check["numbers"].keys()
        for network, expected in check["numbers"].items():
            assert found[network] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert page.faults == []


@pytest.mark.parametrize("name", NAMES)
def test_the_sliders_follow_the_keyboard_and_keep_up(browser, tmp_path, name):
    page = opened(browser, tmp_path, name)
    before = numbers(page)
    page.locator("#touch-level").focus()
    page.keyboard.press("ArrowRight")
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert numbers(page) != before
    page.add_script_tag(content="window.input = document.querySelector('#touch-level')")
    frames = """async () => {
        const times = [];
        for (let k = 0; k < 20; k++) {
            input.value = 60 + k;
            const frame = new Promise(done => requestAnimationFrame(done));
            await frame;
            const start = performance.now();
            input.dispatchEvent(new Event('input'));
            await new Promise(done => requestAnimationFrame(() => done()));
            times.push(performance.now() - start);
        }
        return Math.min(...times);
    }"""
    assert page.evaluate(frames) < 50  # one frame and its drawing


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_accessible_light_and_dark_on_a_phone(browser, tmp_path, name, theme):
    page = opened(browser, tmp_path, name, theme, viewport={"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    found = Axe().run(page).response["violations"]
    assert [f"{rule['id']}: {node['html'][:100]}" for rule in found for node in rule["nodes"]] == []


@pytest.mark.parametrize("name", NAMES)
def test_without_javascript_there_is_nothing_and_a_page_stays_small(browser, tmp_path, name):
    page = opened(browser, tmp_path, name, java_script_enabled=False)
    assert not page.locator("section.touch").is_visible()
    assert len(touch.fragment(name).encode()) <= 100_000
