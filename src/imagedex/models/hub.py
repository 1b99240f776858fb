"""The hub that models come from."""

from __future__ import annotations

from imagedex.models.interfaces import ModelHub


def default_hub() -> ModelHub:
    """Return the Hugging Face hub, or the one that HF_ENDPOINT names."""
    # Imported here, since all that only uses installed models does well without it.
    from imagedex.models._huggingface import HuggingFaceHub

    return HuggingFaceHub()
