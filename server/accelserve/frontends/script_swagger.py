"""The documents that describe a script, in the version of Swagger or OpenAPI that is asked for."""

from collections.abc import Mapping

from accelserve.frontends.http_messages import Head

_VERSIONS = {"2": "2", "2.0": "2", "3": "3", "3.0": "3", "3.1": "3.1"}


def swagger_of(documents: Mapping[str, str], head: Head) -> tuple[bool, str]:
    """(True, the JSON text) for `?version=`, 2 without one; (False, why there is none), in the original's words."""
    version = head.query.get("version", "2")
    text = documents.get(_VERSIONS.get(version, ""))
    if text is not None:
        return True, text
    supported = ", ".join(sorted(documents))
    if version in _VERSIONS:
        why = f"Swagger version [{version}] is not supported for the scoring script. Supported swagger versions"
    else:
        why = f"Swagger version [{version}] is not valid. Supported versions"
    return False, f"{why}: [{supported}]."
