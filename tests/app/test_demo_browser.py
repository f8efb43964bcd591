"""The demo in a real browser, end to end. Needs Chromium and Playwright's Python package:

    apt-get install chromium && pip install playwright && pytest -m slow tests/app/test_demo_browser.py
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
]  # fmt: skip
SIZES = [(1280, 800), (390, 844)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(params=SIZES, ids=["desktop", "phone"])
def tab(browser: Any, server: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page, opened; afterwards no request may have gone elsewhere, and no script failed."""
    width, height = request.param
    context = browser.new_context(viewport={"width": width, "height": height}, permissions=["camera"])
    page, asked, failed = context.new_page(), list[str](), list[str]()
    page.on("request", lambda r: asked.append(r.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.goto(server)
    page.wait_for_selector("#picture")
    yield page
    context.close()
    assert [url for url in asked if not url.startswith((server, "data:", "blob:"))] == []
    assert failed == []


def open_tab(page: Any, *names: str) -> None:
    for name in names:
        tab = page.get_by_role("tab", name=name).locator("visible=true")
        if not tab.count():  # no room on a phone: it is in the menu behind the dots
            page.locator(".overflow-menu > button:visible").last.click()
            tab = page.locator(".overflow-dropdown button:visible", has_text=name)
        tab.click()


def choose_example(page: Any, number: int = 0) -> None:
    page.locator(".gallery-item:visible").nth(number).click()


def set_slider(page: Any, name: str, value: float) -> None:
    page.locator(f"#{name} input[type=number]").fill(str(value))
    page.locator(f"#{name} input[type=number]").press("Enter")
    page.locator(f"#{name} input[type=number]").blur()


def click_at(page: Any, name: str, x: float, y: float) -> None:
    """Click a picture at a share of its width and height."""
    picture = page.locator(f"#{name} img")
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    picture.click(position={"x": box["width"] * x, "y": box["height"] * y})


def appears(page: Any, selector: str) -> None:
    """Wait for a picture, wherever on the page it is: those out of view are loaded when they come into view."""
    page.wait_for_selector(selector, state="attached")
    page.locator(selector).first.evaluate("e => e.scrollIntoView({block: 'center'})")
    page.wait_for_selector(selector)


def fits(page: Any) -> bool:
    """Whether nothing sticks out at the side."""
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_picture_its_sliders_and_its_spikes(tab: Any) -> None:
    choose_example(tab)
    appears(tab, "#seen img")
    tab.wait_for_selector("#meter")
    appears(tab, "#maps img")
    before = tab.locator("#strip img").count()
    set_slider(tab, "picture-steps", before + 2)
    tab.wait_for_function(f"document.querySelectorAll('#strip img').length == {before + 2}")
    open_tab(tab, "Rates")
    appears(tab, "#rates img")
    open_tab(tab, "Membranes")
    click_at(tab, "seen", 0.4, 0.5)
    appears(tab, "#trace img")
    assert fits(tab)


def test_a_text_file_named_jpg_is_told(tab: Any, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not a picture")
    tab.locator("#picture input[type=file]").set_input_files(tmp_path / "text.jpg")
    tab.get_by_text("text.jpg cannot be read as a picture").wait_for()


def test_a_video_comes_out_annotated_and_plays(tab: Any) -> None:
    open_tab(tab, "Live video", "Video file")
    choose_example(tab)
    tab.wait_for_selector("#video video")
    tab.locator("#video-run").click()
    tab.get_by_text("Done:").wait_for(timeout=90_000)
    tab.wait_for_function("document.querySelector('#video-result video')?.readyState >= 2")
    assert fits(tab)


def test_the_webcam_runs_and_counts_its_frames(tab: Any) -> None:
    open_tab(tab, "Live video")
    tab.get_by_text("Click to Access Webcam").click()
    tab.get_by_label("capture photo").locator("visible=true").click()
    tab.wait_for_function("Number(document.querySelectorAll('#camera-tiles b')[2]?.textContent) > 20", timeout=90_000)
    appears(tab, "#camera-seen img")
    tab.get_by_label("Fresh state every frame").click()
    tab.wait_for_function("Number(document.querySelectorAll('#camera-tiles b')[2]?.textContent) < 20", timeout=60_000)
    assert fits(tab)


def test_learning_here_and_undo(tab: Any) -> None:
    open_tab(tab, "Learn here")
    choose_example(tab, 1)
    tab.get_by_text("Picture 1.").wait_for()
    appears(tab, "#board img")
    click_at(tab, "board", 0.2, 0.2)
    tab.get_by_text("Now the opposite corner").wait_for()
    click_at(tab, "board", 0.6, 0.7)
    tab.get_by_text("1 box on 1 picture").wait_for()
    tab.locator("#learn").click()
    tab.get_by_text("Learned in 20 updates").wait_for(timeout=90_000)
    appears(tab, "#loss img")
    tab.locator("#undo").click()
    tab.get_by_text("Undone: the copy is as it was").wait_for()
    tab.locator("#save").click()
    tab.get_by_text("nothing learned yet").wait_for()
    assert fits(tab)
