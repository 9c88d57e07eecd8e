"""`deploy --target kubernetes`: which files are written, who may read them, and what is refused."""

import pytest
import yaml

from accelserve.cli import main
from accelserve.models.store import ModelStore
from model_builders import onnx_affine

DEPLOY = "deploy numbers --model m --target kubernetes --image registry.example.org/numbers:1"


@pytest.fixture
def typed(tmp_path, monkeypatch, capsys):
    """Runs a command; its exit code and all that it printed."""
    monkeypatch.setenv("ACCELSERVE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("ACCELSERVE_SERVICES", str(tmp_path / "services"))
    monkeypatch.chdir(tmp_path)
    ModelStore(tmp_path / "store").register("m", onnx_affine(tmp_path / "m.onnx"))

    def run(line: str) -> tuple[int, str]:
        code = main(line.split())
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def test_the_files_are_written_and_named_and_nothing_is_started(typed, tmp_path):
    code, said = typed(f"{DEPLOY} --replicas 2 --namespace scoring")
    assert code == 0
    out = tmp_path / "numbers-kubernetes"
    names = sorted(path.name for path in out.iterdir())
    assert names == ["deployment.yaml", "disruption-budget.yaml", "service-grpc.yaml", "service.yaml"]
    assert said.splitlines()[-1] == "kubectl apply -f numbers-kubernetes"
    deployment = yaml.safe_load((out / "deployment.yaml").read_text())
    assert (deployment["metadata"]["namespace"], deployment["spec"]["replicas"]) == ("scoring", 2)
    assert "numbers:1" in deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    assert not (tmp_path / "services").exists()


def test_secrets_are_written_only_on_request_and_for_their_owner(typed, tmp_path):
    code, said = typed(f"{DEPLOY} --out k --with-secret")
    assert code == 0
    secret = tmp_path / "k" / "secret-keys.yaml"
    assert (secret.stat().st_mode & 0o777, secret.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    key = yaml.safe_load(secret.read_text())["stringData"]["keys.json"].split('"')[3]
    assert len(key) == 43
    assert key not in said


def test_a_folder_that_is_there_is_kept_unless_it_may_be_overwritten(typed, tmp_path):
    assert typed(f"{DEPLOY} --out k")[0] == 0
    code, said = typed(f"{DEPLOY} --out k --replicas 3")
    assert (code, said) == (5, "accelserve: k: File exists; choose another --out, or say --overwrite\n")
    assert typed(f"{DEPLOY} --out k --replicas 3 --overwrite")[0] == 0
    assert yaml.safe_load((tmp_path / "k" / "deployment.yaml").read_text())["spec"]["replicas"] == 3


def test_what_is_missing_or_of_the_other_target_is_told_at_once(typed):
    code, said = typed("deploy numbers --model m --target kubernetes --wait --json --memory-gb 0")
    assert code == 2
    for told in (
        "--wait: is of --target local",
        "--json: is of --target local",
        "--image: say what",
        "memory_gb: want",
    ):
        assert told in said
    code, said = typed("deploy numbers --model m --image x --with-secret --out k")
    assert code == 2
    assert said.count("is of --target kubernetes") == 3
    code, said = typed(f"{DEPLOY} --device fpga --autoscale 1:4 --autoscale-by cpu")
    assert code == 2
    assert "fpga_resource: want" in said
    assert "autoscale_by: by cpu needs cpu_cores" in said
    assert typed("deploy numbers --model m --target moon")[0] == 2
