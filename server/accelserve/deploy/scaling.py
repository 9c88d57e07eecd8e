"""How many replicas a service has: from the requests under way, as Azure ML's autoscaler counts."""

from collections import deque

from accelserve.deploy.definition import ServiceDefinition

_S = 1_000_000_000
SHRINK_AFTER_S = 60


class Autoscaler:
    """Wants as many replicas as keep each of them at the target share of the requests that it is meant to have.

    Grows as soon as it looks (`refresh_s`); shrinks to the most that was wanted within the last minute, so that a pause
    between two crowds takes no replica away. Without `autoscale` it wants what the definition says.
    """

    def __init__(self, definition: ServiceDefinition, now: int = 0) -> None:
        """now: how many replicas there are, of a service whose definition changes."""
        self._scale = definition.autoscale
        self._per_replica = definition.busy_at * (definition.autoscale.target_percent if definition.autoscale else 100)
        self._looked_ns: int | None = None
        self._seen: deque[tuple[int, int]] = deque()  # (when, how many were wanted), of the last minute
        self.wanted = min(max(now, definition.least), definition.most)

    def look(self, in_flight: int, now_ns: int) -> int:
        """in_flight: requests under way in all replicas. Returns how many replicas there should be."""
        scale = self._scale
        if scale is None or (self._looked_ns is not None and now_ns - self._looked_ns < scale.refresh_s * _S):
            return self.wanted
        self._looked_ns = now_ns
        enough = -(-in_flight * 100 // self._per_replica)
        self._seen.append((now_ns, min(max(enough, scale.min), scale.max)))
        while self._seen[0][0] < now_ns - SHRINK_AFTER_S * _S:
            self._seen.popleft()
        most_lately = max(count for _, count in self._seen)
        settled = now_ns - self._seen[0][0] >= (SHRINK_AFTER_S - scale.refresh_s) * _S
        self.wanted = most_lately if settled else max(self.wanted, most_lately)
        return self.wanted
