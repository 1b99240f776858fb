"""The proxies of the examples, running before a server that tells what reaches it."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from imagedex.settings import load_settings
from support.server import free_port
from support.waiting import wait_until

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
LYING = {
    "X-Forwarded-For": "10.0.0.1",
    "X-Forwarded-Host": "elsewhere.example",
    "X-Forwarded-Proto": "https",
    "X-Real-IP": "10.0.0.1",
    "Forwarded": "for=10.0.0.1",
}


class Backend(http.server.BaseHTTPRequestHandler):
    """Answers each request with its headers, in lower case, and the length of its body."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = len(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = json.dumps({"headers": headers, "length": length}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - As the base.
        """Say nothing."""


@pytest.fixture
def backend_port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Backend) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def proxies() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.terminate()
        process.wait()


def make_certificate(folder: Path) -> None:
    """Write a certificate for photos.example that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "photos.example")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("photos.example")]), False)
        .sign(key, hashes.SHA256())
    )
    (folder / "fullchain.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def tool(name: str, package: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed; on Debian: apt-get install {package}")
    return found


def answers(client: httpx.Client) -> bool:
    try:
        client.post("/", content=b"")
    except httpx.TransportError:
        return False
    return True


def check(client: httpx.Client) -> None:
    """Hold what a proxy does against what the server expects of it."""
    wait_until(lambda: answers(client))
    limit = load_settings().server.max_body_bytes
    headers = {**LYING, "X-API-Key": "a-key"}
    answer = client.post("/api/v1/index/notify", content=bytes(limit), headers=headers)
    assert answer.status_code == 200
    assert answer.headers["Strict-Transport-Security"]
    reached = answer.json()
    assert reached["length"] == limit
    assert reached["headers"]["x-api-key"] == "a-key"
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", reached["headers"]["x-request-id"])
    assert not reached["headers"].keys() & {name.lower() for name in LYING}

    assert client.post("/", content=bytes(limit + 1)).status_code in (413, 502)


def test_nginx_passes_on_what_the_server_expects(
    tmp_path: Path, backend_port: int, proxies: list[subprocess.Popen[bytes]]
) -> None:
    nginx = tool("nginx", "nginx-light")
    make_certificate(tmp_path)
    plain, secure = free_port(), free_port()
    example = (DEPLOY / "nginx" / "imagedex.conf").read_text()
    for written, used in {
        "/etc/ssl/imagedex": str(tmp_path),
        "listen 80;": f"listen 127.0.0.1:{plain};",
        "listen [::]:80;": "",
        "listen 443 ssl http2;": f"listen 127.0.0.1:{secure} ssl http2;",
        "listen [::]:443 ssl http2;": "",
        "server 127.0.0.1:8080;": f"server 127.0.0.1:{backend_port};",
    }.items():
        assert written in example
        example = example.replace(written, used)
    (tmp_path / "imagedex.conf").write_text(example)
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {tmp_path}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {tmp_path}/body;"
        f" proxy_temp_path {tmp_path}/proxy; include {tmp_path}/imagedex.conf; }}\n"
    )
    proxies.append(subprocess.Popen([nginx, "-c", tmp_path / "nginx.conf", "-e", "stderr"]))

    trusted = ssl.create_default_context(cafile=tmp_path / "fullchain.pem")
    trusted.check_hostname = False  # It is reached by its address.
    url = f"https://127.0.0.1:{secure}"
    with httpx.Client(base_url=url, verify=trusted, trust_env=False, timeout=60) as client:
        check(client)
    moved = httpx.get(f"http://127.0.0.1:{plain}/docs?a=b", trust_env=False)
    assert (moved.status_code, moved.headers["Location"]) == (
        308,
        "https://photos.example/docs?a=b",
    )


def test_caddy_passes_on_what_the_server_expects(
    tmp_path: Path, backend_port: int, proxies: list[subprocess.Popen[bytes]]
) -> None:
    caddy = tool("caddy", "caddy")
    url = f"http://127.0.0.1:{free_port()}"  # A certificate is what it would get by itself.
    (tmp_path / "Caddyfile").write_text(
        f"{{\n\tadmin off\n}}\nimport {DEPLOY / 'caddy' / 'Caddyfile'}\n"
    )
    proxies.append(
        subprocess.Popen(
            [caddy, "run", "--adapter", "caddyfile", "--config", tmp_path / "Caddyfile"],
            env={
                **os.environ,
                "SITE": url,
                "UPSTREAM": f"127.0.0.1:{backend_port}",
                "XDG_DATA_HOME": str(tmp_path),
                "XDG_CONFIG_HOME": str(tmp_path),
            },
            stderr=subprocess.DEVNULL,
        )
    )
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        check(client)
