"""Where things lie in an image that `accelserve package` describes; `manifests` relies on it."""

from pathlib import Path

MODELS = "/models"  # NAME/VERSION/..., as in the store
APP = "/var/azureml-app"  # the entry script and what goes with it, where Azure ML's images have it
FILES = "/model-files"  # NAME/..., what else the script finds by get_model_path
AZUREML_MODELS = f"{APP}/azureml-models"  # a link to MODELS, for scripts that go there by themselves
KEYS = "/etc/accelserve/keys"  # mounted, never in the image
TLS = "/etc/accelserve/tls"
USER = 10001  # of our images


def model_folder(name: str) -> str:
    return f"{MODELS}/{name}"


def version_folder(name: str, version: int) -> str:
    """What AZUREML_MODEL_DIR is."""
    return f"{MODELS}/{name}/{version}"


def script_path(script: Path, source_directory: Path | None) -> str:
    """source_directory: the folder that goes with the script, None for the script alone."""
    return f"{APP}/{script.name if source_directory is None else script.relative_to(source_directory).as_posix()}"


def files_path(name: str, path: Path) -> str:
    return f"{FILES}/{name}/{path.name}"
