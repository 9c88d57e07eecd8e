"""`accelserve.score(...)` of an entry script: the models of its own server, whose batches and device it shares."""

import sys
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

from accelserve.entry_script.answers import error_response
from accelserve.entry_script.messages import ScriptResponse

if TYPE_CHECKING:
    from accelserve.client import GrpcClient
    from accelserve.tensors import Tensor

_STATUSES = {"UNAVAILABLE": 503, "RESOURCE_EXHAUSTED": 503, "DEADLINE_EXCEEDED": 504}


class Scores:
    """For any number of threads. address: what gRPC connects to, "" for a server without models.

    gRPC is loaded, and connected, when a script first asks.
    """

    def __init__(self, address: str, key: str, timeout_s: float) -> None:
        self._address = address
        self._metadata = (("authorization", f"Bearer {key}"),) if key else ()
        self._timeout_s = timeout_s
        self._connected: GrpcClient | None = None
        self._lock = Lock()

    def score(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        signature: str = "",
        outputs: Sequence[str] = (),
        timeout_s: float | None = None,
    ) -> "dict[str, Tensor]":
        """Run a model of this server; its outputs by name.

        inputs: arrays, lists, text or bytes by the name of the signature's input; a picture goes as its file's bytes.
        outputs: the wanted ones, all if empty. timeout_s: the script's own time limit if None.
        Raises accelserve.client.ServerError; RuntimeError where the server has no models.
        """
        wait_s = self._timeout_s if timeout_s is None else timeout_s
        return self._client().predict(inputs, model=model, signature=signature, output_filter=outputs, timeout_s=wait_s)

    def _client(self) -> "GrpcClient":
        if not self._address:
            raise RuntimeError("accelserve.score: this server has no models; give it some with --model or --store")
        with self._lock:
            if self._connected is None:
                from accelserve.client import GrpcClient

                self._connected = GrpcClient(self._address, metadata=self._metadata)
            return self._connected


def passed_on_refusal(error: BaseException) -> ScriptResponse | None:
    """The answer where a script lets through that a model of its server is busy: for the client to wait and ask again.

    None for all other errors.
    """
    client = sys.modules.get("accelserve.client")  # not there if no script has asked a model
    if client is None or not isinstance(error, client.ServerError) or error.status not in _STATUSES:
        return None
    wait = () if error.retry_after_s is None else (("retry-after", str(error.retry_after_s)),)
    return error_response(_STATUSES[error.status], error.message, failed=True)._replace(headers=wait)
