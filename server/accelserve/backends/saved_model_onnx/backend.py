"""SavedModels on a GPU: cut at the first dense tensor, the dense part in ONNX Runtime, the rest in TensorFlow.

The conversion runs in a process of its own and is kept under the content's hash. A model without string inputs or
outputs needs no TensorFlow in this process.
"""

from dataclasses import replace
from pathlib import Path

from accelserve.backends.artifact_cache import check_unchanged, digest_of
from accelserve.backends.base import (
    API_VERSION,
    ArtifactCache,
    Backend,
    Capabilities,
    Device,
    DeviceLease,
    Health,
    Inventory,
    ModelArtifact,
    Prepared,
    Progress,
    SessionOptions,
)
from accelserve.backends.batch_check import label
from accelserve.backends.conversion import SETTINGS, ConversionOptions, Convert, read_settings, run_conversion
from accelserve.backends.onnx_runtime.backend import OnnxRuntimeBackend
from accelserve.backends.saved_model_onnx.cut_loading import load_cut, prepare_cut
from accelserve.backends.saved_model_onnx.cut_model import LAYOUT, read_cut
from accelserve.backends.saved_model_onnx.cut_session import CutSession
from accelserve.errors import Kind, ScoringError
from accelserve.installed import installed_versions

_MODEL = "model"  # the converted model's folder inside its cache entry
_TOOLS = ("accelserve", "tensorflow-cpu", "tensorflow", "tf2onnx", "onnx", "onnxruntime", "onnxruntime-gpu")


class SavedModelOnnxBackend:
    """Formats "saved_model" (converted when prepared) and "cut" (converted before), on ONNX Runtime's devices.

    Settings (`SessionOptions.extra`) of the conversion: `opset`, `sample` (a file to compare with), `tolerance`,
    `limit_s`. All others are ONNX Runtime's.
    """

    name = "saved_model_onnx"
    api_version = API_VERSION

    def __init__(self, onnx: Backend | None = None, convert: Convert = run_conversion) -> None:
        """onnx: runs the dense parts. convert: makes the converted model; both are replaced in tests."""
        self._onnx: Backend = OnnxRuntimeBackend() if onnx is None else onnx
        self._convert = convert

    def inventory(self) -> Inventory:
        return self._onnx.inventory()

    def capabilities(self, device: Device, options: SessionOptions) -> Capabilities:
        found = self._onnx.capabilities(device, _for_onnx(options))
        return replace(found, formats=frozenset({"saved_model", "cut"}))

    def prepare(
        self,
        artifact: ModelArtifact,
        device: Device,
        options: SessionOptions,
        cache: ArtifactCache,
        progress: Progress,
    ) -> Prepared:
        """Convert, unless that was done before. Raises ScoringError(PRECONDITION) naming what cannot be converted."""
        if artifact.format == "cut":
            folder, digest = artifact.path, ""
            remedy = "convert the SavedModel again"
        else:
            folder, digest = self._converted(artifact, options, cache, progress)
            remedy = f"delete {folder.parent} and it is made again"
        try:
            model = read_cut(folder, remedy)
        except ScoringError as error:
            raise ScoringError(error.kind, f"{label(artifact)}: {error.message}") from error
        prepared = prepare_cut(self._onnx, artifact, folder, model, device, _for_onnx(options), cache, progress)
        return Prepared(artifact, prepared, digest)

    def load(
        self, prepared: Prepared, device: Device, options: SessionOptions, lease: DeviceLease | None
    ) -> CutSession:
        return load_cut(
            self._onnx, prepared.artifact, prepared.payload, device, _for_onnx(options), _for_graphs(options), lease
        )

    def health(self, device: Device) -> Health:
        return self._onnx.health(device)

    def _converted(
        self, artifact: ModelArtifact, options: SessionOptions, cache: ArtifactCache, progress: Progress
    ) -> tuple[Path, str]:
        """The converted model's folder and its digest in the cache."""
        model = label(artifact)
        if not any((artifact.path / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
            raise ScoringError(Kind.PRECONDITION, f"{model}: there is no saved_model.pb in {artifact.path}")
        wanted = read_settings(model, options.extra)

        def digest() -> str:
            return digest_of(artifact.path, _what_changes_the_result(wanted))

        def build(entry: Path) -> None:
            self._convert(model, artifact.path, entry / _MODEL, wanted, progress)
            check_unchanged(model, artifact.path, before, digest)

        before = digest()
        return cache.folder(before, build) / _MODEL, before


def _for_onnx(options: SessionOptions) -> SessionOptions:
    return replace(options, extra={key: value for key, value in options.extra.items() if key not in SETTINGS})


def _for_graphs(options: SessionOptions) -> SessionOptions:
    return replace(options, extra={})


def _what_changes_the_result(options: ConversionOptions) -> dict[str, object]:
    """Joined with the SavedModel's bytes to the name of its cache entry; one that was compared less is another."""
    tools = installed_versions(_TOOLS)
    sample = (
        digest_of(Path(options.sample), {}) if options.sample and Path(options.sample).is_file() else options.sample
    )
    written = {"layout": LAYOUT, "pictures": 1}  # what cut.json says, which is the same release's before and after
    return {**written, "tools": tools, "opset": options.opset, "tolerance": options.tolerance, "sample": sample}
