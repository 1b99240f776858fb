"""What a process of the engine shows to the others, and whom it believes."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Credentials:
    """A leaf of the engine's authority; all PEM. Who holds the key is trusted with everything."""

    certificate: str
    key: str = field(repr=False)
    trusted: str  # The certificate of the authority.
