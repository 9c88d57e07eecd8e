"""The documents that describe a script's service: Swagger 2, OpenAPI 3.0.3 and 3.1, as the original has them.

A file of the user's in the app root wins: swagger.json or swagger2.json, swagger3.json, swagger3.1.json.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

logger = logging.getLogger("accelserve.entry_script")

Document = dict[str, Any]
_FILES: Mapping[str, tuple[str, ...]] = {
    "2": ("swagger.json", "swagger2.json"),
    "3": ("swagger3.json",),
    "3.1": ("swagger3.1.json",),
}
_TITLES: Mapping[str, str] = {"2": "2.0", "3": "3.0.3", "3.1": "3.1.0"}
_BEARER = {"type": "apiKey", "name": "Authorization", "in": "header", "description": "For example: Bearer abc123"}
_ERROR = {"type": "object", "properties": {"message": {"type": "string"}}}
_TEXT = {"type": "string"}
_ANYTHING = {"type": "object", "example": {}}


@dataclass(frozen=True, slots=True)
class Schemas:
    """What goes in and out, as JSON schemas; versions: the documents that have words for them."""

    service_input: Document
    service_output: Document
    versions: frozenset[str]


ANY_SCHEMAS = Schemas(_ANYTHING, _ANYTHING, frozenset(_FILES))


@dataclass(frozen=True, slots=True)
class Service:
    """name: the title. prefix: of its paths, "" or "/something"."""

    name: str
    version: str
    prefix: str


def swagger_documents(app_root: Path, service: Service, schemas: Schemas) -> dict[str, str]:
    """Version "2", "3", "3.1" -> JSON text; a version is left out where neither a file nor the schemas give it."""
    documents: dict[str, str] = {}
    for version in _FILES:
        document = _users(app_root, version)
        if document is None and version in schemas.versions:
            document = _document(version, service, schemas)
        if document is not None:
            documents[version] = json.dumps(document)
    return documents


def _users(app_root: Path, version: str) -> Any | None:
    """The user's own; one that cannot be read is told of and passed over."""
    for name in _FILES[version]:
        try:
            return json.loads((app_root / name).read_bytes())
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            logger.warning("%s is passed over: %s", app_root / name, error)
    return None


def _document(version: str, service: Service, schemas: Schemas) -> Document:
    info = {
        "title": service.name,
        "description": f"API specification for the Azure Machine Learning service {service.name}",
        "version": service.version,
    }
    definitions = {
        "ServiceInput": schemas.service_input,
        "ServiceOutput": schemas.service_output,
        "ErrorResponse": _ERROR,
    }
    if version == "2":
        return {
            "swagger": _TITLES[version],
            "info": info,
            "schemes": ["https"],
            "consumes": ["application/json"],
            "produces": ["application/json"],
            "securityDefinitions": {"Bearer": _BEARER},
            "paths": _paths(service.prefix, "#/definitions/", _response_2, _parameters_2),
            "definitions": definitions,
        }
    return {
        "openapi": _TITLES[version],
        "info": info,
        "security": [{"Bearer": []}],
        "paths": _paths(service.prefix, "#/components/schemas/", _response_3, _parameters_3),
        "components": {"schemas": definitions, "securitySchemes": {"Bearer": _BEARER}},
    }


def _paths(
    prefix: str,
    at: str,
    response: Callable[[str, Document, str], Document],
    parameters: Callable[[Document, Document], tuple[Document, Document]],
) -> Document:
    """at: where references point to. response: of (description, schema, media type).

    parameters: of (the reference to the input, the schema of a version), what /score and /swagger.json take.
    """
    error = response(
        "The service failed to execute due to an error.", {"$ref": f"{at}ErrorResponse"}, "application/json"
    )
    scoring, version = parameters({"$ref": f"{at}ServiceInput"}, {"type": "integer", "enum": [2, 3]})

    def operation(name: str, description: str, good: Document, **more: Any) -> Document:
        return {"operationId": name, "description": description, **more, "responses": {"200": good, "default": error}}

    healthy = response("The service is up and running, and says 'Healthy'.", _TEXT, "text/plain")
    scored = response("The prediction for the input.", {"$ref": f"{at}ServiceOutput"}, "application/json")
    document = response("The Swagger specification.", _TEXT, "text/plain")
    run = operation("RunMLService", "Run the model on the input.", scored, security=[{"Bearer": []}], **scoring)
    return {
        f"{prefix}/": {"get": operation("ServiceHealthCheck", "Whether the service is up.", healthy)},
        f"{prefix}/score": {"post": run},
        f"{prefix}/swagger.json": {"get": operation("GetSwaggerSpec", "This document.", document, **version)},
    }


def _response_2(description: str, schema: Document, _: str) -> Document:
    return {"description": description, "schema": schema}


def _response_3(description: str, schema: Document, media_type: str) -> Document:
    return {"description": description, "content": {media_type: {"schema": schema}}}


def _parameters_2(body: Document, version: Document) -> tuple[Document, Document]:
    payload = {"name": "serviceInputPayload", "in": "body", "description": "The input.", "schema": body}
    return {"parameters": [payload]}, {"parameters": [{"name": "version", "in": "query", "required": False, **version}]}


def _parameters_3(body: Document, version: Document) -> tuple[Document, Document]:
    payload = {"description": "The input.", "content": {"application/json": {"schema": body}}}
    return {"requestBody": payload}, {
        "parameters": [{"name": "version", "in": "query", "required": False, "schema": version}]
    }
