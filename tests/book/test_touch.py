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


FRAME = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.mark.parametrize("name", NAMES)
def test_the_page_says_what_the_library_says(browser, tmp_path, name):
    """Networks run in the page, and agree to the last digits; tables are written with six digits."""
    facts = json.loads((live.FOLDER / f"{name}.json").read_text("utf-8"))
    runs = {line["name"] for line in facts["lines"] if "network" in line}
    size = max(abs(end) for panel in facts["panels"] for end in panel["range"])
    page = opened(browser, tmp_path, name)
    for check in facts["checks"]:
        for slider, value in enumerate(check["sliders"]):
            page.locator(f"#touch-{slider}").fill(str(value))
        page.evaluate(FRAME)
        found = numbers(page)
        assert found.keys() == check["numbers"].keys()
        for line, expected in check["numbers"].items():
            near = {"rel": 1e-9, "abs": 1e-12} if line in runs else {"rel": 1e-5, "abs": 1e-5 * size}
            assert found[line] == pytest.approx(expected, **near), line
    assert page.faults == []


def test_a_live_figure_stands_in_every_chapter_that_promises_one():
    assert NAMES == sorted(live.FIGURES) == sorted(live.CELLS)


def test_a_box_can_be_dragged_and_widened(browser, tmp_path):
    """The mouse moves its centre, the second slider its width; natural intervals hold zonotopes, and both the truth."""
    page = opened(browser, tmp_path, "06_interval_adjoints")
    picture = page.locator(".panels svg").first.bounding_box()
    page.mouse.move(picture["x"] + 0.2 * picture["width"], picture["y"] + 20)
    page.mouse.down()
    page.mouse.move(picture["x"] + 0.75 * picture["width"], picture["y"] + 20)
    page.mouse.up()
    page.evaluate(FRAME)
    values = json.loads((live.FOLDER / "06_interval_adjoints.json").read_text("utf-8"))["sliders"][0]["values"]
    assert abs(float(page.locator("#touch-0-is").inner_text()) - (values[0] + 0.75 * (values[-1] - values[0]))) < 0.03
    before = numbers(page)
    page.locator("#touch-1").focus()
    page.keyboard.press("End")
    page.evaluate(FRAME)
    after = numbers(page)
    for found in (before, after):
        natural, zonotope, true = found.values()
        assert natural[0] <= zonotope[0] <= true[0] < true[1] <= zonotope[1] <= natural[1]
    assert all(after[name][2] > before[name][2] for name in before)


@pytest.mark.parametrize("name", NAMES)
def test_the_sliders_follow_the_keyboard_and_keep_up(browser, tmp_path, name):
    page = opened(browser, tmp_path, name)
    before = numbers(page)
    page.locator("#touch-0").focus()
    page.keyboard.press("ArrowRight")
    page.evaluate(FRAME)
    assert numbers(page) != before
    page.add_script_tag(content="window.input = document.querySelector('#touch-0')")
    frames = """async () => {
        const times = [];
        for (let k = 0; k < 20; k++) {
            input.value = k % 8;
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
