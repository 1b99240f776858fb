"""Each call of the client against the real API."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from imagedex.client import (
    AuthenticationRequired,
    ImagedexClient,
    JobState,
    PermissionRefused,
    RequestConflict,
    RequestRejected,
    ResourceMissing,
    ServerUnavailable,
)
from imagedex.core.errors import Unavailable
from imagedex.core.ids import image_id_of
from imagedex.jobs.records import Job, JobFailure, JobStatus
from imagedex.search import ImageTerm, PictureTerm, TextTerm
from imagedex.segments import ImageFilter
from imagedex.testing.application import InMemoryApplication


def _move(application: InMemoryApplication, job_id: str, **changes: object) -> Job:
    job = replace(application.indexing.status(job_id).job, **changes)  # type: ignore[arg-type]
    application.indexing.put(job)
    return job


def test_a_triggered_job_is_listed_and_has_a_state(client: ImagedexClient, tmp_path: Path) -> None:
    receipt = client.trigger(str(tmp_path), priority="high", force_reindex=True)

    assert receipt.status == "queued"
    assert client.status(receipt.job_id).kind == "full"
    page = client.jobs(status="queued")
    assert [job.job_id for job in page.jobs] == [receipt.job_id]
    assert client.jobs(status="failed").total == 0


def test_an_idempotency_key_makes_a_repeated_request_the_same_job(
    client: ImagedexClient, application: InMemoryApplication, tmp_path: Path
) -> None:
    first = client.trigger(str(tmp_path), idempotency_key="nightly-1")
    _move(application, first.job_id, status=JobStatus.COMPLETED)

    assert client.trigger(str(tmp_path), idempotency_key="nightly-1").job_id == first.job_id
    assert client.trigger(str(tmp_path)).job_id != first.job_id


def test_notified_images_are_counted(client: ImagedexClient, tmp_path: Path) -> None:
    receipt = client.notify([str(tmp_path / "a.png"), str(tmp_path / "b.png")])

    assert receipt.images_count == 2
    assert client.status(receipt.job_id).kind == "incremental"


def test_a_job_can_be_cancelled_and_retried(client: ImagedexClient, tmp_path: Path) -> None:
    job_id = client.trigger(str(tmp_path)).job_id

    assert client.cancel(job_id).status == "cancelled"
    assert client.retry(job_id).status == "queued"


def test_a_paused_job_can_be_confirmed_and_refused(
    client: ImagedexClient, application: InMemoryApplication, tmp_path: Path
) -> None:
    job_id = client.trigger(str(tmp_path)).job_id
    for answer in (client.confirm, client.refuse):
        with pytest.raises(RequestConflict):
            answer(job_id)
        _move(application, job_id, status=JobStatus.PAUSED)
        assert answer(job_id).status == "queued"


def test_jobs_come_page_by_page(client: ImagedexClient, tmp_path: Path) -> None:
    ids = {client.notify([str(tmp_path / f"{number}.png")]).job_id for number in range(3)}

    first = client.jobs(limit=2)
    second = client.jobs(limit=2, cursor=first.next_cursor)

    assert {job.job_id for job in first.jobs + second.jobs} == ids
    assert second.next_cursor is None


def test_all_failures_are_read_over_page_borders(
    client: ImagedexClient, application: InMemoryApplication, tmp_path: Path
) -> None:
    job_id = client.trigger(str(tmp_path)).job_id
    application.indexing.failures_of[job_id] = tuple(
        JobFailure(f"/photos/{number:05d}.png", "empty", "No bytes.", 1) for number in range(2500)
    )

    assert len({failure.image_path for failure in client.all_failures(job_id)}) == 2500


def test_a_query_returns_ranked_results(
    client: ImagedexClient, application: InMemoryApplication
) -> None:
    application.image_paths = ["/photos/a.png", "/photos/ü <b>.png"]

    answer = client.query("dogs in a park", top_k=2)

    assert [result.image_path for result in answer.results] == application.image_paths
    assert answer.index_stats.total_images == 2


def test_statistics_before_anything_was_indexed_have_no_date(client: ImagedexClient) -> None:
    stats = client.stats()

    assert stats.last_updated is None
    assert stats.index_size_bytes.total == 0


def test_times_are_aware_and_written_back_as_the_server_wrote_them(
    client: ImagedexClient, application: InMemoryApplication, tmp_path: Path
) -> None:
    job_id = client.trigger(str(tmp_path)).job_id
    created = datetime(2025, 11, 14, 12, 34, 56, 789000, tzinfo=UTC)
    _move(application, job_id, created_at=created)

    state = client.status(job_id)

    assert state.created_at == created
    assert state.model_dump(mode="json")["created_at"] == "2025-11-14T12:34:56.789Z"


def test_a_thumbnail_is_a_jpeg_of_the_size(
    client: ImagedexClient, application: InMemoryApplication
) -> None:
    application.image_paths = ["/photos/a.png"]

    jpeg = client.thumbnail(image_id_of("/photos/a.png"), size=64)

    with Image.open(io.BytesIO(jpeg)) as image:
        assert (image.format, image.width) == ("JPEG", 64)


def test_a_created_key_works_until_it_is_revoked(
    client: ImagedexClient, connect: Callable[[str], ImagedexClient]
) -> None:
    created = client.create_key("search page", ["query"])
    holder = connect(created.secret)
    holder.query("a cat")
    with pytest.raises(PermissionRefused):
        holder.list_keys()

    client.revoke_key(created.key_id)
    with pytest.raises(AuthenticationRequired):
        holder.query("a cat")

    revoked = {key.key_id: key.revoked_at is not None for key in client.list_keys()}
    assert revoked[created.key_id]


def test_what_the_server_refuses_is_told_by_type(
    client: ImagedexClient, application: InMemoryApplication, tmp_path: Path
) -> None:
    with pytest.raises(ResourceMissing, match="idx_20200101_000000_abcd") as missing:
        client.status("idx_20200101_000000_abcd")
    assert missing.value.status == 404
    assert missing.value.title
    with pytest.raises(PermissionRefused):
        client.trigger("/somewhere/else")
    with pytest.raises(RequestRejected, match="image_dir"):
        client.trigger("relative/path")
    job_id = client.trigger(str(tmp_path)).job_id
    with pytest.raises(RequestConflict):
        client.retry(job_id)
    application.failure = Unavailable("The share is away.")
    with pytest.raises(ServerUnavailable, match="cannot be done now") as unavailable:
        client.query("a cat")
    assert unavailable.value.retry_after_seconds is not None


def test_a_path_that_is_not_utf8_is_refused_by_the_server_and_not_a_crash_here(
    client: ImagedexClient,
) -> None:
    with pytest.raises(RequestRejected):
        client.trigger("/photos/\udcff")


@pytest.mark.parametrize("job_id", ["../../health", "a/b", "", "%2e%2e", "ü?x=1#y", "\udcff"])
def test_an_id_with_any_characters_stays_one_part_of_the_path(
    client: ImagedexClient, job_id: str
) -> None:
    with pytest.raises((ResourceMissing, RequestRejected)):
        client.status(job_id)


def test_waiting_reports_progress_until_the_job_has_ended(
    client: ImagedexClient, application: InMemoryApplication, tmp_path: Path
) -> None:
    job_id = client.trigger(str(tmp_path)).job_id
    seen: list[JobState] = []

    def go_on(state: JobState) -> None:
        seen.append(state)
        done = len(seen)
        status = JobStatus.COMPLETED if done == 3 else JobStatus.RUNNING
        _move(application, job_id, status=status, total_images=3, processed_images=done)

    last = client.wait(job_id, go_on)

    assert last.status == "completed"
    assert [state.progress.processed_images for state in seen] == [0, 1, 2, 3]


def test_waiting_ends_at_a_paused_job_since_only_an_operator_moves_it_on(
    client: ImagedexClient, application: InMemoryApplication, tmp_path: Path
) -> None:
    job_id = client.trigger(str(tmp_path)).job_id
    _move(application, job_id, status=JobStatus.PAUSED)

    assert client.wait(job_id).status == "paused"


def test_one_client_serves_several_threads(client: ImagedexClient) -> None:
    answers: list[str] = []

    def ask(text: str) -> None:
        answers.append(client.query(text).query)

    threads = [threading.Thread(target=ask, args=(f"text {number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == [f"text {number}" for number in range(8)]


def test_a_query_by_image_and_by_picture_and_its_pages(
    client: ImagedexClient, application: InMemoryApplication
) -> None:
    application.image_paths = [f"/photos/{number}.png" for number in range(3)]
    image_id = image_id_of("/photos/0.png")

    first = client.query(
        terms=[{"image_id": image_id}, {"text": "a cat", "weight": -0.5}],
        filter={"path_globs": ["*.png"]},
        min_score=-1,
        collapse_duplicates=True,
        top_k=2,
    )
    assert first.next_cursor is not None
    assert client.query(image_id=image_id, top_k=2, cursor=first.next_cursor).next_cursor is None
    answer = client.query_picture(b"a picture", filter={"path_globs": ["*.png"]}, top_k=1)
    assert len(answer.results) == 1

    queries = application.queries
    assert queries[0].terms == (ImageTerm(image_id), TextTerm("a cat", -0.5))
    assert queries[0].duplicate_score == 0.98
    assert {query.image_filter for query in queries} == {ImageFilter(path_globs=("*.png",)), None}
    assert isinstance(queries[2].terms[0], PictureTerm)
