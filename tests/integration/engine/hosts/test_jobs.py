"""Jobs of a controller whose workers are on other machines: from the settings to the index."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from imagedex.app import Application, build_application
from imagedex.app.duty import Duty
from imagedex.core.errors import EngineError, SettingsError
from imagedex.engine import DaskEngine, HostState
from imagedex.indexing import JobReport
from imagedex.jobs import JobStatus
from imagedex.segments import DirectoryIndexFiles
from imagedex.settings import load_settings
from imagedex.testing.engine import wait_until
from integration.engine.hosts.conftest import state_of
from support.netns import PYTHON, Lan, NetHost
from support.pictures import draw_pictures
from support.tiny_models import write_tiny_clip

pytestmark = pytest.mark.hosts

IMAGES = 48


class Site:
    """A controller's home, photos and model, and an inventory of hosts."""

    def __init__(self, lan: Lan, base: Path) -> None:
        self.lan = lan
        self.home = base / "home"
        self.photos = base / "share" / "photos"
        self.index = base / "share" / "index"
        self.inventory = base / "hosts.toml"
        self.pictures = draw_pictures(self.photos, IMAGES)
        self.index.parent.mkdir(exist_ok=True)

    def add(self, host: NetHost, **fields: Any) -> None:
        """Name a host in the inventory."""
        paths = fields.pop("paths", {})
        lines = [f'{name} = "{value}"' for name, value in fields.items()]
        table = "".join(f'"{there}" = "{here}"\n' for there, here in paths.items())
        with open(self.inventory, "a") as file:
            file.write(
                f'[[host]]\nname = "{host.name}"\naddress = "{host.address}"\n'
                f'python = "{PYTHON}"\n' + "\n".join(lines) + f"\n[host.paths]\n{table}\n"
            )

    def application(self, **changes: Any) -> Application:
        """Wire a controller that embeds nothing itself."""
        settings = load_settings(
            **{
                "home": self.home,
                "image_roots": (self.photos,),
                "index_prefix": self.index,
                "indexing": {"chunk_images": 4, "settle_seconds": 0},
                "engine": {
                    "inventory": self.inventory,
                    "local_workers": 0,
                    "listen_host": self.lan.address,
                    "listen_port": 0,
                    "worker_ports": "0",
                    "ssh_known_hosts": self.lan.known_hosts,
                    "ssh_keys": (self.lan.key,),
                },
                **changes,
            }
        )
        return build_application(settings, run_jobs=True)


@pytest.fixture
def site(lan: Lan, tmp_path: Path) -> Site:
    return Site(lan, tmp_path)


def index_all(application: Application, site: Site) -> JobReport:
    """Index the photos and return the report of the job when it has ended."""
    job = application.indexing.trigger(str(site.photos))
    wait_until(lambda: application.indexing.status(job.job_id).job.status.is_final, "its end")
    return application.indexing.status(job.job_id)


def engine_of(application: Application) -> DaskEngine:
    """Return the engine of an application."""
    duty = application._controller._duty
    assert isinstance(duty, Duty)
    return duty._engine


def test_a_job_runs_on_hosts_wherever_they_have_the_share(
    site: Site, lan: Lan, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    share = str(site.photos.parent)
    # The second host has the share at another place, and nothing at the controller's.
    mounts = {str(elsewhere): site.photos.parent, share: None}
    with lan.host("plain") as plain, lan.host("mapped", mounts=mounts) as mapped:
        site.add(plain)
        site.add(mapped, paths={share: str(elsewhere)})
        with closing(site.application()) as application:
            application.start()
            engine = engine_of(application)
            engine.start()
            wait_until(lambda: len(engine.workers()) == 2, "a worker on each host")
            report = index_all(application, site)
            assert report.job.status is JobStatus.COMPLETED
            assert report.job.failed_images == 0
            assert {worker.host for worker in report.workers} == {"plain", "mapped"}
            assert sum(worker.images_processed for worker in report.workers) == IMAGES
            manifest = DirectoryIndexFiles(site.index).current()
            assert manifest is not None
            assert manifest.images == IMAGES
            found = application.query("a red circle", top_k=IMAGES)
            paths = {result.image_path for result in found.results}
            assert paths == {str(path) for path in site.pictures}


def test_a_share_that_vanishes_during_a_job_fails_no_image(
    site: Site, lan: Lan, two_hosts: tuple[NetHost, NetHost]
) -> None:
    with lan.host("flaky") as flaky:
        site.add(flaky)
        site.add(two_hosts[0])
        with closing(site.application()) as application:
            application.start()
            engine = engine_of(application)
            engine.start()
            wait_until(lambda: len(engine.workers()) == 2, "a worker on each host")
            flaky.run("mount", "-t", "tmpfs", "none", str(site.photos))
            report = index_all(application, site)
            assert report.job.status is JobStatus.COMPLETED
            assert report.job.failed_images == 0
            assert {worker.host for worker in report.workers} == {"h1"}
            assert state_of(engine, "flaky") is HostState.UNFIT
            [told] = [host.reason for host in engine.hosts() if host.name == "flaky"]
            assert told is not None
            assert "mount the share there" in told


def test_a_model_is_read_where_the_host_has_it(site: Site, lan: Lan, tmp_path: Path) -> None:
    models, own = site.home / "models", tmp_path / "own-models"
    site.home.mkdir(mode=0o700)
    write_tiny_clip(models / "tiny")
    write_tiny_clip(own / "tiny", seed=1)
    with lan.host("clip", mounts={str(models): None}) as host:
        site.add(host, models=str(own))
        with closing(site.application(model=str(models / "tiny"))) as application:
            application.start()
            engine = engine_of(application)
            with pytest.raises(EngineError, match="other files of the model"):
                engine.start()
            shutil.rmtree(own)
            shutil.copytree(models, own)
            report = index_all(application, site)
            assert report.job.status is JobStatus.COMPLETED
            assert report.job.failed_images == 0


def test_an_inventory_that_cannot_be_used_ends_the_start(site: Site) -> None:
    site.inventory.write_text('[[host]]\nname = "a"\n')
    with pytest.raises(SettingsError, match=r"host\.0\.address"):
        site.application()
    # Whoever only asks needs no hosts.
    settings = load_settings(home=site.home, engine={"inventory": site.inventory})
    build_application(settings, run_jobs=False).close()
