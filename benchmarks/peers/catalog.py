"""Peers: how each is started and asked.

A name up to its first "_" is the virtual environment: `mosec` serves mosec and mosec_tuned. Variants:

mosec_tuned     its user put in orjson, simplejpeg and OpenCV; it waits 1 ms for a batch. The one to beat.
*_malloc        and glibc's thresholds raised by environment variables, so that it keeps large buffers
*_unbatched     one request at a time
*_fastqueue     LitServe's ZeroMQ queue
*_quiet         without access logs

Batches of 32 at most, waits of 1 or 2 ms where the framework wants one; bodies in each peer's own idiom.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.clients import PREDICT

SERVERS = Path(__file__).parent / "servers"
BOUNDARY = "peers0000boundary"

# how a body is written: file name's end, content type
FORMS = {
    "instances": (".instances.json", "application/json"),
    "v2": (".v2.json", "application/json"),
    "jpeg": (".jpg", "image/jpeg"),
    "content": (".content.form", f"multipart/form-data; boundary={BOUNDARY}"),
    "images": (".images.form", f"multipart/form-data; boundary={BOUNDARY}"),
    "raw": (".raw", "application/octet-stream"),
    "grpc": (".grpc", "application/grpc"),
}
OWN_FORM = {"json": "instances", "jpeg": "jpeg", "raw": "raw", "grpc": "grpc"}


@dataclass(frozen=True, slots=True)
class Peer:
    """How to start and ask a peer.

    Placeholders in `command` and `env`: {bin} (of its virtual environment), {servers}, {port}, {port1}, {port2}.
    paths: kind of case -> path. forms: kind of case -> form, where it is not OWN_FORM.
    private_network: opens listeners that cannot be kept on loopback. restless: polls while nobody asks.
    """

    command: str
    paths: Mapping[str, str]
    forms: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    private_network: bool = False
    restless: bool = False
    boot_s: float = 40.0

    def arguments(self, places: Mapping[str, str]) -> list[str]:
        return [part.format(**places) for part in shlex.split(self.command)]

    def environment(self, places: Mapping[str, str]) -> dict[str, str]:
        return {key: value.format(**places) for key, value in self.env.items()}


def _at(path: str, *kinds: str) -> dict[str, str]:
    return dict.fromkeys(kinds, path)


_V2 = _at("/v2/models/model/infer", "json")
_MOSEC = "{bin}/python {servers}/mosec_server.py --address 127.0.0.1 --port {port} --timeout 30000 --log-level warning"
_MOSEC_PATHS = _at("/inference", "json", "jpeg", "raw")
_LITSERVE = "{bin}/python {servers}/litserve_server.py"
_KSERVE = "{bin}/python {servers}/kserve_server.py"
_GRPCIO = "{bin}/python {servers}/grpcio_server.py"
_BENTOML = Peer(
    "{bin}/bentoml serve bentoml_server:Scorer --host 127.0.0.1 --port {port}", _at("/predict", "json", "jpeg"),
    {"jpeg": "images"}, {"BENTOML_DO_NOT_TRACK": "True", "PEERS_QUIET": "1"},
)  # fmt: skip
_TUNED = {"PEERS_TUNED": "1", "PEERS_WAIT_MS": "1"}
_UNBATCHED = {"PEERS_MAX_BATCH": "1", "PEERS_WAIT_MS": "0"}
_KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "67108864",
    "MALLOC_TRIM_THRESHOLD_": "268435456",
    "MALLOC_TOP_PAD_": "16777216",
}

PEERS = {
    "mosec": Peer(_MOSEC, _MOSEC_PATHS),
    "mosec_tuned": Peer(_MOSEC, _MOSEC_PATHS, env=_TUNED),
    "mosec_tuned_malloc": Peer(_MOSEC, _MOSEC_PATHS, env={**_TUNED, **_KEEP_MEMORY}),
    "mosec_tuned_unbatched": Peer(_MOSEC, _MOSEC_PATHS, env={**_TUNED, **_UNBATCHED}),
    "litserve_fastqueue": Peer(
        _LITSERVE, _at("/predict", "json", "jpeg"), {"jpeg": "content"}, {"PEERS_FAST_QUEUE": "1"}, restless=True
    ),
    "litserve_unbatched": Peer(
        _LITSERVE, _at("/predict", "json", "jpeg"), {"jpeg": "content"}, {"PEERS_MAX_BATCH": "1"}
    ),
    "bentoml_quiet": _BENTOML,
    "mlserver": Peer(
        "{bin}/mlserver start {servers}/mlserver_model", _V2, {"json": "v2"},
        {
            "MLSERVER_HOST": "127.0.0.1",
            "MLSERVER_HTTP_PORT": "{port}",
            "MLSERVER_GRPC_PORT": "{port1}",
            "MLSERVER_METRICS_PORT": "{port2}",
            "MLSERVER_PARALLEL_WORKERS": "0",
            "MLSERVER_DEBUG": "false",
        },
    ),
    "kserve_quiet": Peer(_KSERVE, _at("/v1/models/model:predict", "json"), env={"PEERS_QUIET": "1"}),
    "ray": Peer(
        "{bin}/python {servers}/ray_server.py", _at("/predict", "json", "jpeg"),
        env={"RAY_USAGE_STATS_ENABLED": "0"}, private_network=True, boot_s=180.0,
    ),
    "pytriton": Peer("{bin}/python {servers}/pytriton_server.py", _V2, {"json": "v2"}),
    "azureml": Peer(
        "{bin}/python {servers}/azureml_server.py --entry_script {servers}/azureml_entry.py --port {port}",
        _at("/score", "json", "jpeg"),
    ),
    "naive_fastapi": Peer(
        "{bin}/python {servers}/naive_server.py", {"json": "/predict", "jpeg": "/score", "raw": "/score"}
    ),
    "grpcio_sync": Peer(_GRPCIO + " sync {port}", {"grpc": PREDICT}),
    "grpcio_sync_malloc": Peer(_GRPCIO + " sync {port}", {"grpc": PREDICT}, env=_KEEP_MEMORY),
    "grpcio_aio": Peer(_GRPCIO + " aio {port}", {"grpc": PREDICT}),
    "grpcio_aio_malloc": Peer(_GRPCIO + " aio {port}", {"grpc": PREDICT}, env=_KEEP_MEMORY),
}  # fmt: skip


def environment_of(peer: str) -> str:
    return peer.partition("_")[0]
