"""What run() is called with: the shapes of entry scripts, and how each reads a request.

The texts of refusals are the original's.
"""

import inspect
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from accelserve.entry_script.aml_request import AMLRequest
from accelserve.entry_script.forms import FORM_TYPES, query_pairs
from accelserve.entry_script.mappings import Headers, MultiDict
from accelserve.entry_script.messages import ScriptRequest, Shape
from accelserve.entry_script.rules import (
    BOTH_DECORATORS,
    HEADERS_PARAMETER,
    NO_DATA_PARAMETER,
    ONLY_PLAIN_PARAMETERS,
)

Arguments = dict[str, Any]
_PLAIN = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class ScriptError(Exception):
    """The script is not one that can be served; the text says why."""


class InputRefused(Exception):
    """The request is not one for this run()."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Inputs:
    """run()'s arguments out of a request.

    raw: @rawhttp was used. strict: as the original, which loses bodies of forms and wants a JSON content type for a
    schema.
    Raises ScriptError if run() cannot be called.
    """

    def __init__(self, run: Callable[..., Any], raw: bool, strict: bool) -> None:
        parameters = _parameters(run)
        self._wants_headers = any(parameter.name == HEADERS_PARAMETER for parameter in parameters)
        data = [parameter for parameter in parameters if parameter.name != HEADERS_PARAMETER]
        if not data:
            raise ScriptError(NO_DATA_PARAMETER)
        with_schema = has_schema(run)
        if raw and with_schema:
            raise ScriptError(BOTH_DECORATORS)
        self.shape: Shape = "rawhttp" if raw else "schema" if with_schema else "text"
        readers: Mapping[Shape, Callable[[ScriptRequest], Arguments]] = {
            "rawhttp": self._raw,
            "schema": self._fields,
            "text": self._text,
        }
        self._read = readers[self.shape]
        self._data = data
        self._name = data[0].name
        self._strict = strict

    def arguments(self, request: ScriptRequest) -> Arguments:
        """Raises InputRefused."""
        arguments = self._read(request)
        if self._wants_headers:
            arguments[HEADERS_PARAMETER] = dict(Headers([(name.title(), value) for name, value in request.headers]))
        return arguments

    def _raw(self, request: ScriptRequest) -> Arguments:
        if request.method == "HEAD" and not self._strict:
            request = request._replace(method="GET")
        return {self._name: AMLRequest(request, self._strict)}

    def _text(self, request: ScriptRequest) -> Arguments:
        if self._has_query_only(request):
            return {self._name: json.dumps(_query_values(request))}
        body = b"" if self._strict and _media_type(request) in FORM_TYPES else request.body
        try:
            return {self._name: str(body, "utf-8")}
        except UnicodeDecodeError as error:
            raise InputRefused(400, f"Input cannot be decoded as UTF-8: {error}") from None

    def _fields(self, request: ScriptRequest) -> Arguments:
        found = _query_values(request) if self._has_query_only(request) else self._json_fields(request)
        arguments = {}
        for parameter in self._data:
            value = found.get(parameter.name, parameter.default)
            if value is inspect.Parameter.empty:
                raise InputRefused(400, f"A value is not provided for the {parameter.name!r} parameter.")
            arguments[parameter.name] = value
        return arguments

    def _has_query_only(self, request: ScriptRequest) -> bool:
        """GET; HEAD is its answer without the body, but for the original."""
        if request.method == "POST":
            return False
        if request.method == "GET" or (request.method == "HEAD" and not self._strict):
            return True
        if request.method == "OPTIONS":
            raise InputRefused(200, "")
        raise InputRefused(405, "Method not allowed")

    def _json_fields(self, request: ScriptRequest) -> dict[str, Any]:
        is_json = _is_json(_media_type(request))
        if self._strict and not is_json:
            raise InputRefused(415, "Expects Content-Type to be application/json")
        try:
            fields = json.loads(request.body)
        except (ValueError, RecursionError) as error:
            if not request.body:
                raise InputRefused(400, "POST body is empty. Expecting a JSON dictionary.") from None
            if not is_json:
                raise InputRefused(415, "Expects Content-Type to be application/json") from None
            raise InputRefused(400, f"POST body could not be decoded as JSON: {error}") from None
        if not isinstance(fields, dict):
            raise InputRefused(400, "POST body should be a JSON dictionary.")
        return fields


def has_schema(run: Callable[..., Any]) -> bool:
    """Whether the package inference-schema knows it. It is loaded if the script has loaded it, not otherwise."""
    schema_util = sys.modules.get("inference_schema.schema_util")
    return schema_util is not None and bool(schema_util.is_schema_decorated(run))


def _parameters(run: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        parameters = list(inspect.signature(run).parameters.values())
    except (TypeError, ValueError) as error:
        raise ScriptError(f"run is not a function: {error}") from error
    if any(parameter.kind not in _PLAIN for parameter in parameters):
        raise ScriptError(ONLY_PLAIN_PARAMETERS)
    return parameters


def _media_type(request: ScriptRequest) -> str:
    value = next((value for name, value in request.headers if name == "content-type"), "")
    return value.partition(";")[0].strip().lower()


def _is_json(media_type: str) -> bool:
    return media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))


def _query_values(request: ScriptRequest) -> dict[str, Any]:
    """Values as JSON where they are JSON, else as text; repeated keys are lists."""
    pairs = MultiDict((key, _json_or_text(value)) for key, value in query_pairs(request.query_string))
    return {key: values if len(values) > 1 else values[0] for key, values in pairs.lists()}


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
