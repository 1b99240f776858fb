"""The page's files and the headers that keep strangers' words from becoming code."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from imagedex.web import add_pages
from imagedex.web.pages import MEDIA_TYPES

STATIC = {file.name: file for file in files("imagedex.web").joinpath("static").iterdir()}


@pytest.fixture(scope="module")
def client() -> TestClient:
    api = FastAPI()
    add_pages(api)
    return TestClient(api)


def test_the_page_is_served_without_a_key(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>Imagedex</title>" in answer.text


@pytest.mark.parametrize("name", sorted(STATIC))
def test_every_file_is_served_as_what_it_is(client: TestClient, name: str) -> None:
    answer = client.get(f"/web/{name}")
    assert answer.status_code == 200
    assert answer.content == STATIC[name].read_bytes()
    assert answer.headers["content-type"] == MEDIA_TYPES["." + name.rpartition(".")[2]]


@pytest.mark.parametrize("path", ["/", "/web/page.js", "/web/icon.svg"])
def test_every_answer_forbids_foreign_code_and_framing(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = dict(
        directive.split(" ", 1) for directive in headers["content-security-policy"].split("; ")
    )
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
    }
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_a_browser_that_has_the_file_gets_304(client: TestClient) -> None:
    first = client.get("/web/page.js")
    again = client.get("/web/page.js", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""
    assert client.get("/web/page.js", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("path", ["/web/", "/web/../pages.py", "/web/%2e%2e/pages.py", "/web/x.js"])
def test_nothing_but_the_files_of_the_page_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_all_that_the_page_loads_comes_from_the_package() -> None:
    for name, file in STATIC.items():
        text = file.read_text("utf-8")
        loaded = re.findall(r"""(?:src|href|from|import)\s*=?\s*["']([^"'#\n]+)["']""", text)
        assert {path.removeprefix("/web/") for path in loaded} <= set(STATIC), name
        if name.endswith((".html", ".css", ".js")):
            assert "://" not in text, name


def test_no_script_makes_markup_of_text() -> None:
    makers = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(")
    for name, file in STATIC.items():
        assert not makers.search(file.read_text("utf-8")), name


def test_the_page_has_no_inline_script_style_or_handler() -> None:
    page = STATIC["index.html"].read_text("utf-8")
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", page)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", page))


def test_every_field_of_the_page_has_a_label() -> None:
    page = STATIC["index.html"].read_text("utf-8")
    fields = re.findall(r'<(?:input|select)\s[^>]*?id="([^"]+)"', page)
    assert fields
    assert set(fields) <= set(re.findall(r'<label for="([^"]+)"', page))
