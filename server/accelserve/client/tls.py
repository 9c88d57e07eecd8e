"""How a client speaks TLS: whom it trusts, and what it shows of itself."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class ClientTls:
    """PEM files. roots: who may have signed the server's certificate; None for those that the system trusts.

    cert, key: the client's own, where a server asks for one.
    """

    roots: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """For HTTP. Raises OSError, ssl.SSLError."""
        for path in (self.roots, self.cert, self.key):
            _content(path)  # what cannot be read is named; ssl does not say which it was
        context = ssl.create_default_context(cafile=self.roots)
        if self.cert is not None:
            context.load_cert_chain(self.cert, self.key)
        return context

    def grpc_credentials(self) -> Any:
        """grpc.ChannelCredentials. Raises OSError."""
        import grpc  # here, so that clients of HTTP alone do not load it

        return grpc.ssl_channel_credentials(_content(self.roots), _content(self.key), _content(self.cert))


def _content(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()


def authorization(key: str) -> tuple[str, str]:
    """The header, or the gRPC metadata, that shows a key. Raises ValueError for what no header can hold."""
    if not (key.isascii() and key.isprintable()):
        raise ValueError("a key is a word of visible ASCII characters")  # and is not repeated here
    return "authorization", f"Bearer {key}"
