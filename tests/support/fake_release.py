"""Wheels of a distribution named imagedex that install in a second and behave as they are told.

Each holds a server of a few lines with what deployments rely on: ``--version``, settings, the
credential, the form of the database, readiness, and the messages to the service manager.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

Behaviour = Literal["ready", "unready", "crashing", "refusing", "silent"]

_SERVER = """
import hashlib, http.server, json, os, pwd, signal, socket, sqlite3, sys, time, tomllib

VERSION, FORM, BEHAVIOUR = {version!r}, {form!r}, {behaviour!r}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(self.server.facts).encode()
        self.send_response(200 if BEHAVIOUR == "ready" else 503)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def main():
    if sys.argv[1:] == ["--version"]:
        print("imagedex", VERSION)
        return
    assert sys.argv[1] == "--config" and sys.argv[3:] == ["serve"], sys.argv
    with open(sys.argv[2], "rb") as file:
        settings = tomllib.load(file)
    if BEHAVIOUR == "crashing":
        sys.exit("This version crashes.")
    if BEHAVIOUR == "refusing":
        print("The settings cannot be used.", file=sys.stderr)
        sys.exit(78)
    database = sqlite3.connect(os.path.join(settings["home"], "imagedex.db"))
    database.execute("PRAGMA journal_mode=WAL")
    with database:
        database.execute("CREATE TABLE IF NOT EXISTS alembic_version (version_num TEXT)")
        database.execute("CREATE TABLE IF NOT EXISTS starts (version TEXT)")
        row = database.execute("SELECT version_num FROM alembic_version").fetchone()
        if row is not None and row[0] > FORM:
            sys.exit(f"The database has the form {{row[0]}} of a newer version.")
        database.execute("DELETE FROM alembic_version")
        database.execute("INSERT INTO alembic_version VALUES (?)", (FORM,))
        database.execute("INSERT INTO starts VALUES (?)", (VERSION,))
    starts = [row[0] for row in database.execute("SELECT version FROM starts")]
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # The database stays as after a kill.
    if BEHAVIOUR == "silent":
        time.sleep(600)
    address = settings["server"]["host"], settings["server"]["port"]
    server = http.server.ThreadingHTTPServer(address, Handler)
    with open(os.path.join(os.environ["CREDENTIALS_DIRECTORY"], "imagedex_admin_key")) as file:
        key = file.read().strip()
    server.facts = {{
        "version": VERSION,
        "user": pwd.getpwuid(os.getuid()).pw_name,
        "key": hashlib.sha256(key.encode()).hexdigest(),
        "secret_in_environment": key in str(os.environ),
        "starts": starts,
    }}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
    server.serve_forever()
"""


def make_release(
    folder: Path,
    version: str,
    *,
    name: str = "imagedex",
    form: str = "0001",
    behaviour: Behaviour = "ready",
    requires: str | None = None,
) -> Path:
    """Write the wheel of a version whose database has a form, and return its path."""
    information = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    if requires is not None:
        metadata += f"Requires-Dist: {requires}\n"
    files = {
        f"{name}_release.py": _SERVER.format(version=version, form=form, behaviour=behaviour),
        f"{information}/METADATA": metadata,
        f"{information}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{information}/entry_points.txt": f"[console_scripts]\n{name} = {name}_release:main\n",
    }
    record = [f"{name},," for name in (*files, f"{information}/RECORD")]
    files[f"{information}/RECORD"] = "\n".join([*record, ""])
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return wheel
