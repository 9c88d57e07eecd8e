"""Holds our messages against upstream's, in one process; run in .venv-compat by test_real_tfserving_client.py.

argv: the source root. stdout: JSON {"compared": number of fields, "different": [what, ours, upstream's]}.
"""

import json
import sys

sys.path.insert(0, sys.argv[1])

from google.protobuf import descriptor_pool
from tensorflow.core.example import example_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import model_service_pb2, prediction_service_pb2

from accelserve.wire import error_codes_pb2, tensorflow_pb2, tfserving_pb2

LOADED = (example_pb2, meta_graph_pb2, model_service_pb2, prediction_service_pb2)  # they fill the default pool
PACKAGES = (
    ("accelserve.wire.tensorflow", "tensorflow"),
    ("accelserve.wire.tfserving", "tensorflow.serving"),
)
pool = descriptor_pool.Default()
compared = 0
different = []


def upstream(name):
    for ours, theirs in PACKAGES:
        if name.startswith(ours + "."):
            return theirs + name.removeprefix(ours)
    return name


def form(field, rename=str):
    """What decides a field's bytes, and its name in JSON."""
    kind = field.message_type or field.enum_type
    oneof = field.containing_oneof.name if field.containing_oneof else None
    name = rename(kind.full_name) if kind else None
    return [field.name, field.number, field.type, name, field.is_repeated, field.is_packed, field.json_name, oneof]


def hold(what, ours, theirs):
    global compared
    compared += 1
    if ours != theirs:
        different.append([what, ours, theirs])


def compare_enum(ours):
    theirs = pool.FindEnumTypeByName(upstream(ours.full_name))
    numbers = {value.name: value.number for value in theirs.values}
    for value in ours.values:
        hold(f"{ours.full_name}.{value.name}", value.number, numbers.get(value.name))


def compare_message(ours):
    theirs = pool.FindMessageTypeByName(upstream(ours.full_name))
    for field in ours.fields:
        hold(field.full_name, form(field, upstream), form(theirs.fields_by_number[field.number]))
    for nested in ours.nested_types:
        compare_message(nested)
    for enum in ours.enum_types:
        compare_enum(enum)


for module in (error_codes_pb2, tensorflow_pb2, tfserving_pb2):
    for message in module.DESCRIPTOR.message_types_by_name.values():
        compare_message(message)
    for enum in module.DESCRIPTOR.enum_types_by_name.values():
        compare_enum(enum)
    for service in module.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            theirs = pool.FindMethodByName(upstream(method.full_name))
            hold(
                method.full_name,
                [upstream(method.input_type.full_name), upstream(method.output_type.full_name)],
                [theirs.input_type.full_name, theirs.output_type.full_name],
            )
print(json.dumps({"compared": compared, "different": different}))
