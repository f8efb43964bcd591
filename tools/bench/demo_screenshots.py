#!/usr/bin/env python3
"""Pictures of the demo: every tab, on a desktop (1280 x 800) and a phone (390 x 844), light and dark.

    python app/demo.py --port 7870 &
    python tools/bench/demo_screenshots.py http://127.0.0.1:7870 screenshots          # 24 whole pages, to be looked at
    python tools/bench/demo_screenshots.py http://127.0.0.1:7870 docs/images --docs   # the few in docs/demo.md, small

Needs Chromium and Playwright's Python package (`pip install playwright`).
"""

from __future__ import annotations

import argparse
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
SIZES = {"desktop": (1280, 800), "phone": (390, 844)}
PATIENCE = 600_000  # milliseconds


def open_tab(page: Any, *names: str) -> None:
    for name in names:
        tab = page.get_by_role("tab", name=name).locator("visible=true")
        if not tab.count():  # no room on a phone: it is in the menu behind the dots
            page.locator(".overflow-menu > button:visible").last.click()
            tab = page.locator(".overflow-dropdown button:visible", has_text=name)
        tab.click()
        page.wait_for_timeout(300)


def loaded(page: Any, selector: str) -> None:
    page.wait_for_selector(selector, state="attached", timeout=PATIENCE)
    page.locator(selector).first.evaluate("e => e.scrollIntoView({block: 'center'})")
    page.wait_for_function("s => { const i = document.querySelector(s); return i && i.complete !== false }", arg=selector)


def picture(page: Any) -> None:
    page.locator(".gallery-item:visible").first.click()
    for what in ("#seen img", "#meter", "#strip img", "#maps img"):
        loaded(page, what)


def rates(page: Any) -> None:
    picture(page)
    open_tab(page, "Rates")
    loaded(page, "#rates img")


def membranes(page: Any) -> None:
    picture(page)
    open_tab(page, "Membranes")
    click_at(page, "seen", 0.4, 0.5)
    loaded(page, "#trace img")


def webcam(page: Any) -> None:
    open_tab(page, "Live video")
    page.get_by_text("Click to Access Webcam").click()
    page.get_by_label("capture photo").locator("visible=true").click()
    page.wait_for_function("Number(document.querySelectorAll('#camera-tiles b')[2]?.textContent) > 8", timeout=PATIENCE)
    loaded(page, "#camera-seen img")


def video(page: Any) -> None:
    open_tab(page, "Live video", "Video file")
    page.locator(".gallery-item:visible").first.click()
    page.wait_for_selector("#video video", state="attached")
    page.locator("#video-run").click()
    page.get_by_text("Done:").wait_for(timeout=PATIENCE)
    page.wait_for_function("document.querySelector('#video-result video')?.readyState >= 2", timeout=PATIENCE)


def learn(page: Any) -> None:
    open_tab(page, "Learn here")
    page.locator(".gallery-item:visible").nth(1).click()
    loaded(page, "#board img")
    click_at(page, "board", 0.51, 0.53)
    page.get_by_text("Now the opposite corner").wait_for(timeout=PATIENCE)
    click_at(page, "board", 0.87, 0.86)
    page.get_by_text("1 box on 1 picture").wait_for(timeout=PATIENCE)
    page.locator("#learn").click()
    page.get_by_text("Learned in").wait_for(timeout=PATIENCE)
    loaded(page, "#loss img")


def click_at(page: Any, name: str, x: float, y: float) -> None:
    """Click a picture at a share of its width and height."""
    shown = page.locator(f"#{name} img")
    shown.scroll_into_view_if_needed()
    box = shown.bounding_box()
    shown.click(position={"x": box["width"] * x, "y": box["height"] * y})


TABS: dict[str, Callable[[Any], None]] = {
    "picture": picture, "rates": rates, "membranes": membranes, "webcam": webcam, "video": video, "learn": learn,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="of the running demo")
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("--only", nargs="*", default=list(TABS), choices=list(TABS))
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--schemes", nargs="*", default=["light", "dark"], choices=["light", "dark"])
    parser.add_argument("--docs", action="store_true", help="one picture a tab: desktop, light, few colours, small files")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.docs:
        args.sizes, args.schemes = ["desktop"], ["light"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for size in args.sizes:
            for scheme in args.schemes:
                for name in args.only:
                    shoot(browser, args.address, name, size, scheme, args.out, args.docs)
        browser.close()


def shoot(browser: Any, address: str, name: str, size: str, scheme: str, out: Path, docs: bool) -> None:
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, permissions=["camera"], color_scheme=scheme)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(f"{address}?__theme={scheme}")
    page.wait_for_selector("#picture")
    TABS[name](page)
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_timeout(800)
    wide = page.evaluate("document.documentElement.scrollWidth")
    shot = Image.open(io.BytesIO(page.screenshot(full_page=True)))
    context.close()
    path = out / (f"demo-{name}.png" if docs else f"{name}-{size}-{scheme}.png")
    if docs:
        shot = shot.convert("RGB").quantize(64, dither=Image.Dither.NONE)
    shot.save(path, optimize=True)
    print(f"{path}: {shot.width} x {shot.height}, {path.stat().st_size // 1000} kB" + (" STICKS OUT" if wide > width else ""), flush=True)


if __name__ == "__main__":
    main()
