"""The OpenAPI document is valid, complete and true; the page shows it without help from outside."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.openapi.models import OpenAPI
from pydantic import BaseModel

from imagedex.api import requests, schemas
from support.api import ApiClient, gated_calls


@pytest.fixture
def document(client: ApiClient) -> dict[str, Any]:
    answer = client.call("GET", "/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_document_fits_the_openapi_schema(document: dict[str, Any]) -> None:
    parsed = OpenAPI.model_validate(document)
    assert parsed.openapi.startswith("3.1")
    assert parsed.info.title == "Imagedex"


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert "#/components/schemas/Problem" in found
    for reference in found:
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_operation_ids_are_unique_and_stable(document: dict[str, Any]) -> None:
    ids = {name: operation["operationId"] for name, operation in operations(document)}
    assert ids == {
        "POST /api/v1/query": "queryImages",
        "POST /api/v1/query/image": "queryByPicture",
        "POST /api/v1/index/trigger": "triggerIndex",
        "POST /api/v1/index/notify": "notifyImages",
        "POST /api/v1/index/rebuild": "rebuildIndex",
        "POST /api/v1/index/model": "changeModel",
        "GET /api/v1/index/status/{job_id}": "getJobStatus",
        "GET /api/v1/index/jobs": "listJobs",
        "POST /api/v1/index/jobs/{job_id}/cancel": "cancelJob",
        "POST /api/v1/index/jobs/{job_id}/retry": "retryJob",
        "POST /api/v1/index/jobs/{job_id}/confirm": "confirmJob",
        "POST /api/v1/index/jobs/{job_id}/refuse": "refuseJob",
        "GET /api/v1/index/jobs/{job_id}/failures": "listJobFailures",
        "GET /api/v1/index/stats": "getIndexStats",
        "GET /api/v1/images/{image_id}/thumbnail": "getThumbnail",
        "GET /api/v1/snapshots": "listSnapshots",
        "POST /api/v1/snapshots": "createSnapshot",
        "POST /api/v1/snapshots/{name}/restore": "restoreSnapshot",
        "DELETE /api/v1/snapshots/{name}": "deleteSnapshot",
        "POST /api/v1/keys": "createKey",
        "GET /api/v1/keys": "listKeys",
        "DELETE /api/v1/keys/{key_id}": "revokeKey",
        "GET /health": "getHealth",
        "GET /health/ready": "getReadiness",
        "GET /metrics": "getMetrics",
    }


def test_documented_scopes_are_those_that_open_the_call(
    document: dict[str, Any], photos: Path
) -> None:
    documented = {
        name: {
            scope
            for requirement in operation["security"]
            for scopes in requirement.values()
            for scope in scopes
        }
        for name, operation in operations(document)
        if "security" in operation
    }
    assert documented == {str(call): {*call.scopes} | _admin(call) for call in gated_calls(photos)}
    assert set(document["components"]["securitySchemes"]) == {"apiKey", "bearer"}


def _admin(call: Any) -> set[str]:
    # Admin includes the others, so it is named only where no other scope is enough.
    return {"admin"} if not call.scopes or call.template == "/metrics" else set()


def test_every_gated_call_documents_its_problems(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        statuses = set(operation["responses"])
        expected = set()
        if "security" in operation:
            expected |= {"401", "403", "500", "503"}
        if "requestBody" in operation:
            expected |= {"408", "413", "415", "422"}
        if "{" in name:
            expected |= {"404"}
        assert expected <= statuses, name
        for status in statuses:
            if status >= "400":
                content = operation["responses"][status]["content"]
                assert set(content) == {"application/problem+json"}, (name, status)


def test_every_operation_has_summary_description_and_tag(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["description"], name
        assert len(operation["tags"]) == 1, name


def test_every_example_fits_its_own_schema() -> None:
    checked = 0
    for model in (*vars(requests).values(), *vars(schemas).values()):
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            continue
        extra = model.model_config.get("json_schema_extra")
        if isinstance(extra, dict):
            examples = extra["examples"]
            assert isinstance(examples, list)
            for example in examples:
                # In JSON mode, where times are strings.
                model.model_validate_json(json.dumps(example))
                checked += 1
    assert checked >= 8


def test_every_request_document_has_an_example(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        content = operation.get("requestBody", {}).get("content", {})
        if "image/*" in content:
            assert operation["requestBody"]["description"], name
        elif content:
            schema = content["application/json"]["schema"]
            model = schema["$ref"].rpartition("/")[2]
            assert document["components"]["schemas"][model]["examples"], name


class PageParser(HTMLParser):
    """Notes what a page would load, and its ids and links."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        if "src" in found or (tag == "link" and "href" in found):
            self.loads.append(found.get("src") or found["href"])
        if tag == "a":
            self.links.append(found["href"])
        if "id" in found:
            self.ids.append(found["id"])


def test_page_needs_nothing_from_outside_and_no_scripts(client: ApiClient) -> None:
    answer = client.call("GET", "/docs")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    page = PageParser()
    page.feed(answer.text)
    assert page.loads == []
    assert "script" not in page.tags
    assert "@import" not in answer.text
    assert "url(" not in answer.text


def test_policy_of_the_page_lets_its_own_style_through(client: ApiClient) -> None:
    answer = client.call("GET", "/docs")
    style = re.search(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in answer.headers["content-security-policy"]


def test_links_of_the_page_lead_somewhere(client: ApiClient) -> None:
    page = PageParser()
    page.feed(client.call("GET", "/docs").text)
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        assert link == "/openapi.json" or link.removeprefix("#") in page.ids, link


def test_page_shows_every_call_and_document(client: ApiClient, document: dict[str, Any]) -> None:
    html = client.call("GET", "/docs").text
    page = PageParser()
    page.feed(html)
    for name, operation in operations(document):
        assert operation["operationId"] in page.ids
        assert name.partition(" ")[2] in html
    for name in document["components"]["schemas"]:
        assert f"schema-{name}" in page.ids


def test_page_escapes_what_it_shows(client: ApiClient, api: FastAPI) -> None:
    async def hostile() -> None:
        """<img src=x onerror=alert(1)>"""

    api.add_api_route("/hostile", hostile, summary="<script>", tags=["hostile"])
    html = client.call("GET", "/docs").text
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert "<img" not in html
