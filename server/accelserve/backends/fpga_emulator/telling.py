"""What a person who looks at an emulated model should know, a sentence each."""

from collections.abc import Iterator

from accelserve.backends.fpga_emulator.compiling import CompiledModel
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
        exact = sum(layer.numerics == "exact" for layer in compiled.layers)
        packed = sum(layer.weight_bits for layer in compiled.layers) / 8
        yield (
            f"emulated in {options.numerics}: {exact} of {len(compiled.layers)} layers are exact whatever the order of "
            f"their sums, the others to float32's rounding"
        )
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
