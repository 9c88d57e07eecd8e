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
    assert "kubectl apply -f numbers-kubernetes\n" in said
    assert said.splitlines()[-1].startswith(
        "accelserve: note: without --tls-cert and --tls-key keys and requests travel"
    )
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


def keys_of(folder):
    return yaml.safe_load((folder / "secret-keys.yaml").read_text())["stringData"]["keys.json"]


def test_files_of_ours_that_are_no_more_wanted_go_and_what_is_in_the_cluster_is_told(typed, tmp_path):
    out = tmp_path / "k"
    assert typed(f"{DEPLOY} --out k --autoscale 2:4 --with-secret")[0] == 0
    (out / "ingress.yaml").write_text("kind: Ingress\n")
    assert len(list(out.iterdir())) == 7
    code, said = typed(f"{DEPLOY} --out k --replicas 1 --namespace scoring --overwrite")
    assert code == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == ["deployment.yaml", "ingress.yaml", "service-grpc.yaml", "service.yaml"]
    for name in ("autoscaler", "disruption-budget", "secret-keys"):
        assert f"accelserve: k/{name}.yaml is of before, and is removed\n" in said
    assert "kubectl apply -f k\nkubectl delete --ignore-not-found -n scoring hpa/numbers pdb/numbers\n" in said


def test_files_of_others_stay_whatever_their_names(typed, tmp_path):
    out = tmp_path / "k"
    out.mkdir()
    (out / "autoscaler.yaml").write_text("kind: HorizontalPodAutoscaler\n")
    assert typed(f"{DEPLOY} --out k --overwrite")[0] == 0
    assert (out / "autoscaler.yaml").read_text() == "kind: HorizontalPodAutoscaler\n"


def test_keys_that_are_there_are_kept(typed, tmp_path):
    assert typed(f"{DEPLOY} --out k --with-secret")[0] == 0
    before = keys_of(tmp_path / "k")
    code, said = typed(f"{DEPLOY} --out k --with-secret --replicas 3 --overwrite")
    assert (code, keys_of(tmp_path / "k")) == (0, before)
    assert "two new keys" not in said


@pytest.mark.parametrize("damage", ["", "[", "kind: Secret", "stringData: {keys.json: '{}'}"])
def test_keys_that_cannot_be_kept_are_told(typed, tmp_path, damage):
    assert typed(f"{DEPLOY} --out k --with-secret")[0] == 0
    before = keys_of(tmp_path / "k")
    (tmp_path / "k" / "secret-keys.yaml").write_text(damage)
    code, said = typed(f"{DEPLOY} --out k --with-secret --overwrite")
    assert code == 0
    assert "accelserve: k/secret-keys.yaml had no keys of numbers: it gets two new keys\n" in said
    assert keys_of(tmp_path / "k") != before


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
