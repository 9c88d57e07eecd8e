"""Who may import whom: the arrows of server/README.md, read from the source (`TYPE_CHECKING` imports count)."""

import ast
import shutil
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "server" / "accelserve"
THE_PACKAGE = "accelserve"  # its own __init__, which holds the version and imports nothing

# A unit is a module of the root or a folder. It may import itself, the base, and what stands here.
BASE = {
    "messages",
    "tensors",
    "errors",
    "cpus",
    "devices",
    "config",
    "config_options",
    "config_parsers",
    "config_sources",
    "preprocessing",
    "image_signature",
    "installed",
    "clock",
    "ticket",
    "durable_files",
    "keys",
    "small_files",
    "lifecycle",
    "process_ends",
    "observability",
}
ARROWS: dict[str, set[str]] = {
    **{unit: set() for unit in BASE},
    "wire": set(),
    "builtin": set(),
    "allocator": set(),
    "collector": set(),
    "binding": set(),
    "codecs": {"wire"},
    "backends": {"wire"},
    "batching": {"backends.base"},
    "models": {
        "batching",
        "binding",
        "backends.base",
        "backends.discovery",
        "backends.lease",
        "backends.onnx_runtime.files",
    },
    "scoring": {"binding", "models", "batching", "backends.base"},
    "frontends": {"codecs", "wire", "scoring", "entry_script", "models.manager", "models.servable"},
    "stopping": set(),
    "idle_memory": set(),
    "loaders": {"models.loading", "backends.artifact_cache", "backends.discovery", "codecs.round_trip"},
    "script_service": {"entry_script"},
    "azmlinfsrv": {"allocator", "entry_script", "frontends", "idle_memory", "stopping"},
    "runtime": {
        "allocator",
        "frontends",
        "entry_script",
        "script_service",
        "stopping",
        "codecs",
        "wire",
        "scoring",
        "binding",
        "models",
        "batching",
        "backends",
        "builtin",
        "supervised",
        *("idle_memory", "loaders"),
    },
    "client": {"codecs", "wire"},
    "entry_script": {"allocator", "client", "codecs.bodies"},
    "convert": {
        "models",
        "wire",  # ONNX files, as the FPGA's back ends take them apart
        "backends.accel_onnx",
        "backends.artifact_cache",
        "backends.onnx_runtime.files",
        "codecs.images",  # TensorFlow is there and only there, so the server's decoder is compared with it there
        "backends.base",
        "backends.onnx_runtime.precision",
        "backends.onnx_runtime.signature",
        "backends.saved_model_onnx.cut_model",
        "backends.discovery",
        "backends.lease",
        "backends.probes",
        "backends.tf_session.errors",
        "backends.tf_session.backend",
        "backends.tf_session.signatures",
    },
    "recipes": {"wire", "convert.unfinished"},
    "supervised": set(),
    "score_files": {
        *("client", "codecs"),
        *("entry_script.framing", "entry_script.heads", "entry_script.launch", "entry_script.messages"),
    },
    "deploy": {"models", "supervised", "backends.lease"},
    "packaging": {
        *("deploy.image_layout", "deploy.script_folder", "models.manifest", "models.store", "convert.unfinished"),
    },
    "demo": {"client", "builtin"},
    "inspection": {
        *("models", "backends.base", "backends.discovery", "backends.accel_onnx.accel_model"),
        *("backends.cuda.probe", "backends.cuda.nvml"),
    },
    "listing": {"inspection", "models.store"},
    "commands": {
        *("runtime", "azmlinfsrv", "client", "convert", "deploy", "recipes", "demo", "inspection", "listing"),
        *("packaging", "score_files", "entry_script.check", "entry_script.messages", "frontends.tls"),
        *("supervised", "loaders", "collector"),
        *(
            "models.manifest",
            "models.store",
            "models.repository",
            "backends.artifact_cache",
            "backends.base",
            "backends.discovery",
        ),
        "backends.plug_ins",
    },
    "cli": {"commands"},
    "__main__": {"cli"},
}
FURTHER: dict[str, set[str]] = {  # module -> what it may import beyond its unit
    "backends.conformance": {"batching"},  # the kit drives a back end with the server's own scheduler; tests only
}
BASE_LIBRARIES = {"numpy", "ml_dtypes", "prometheus_client"}
SOCKETS = {"frontends", "runtime"}
LIBRARIES: dict[str, set[str]] = {  # library -> the only units or modules that may import it
    "tensorflow": {
        "backends.tf_session.backend",
        "backends.tf_session.conformance_sample",  # only TensorFlow writes the SavedModel that the kit asks
        "convert",
        "entry_script.legacy_tensorflow",  # in the script's own process
        "recipes.checkpoint_files",
    },
    # vitis_fpga.pieces asks the build for its providers, and hands it on: AMD's is another one of the same name.
    "onnxruntime": {
        "backends.onnx_runtime.backend",
        "backends.fpga_emulator.backend",
        "backends.vitis_fpga.pieces",
        "convert",
    },
    "h5py": {"recipes.weight_files"},
    "onnx": {"convert"},
    "openvino": {"backends.openvino.library"},
    "tf2onnx": {"convert"},
    "yaml": {"deploy.manifests", "packaging.conda_file"},
    "cv2": {"codecs.bilinear", "codecs.images", "codecs.jpeg", "codecs.picture_geometry"},
    "simplejpeg": {"codecs.jpeg"},
    "nvidia": {"codecs.jpeg_on_gpu"},
    **dict.fromkeys(("fastapi", "starlette", "uvicorn", "httptools"), SOCKETS),
    "uvloop": SOCKETS | {"stopping"},
    **dict.fromkeys(("grpc", "grpc_health", "grpc_reflection"), SOCKETS | {"client"}),
}


def modules_of(package: Path) -> dict[str, Path]:
    """Dotted name within the package -> file: "codecs.images", "codecs" for its __init__."""
    names = {path: ".".join(path.relative_to(package).with_suffix("").parts) for path in package.rglob("*.py")}
    return {name.removesuffix("__init__").rstrip(".") or THE_PACKAGE: path for path, name in names.items()}


def imports_of(name: str, path: Path, modules: dict[str, Path]) -> Iterator[str]:
    """What a module imports, anywhere in it: names within the package ("codecs.images"), or "/library"."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            wanted = [(alias.name, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            wanted = [(source := absolute(name, path, node), f"{source}.{alias.name}") for alias in node.names]
        else:
            continue
        for source, full in wanted:
            inner = full.removeprefix(f"{THE_PACKAGE}.")
            if source.partition(".")[0] != THE_PACKAGE:
                yield "/" + source.partition(".")[0]
            else:
                yield inner if inner in modules else source.removeprefix(f"{THE_PACKAGE}.")


def absolute(name: str, path: Path, node: ast.ImportFrom) -> str:
    """The module that a `from` names, its dots resolved."""
    if not node.level:
        return node.module or ""
    here = [THE_PACKAGE] if name == THE_PACKAGE else [THE_PACKAGE, *name.split(".")]
    kept = here[: len(here) - node.level + (path.name == "__init__.py")]
    return ".".join([*kept, *(node.module or "").split(".")]).rstrip(".")


def within(module: str, places: set[str]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def complaint(module: str, imported: str) -> str | None:
    """Why `module` may not import `imported`, None if it may."""
    unit = module.partition(".")[0]
    if imported.startswith("/"):
        library = imported[1:]
        if library not in sys.stdlib_module_names and unit in BASE and library not in BASE_LIBRARIES:
            return f"{module} is base and imports {library}"
        if library in LIBRARIES and not within(module, LIBRARIES[library]):
            return f"{module} imports {library}, which only {', '.join(sorted(LIBRARIES[library]))} may"
    elif imported != THE_PACKAGE and not within(imported, allowed(module)):
        return f"{module} imports {imported}"
    return None


def allowed(module: str) -> set[str]:
    """What a module may import of the package."""
    unit = module.partition(".")[0]
    further = [more for place, more in FURTHER.items() if within(module, {place})]
    return {unit} | BASE | ARROWS.get(unit, set()).union(*further)


def violations(package: Path) -> list[str]:
    """Every broken rule, in words."""
    modules = modules_of(package)
    imports = {name: set(imports_of(name, path, modules)) for name, path in modules.items()}
    units = {name.partition(".")[0] for name in modules} - {THE_PACKAGE}
    found = [f"{unit} has no place in the layers" for unit in sorted(units - ARROWS.keys())]
    found += [why for name in sorted(imports) for to in sorted(imports[name]) if (why := complaint(name, to))]
    try:
        TopologicalSorter({name: imports[name] & modules.keys() for name in modules}).prepare()
    except CycleError as error:
        found.append(f"import cycle: {' <- '.join(error.args[1])}")
    return found


def test_every_import_follows_the_arrows():
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "source", "flagged"),
    [
        ("codecs/planted.py", "from accelserve.frontends import anything", "codecs.planted imports frontends"),
        ("codecs/planted.py", "from ..backends import base", "codecs.planted imports backends.base"),
        ("codecs/planted.py", "from accelserve import backends", "codecs.planted imports backends"),
        ("backends/planted.py", "import accelserve.batching.policy", "backends.planted imports batching.policy"),
        (
            "models/planted.py",
            "if TYPE_CHECKING:\n    from accelserve.scoring import Scorer",
            "models.planted imports scoring",
        ),
        (
            "models/planted.py",
            "def load():\n    import tensorflow as tf",
            "models.planted imports tensorflow, which only backends.tf_session.backend, "
            "backends.tf_session.conformance_sample, convert, entry_script.legacy_tensorflow, "
            "recipes.checkpoint_files may",
        ),
        ("codecs/planted.py", "import grpc", "codecs.planted imports grpc, which only client, frontends, runtime may"),
        ("observability/planted.py", "import orjson", "observability.planted is base and imports orjson"),
        ("builtin/planted.py", "from accelserve.codecs import planted", "builtin.planted imports codecs"),
        ("newcomer.py", "", "newcomer has no place in the layers"),
    ],
)
def test_a_planted_violation_is_flagged(tmp_path, file, source, flagged):
    copy = tmp_path / "accelserve"
    shutil.copytree(PACKAGE, copy, ignore=lambda _, names: [n for n in names if n == "__pycache__"])
    planted = copy / file
    planted.parent.mkdir(exist_ok=True)
    planted.write_text(source)
    assert flagged in violations(copy)


def test_two_modules_that_import_each_other_are_a_cycle(tmp_path):
    (tmp_path / "errors.py").write_text("from accelserve import clock")
    (tmp_path / "clock.py").write_text("from accelserve.errors import Kind")
    assert any(found.startswith("import cycle: ") for found in violations(tmp_path))
