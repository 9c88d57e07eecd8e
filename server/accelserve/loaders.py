"""The loader that the server and the commands load models with: our back ends, the user's cache, the codecs' check."""

import os
from collections.abc import Collection
from pathlib import Path

from accelserve.backends.artifact_cache import FolderArtifactCache
from accelserve.backends.discovery import BackendPool
from accelserve.codecs.round_trip import check_round_trip
from accelserve.models.loading import Loader


def build_loader(
    device: str = "auto",
    threads: int | None = None,
    instances: int = 1,
    backends: Collection[str] = (),
    lease_dir: str = "",
) -> Loader:
    """A loader with our back ends, and the plug-ins that `backends` names.

    device, threads, instances: for models that do not choose. lease_dir: "" for the one in the user's cache.
    Raises ScoringError(INVALID) for a name not installed.
    """
    cache = _cache_folder()
    prepared = FolderArtifactCache(cache / "prepared")
    leases = Path(lease_dir) if lease_dir else cache / "leases"
    return Loader(BackendPool(allow=backends), prepared, leases, check_round_trip, device, threads, instances)


def _cache_folder() -> Path:
    """The user's cache folder (XDG base directory specification)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "accelserve"
