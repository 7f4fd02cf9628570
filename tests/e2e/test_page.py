"""The page of ``sparse-sts serve``, in a browser."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from serving import serving

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsEncoder, SparseStsIndex

try:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright
except ImportError:
    if os.environ.get("CI"):
        raise
    pytest.skip("needs playwright and axe-playwright-python", allow_module_level=True)

QUERY = "Three girls paint a fence"
NEAREST = "Three girls are painting a fence green."
SECOND = "Three girls are sitting on a green fence, painting."
LONG = "I was charged twice for my March subscription but the second payment was already returned."
HOSTILE = '<img src=x onerror="window.ran=1"><script>window.ran=1</script> a 🐕 & a fence'
TICKETS: list[dict[str, Any]] = [
    {"product": "router", "status": "open", "price": 10.0, "text": "The router forgets its password."},
    {"product": "router", "status": "closed", "price": 30.0, "text": "How do I reset the password of my router?"},
    {
        "product": "printer",
        "status": "open",
        "price": 20.0,
        "constructor": "a",
        "text": "Which password does the printer want?",
    },
    {"product": 'a "<b>phone"', "status": "open", "price": 40.0, "text": "My phone wants another password."},
]
SECONDS = 30.0  # to wait for anything, on a busy machine


@pytest.fixture(scope="module")
def url(sample_index: SparseStsIndex) -> Iterator[str]:
    with serving(sample_index.path) as server:
        yield server.url


@pytest.fixture(scope="module")
def tickets(tiny: SparseStsEncoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of sentences with fields."""
    from sparse_sts_index import Document, SparseStsIndex

    rows = [{**ticket} for ticket in TICKETS]
    documents = [Document(str(number), row.pop("text"), fields=row) for number, row in enumerate(rows)]
    fields = {"product": "keyword", "status": "keyword", "price": "number", "constructor": "keyword"}
    path = tmp_path_factory.mktemp("tickets") / "index"
    SparseStsIndex.build(path, documents, tiny, fields=fields).close()  # type: ignore[arg-type]
    with serving(path) as server:
        yield server.url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs a browser: one of {', '.join(names)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A page in a fresh context, with what it asked of the network and what it complained of."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser, self.url = browser, url
        self.requests: list[str] = []
        self.complaints: list[str] = []

    def open(self, address: str = "", **context: object) -> Page:
        page = self._browser.new_context(reduced_motion="reduce", **context).new_page()  # type: ignore[arg-type]
        page.set_default_timeout(1000 * SECONDS)
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "console",
            lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None,
        )
        page.goto(self.url + address)
        expect(page.locator("#about")).to_contain_text("sentences")
        return page


@contextlib.contextmanager
def visiting(browser: Browser, url: str) -> Iterator[Visit]:
    """Any page opened must stay with its server and have nothing to complain of."""
    expect.set_options(timeout=1000 * SECONDS)
    visit = Visit(browser, url.rstrip("/"))
    yield visit
    for context in browser.contexts:
        context.close()
    assert visit.complaints == []
    origin = urlsplit(url)[:2]
    elsewhere = [to for to in visit.requests if not to.startswith("data:") and urlsplit(to)[:2] != origin]
    assert elsewhere == []


@pytest.fixture
def visit(browser: Browser, url: str) -> Iterator[Visit]:
    with visiting(browser, url) as visit:
        yield visit


@pytest.fixture
def shop(browser: Browser, tickets: str) -> Iterator[Visit]:
    with visiting(browser, tickets) as visit:
        yield visit


def find(page: Page, text: str = QUERY) -> Locator:
    """Type a query; the hits, explained."""
    page.locator("#query").fill(text)
    hits = page.locator(".hit")
    expect(hits.first.locator(".terms li").first).to_be_attached()
    return hits


def numbers(data: Locator) -> list[float]:
    return data.evaluate_all("all => all.map(one => Number(one.value))")


def overflows(page: Page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")


def wait_for_groups(page: Page) -> int:
    """Number of groups that the status line tells."""
    expect(page.locator("#collection-status")).to_have_text(re.compile(r"^\d+ groups? of \d+ sentences"))
    return int(page.locator("#collection-status").inner_text().split()[0])


def test_hits_appear_as_one_types(visit: Visit) -> None:
    page = visit.open()
    page.locator("#query").press_sequentially(QUERY, delay=30)
    hits = page.locator(".hit")
    expect(page.locator("#search-status")).to_have_text(
        re.compile(r"^10 of 1,000 sentences, the nearest of all \(proved\), \d+ ms$")
    )
    expect(hits).to_have_count(10)
    expect(hits.first.locator(".sentence").first).to_have_text(NEAREST)
    expect(hits.nth(1).locator(".sentence").first).to_have_text(SECOND)
    cosines = [float(text) for text in hits.locator(".cosine b").evaluate_all("all => all.map(b => b.lastChild.data)")]
    assert cosines == sorted(cosines, reverse=True)
    assert 0 < cosines[-1] < cosines[0] < 1


def test_more_hits_in_another_mode(visit: Visit) -> None:
    page = visit.open()
    find(page)
    page.get_by_role("radio", name="25").check()
    expect(page.locator(".hit")).to_have_count(25)
    page.get_by_role("radio", name="two-step").check()
    expect(page).to_have_url(re.compile(r"k=25&mode=two-step"))
    expect(page.locator(".hit").first).to_contain_text(NEAREST)
    page.get_by_role("radio", name="50").check()
    expect(page.locator(".hit")).to_have_count(50)
    expect(page.locator(".hit").nth(49).locator(".terms li").first).to_be_attached()


def test_explanation_adds_up_to_the_cosine(visit: Visit) -> None:
    hit = find(visit.open()).first
    toggle = hit.get_by_role("button", name="Why")
    expect(toggle).to_have_attribute("aria-expanded", "false")
    expect(hit.locator(".detail")).to_be_hidden()
    toggle.click()
    expect(toggle).to_have_attribute("aria-expanded", "true")
    table = hit.get_by_role("table", name="Shared terms")
    contributions = numbers(table.locator("tbody data"))
    assert contributions == sorted(contributions, reverse=True)
    assert sum(contributions) == pytest.approx(numbers(table.locator("tfoot data"))[0], abs=1e-6)
    assert sum(contributions) == pytest.approx(float(hit.locator(".cosine b").inner_text().split()[-1]), abs=6e-4)
    widths = table.locator("tbody .bar").evaluate_all(
        "all => all.map(b => parseFloat(b.style.getPropertyValue('--part')))"
    )
    assert widths == pytest.approx([100 * c / contributions[0] for c in contributions], abs=0.06)
    for side, words in (("first", QUERY.split()), ("second", NEAREST.rstrip(".").split())):
        marks = hit.locator(f".detail [data-side={side}] mark")
        assert [text for text in marks.all_inner_texts() if text.isalpha()] == words
        strengths = marks.evaluate_all(
            "all => all.map(m => [Number(m.dataset.contribution), m.style.getPropertyValue('--share')])"
        )
        assert sum(contribution for contribution, _ in strengths) == pytest.approx(sum(contributions), abs=1e-6)
        assert all(
            (contribution > 0) == (share != "0%")
            for contribution, share in strengths
            if contribution > 1e-4 or not contribution
        )
    toggle.click()
    expect(hit.locator(".detail")).to_be_hidden()


def test_expansion_is_told_apart_from_literal(visit: Visit) -> None:
    hit = find(visit.open()).first
    hit.get_by_role("button", name="Why").click()
    table = hit.get_by_role("table", name="Shared terms")
    looks = []
    for term, kind in (("fence", "literal in both"), ("paint", "literal in one"), ("female", "expansion in both")):
        row = table.get_by_role("row").filter(has=of_term(table, term))
        expect(row).to_have_count(1)
        expect(row.get_by_role("rowheader")).to_contain_text(kind)
        looks.append(row.evaluate("r => ['.dot', '.bar'].map(s => getComputedStyle(r.querySelector(s)).background)"))
    assert len({json.dumps(look) for look in looks}) == 3
    female = table.get_by_role("row").filter(has=of_term(table, "female")).get_by_role("cell")
    expect(female.nth(1)).to_have_text("expansion of girls")
    paint = table.get_by_role("row").filter(has=of_term(table, "paint")).get_by_role("cell")
    expect(paint.nth(1)).to_have_text("literal, paint")
    expect(paint.nth(2)).to_have_text("expansion of painting")


def of_term(table: Locator, term: str) -> Locator:
    return table.page.locator("code", has_text=re.compile(f"^{re.escape(term)}$"))


def test_compare(visit: Visit) -> None:
    page = visit.open()
    page.get_by_role("tab", name="Compare").click()
    page.get_by_label("First sentence").fill(QUERY)
    page.get_by_label("Second sentence").fill(NEAREST)
    cosine = page.locator(".verdict .figure data")
    expect(cosine).to_have_text(re.compile(r"^0\.8"))
    table = page.get_by_role("table", name="Shared terms")
    assert sum(numbers(table.locator("tbody data"))) == pytest.approx(numbers(cosine)[0], abs=1e-6)
    assert table.locator("tbody tr").count() * 2 == table.locator("tbody .bar").count()
    expect(page.get_by_role("heading", name=re.compile("^Only in the first"))).to_be_visible()
    expect(page.locator(".lone > div").nth(1).locator("code", has_text=re.compile("^green$"))).to_be_visible()
    page.get_by_label("Second sentence").fill(LONG)
    lone = page.locator(".lone > div").nth(1)
    more = page.get_by_role("button", name="terms only in the second")
    expect(lone.locator("li")).to_have_count(12)
    total = int(more.inner_text().removeprefix("Show all "))
    more.click()
    expect(lone.locator("li")).to_have_count(total)
    expect(lone.locator("li").nth(12)).to_be_focused()
    expect(more).to_have_count(0)
    page.get_by_label("Second sentence").fill(QUERY)
    expect(cosine).to_have_text("1.000")


def test_from_a_hit_to_compare_and_back(visit: Visit) -> None:
    page = visit.open()
    find(page).nth(1).get_by_role("button", name="Compare").click()
    expect(page.get_by_label("First sentence")).to_have_value(QUERY)
    expect(page.get_by_label("Second sentence")).to_have_value(SECOND)
    expect(page.locator(".verdict")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("tab", name="Search")).to_have_attribute("aria-selected", "true")
    expect(page.locator(".hit").first).to_contain_text(NEAREST)
    page.locator(".hit").nth(1).get_by_role("button", name="Find similar").click()
    expect(page.locator("#query")).to_have_value(SECOND)
    expect(page.locator(".hit").first).to_contain_text(SECOND)
    shared = page.url
    again = visit.open(shared.removeprefix(visit.url))
    expect(again.locator(".hit").first).to_contain_text(SECOND)
    expect(again.locator("#query")).to_have_value(SECOND)


def test_threshold(visit: Visit) -> None:
    page = visit.open()
    page.get_by_role("tab", name="Collection").click()
    slider = page.get_by_role("slider")
    expect(slider).to_have_value("0.9")
    counts = [wait_for_groups(page)]
    assert page.locator(".group").count() == min(counts[0], 50)
    for key, presses, value in (("ArrowRight", 5, "0.95"), ("ArrowLeft", 25, "0.7")):
        before = page.locator("#collection-status").inner_text()
        for _ in range(presses):
            slider.press(key)
        expect(page.locator(".slider output")).to_have_text(f"{float(value):.2f}")
        expect(page.locator("#collection-status")).not_to_have_text(before)
        expect(page).to_have_url(re.compile(f"threshold={value}$"))
        expect(page.locator("#collection")).not_to_have_attribute("aria-busy", "true")
        counts.append(wait_for_groups(page))
    at_90, at_95, at_70 = counts
    assert at_95 < at_90 < at_70
    group = page.locator(".group").first
    assert 0.7 <= numbers(group.locator("header data"))[0] <= 1
    members = group.locator(".sentence").all_inner_texts()
    group.get_by_role("button", name="Compare").first.click()
    expect(page.get_by_label("First sentence")).to_have_value(members[0])
    expect(page.get_by_label("Second sentence")).to_have_value(members[1])


def test_keyboard_alone(visit: Visit) -> None:
    page = visit.open()
    keyboard = page.keyboard
    page.locator("body").evaluate("() => document.activeElement.blur()")
    keyboard.press("/")
    expect(page.locator("#query")).to_be_focused()
    keyboard.type(QUERY)
    hits = page.locator(".hit")
    expect(hits.first.locator(".terms li").first).to_be_attached()
    expect(hits.first).to_contain_text(NEAREST)
    keyboard.press("ArrowDown")
    expect(hits.nth(0).locator(".toggle")).to_be_focused()
    keyboard.press("ArrowDown")
    expect(hits.nth(1).locator(".toggle")).to_be_focused()
    keyboard.press("ArrowUp")
    keyboard.press("Enter")
    expect(hits.nth(0).locator(".detail")).to_be_visible()
    expect(hits.nth(1).locator(".detail")).to_be_hidden()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    keyboard.press("Enter")
    expect(hits.nth(0).locator(".detail")).to_be_hidden()
    keyboard.press("Escape")
    expect(page.locator("#query")).to_be_focused()
    expect(page.locator("#query")).to_have_value(QUERY)
    keyboard.press("ArrowDown")
    keyboard.press("ArrowUp")
    expect(page.locator("#query")).to_be_focused()
    keyboard.press("Alt+Digit2")
    expect(page.get_by_role("tab", name="Compare")).to_be_focused()
    keyboard.press("Tab")
    expect(page.get_by_label("First sentence")).to_be_focused()
    keyboard.press("Shift+Tab")
    keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Collection")).to_be_focused()
    expect(page.get_by_role("tabpanel")).to_have_id("collection")
    keyboard.press("Tab")
    expect(page.get_by_role("slider")).to_be_focused()
    wait_for_groups(page)
    keyboard.press("Alt+Digit1")
    expect(hits).to_have_count(10)
    keyboard.press("/")
    expect(page.locator("#query")).to_be_focused()


def test_skip_link(visit: Visit) -> None:
    page = visit.open()
    page.locator("body").evaluate("() => document.activeElement.blur()")
    page.locator("#skip").focus()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


@pytest.mark.parametrize("width", [320, 375])
def test_phone(visit: Visit, width: int) -> None:
    page = visit.open(viewport={"width": width, "height": 700}, has_touch=True)
    hit = find(page).first
    assert not overflows(page)
    hit.get_by_role("button", name="Why").tap()
    expect(hit.get_by_role("table", name="Shared terms")).to_be_visible()
    assert not overflows(page)
    find(page, "abcdefghijklmnopqrstuvwxyz" * 20)
    assert not overflows(page)
    find(page).first.get_by_role("button", name="Compare").tap()
    expect(page.get_by_role("table", name="Shared terms")).to_be_visible()
    assert not overflows(page)
    page.get_by_role("tab", name="Collection").tap()
    wait_for_groups(page)
    assert not overflows(page)
    for name in ("Search", "Compare", "Collection"):
        box = page.get_by_role("tab", name=name).bounding_box()
        assert box is not None
        assert 0 <= box["x"] < box["x"] + box["width"] <= width
        assert box["height"] >= 24


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible(visit: Visit, scheme: str) -> None:
    page = visit.open(color_scheme=scheme, bypass_csp=True)

    def check(what: str) -> None:
        results = Axe().run(page)
        assert results.violations_count == 0, f"{what}: {results.generate_report()}"

    check("before a query")
    hit = find(page).first
    hit.get_by_role("button", name="Why").click()
    page.locator("#keys summary").click()
    check("hits")
    hit.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("table", name="Shared terms")).to_be_visible()
    check("comparison")
    page.get_by_role("tab", name="Collection").click()
    wait_for_groups(page)
    expect(page.locator(".group").first).to_be_visible()
    check("collection")
    page.evaluate("() => document.querySelector('#token-dialog').showModal()")
    check("token")


def test_markup_is_text(visit: Visit) -> None:
    page = visit.open()
    hit = find(page, HOSTILE).first
    hit.get_by_role("button", name="Why").click()
    expect(hit.locator("[data-side=first]").first).to_have_text(HOSTILE)
    hit.get_by_role("button", name="Compare").click()
    page.get_by_label("Second sentence").fill(f"{HOSTILE} twice")
    for side, text in (("first", HOSTILE), ("second", f"{HOSTILE} twice")):
        expect(page.locator(f".verdict [data-side={side}]")).to_have_text(text)
    assert page.locator("main img, main script, header img").count() == 0
    assert page.evaluate("window.ran") is None


def test_busy_server_is_asked_again(visit: Visit) -> None:
    page = visit.open()
    refusals = iter([429, 503])

    def refuse(route: Route) -> None:
        status = next(refusals, None)
        if status is None:
            route.fallback()
        else:
            body = json.dumps({"status": status, "detail": "busy"})
            headers = {"Retry-After": "1", "Content-Type": "application/problem+json"}
            route.fulfill(status=status, headers=headers, body=body)

    page.route("**/v1/search", refuse)
    page.locator("#query").fill(QUERY)
    expect(page.locator("#search-status")).to_contain_text("The server is busy")
    expect(page.locator(".hit").first).to_contain_text(NEAREST)
    assert all("429" in text or "503" in text for text in visit.complaints)  # Chromium notes each refusal
    visit.complaints.clear()


def test_error_is_shown(visit: Visit) -> None:
    page = visit.open()
    detail = {"status": 422, "detail": "no <b>such</b> mode"}
    page.route(
        "**/v1/search",
        lambda route: route.fulfill(status=422, content_type="application/problem+json", body=json.dumps(detail)),
    )
    page.locator("#query").fill(QUERY)
    expect(page.locator("#search-status")).to_have_text("no <b>such</b> mode")
    expect(page.locator(".hit")).to_have_count(0)
    visit.complaints.clear()


def test_token_is_asked_for(visit: Visit) -> None:
    page = visit.open()

    def guard(route: Route) -> None:
        if route.request.headers.get("authorization") == "Bearer secret":
            route.fallback()
        else:
            body = json.dumps({"status": 401, "detail": "no token"})
            route.fulfill(status=401, content_type="application/problem+json", body=body)

    page.route("**/v1/**", guard)
    page.locator("#query").fill(QUERY)
    dialog = page.get_by_role("dialog")
    for given in ("wrong", "secret"):
        dialog.get_by_label("Token", exact=True).fill(given)
        page.keyboard.press("Enter")
        if given == "wrong":
            expect(dialog).to_contain_text("That token was refused.")
    expect(dialog).to_be_hidden()
    expect(page.locator(".hit").first).to_contain_text(NEAREST)
    visit.complaints.clear()


def test_progress_of_the_comparison(visit: Visit) -> None:
    page = visit.open()
    progress = iter([0.25, 0.75])

    def comparing(route: Route) -> None:
        share = next(progress, None)
        if share is None:
            route.fallback()
        else:
            body = json.dumps({"progress": share})
            route.fulfill(status=202, headers={"Retry-After": "1", "Content-Type": "application/json"}, body=body)

    page.route("**/v1/groups?*", comparing)
    page.get_by_role("tab", name="Collection").click()
    bar = page.get_by_role("progressbar")
    expect(bar).to_have_attribute("value", "0.25")
    expect(bar).to_have_attribute("value", "0.75")
    wait_for_groups(page)
    expect(bar).to_be_hidden()


def passing(page: Page, number: int, proof: str = "the nearest of all that pass") -> list[str]:
    """Wait until the status reports this number of hits; return their texts."""
    status = re.compile(rf"^{number} of 4 sentences, {proof} \(proved\)")
    expect(page.locator("#search-status")).to_have_text(status)
    return page.locator(".hit > div > .sentence").all_inner_texts()


def chip(page: Page, value: str) -> Locator:
    return page.locator("#chips").get_by_role("checkbox", name=re.compile(rf"^{re.escape(value)} \d+$"))


def test_filter_by_chips(shop: Visit) -> None:
    page = shop.open()
    hits = find(page, "the password")
    expect(hits).to_have_count(4)
    expect(hits.first.locator(".fields")).to_contain_text("product")
    page.get_by_text("Filter and group").click()
    values = ["router 2", 'a "<b>phone" 1', "printer 1", "open 3", "closed 1", "a 1"]
    expect(page.locator("#chips label")).to_have_text(values)
    chip(page, "open").check()
    assert len(passing(page, 3)) == 3
    expect(chip(page, "router")).to_have_accessible_name("router 1")
    expect(chip(page, "closed")).to_have_accessible_name("closed 1")
    chip(page, 'a "<b>phone"').check()
    assert passing(page, 1) == [TICKETS[3]["text"]]
    chip(page, 'a "<b>phone"').uncheck()
    chip(page, "router").check()
    assert passing(page, 1) == [TICKETS[0]["text"]]
    again = shop.open(page.url.removeprefix(shop.url))
    assert passing(again, 1) == [TICKETS[0]["text"]]
    expect(again.get_by_label("Only sentences that pass")).to_have_value('product in ("router") and status in ("open")')


def test_filter_by_text(shop: Visit) -> None:
    page = shop.open()
    find(page, "the password")
    page.get_by_text("Filter and group").click()
    field = page.get_by_label("Only sentences that pass")
    field.fill("price >= 20 and price <")
    expect(page.locator("#search-status.error")).to_contain_text("filter, character 24")
    expect(page.locator(".hit")).to_have_count(0)
    shop.complaints.clear()  # Chromium notes each refusal
    field.fill("price >= 20 and price < 40")
    assert set(passing(page, 2)) == {TICKETS[1]["text"], TICKETS[2]["text"]}
    expect(chip(page, "router")).to_have_accessible_name("router 1")
    field.fill("price > 99")
    expect(page.locator("#search-status")).to_have_text("No sentence that passes shares a term with yours.")


def test_back_to_another_filter(shop: Visit) -> None:
    page = shop.open()
    find(page, "the password")
    page.get_by_text("Filter and group").click()
    expect(chip(page, "open")).to_have_accessible_name("open 3")
    page.locator(".hit").first.get_by_role("button", name="Find similar").click()
    page.get_by_label("Only sentences that pass").fill("price < 15")
    expect(chip(page, "open")).to_have_accessible_name("open 1")
    page.go_back()
    expect(page.get_by_label("Only sentences that pass")).to_have_value("")
    expect(chip(page, "open")).to_have_accessible_name("open 3")


def test_best_of_each(shop: Visit) -> None:
    page = shop.open()
    find(page, "the password")
    page.get_by_text("Filter and group").click()
    page.get_by_role("group", name="Best of each").get_by_role("radio", name="product").check()
    texts = passing(page, 3, "the best of each product of all")
    assert len({ticket["product"] for ticket in TICKETS if ticket["text"] in texts}) == 3
    again = shop.open(page.url.removeprefix(shop.url))
    assert passing(again, 3, "the best of each product of all") == texts


def test_filter_by_keyboard(shop: Visit) -> None:
    page = shop.open()
    find(page, "the password")
    page.get_by_text("Filter and group").focus()
    page.keyboard.press("Enter")
    expect(chip(page, "router")).to_be_visible()
    page.keyboard.press("Tab")
    expect(chip(page, "router")).to_be_focused()
    page.keyboard.press("Space")
    assert len(passing(page, 2)) == 2
    expect(chip(page, "open")).to_have_accessible_name("open 1")
    expect(chip(page, "router")).to_be_focused()
    page.keyboard.press("/")
    expect(page.locator("#query")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_filters_accessible(shop: Visit, scheme: str) -> None:
    page = shop.open(color_scheme=scheme, bypass_csp=True, viewport={"width": 320, "height": 700})
    find(page, "the password")
    page.get_by_text("Filter and group").click()
    chip(page, "router").check()
    passing(page, 2)
    assert not overflows(page)
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
    assert page.locator("#chips b").count() == 0


def test_no_fields_no_filters(visit: Visit) -> None:
    page = visit.open()
    find(page)
    expect(page.locator("#filters")).to_be_hidden()
    expect(page.locator(".fields")).to_have_count(0)
