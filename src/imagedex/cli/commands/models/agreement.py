"""How agreement with float32 is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagedex.embedding.clip.int8_record import AgreementRecord
    from imagedex.models.agreement import Agreement

METHOD = (
    "Top-10 agreement: each picture in turn is the query and the others are the index; the mean "
    "share of its ten nearest in float32 that are among its ten nearest in this precision."
)


def agreement_document(agreement: Agreement | AgreementRecord | None) -> dict[str, Any] | None:
    """Return the figures for --json."""
    if agreement is None:
        return None
    return {
        "images": agreement.images,
        "mean_cosine": agreement.mean_cosine,
        "min_cosine": agreement.min_cosine,
        "top10_agreement": agreement.top10,
    }


def agreement_fields(agreement: Agreement | AgreementRecord | None) -> list[tuple[str, str]]:
    """Return the figures as names and texts."""
    if agreement is None:
        return [("agreement", "not measured: there are too few pictures to hold some out")]
    top10 = agreement.top10
    return [
        ("pictures compared", str(agreement.images)),
        ("cosine, mean", f"{agreement.mean_cosine:.5f}"),
        ("cosine, least", f"{agreement.min_cosine:.5f}"),
        ("top-10 agreement", "needs 11 pictures" if top10 is None else f"{top10:.4f}"),
    ]
