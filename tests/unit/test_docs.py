"""Everything that outsiders rely on is documented, and what is documented exists."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from pydantic import BaseModel

from imagedex.api import create_api, problems
from imagedex.api.requests import NotifyRequest, QueryRequest, TriggerRequest
from imagedex.cli.program import program
from imagedex.core import errors
from imagedex.core.images import FailureReason
from imagedex.segments import FindingKind
from imagedex.settings import Settings
from imagedex.testing.application import InMemoryApplication

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def load_script(name: str) -> ModuleType:
    """Import a module of ``scripts/``, which is no package."""
    specification = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def api_page() -> str:
    return (DOCS / "api.md").read_text("utf-8")


@pytest.fixture(scope="module")
def openapi(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return create_api(InMemoryApplication(tmp_path_factory.mktemp("home"))).openapi()


def calls(openapi: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each call as ``METHOD path`` with its operation."""
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            yield f"{method.upper()} {path}", operation


def test_every_call_is_documented_with_its_scopes(openapi: dict[str, Any], api_page: str) -> None:
    rows = dict(
        re.findall(r"^\| \[`([A-Z]+ [^`]+)`\]\([^)]+\) \| (.+) \|$", api_page, re.MULTILINE)
    )
    assert set(rows) == {call for call, _ in calls(openapi)}
    for call, operation in calls(openapi):
        scopes = {
            scope
            for requirement in operation.get("security", [])
            for scopes in requirement.values()
            for scope in scopes
        }
        documented = set(re.findall(r"`(\w+)`", rows[call]))
        if rows[call] == "any":
            assert scopes == {"query", "index", "admin"}, call
        else:
            assert documented == scopes - ({"admin"} if len(scopes) > 1 else set()), call


def test_every_call_is_in_the_readme(openapi: dict[str, Any]) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    for path in openapi["paths"]:
        assert f"{path}`" in readme, path


def test_every_parameter_and_field_is_documented(openapi: dict[str, Any], api_page: str) -> None:
    names = {
        parameter["name"]
        for _, operation in calls(openapi)
        for parameter in operation.get("parameters", [])
    }
    for schema in openapi["components"]["schemas"].values():
        names |= set(schema.get("properties", {}))
    # In backticks of its own, or in those of a call with its parameters or of a JSON example.
    prose = re.sub(r"^```.*?^```", "", api_page, flags=re.MULTILINE | re.DOTALL)
    marked = re.findall(r"`([^`]+)`", prose) + re.findall(r'"(\w+)":', api_page)
    words = set(re.findall(r"[\w-]+", " ".join(marked)))
    assert sorted(names - words) == []


def test_every_kind_of_problem_is_documented(api_page: str) -> None:
    kinds = {value for value in vars(problems).values() if isinstance(value, problems.ProblemType)}
    kinds |= set(problems.PROBLEM_OF_ERROR.values())
    for kind in kinds:
        row = re.search(rf"^\| `{kind.slug}` \| (\d+)", api_page, re.MULTILINE)
        assert row, kind.slug
        assert int(row[1]) == kind.status, kind.slug


def test_how_much_structure_a_body_may_have_is_documented(api_page: str) -> None:
    bounds = [
        f"{kind.max_entries:,}{between}{kind.max_fields}"
        for kind, between in (
            (TriggerRequest, " entries (items of lists and fields), of which "),
            (QueryRequest, " and "),
            (NotifyRequest, " and "),
        )
    ]
    assert [bound for bound in bounds if bound not in " ".join(api_page.split())] == []


def test_every_error_is_documented(api_page: str) -> None:
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, errors.ImagedexError):
            assert f"`{name}`" in api_page, name


def test_every_reason_of_a_failure_is_documented_and_no_other() -> None:
    page = (DOCS / "operations.md").read_text("utf-8")
    _, _, section = page.partition("\n## Failed images\n")
    section, _, _ = section.partition("\n## ")
    documented = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(documented) == sorted(reason.value for reason in FailureReason)


def test_every_finding_of_the_doctor_is_documented_and_no_other() -> None:
    page = (DOCS / "operations.md").read_text("utf-8")
    _, _, section = page.partition("\n## Is the index sound?\n")
    section, _, _ = section.partition("\n## ")
    documented = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(documented) == sorted(kind.value for kind in FindingKind)


def setting_names(model: type[BaseModel], prefix: str = "IMAGEDEX_") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from setting_names(field.annotation, f"{prefix}{name.upper()}__")
        else:
            yield prefix + name.upper()


def test_every_setting_is_documented() -> None:
    page = (DOCS / "settings.md").read_text("utf-8")
    for name in setting_names(Settings):
        assert re.search(rf"^\| `{name}` \| .+ \| .+ \|$", page, re.MULTILINE), name


def test_every_setting_that_a_page_or_a_message_names_exists() -> None:
    known = {*setting_names(Settings), "IMAGEDEX_URL", "IMAGEDEX_API_KEY", "IMAGEDEX_NO_SKIPS"}
    pages = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "src").rglob("*.py")]
    pages += [path for path in (ROOT / "deploy").rglob("*") if path.suffix != ".pyc"]
    for page in filter(Path.is_file, pages):
        named = set(re.findall(r"\bIMAGEDEX_[A-Z_]*[A-Z]\b", page.read_text("utf-8")))
        unknown = {
            name for name in named - known if not any(k.startswith(f"{name}__") for k in known)
        }
        assert not unknown, page.name


def commands(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield words, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(f"{words} {name}", child)


COMMANDS = dict(commands("imagedex", typer.main.get_command(program)))


def test_every_command_that_is_documented_exists() -> None:
    page = (DOCS / "cli.md").read_text("utf-8")
    documented = re.findall(r"^##+ `(imagedex[^`]*)`$", page, re.MULTILINE)
    assert sorted(documented) == sorted(COMMANDS)
    assert "imagedex jobs list" in documented


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_and_flag_is_documented(words: str) -> None:
    page = (DOCS / "cli.md").read_text("utf-8")
    command = COMMANDS[words]
    section = re.search(rf"^##+ `{words}`\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
    assert section, words
    for parameter in command.params:
        for flag in (*parameter.opts, *parameter.secondary_opts):
            if flag.startswith("-"):
                assert re.search(rf"(?<![\w-]){flag}\b", section[1]), f"{words} {flag}"


@pytest.mark.parametrize(
    "command", [["render_docs.py", "--check"], ["check_docs.py"], ["lock.py", "--check"]]
)
def test_what_make_check_runs_on_the_documentation_passes(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / command[0], *command[1:]],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_check_finds_dead_links_lost_pages_and_paths_of_a_machine(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(
        "# A\n[good](docs/one.md#part-two) [dead](docs/none.md) [no heading](docs/one.md#three)\n"
        "Look in /tmp/notes, /Users/ann and /home/you/notes.\n"
    )
    (tmp_path / "docs" / "one.md").write_text("# One\n\n## Part two\n\n[itself](#one)\n")
    (tmp_path / "docs" / "lost.md").write_text("# Lost\n")
    assert load_script("check_docs").faults(tmp_path) == [
        "README.md: names '/tmp/'.",
        "README.md: names '/Users/ann'.",
        "README.md: the link 'docs/none.md' leads nowhere.",
        "README.md: there is no heading for the link 'docs/one.md#three'.",
        "docs/lost.md: no page links to it.",
    ]


def test_a_generated_part_is_replaced_and_the_rest_stays() -> None:
    with_part = load_script("render_docs").with_part
    text = "Before.\n<!-- generated: x -->\nold\n<!-- end of x -->\nAfter.\n"
    new = with_part(text, "x", "new")
    assert new == "Before.\n<!-- generated: x -->\nnew\n<!-- end of x -->\nAfter.\n"
    assert with_part(new, "x", "new") == new
    with pytest.raises(ValueError, match="generated: y"):
        with_part(text, "y", "new")


def test_figures_are_shown_with_their_machine_and_what_was_not_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load_script("render_docs")
    figures = [
        {"name": "indexing", "value": 51.25, "unit": "images/s", "promised": "at least 40"},
        {"name": "memory", "value": 612.0, "unit": "MB", "promised": "at most 500"},
    ]
    document = {
        "taken_at": "2025-11-14T12:34:56Z",
        "machine": {"processor": "CPU", "cores": 2, "memory_gigabytes": 8, "python": "3.11.9"},
        "figures": [{**figure, "is_met": figure["unit"] != "MB"} for figure in figures],
    }
    recorded = tmp_path / "benchmarks.json"
    recorded.write_text(json.dumps(document))
    monkeypatch.setattr(script, "BENCHMARKS", recorded)
    text = script.render_benchmarks()
    assert "2 cores of CPU with 8 GB of memory, Python 3.11.9, 2025-11-14" in text
    assert "| indexing | 51.25 images/s | at least 40 |" in text
    assert "| memory | 612 MB | at most 500 (not met) |" in text
    monkeypatch.setattr(script, "HEADLINES", {"memory"})
    assert "indexing" not in script.render_headlines()
    assert "| memory | 612 MB | at most 500 (not met) |" in script.render_headlines()


def test_the_headlines_are_figures_that_are_recorded() -> None:
    script = load_script("render_docs")
    recorded = {figure["name"] for figure in json.loads(script.BENCHMARKS.read_text())["figures"]}
    assert recorded >= script.HEADLINES


def test_the_lock_check_finds_other_dependencies_hosts_and_torch(tmp_path: Path) -> None:
    script = load_script("lock")
    project = tmp_path / "pyproject.toml"
    project.write_text((ROOT / "pyproject.toml").read_text("utf-8"))
    digest = script.dependencies_digest(project)
    lock = f"# Made.\n{script.DIGEST_PREFIX}{digest}\nnumpy==2.4.6 \\\n    --hash=sha256:00\n"
    assert script.lock_faults(lock, digest) == []
    assert len(script.lock_faults(lock + "torch==2.0\n", digest)) == 1
    assert (
        len(script.lock_faults("--index-url https://mirror.example/simple\n" + lock, digest)) == 1
    )
    project.write_text(project.read_text("utf-8").replace('"numpy>=2.0"', '"numpy>=2.1"'))
    assert script.dependencies_digest(project) != digest
    assert len(script.lock_faults(lock, script.dependencies_digest(project))) == 1
