"""The web page in a real browser, against a real server."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Dialog,
    Locator,
    Page,
    Request,
    expect,
)

from support.pictures import draw_pictures
from support.server import ADMIN_KEY, ServerProcess, wait_for_job

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

ServerFactory = Callable[[Sequence[Path]], ServerProcess]

HOSTILE_NAME = "<img src=x onerror=alert(1)>.png"
PICTURES = 30
# Generous, since machines that run tests can be busy; nothing waits longer than it must.
WAIT_MILLISECONDS = 60_000


@dataclass
class Watched:
    """A page, and everything that went wrong in it."""

    page: Page
    faults: list[str] = field(default_factory=list)

    def expect_http_errors(self, *statuses: int) -> None:
        """Forget what the browser itself logs for answers with these statuses."""
        known = tuple(f"with a status of {status} " for status in statuses)
        self.faults = [fault for fault in self.faults if not any(text in fault for text in known)]


def watch(page: Page, own_address: str) -> Watched:
    """Record console errors, exceptions, dialogs, policy violations and foreign requests."""
    watched = Watched(page)

    def on_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            watched.faults.append(f"console: {message.text}")

    def on_dialog(dialog: Dialog) -> None:
        watched.faults.append("a dialog")
        dialog.dismiss()

    def on_request(request: Request) -> None:
        if not request.url.startswith((own_address, "blob:")):
            watched.faults.append(f"request to {request.url}")

    page.on("console", on_console)
    page.on("dialog", on_dialog)
    page.on("request", on_request)
    page.on("pageerror", lambda error: watched.faults.append(f"exception: {error}"))
    page.expose_function("reportViolation", lambda text: watched.faults.append(f"policy: {text}"))
    page.add_init_script(
        "addEventListener('securitypolicyviolation',"
        " (event) => reportViolation(event.violatedDirective + ' ' + event.blockedURI))"
    )
    page.set_default_timeout(WAIT_MILLISECONDS)
    return watched


@pytest.fixture(scope="module", autouse=True)
def _patience() -> None:
    expect.set_options(timeout=WAIT_MILLISECONDS)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, one of them with a hostile name, and a broken file."""
    folder = tmp_path_factory.mktemp("photos")
    draw_pictures(folder, PICTURES - 1)
    Image.new("RGB", (320, 200), "teal").save(folder / HOSTILE_NAME)
    (folder / "broken <b>.jpg").write_bytes(b"no picture at all")
    return folder


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Iterator[ServerProcess]:
    """A server that has indexed the pictures."""
    home = tmp_path_factory.mktemp("indexed") / "home"
    with ServerProcess(home, [photos]) as server, server.client() as client:
        answer = client.post("/api/v1/index/trigger", json={"image_dir": str(photos)})
        status = wait_for_job(client, answer.json()["job_id"])
        assert status["status"] == "completed", status
        yield server


class OpenPage:
    """Opens pages, each in a browser context of its own."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self.opened: list[Watched] = []

    def __call__(
        self,
        server: ServerProcess,
        *,
        key: str | None = None,
        width: int = 1280,
        is_dark: bool = False,
    ) -> Watched:
        context = self._browser.new_context(
            viewport={"width": width, "height": 800},
            color_scheme="dark" if is_dark else "light",
        )
        watched = watch(context.new_page(), server.url)
        self.opened.append(watched)
        watched.page.goto(server.url)
        if key is not None:
            enter_key(watched.page, key)
        return watched


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Open the page of a server; at the end nothing may have gone wrong in it."""
    opener = OpenPage(browser)
    yield opener
    for watched in opener.opened:
        watched.page.context.close()
    assert [fault for watched in opener.opened for fault in watched.faults] == []


def enter_key(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Use key").click()


def search(page: Page, text: str) -> None:
    page.get_by_label("Describe what you are looking for").fill(text)
    page.get_by_role("button", name="Search").click()


def results(page: Page) -> Locator:
    return page.get_by_role("list", name="Results, best first").get_by_role("listitem")


def jobs(page: Page) -> Locator:
    return page.get_by_role("list", name="Jobs").locator("> li")


def test_a_search_shows_the_best_images_with_score_path_and_decoded_thumbnail(
    indexed: ServerProcess, photos: Path, open_page: OpenPage
) -> None:
    page = open_page(indexed, key=ADMIN_KEY).page
    search(page, "a red circle")
    expect(page.locator("#search-status")).to_have_text(
        re.compile(rf"24 results of {PICTURES} images in \d+ ms")
    )
    expect(results(page)).to_have_count(24)
    with indexed.client() as client:
        answer = client.post("/api/v1/query", json={"text": "a red circle", "top_k": 24}).json()
    for item, result in zip(results(page).all(), answer["results"], strict=True):
        expect(item.locator(".rank")).to_have_text(f"#{result['rank']}")
        expect(item.locator(".score")).to_have_text(f"score {result['score']:.3f}")
        expect(item.locator(".name")).to_have_text(Path(result["image_path"]).name)
        expect(item.locator(".folder")).to_have_text(f"{photos}/")
        item.scroll_into_view_if_needed()
        expect(item.get_by_role("img")).to_have_attribute("alt", result["image_path"])
        picture = item.get_by_role("img").element_handle()
        page.wait_for_function("(img) => img.complete && img.naturalWidth > 0", arg=picture)


def test_a_new_search_replaces_the_results_and_gives_the_old_blobs_back(
    indexed: ServerProcess, open_page: OpenPage
) -> None:
    watched = open_page(indexed, key=ADMIN_KEY)
    page = watched.page
    search(page, "a red circle")
    address = results(page).first.get_by_role("img").get_attribute("src")
    page.get_by_label("Number of results").select_option("12 results")
    search(page, "a blue square")
    expect(results(page)).to_have_count(12)
    # The policy lets nobody fetch blobs, so a picture tells whether the blob still exists.
    is_gone = (
        "(address) => new Promise((tell) => { const img = new Image();"
        " img.onload = () => tell(false); img.onerror = () => tell(true); img.src = address; })"
    )
    assert page.evaluate(is_gone, address)
    watched.faults = [fault for fault in watched.faults if "ERR_FILE_NOT_FOUND" not in fault]


def test_more_like_this_shows_the_images_most_like_a_result_and_not_itself(
    indexed: ServerProcess, open_page: OpenPage
) -> None:
    page = open_page(indexed, key=ADMIN_KEY).page
    search(page, "a red circle")
    with indexed.client() as client:
        body = {"text": "a red circle", "top_k": 1}
        best = client.post("/api/v1/query", json=body).json()["results"][0]
        body = {"image_id": best["image_id"], "top_k": 24}
        like = client.post("/api/v1/query", json=body).json()["results"]
    page.get_by_role("button", name=f"More like {best['image_path']}").click()
    for item, result in zip(results(page).all(), like, strict=False):
        expect(item.locator(".score")).to_have_text(f"score {result['score']:.3f}")
    titles = [item.get_attribute("title") for item in results(page).all()]
    assert titles == [result["image_path"] for result in like]
    assert best["image_path"] not in titles


def test_a_hostile_file_name_is_shown_as_text_and_runs_nothing(
    indexed: ServerProcess, photos: Path, open_page: OpenPage
) -> None:
    page = open_page(indexed, key=ADMIN_KEY).page
    page.get_by_label("Number of results").select_option("60 results")
    search(page, "something teal")
    hostile = results(page).filter(has_text=HOSTILE_NAME)
    expect(hostile).to_have_count(1)
    expect(hostile.locator(".name")).to_have_text(HOSTILE_NAME)
    expect(page.locator("img[src='x']")).to_have_count(0)
    hostile.get_by_role("button", name="Show large").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("img")).to_be_visible()
    expect(dialog.locator("p")).to_have_text(str(photos / HOSTILE_NAME))


def test_markup_that_got_into_the_page_all_the_same_would_not_run(
    indexed: ServerProcess, open_page: OpenPage
) -> None:
    watched = open_page(indexed)
    watched.page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "document.title = 'taken over'";
            document.body.append(script);
            document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='alert(1)'>");
        }"""
    )
    expect(watched.page).to_have_title("Imagedex")
    watched.page.wait_for_function("() => document.querySelector(\"img[src='x']\").complete")
    violations = [fault for fault in watched.faults if fault.startswith("policy: script-src")]
    assert violations
    assert "a dialog" not in watched.faults
    watched.faults.clear()


def test_a_wrong_key_is_named_as_such_and_asked_for_again(
    indexed: ServerProcess, open_page: OpenPage
) -> None:
    watched = open_page(indexed, key="imgdx_0123456789ab_wrong")
    page = watched.page
    expect(page.get_by_role("alert")).to_contain_text("does not know this key")
    expect(page.get_by_label("API key")).to_be_focused()
    watched.expect_http_errors(401)
    enter_key(page, ADMIN_KEY)
    expect(page.get_by_role("alert")).to_be_empty()
    search(page, "a red circle")
    expect(results(page)).to_have_count(24)


def test_a_search_without_a_key_asks_for_one(indexed: ServerProcess, open_page: OpenPage) -> None:
    page = open_page(indexed).page
    search(page, "a red circle")
    expect(page.locator("#search-status")).to_have_text("Enter an API key first.")
    expect(page.get_by_label("API key")).to_be_focused()


def test_the_key_lives_in_the_tab_and_nowhere_else(
    indexed: ServerProcess, open_page: OpenPage
) -> None:
    page = open_page(indexed, key=ADMIN_KEY).page
    expect(page.get_by_text("Key in use")).to_be_visible()
    page.reload()
    expect(page.get_by_text("Key in use")).to_be_visible()
    assert page.evaluate("() => Object.values(sessionStorage)") == [ADMIN_KEY]
    assert page.evaluate("() => localStorage.length") == 0
    assert page.context.cookies() == []
    assert ADMIN_KEY not in page.url
    other_tab = page.context.new_page()
    other_tab.goto(indexed.url)
    expect(other_tab.get_by_label("API key")).to_be_visible()
    page.get_by_role("button", name="Forget it").click()
    expect(page.get_by_label("API key")).to_be_focused()
    assert page.evaluate("() => sessionStorage.length") == 0
    assert ADMIN_KEY not in indexed.log.read_text()


def test_a_key_that_may_only_search_sees_no_jobs_and_is_told_so(
    indexed: ServerProcess, open_page: OpenPage
) -> None:
    with indexed.client() as client:
        answer = client.post("/api/v1/keys", json={"name": "reader", "scopes": ["query"]})
    watched = open_page(indexed, key=answer.json()["secret"])
    page = watched.page
    expect(page.locator("#jobs-status")).to_have_text("This key may search, but not see jobs.")
    expect(page.get_by_label("Folder on the server")).to_be_hidden()
    expect(page.locator("#stats")).to_contain_text(f"Images{PICTURES}")
    search(page, "a red circle")
    expect(results(page)).to_have_count(24)
    watched.expect_http_errors(403)


def test_a_folder_is_indexed_from_the_page_and_its_job_is_followed_to_the_end(
    photos: Path, start_server: ServerFactory, open_page: OpenPage
) -> None:
    server = start_server([photos])
    watched = open_page(server, key=ADMIN_KEY)
    page = watched.page
    expect(page.locator("#jobs-status")).to_have_text("No jobs yet. Index a folder to begin.")
    search(page, "a red circle")
    expect(page.locator("#search-status")).to_contain_text("Nothing is indexed yet.")

    page.get_by_label("Folder on the server").fill("/nowhere")
    page.get_by_role("button", name="Index", exact=True).click()
    expect(page.locator("#index-status")).to_contain_text("/nowhere")
    watched.expect_http_errors(403)

    page.get_by_label("Folder on the server").fill(str(photos))
    page.get_by_role("button", name="Index", exact=True).click()
    expect(page.locator("#index-status")).to_contain_text(str(photos))
    job = jobs(page).first
    # No reload: the list follows by itself.
    expect(job.locator(".state")).to_have_text("completed")
    total = PICTURES + 1
    expect(job).to_contain_text(f"{total} of {total} images, 1 failed")
    expect(job.get_by_role("progressbar")).to_have_js_property("value", 100)
    expect(page.locator("#stats")).to_contain_text(f"Images{PICTURES}")
    job.get_by_text("Failed images").click()
    expect(job.locator(".failures")).to_contain_text("not_an_image")
    expect(job.locator(".failures")).to_contain_text("broken <b>.jpg")
    expect(job.locator("b")).to_have_count(0)
    search(page, "a red circle")
    expect(results(page)).to_have_count(24)


def test_a_server_that_goes_is_reported_and_its_return_is_noticed(
    server: ServerProcess, open_page: OpenPage
) -> None:
    watched = open_page(server, key=ADMIN_KEY)
    page = watched.page
    expect(page.locator("#jobs-status")).to_contain_text("No jobs yet")
    server.stop()
    search(page, "a red circle")
    expect(page.locator("#search-status")).to_have_text("The server cannot be reached.")
    expect(page.locator("#jobs-status")).to_contain_text("Trying again")
    server.start()
    expect(page.locator("#jobs-status")).to_contain_text("No jobs yet")
    watched.faults = [fault for fault in watched.faults if "ERR_CONNECTION" not in fault]


def test_everything_can_be_done_by_keyboard(indexed: ServerProcess, open_page: OpenPage) -> None:
    page = open_page(indexed).page
    keyboard = page.keyboard
    keyboard.type(ADMIN_KEY)
    keyboard.press("Enter")
    expect(page.get_by_label("Describe what you are looking for")).to_be_focused()
    keyboard.type("a red circle")
    keyboard.press("Enter")
    expect(results(page)).to_have_count(24)
    for _ in range(3):  # Number of results, the button, the first result.
        keyboard.press("Tab")
    expect(results(page).first.get_by_role("button", name="Show large")).to_be_focused()
    keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("img")).to_be_visible()
    keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(results(page).first.get_by_role("button", name="Show large")).to_be_focused()


def test_a_phone_shows_everything_without_scrolling_sideways(
    indexed: ServerProcess, open_page: OpenPage
) -> None:
    page = open_page(indexed, key=ADMIN_KEY, width=360).page
    search(page, "a red circle")
    expect(results(page)).to_have_count(24)
    expect(jobs(page)).not_to_have_count(0)
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


def test_the_page_is_dark_where_the_reader_wants_it_dark(
    indexed: ServerProcess, open_page: OpenPage
) -> None:
    def brightness(watched: Watched) -> float:
        colour: str = watched.page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        return sum(map(float, re.findall(r"\d+", colour)[:3])) / 3

    assert brightness(open_page(indexed)) > 200
    assert brightness(open_page(indexed, is_dark=True)) < 60
