"""The certificate by which the processes of one engine know each other."""

from __future__ import annotations

from datetime import timedelta

from cryptography import x509

from imagedex.core.times import utc_now
from imagedex.engine._certificate import new_certificate
from imagedex.engine._worker_config import WorkerConfig


def test_a_certificate_outlasts_any_run_of_a_server() -> None:
    certificate = x509.load_pem_x509_certificate(new_certificate().certificate.encode())
    assert certificate.not_valid_before_utc < utc_now()
    assert certificate.not_valid_after_utc > utc_now() + timedelta(days=9 * 365)


def test_no_two_engines_have_the_same_key_and_none_shows_it() -> None:
    first, second = new_certificate(), new_certificate()
    assert first.key != second.key
    assert "PRIVATE" not in repr(first)


def test_a_worker_config_survives_its_line() -> None:
    config = WorkerConfig(
        worker_id="local-1.2",
        host="h",
        threads=2,
        scheduler_address="tls://127.0.0.1:1",
        scratch_directory="/tmp/a b\n",
        controller_pid=42,
        certificate=new_certificate(),
    )
    line = config.to_line()
    assert line.count(b"\n") == 1
    assert WorkerConfig.from_line(line) == config
