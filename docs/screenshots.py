"""Take the screenshots of the documentation from a running ``sparse-sts serve`` on the sample.

sparse-sts index sample --output /tmp/sample && sparse-sts serve /tmp/sample
python docs/screenshots.py
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, expect, sync_playwright

QUERY = "Three girls paint a fence"
WIDE, PHONE = (1100, 900), (375, 760)


def opened(
    browser: Browser, url: str, size: tuple[int, int] = WIDE, scheme: Literal["light", "dark"] = "light"
) -> Page:
    """A fresh page with the hits of the query, explained."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto(url)
    page.locator("#query").fill(QUERY)
    expect(page.locator(".hit").first.locator(".terms li").first).to_be_attached(timeout=60_000)
    return page


def search(browser: Browser, url: str) -> Page:
    """Hits, in light colours."""
    return opened(browser, url)


def explanation(browser: Browser, url: str) -> Page:
    """The first hit explained, in dark colours."""
    page = opened(browser, url, scheme="dark")
    page.locator(".toggle").first.click()
    return page


def compare(browser: Browser, url: str) -> Page:
    """Two sentences, term by term."""
    page = opened(browser, url)
    page.locator(".hit").first.get_by_role("button", name="Compare").click()
    expect(page.locator(".twosided")).to_be_visible(timeout=60_000)
    return page


def collection(browser: Browser, url: str) -> Page:
    """Groups of sentences that are nearly the same."""
    page = opened(browser, url)
    page.get_by_role("tab", name="Collection").click()
    expect(page.locator(".group").first).to_be_visible(timeout=60_000)
    return page


def phone(browser: Browser, url: str) -> Page:
    """The first hit explained, on a narrow screen."""
    page = opened(browser, url, PHONE)
    page.locator(".toggle").first.click()
    return page


SHOTS = {
    "search": search,
    "explanation": explanation,
    "compare": compare,
    "collection": collection,
    "phone": phone,
}


def main() -> None:
    """Write a PNG for each of :data:`SHOTS`."""
    parser = argparse.ArgumentParser(description="Take the screenshots of the documentation from a running server.")
    parser.add_argument(
        "--url", default="http://127.0.0.1:8080", help="where the server listens (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("images"), help="default: %(default)s")
    options = parser.parse_args()
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        parser.error("needs a browser: chromium or google-chrome")
    options.output.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        for name, shoot in SHOTS.items():
            page = shoot(browser, options.url)
            page.evaluate("document.activeElement.blur()")
            path = options.output / f"{name}.png"
            page.screenshot(path=path)
            page.context.close()
            sys.stdout.write(f"{path}: {path.stat().st_size / 1024:.0f} KiB\n")
        browser.close()


if __name__ == "__main__":
    main()
