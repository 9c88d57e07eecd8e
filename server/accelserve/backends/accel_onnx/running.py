"""A model's parts run one after the other: the device's on its device, the tail on the host."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from accelserve.backends.accel_onnx.accel_model import AccelModel, Part
from accelserve.tensors import Tensor

Run = Callable[[Sequence[str], Mapping[str, Tensor]], Mapping[str, Tensor]]
"""(names of outputs wanted, inputs by name) -> those outputs, of one graph."""


@dataclass(frozen=True, slots=True)
class AccelRunner:
    """device and tail: how each part is run, under the names in its graph."""

    model: AccelModel
    device: Run
    tail: Run | None = None

    def run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> dict[str, Tensor]:
        """By signature keys. An output that is an input too is a copy. What the parts raise passes."""
        values = {self.model.inputs[key]: tensor for key, tensor in inputs.items()}
        given, wanted = frozenset(values), {self.model.outputs[key] for key in outputs}
        tail, run_tail = self.model.tail, self.tail
        late = () if tail is None else [value for value in tail.fetches.values() if value in wanted]
        needed = wanted | set(tail.feeds.values()) if tail is not None and late else wanted
        values |= _run(self.model.device, self.device, values, needed)
        if tail is not None and run_tail is not None and late:
            values |= _run(tail, run_tail, values, wanted)
        made = {key: values[self.model.outputs[key]] for key in outputs}
        return {key: tensor.copy() if self.model.outputs[key] in given else tensor for key, tensor in made.items()}


def _run(part: Part, run: Run, values: Mapping[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    ports = [port for port, value in part.fetches.items() if value in wanted]
    if not ports:
        return {}
    made = run(ports, {port: values[value] for port, value in part.feeds.items()})
    return {part.fetches[port]: made[port] for port in ports}
