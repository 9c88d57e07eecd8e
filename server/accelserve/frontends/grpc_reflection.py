"""What gRPC reflection shows: our messages and services under the names that upstream gave them.

The generated code registers `accelserve.wire.*` in protobuf's default pool, because a process that also imports
TensorFlow cannot hold `tensorflow.*` twice. Clients ask for upstream's names; they get them from a pool of its own.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, wrappers_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from accelserve.frontends.grpc_core import CoreCall, Handlers, Streaming
from accelserve.wire import error_codes_pb2, tensorflow_pb2, tfserving_pb2

SERVICE: str = reflection.SERVICE_NAME
_GOOGLES = (any_pb2, wrappers_pb2)
_OURS = (error_codes_pb2, tensorflow_pb2, tfserving_pb2)  # a file after those that it imports
_UPSTREAM: Mapping[str, str] = MappingProxyType(
    {"accelserve.wire.tensorflow": "tensorflow", "accelserve.wire.tfserving": "tensorflow.serving"}
)


def reflection_handlers(services: Iterable[str]) -> Handlers:
    """services: the names of all that the server has."""
    servicer = reflection.ReflectionServicer(services, pool=reflection_pool())

    async def reflect(call: CoreCall) -> None:
        while (data := await call.receive()) is not None:
            request = reflection_pb2.ServerReflectionRequest.FromString(data)
            for answer in servicer.ServerReflectionInfo(iter([request]), None):
                await call.send(answer.SerializeToString())
        call.finish()

    return {f"/{SERVICE}/ServerReflectionInfo": Streaming(reflect)}


def reflection_pool() -> descriptor_pool.DescriptorPool:
    """A fresh pool."""
    pool = descriptor_pool.DescriptorPool()
    for module in _GOOGLES:
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    for module in _OURS:
        pool.AddSerializedFile(_renamed(module.DESCRIPTOR.serialized_pb))
    return pool


def _renamed(serialized: bytes) -> bytes:
    """A serialized FileDescriptorProto, with upstream's package name in it and in every reference."""
    file = descriptor_pb2.FileDescriptorProto.FromString(serialized)
    file.package = _upstream(file.package)
    _rename_fields(file.message_type)
    for service in file.service:
        for method in service.method:
            method.input_type = _upstream(method.input_type)
            method.output_type = _upstream(method.output_type)
    renamed: bytes = file.SerializeToString()
    return renamed


def _rename_fields(messages: Iterable[descriptor_pb2.DescriptorProto]) -> None:
    for message in messages:
        for field in message.field:
            if field.type_name:  # setting it, even to "", would make a message of a number
                field.type_name = _upstream(field.type_name)
        _rename_fields(message.nested_type)


def _upstream(name: str) -> str:
    """`name` is a package, or a reference: a full name behind a dot."""
    bare = name.removeprefix(".")
    for ours, theirs in _UPSTREAM.items():
        if bare == ours or bare.startswith(f"{ours}."):
            return name.replace(ours, theirs, 1)
    return name
