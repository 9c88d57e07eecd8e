"""What a person who looks at an emulated model should know, a sentence each."""

from collections.abc import Iterator

from accelserve.backends.accel_onnx.operators import in_words
from accelserve.backends.fpga_emulator.compiling import CompiledModel
from accelserve.backends.fpga_emulator.exactness import EXACT
from accelserve.backends.fpga_emulator.formats import Fp32
from accelserve.backends.fpga_emulator.options import EmulatorOptions

_MIB = 2**20


def remarks_of(compiled: CompiledModel, options: EmulatorOptions) -> tuple[str, ...]:
    return tuple(_sentences(compiled, options))


def _sentences(compiled: CompiledModel, options: EmulatorOptions) -> Iterator[str]:
    format = options.numerics.format
    if isinstance(format, Fp32):
        yield "emulated: nothing is quantized, the card's limits and states are emulated alone"
    else:
        packed = sum(layer.weight_bits for layer in compiled.layers) / 8
        yield f"emulated in {options.numerics}: {_exactness(compiled)}"
        yield (
            f"weights of the device's part: {packed / _MIB:.1f} MiB packed, {compiled.weight_bytes / _MIB:.1f} MiB in "
            f"float32"
        )
    if format.remark:
        yield format.remark
    if compiled.work is None:
        yield "no time is modelled: the sizes of the device's inputs are open"
    elif compiled.work:
        macs = sum(layer.macs for layer in compiled.work)
        modelled_ms = options.card.run_ns(compiled.work, 0) / 1e6
        yield (
            f"modelled, not measured: {macs / 1e9:.2f} GMAC a row take the card {modelled_ms:.2f} ms without transfers"
        )


def _exactness(compiled: CompiledModel) -> str:
    """Of which layers no order of adding could change a bit: proved, and seen."""
    count, proved = len(compiled.layers), sum(layer.numerics == EXACT for layer in compiled.layers)
    always = f"{proved} of {count} layers are exact for every input"
    seen = compiled.exact_for_noise
    if seen is None:
        return f"{always}, the others depend on the order of their sums in float32's last bits"
    told = f"{always}, {len(seen)} were for a row of noise"
    others = [layer.name for layer in compiled.layers if layer.name not in seen]
    if not others:
        return told
    return f"{told}; order-dependent in float32's last bits: {in_words(others)}"
