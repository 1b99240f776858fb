"""Which model made some vectors, and what to do when that is not the one at hand."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Fingerprints begin with the kind of model; CLIP models name their precision after it.
_PRECISION = re.compile(r"clip-(fp32|bf16|int8)-")


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """A model as manifests record it."""

    name: str  # What the operator called it; two names can mean one model.
    fingerprint: str  # Equal means that vectors may be mixed.

    @property
    def precision(self) -> str | None:
        """The precision of its arithmetic, where the fingerprint tells."""
        found = _PRECISION.match(self.fingerprint)
        return found[1] if found is not None else None

    def __str__(self) -> str:
        precision = f" in {self.precision}" if self.precision is not None else ""
        return f"{self.name!r}{precision} ({self.fingerprint})"


def way_back(stored: ModelIdentity, used: ModelIdentity) -> str:
    """Say what makes ``used`` the model that made the ``stored`` vectors; a sentence's end."""
    if stored.name != used.name:
        precision = (
            f" and IMAGEDEX_EMBEDDING__PRECISION={stored.precision}"
            if stored.precision is not None
            else ""
        )
        remedy = f"set IMAGEDEX_MODEL={stored.name}{precision}"
    elif stored.precision != used.precision:
        remedy = f"set IMAGEDEX_EMBEDDING__PRECISION={stored.precision}"
    else:
        remedy = (
            "they differ in preprocessing or weights: set IMAGEDEX_DECODING__REDUCED as it was "
            f"then, or get the model's former files (see `imagedex models verify {used.name}`)"
        )
    return f"{remedy}, or use another index prefix"
