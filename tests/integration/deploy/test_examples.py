"""The units, rules and examples of ``deploy/``, each held against the program that reads it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import uvicorn
import yaml  # type: ignore[import-untyped] # Dask brings it, its types nobody.

from deployment.machine import DeploymentFailed
from deployment.packages import EXTRAS, Lock, install_packages
from imagedex.cli.failures import ExitCode
from imagedex.settings import load_settings
from support.fake_release import make_release

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"


def tool(name: str, package: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed; on Debian: apt-get install {package}")
    return found


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A root directory with the units and the programs that they start."""
    for program in ("opt/imagedex/current/bin/imagedex", "usr/sbin/nft"):
        (tmp_path / program).parent.mkdir(parents=True)
        (tmp_path / program).touch(mode=0o755)
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    for unit in (DEPLOY / "systemd").iterdir():
        shutil.copy(unit, tmp_path / "etc/systemd/system")
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nimagedex:x:999:999::/:/bin/sh\n")
    (tmp_path / "etc/group").write_text("root:x:0:\nimagedex:x:999:\n")
    return tmp_path


@pytest.mark.parametrize("unit", ["imagedex.service", "imagedex-firewall.service"])
def test_systemd_understands_each_line_of_a_unit(units: Path, unit: str) -> None:
    told = run(
        tool("systemd-analyze", "systemd"), "verify", "--man=no", "--recursive-errors=no",
        f"--root={units}", units / "etc/systemd/system" / unit,
    )  # fmt: skip
    assert unit not in told


def test_the_unit_leaves_the_server_little_of_the_machine(units: Path) -> None:
    told = run(
        tool("systemd-analyze", "systemd"), "security", "--no-pager", "--offline=yes",
        f"--root={units}", "imagedex.service",
    )  # fmt: skip
    exposure = re.search(r"exposure level for imagedex\.service: ([\d.]+)", told)
    assert exposure, told
    assert float(exposure[1]) < 2.0


def test_the_unit_has_the_exit_codes_and_the_times_of_the_server() -> None:
    lines = (DEPLOY / "systemd" / "imagedex.service").read_text().splitlines()
    unit = dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")
    assert unit["RestartPreventExitStatus"].split() == ["2", str(int(ExitCode.WRONG_SETTINGS))]
    # Requests, jobs, and workers with Dask's connections: see application.close().
    assert int(unit["TimeoutStopSec"]) >= load_settings().server.shutdown_seconds + 10 + 3 + 2 * 12
    assert unit["KillMode"] == "mixed"  # Or the workers would get the signal before their jobs.


def test_caddy_takes_the_example() -> None:
    caddy = tool("caddy", "caddy")
    example = DEPLOY / "caddy" / "Caddyfile"
    assert "Valid configuration" in run(
        caddy, "validate", "--adapter", "caddyfile", "--config", example
    )
    # In its own format there is nothing left to do.
    assert run(caddy, "fmt", example) == example.read_text()


def test_the_proxies_bounds_are_those_of_the_server() -> None:
    megabytes = load_settings().server.max_body_bytes // 1024**2
    nginx = (DEPLOY / "nginx" / "imagedex.conf").read_text()
    caddy = (DEPLOY / "caddy" / "Caddyfile").read_text()
    assert f"client_max_body_size {megabytes}m;" in nginx
    assert f"max_size {megabytes}MiB" in caddy
    # The proxy must be the first to close an idle connection.
    assert uvicorn.Config("").timeout_keep_alive == 5
    assert "keepalive_timeout 4s;" in nginx
    assert "keepalive 4s" in caddy


def test_the_compose_file_and_the_image_name_what_exists() -> None:
    compose = yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text())
    dockerfile = (DEPLOY / "docker" / "Dockerfile").read_text()
    server = compose["services"]["imagedex"]

    assert (DEPLOY / "docker" / server["build"]["context"]).resolve() == ROOT
    assert (ROOT / server["build"]["dockerfile"]).is_file()
    assert server["environment"]["IMAGEDEX_ADMIN_KEY_FILE"] == "/run/secrets/admin_key"
    assert set(server["secrets"]) <= set(compose["secrets"])
    named = [volume.partition(":")[0] for volume in server["volumes"]]
    assert [name for name in named if name.isalpha()] == ["home"]
    assert server["read_only"]
    assert server["cap_drop"] == ["ALL"]
    proxy = compose["services"]["caddy"]
    assert "{$UPSTREAM:" in (DEPLOY / "caddy" / "Caddyfile").read_text()
    assert proxy["environment"]["UPSTREAM"] == "imagedex:8080"
    for volume in proxy["volumes"]:
        source = volume.partition(":")[0]
        assert source in compose["volumes"] or (DEPLOY / "docker" / source).is_file()

    ignored = (DEPLOY / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists()
            assert f"!{source}" in ignored
    assert re.search(r"^USER 10001", dockerfile, re.MULTILINE)


def test_the_lock_yields_constraints_and_requirements_with_digests() -> None:
    text = (ROOT / "requirements.lock").read_text()
    lock = Lock(text)
    pinned = [line for line in text.splitlines() if "==" in line and line[0] not in "# "]
    constraints = lock.constraints().splitlines()
    assert len(constraints) == len(pinned)
    assert all(re.fullmatch(r"[a-z0-9-]+==[^ ;\\]+", line) for line in constraints)
    # For what the wheel asks for, extras as well.
    wanted = ["Alembic", "asyncssh", "psycopg_binary"]
    entries = lock.requirements(wanted)
    assert [line for line in entries.splitlines() if "==" in line] == [
        line for line in pinned if line.split("==")[0] in ("alembic", "asyncssh", "psycopg-binary")
    ]
    digests = re.findall(r"--hash=sha256:[0-9a-f]{64}", entries)
    assert len(digests) >= 2 * len(wanted)
    for extra in EXTRAS.split(","):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert project["optional-dependencies"][extra]
    with pytest.raises(DeploymentFailed, match="does not hold stranger"):
        lock.requirements(["stranger"])


def test_a_package_with_another_digest_is_not_installed(tmp_path: Path) -> None:
    wheel = make_release(tmp_path, "1.0", requires="needed")
    (tmp_path / "wheels").mkdir()
    needed = make_release(tmp_path / "wheels", "2.0", name="needed")
    digest = hashlib.sha256(needed.read_bytes()).hexdigest()
    lock = tmp_path / "requirements.lock"
    target = tmp_path / "target"
    pip = (sys.executable, "-m", "pip")
    source = ("--no-index", "--find-links", tmp_path / "wheels", "--target", target)

    lock.write_text(f"needed==2.0 \\\n    --hash=sha256:{'0' * 64}\n")
    with pytest.raises(DeploymentFailed, match="DO NOT MATCH THE HASHES"):
        install_packages(pip, wheel, lock, source)
    assert not target.exists()
    lock.write_text(f"needed==2.0 \\\n    --hash=sha256:{digest}\n    # via imagedex\n")
    install_packages(pip, wheel, lock, source)
    assert {path.name for path in target.glob("*.dist-info")} == {
        "imagedex-1.0.dist-info",
        "needed-2.0.dist-info",
    }
