"""The OpenVINO library: imported here and nowhere else, when it is chosen, without its telemetry.

`import openvino` makes an id for Google Analytics in ~/intel, counts the import there, and starts a thread to send
from. Where the package `openvino_telemetry` cannot be imported it uses a stub of its own that does nothing; so it is
hidden for that moment.
"""

import sys
from typing import Any

_TELEMETRY = "openvino_telemetry"


def installed_openvino() -> Any:
    """The library. Raises what its import raises."""
    before = sys.modules.get(_TELEMETRY)
    if before is None:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # Python's way to say: not installed
    try:
        import openvino
    finally:
        if before is None and sys.modules.get(_TELEMETRY) is None:
            sys.modules.pop(_TELEMETRY, None)
    return openvino
