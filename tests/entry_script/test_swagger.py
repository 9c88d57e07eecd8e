"""The documents of a script's service."""

import json

import pytest

from accelserve.entry_script.swagger import ANY_SCHEMAS, Schemas, Service, swagger_documents

SERVICE = Service("my service", "1.0", "")


def documents(folder, service=SERVICE, schemas=ANY_SCHEMAS):
    return {version: json.loads(text) for version, text in swagger_documents(folder, service, schemas).items()}


def test_there_are_three(tmp_path):
    made = documents(tmp_path)
    assert made["2"]["swagger"] == "2.0"
    assert made["3"]["openapi"] == "3.0.3"
    assert made["3.1"]["openapi"] == "3.1.0"
    assert {document["info"]["title"] for document in made.values()} == {"my service"}


@pytest.mark.parametrize("version", ["2", "3", "3.1"])
def test_paths_operations_and_references_are_those_that_clients_were_generated_from(tmp_path, version):
    document = documents(tmp_path)[version]
    operations = {
        path: {method: operation["operationId"] for method, operation in methods.items()}
        for path, methods in document["paths"].items()
    }
    assert operations == {
        "/": {"get": "ServiceHealthCheck"},
        "/score": {"post": "RunMLService"},
        "/swagger.json": {"get": "GetSwaggerSpec"},
    }
    for reference in references(document):
        found = document
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]


def references(part):
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "$ref":
                yield value
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def test_the_schemas_of_the_script_are_in_it(tmp_path):
    schemas = Schemas({"type": "object", "example": {"a": 1}}, {"type": "array"}, frozenset(["3", "3.1"]))
    made = documents(tmp_path, schemas=schemas)
    assert made.keys() == {"3", "3.1"}
    assert made["3"]["components"]["schemas"]["ServiceInput"] == schemas.service_input
    assert made["3.1"]["components"]["schemas"]["ServiceOutput"] == schemas.service_output


def test_a_prefix_stands_before_all_paths(tmp_path):
    made = documents(tmp_path, Service("s", "2", "/api/v1/service/s"))
    assert list(made["3"]["paths"]) == [f"/api/v1/service/s{path}" for path in ("/", "/score", "/swagger.json")]


def test_the_users_own_files_win(tmp_path):
    for name in ("swagger2.json", "swagger3.json", "swagger3.1.json"):
        (tmp_path / name).write_text(json.dumps({"mine": name}))
    expected = {"2": "swagger2.json", "3": "swagger3.json", "3.1": "swagger3.1.json"}
    assert {version: document["mine"] for version, document in documents(tmp_path).items()} == expected
    (tmp_path / "swagger.json").write_text('{"mine": "first"}')
    assert documents(tmp_path)["2"] == {"mine": "first"}


def test_a_file_that_is_no_json_is_passed_over_and_told_of(tmp_path, caplog):
    (tmp_path / "swagger3.json").write_text("{")
    assert documents(tmp_path)["3"]["openapi"] == "3.0.3"
    assert "swagger3.json is passed over" in caplog.text
