"""OpenAPI: the document, and a page that shows it.

The page is one HTML file without scripts, made from the document on the server. FastAPI's own
page loads Swagger UI from a content network, which is out of reach where photo archives often
live; packages that carry Swagger UI bring 1.5 MB of JavaScript to keep patched, for a page whose
use here is to be read. Whoever wants to try calls out can load ``/openapi.json`` into any tool.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from dataclasses import dataclass
from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup
from starlette.responses import HTMLResponse, JSONResponse, Response

from imagedex.api.schemas import Problem
from imagedex.api.security import API_KEY_HEADER, SECURITY_SCHEMES

_REF_TEMPLATE = "#/components/schemas/{model}"


@dataclass(frozen=True)
class _Call:
    """An operation as the page shows it."""

    method: str
    path: str
    operation: dict[str, Any]
    scopes: tuple[str, ...]
    curl: str


@dataclass(frozen=True)
class _Group:
    """The operations of one tag."""

    tag: str
    calls: tuple[_Call, ...]


def add_documentation(api: FastAPI) -> None:
    """Serve ``/openapi.json`` and ``/docs``, both without a key.

    They describe the routes that exist when they are asked for first.
    """

    @cache
    def document() -> dict[str, Any]:
        return _openapi_document(api)

    @cache
    def page() -> tuple[str, str]:
        return _render_page(document())

    # Not async: making them takes a good part of a second, which is spent in a thread this way.
    def serve_document() -> Response:
        return JSONResponse(document())

    def serve_page() -> Response:
        html, policy = page()
        return HTMLResponse(html, headers={"Content-Security-Policy": policy})

    api.openapi = document  # type: ignore[method-assign]
    api.add_api_route("/openapi.json", serve_document, include_in_schema=False)
    api.add_api_route("/docs", serve_page, include_in_schema=False)


def _openapi_document(api: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=api.title,
        version=api.version,
        description=api.description,
        routes=api.routes,
        license_info=api.license_info,
    )
    components = document.setdefault("components", {})
    components["securitySchemes"] = SECURITY_SCHEMES
    problem = Problem.model_json_schema(ref_template=_REF_TEMPLATE)
    schemas = components.setdefault("schemas", {})
    schemas.update(problem.pop("$defs"))
    schemas["Problem"] = problem
    return document


def _render_page(document: dict[str, Any]) -> tuple[str, str]:
    """Return the page and the Content-Security-Policy that lets its style through."""
    loader = PackageLoader("imagedex.api")
    environment = Environment(
        loader=loader,
        autoescape=select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["type_name"] = _type_name
    environment.filters["pretty"] = _pretty
    style = loader.get_source(environment, "docs.css")[0]
    html = environment.get_template("docs.html").render(
        info=document["info"],
        groups=_groups(document),
        schemas=document["components"]["schemas"],
        style=Markup(style),  # noqa: S704 - It is a file of this package.
    )
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    return html, policy


def _groups(document: dict[str, Any]) -> list[_Group]:
    calls: dict[str, list[_Call]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            scopes = sorted(
                {
                    scope
                    for requirement in operation.get("security", [])
                    for scopes in requirement.values()
                    for scope in scopes
                }
            )
            call = _Call(
                method.upper(),
                path,
                operation,
                tuple(scopes),
                _curl(document, method.upper(), path, operation),
            )
            calls.setdefault(operation["tags"][0], []).append(call)
    return [_Group(tag, tuple(found)) for tag, found in calls.items()]


def _curl(document: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> str:
    words = ["curl"] if method == "GET" else ["curl", "-X", method]
    lines = [shlex.join(words) + f' "$IMAGEDEX_URL{path}"']
    if "security" in operation:
        lines.append(f'-H "{API_KEY_HEADER}: $IMAGEDEX_API_KEY"')
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]
        if "application/json" not in content:
            lines.append("--data-binary @photo.jpg")
            return " \\\n  ".join(lines)
        reference = content["application/json"]["schema"]["$ref"]
        schema = document["components"]["schemas"][reference.rpartition("/")[2]]
        lines.append("-H 'Content-Type: application/json'")
        lines.append("-d " + shlex.quote(json.dumps(schema["examples"][0])))
    return " \\\n  ".join(lines)


def _type_name(schema: dict[str, Any]) -> Markup:
    """Return the type in words, with links to the documents it is made of."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return Markup('<a href="#schema-{0}">{0}</a>').format(name)
    if "anyOf" in schema:
        return Markup(" or ").join(_type_name(option) for option in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return Markup(" or ").join(Markup("<code>{}</code>").format(value) for value in values)
    if schema.get("type") == "array":
        return Markup("list of ") + _type_name(schema["items"])
    return Markup("{}").format(schema.get("type", "any"))


def _pretty(example: Any) -> str:
    return json.dumps(example, indent=2, ensure_ascii=False)
