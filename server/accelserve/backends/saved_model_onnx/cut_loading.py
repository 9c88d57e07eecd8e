"""The parts of a converted SavedModel, prepared and loaded; what was opened is closed again when a later part fails."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from accelserve.backends.base import (
    ArtifactCache,
    Backend,
    Device,
    DeviceLease,
    ModelArtifact,
    Placement,
    Prepared,
    Progress,
    Remarked,
    Session,
    SessionOptions,
)
from accelserve.backends.batch_check import label
from accelserve.backends.saved_model_onnx.cut_model import DENSE, HOST, CutModel, CutSignature, Part, why_not_decoded
from accelserve.backends.saved_model_onnx.cut_session import CutSession, GraphRunner, OpenSignature
from accelserve.errors import Kind, ScoringError


@dataclass(frozen=True, slots=True)
class PreparedCut:
    """dense: each ONNX file of the model, as ONNX Runtime's back end prepared it."""

    folder: Path
    model: CutModel
    dense: Mapping[str, Prepared]


def prepare_cut(
    onnx: Backend,
    artifact: ModelArtifact,
    folder: Path,
    model: CutModel,
    device: Device,
    options: SessionOptions,
    cache: ArtifactCache,
    progress: Progress,
) -> PreparedCut:
    """Let the back end of the dense parts do its own slow work on them."""
    files = sorted({cut.parts[DENSE].file for cut in model.signatures.values() if DENSE in cut.parts})
    parts = {file: replace(artifact, format="onnx", path=folder / file) for file in files}
    return PreparedCut(
        folder, model, {file: onnx.prepare(part, device, options, cache, progress) for file, part in parts.items()}
    )


def load_cut(
    onnx: Backend,
    artifact: ModelArtifact,
    prepared: PreparedCut,
    device: Device,
    options: SessionOptions,
    graph_options: SessionOptions,
    lease: DeviceLease | None,
) -> CutSession:
    """graph_options: those of TensorFlow's parts. Raises what the back ends raise."""
    name, model = label(artifact), prepared.model
    needed = _graph_parts(model, options.server_decodes)
    dense: dict[str, Session] = {}
    graphs: dict[str, GraphRunner] = {}
    try:
        for file, ready in prepared.dense.items():
            dense[file] = onnx.load(ready, device, options, lease)
        for part in needed.values():
            graphs[part.file] = _load_graph(name, prepared.folder, part, graph_options)
    except BaseException:
        for close in (*(s.close for s in dense.values()), *(g.close for g in graphs.values())):
            close()
        raise
    signatures = {key: _open(cut, dense, graphs) for key, cut in model.signatures.items()}
    remarks = tuple(_remarks(model, needed, dense))
    return CutSession(name, signatures, device, _placement(needed, dense), remarks)


def _graph_parts(model: CutModel, server_decodes: bool) -> dict[str, Part]:
    """TensorFlow's parts by file; signatures may share them. Without those that the server stands in for."""
    return {
        part.file: part
        for cut in model.signatures.values()
        for kind, part in cut.parts.items()
        if kind != DENSE and not (kind == HOST and server_decodes and not why_not_decoded(cut))
    }


def _load_graph(name: str, folder: Path, part: Part, options: SessionOptions) -> GraphRunner:
    from accelserve.backends.tf_session.graph import (
        load_graph,  # knows TensorFlow, which a model without strings never needs
    )

    try:
        return load_graph(name, folder, part, options)
    except ImportError as error:
        message = f"{name}: {part.file} needs TensorFlow: {error}; pip install 'accelserve[tensorflow]'"
        raise ScoringError(Kind.PRECONDITION, message) from error


def _open(cut: CutSignature, dense: Mapping[str, Session], graphs: Mapping[str, GraphRunner]) -> OpenSignature:
    part = cut.parts.get(DENSE)
    return OpenSignature(
        cut,
        dense[part.file] if part else None,
        {kind: graphs[part.file] for kind, part in cut.parts.items() if part.file in graphs},
    )


def _remarks(model: CutModel, graphs: Mapping[str, Part], dense: Mapping[str, Session]) -> Iterator[str]:
    """What ONNX Runtime's sessions remark, each once; what TensorFlow keeps; which signatures are not there."""
    said = [remark for session in dense.values() if isinstance(session, Remarked) for remark in session.remarks]
    yield from dict.fromkeys(said)
    for file, part in graphs.items():
        yield f"TensorFlow runs {file} on the CPU, {part.nodes} nodes"
    for name, reason in model.report.get("left_out", {}).items():
        yield f'signature "{name}" is left out: {reason}'


def _placement(graphs: Mapping[str, Part], dense: Mapping[str, Session]) -> Placement:
    """Nodes per provider over all dense parts, and those that TensorFlow runs on the CPU."""
    nodes: dict[str, int] = {}
    for session in dense.values():
        for provider, count in session.placement.nodes.items():
            nodes[provider] = nodes.get(provider, 0) + count
    return Placement({**nodes, "TensorFlow CPU": sum(part.nodes for part in graphs.values())} if graphs else nodes)
