"""What a server of a service is told: the words of `accelserve serve`, for this machine and for an image."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from accelserve.deploy.definition import ServiceDefinition

START_S = 600  # to load, warm and, on a card, to program; then whoever started a server ends it
SCRIPT_START_S = START_S - 30  # so that the server says before what it waited for


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server runs, and where it finds things there.

    device: None for any. grace_s: how long it answers on when it is to end. keys, tls_cert, tls_key, entry_script:
    files, used where the definition has them. model: the options that name the model. version_folder: its version's,
    for a script. files: (name, path) of what else a script may look up.
    """

    device: str | None
    grace_s: int
    keys: str
    tls_cert: str
    tls_key: str
    model: Mapping[str, object]
    entry_script: str
    version_folder: str
    files: tuple[tuple[str, str], ...]


def serve_words(d: ServiceDefinition, at: Place) -> list[str]:
    """What follows `accelserve`; no secret is among it."""
    options: dict[str, object] = {
        "--service": d.name,
        "--device": at.device,
        "--grace-period": at.grace_s,
        "--drain-timeout": d.drain_s,
        "--poll-interval": 0,  # one version and no other; if it cannot be loaded, the server ends and so tells it
        "--threads": math.ceil(d.cpu_cores) if d.cpu_cores is not None else None,
        "--backends": ",".join(d.backends) or None,
        "--auth-keys": at.keys if d.auth == "key" else None,
        "--tls-cert": at.tls_cert if d.tls_cert else None,
        "--tls-key": at.tls_key if d.tls_key else None,
    }
    if d.model and d.serve_model:
        options |= at.model
    if d.entry_script:
        options |= {
            "--entry-script": at.entry_script,
            "--workers": d.workers,
            "--scoring-timeout": d.scoring_timeout_ms / 1000,
            "--script-start-timeout": SCRIPT_START_S,
            "--max-queue-ms": d.max_queue_ms,
            "--max-concurrent": d.max_concurrent,
        }
    told = ["serve", "--strict", "--legacy-tensorflow"] if d.legacy_tensorflow else ["serve", "--strict"]
    told += [word for flag, value in options.items() if value is not None for word in (flag, str(value))]
    # The model in the very version of the service, whatever is registered later.
    own = ((d.model, at.version_folder),) if d.model and d.entry_script else ()
    for name, path in (*own, *at.files):
        told += ["--model-files", f"{name}={path}"]
    return told
