"""The checks that a session without a runtime of its own behind it makes on a batch."""

from collections.abc import Mapping

from accelserve.backends.base import Batch, ModelArtifact
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Signature, TensorSpec, describe_tensor, dtype_of


def label(artifact: ModelArtifact) -> str:
    """How messages name a model: `resnet50:3`."""
    return f"{artifact.name}:{artifact.version}"


def check_names(model: str, signatures: Mapping[str, Signature], batch: Batch) -> Signature:
    """The signature that a batch names, if its inputs and outputs belong to it. Raises ScoringError(INVALID)."""
    signature = signatures.get(batch.signature)
    if signature is None:
        raise ScoringError(Kind.INVALID, f'{model}: no signature "{batch.signature}"; there is {_list(signatures)}')
    for name in batch.outputs:
        if name not in signature.outputs:
            raise ScoringError(Kind.INVALID, f'{model}: no output "{name}"; there is {_list(signature.outputs)}')
    for name in batch.inputs:
        if name not in signature.inputs:
            raise ScoringError(Kind.INVALID, f'{model}: no input "{name}"; there is {_list(signature.inputs)}')
    if len(batch.inputs) < len(signature.inputs):
        missing = _list(set(signature.inputs) - set(batch.inputs))
        raise ScoringError(Kind.INVALID, f"{model}: missing input {missing}")
    return signature


def check_batch(model: str, signatures: Mapping[str, Signature], batch: Batch) -> Signature:
    """As check_names, and every input has the dtype and, in a strict signature, the shape that was asked for."""
    signature = check_names(model, signatures, batch)
    for name, tensor in batch.inputs.items():
        spec = signature.inputs[name]
        fits = not signature.strict_shapes or spec.accepts_shape(tensor.shape)
        if dtype_of(tensor) is not spec.dtype or not fits:
            raise ScoringError(Kind.INVALID, _mismatch(model, name, spec, describe_tensor(tensor)))
    return signature


def _mismatch(model: str, name: str, spec: TensorSpec, got: str) -> str:
    return f'{model} "{name}": want {spec}, got {got}'


def _list(names: Mapping[str, object] | set[str]) -> str:
    return ", ".join(f'"{name}"' for name in sorted(names))
