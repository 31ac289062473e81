"""Times of one group's periodic work: heartbeats, checks of the clusters, and crew lists."""

from __future__ import annotations


class Schedule:
    """Due times in seconds; handlers of messages may bring them forward."""

    def __init__(self, now: float) -> None:
        self.heartbeat_at = now
        self.check_at = now
        self.crew_list_at = now

    def set_heartbeat(self, at: float) -> None:
        """Send the next heartbeats then."""
        self.heartbeat_at = at

    def set_check(self, at: float) -> None:
        """Check the clusters next then."""
        self.check_at = at

    def set_crew_list(self, at: float) -> None:
        """Send the next crew lists then."""
        self.crew_list_at = at
