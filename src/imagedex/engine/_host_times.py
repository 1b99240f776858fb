"""How patiently hosts on other machines are kept."""

from __future__ import annotations

from dataclasses import dataclass

from imagedex.engine._agent_wire import LOST_SECONDS, PING_SECONDS

LEAF_DAYS = 30
"""How long a certificate is good that leaves this machine."""


@dataclass(frozen=True, slots=True)
class HostTimes:
    """In seconds."""

    # Between attempts to reach a host; the last one again and again.
    unreachable_pauses: tuple[float, ...] = (1.0, 2.0, 4.0, 5.0)
    unfit_pause: float = 30.0  # Before a host is asked again whether it has what it lacked.
    ping: float = PING_SECONDS
    lost: float = LOST_SECONDS
    leaf: float = (LEAF_DAYS - 7) * 86400.0  # Then an agent is started anew, with another leaf.
