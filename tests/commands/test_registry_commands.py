"""register, list, show, update, delete and path, as people and scripts type them."""

import io
import json
import shutil
import subprocess
import sys

import pytest

from accelserve.builtin import digits_path
from accelserve.cli import main
from accelserve.commands.progress import ProgressLine
from accelserve.models.store import ModelStore, Registration
from model_builders import onnx_affine, onnx_external, saved_model_matrix_half_plus_two, synthetic_model


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELSERVE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return ModelStore(tmp_path / "store")


@pytest.fixture
def run(capsys):
    """The exit code, what was printed, and what was complained of."""

    def run_command(*arguments):
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run_command


@pytest.fixture
def model(tmp_path):
    return synthetic_model(tmp_path / "m.synthetic.toml")


def test_the_walk_of_a_model_from_register_to_delete(run, store, tmp_path):
    """The walk of docs/store.md."""
    picture = digits_path().parent / "pictures" / "digit-7.jpg"
    code, out, err = run(
        *("register", digits_path(), "--name", "digits", "--tag", "stage=test", "--tag", "owner=ann"),
        *("--property", "commit=1f2e3d", "--description", "handwritten digits", "--sample", picture),
    )
    assert (code, err) == (0, "")
    assert out.startswith("digits:1 registered ")
    assert "tags           owner=ann stage=test" in out
    assert "  input        image: uint8[-1,32,32,3]" in out

    assert run("register", digits_path(), "--name", "digits", "--parent", "digits:1")[0] == 0
    code, out, _ = run("list")
    assert [line.split()[:4] for line in out.splitlines()] == [
        ["NAME", "VERSION", "FRAMEWORK", "FORMAT"],
        ["digits", "2", "Onnx", "onnx"],
        ["digits", "1", "Onnx", "onnx"],
    ]
    assert out.splitlines()[2].endswith("owner=ann stage=test  -")

    code, out, _ = run("show", "digits:1")
    assert code == 0
    for part in (
        "properties     commit=1f2e3d",
        "description    handwritten digits",
        "referred to    digits:2 was made from it",
        "  output       scores: float32[-1,10]",
        "device         cpu:0",
        "nodes          17 on CPUExecutionProvider",
        "labels         10",
    ):
        assert part in out, part

    assert run("update", "digits:2", "--tag", "stage=production", "--description", "the better one")[0] == 0
    _, out, _ = run("list", "--tag", "stage=production", "--json")
    assert [(found["name"], found["version"]) for found in json.loads(out)["models"]] == [("digits", 2)]

    code, out, err = run("delete", "digits:1")
    assert (code, out) == (5, "")
    assert err == "accelserve: digits:1 is not deleted: digits:2 was made from it\n"
    assert run("delete", "digits:2") == (0, "deleted digits:2\n", "")
    assert run("path", "digits") == (0, f"{store.root}/digits/1\n", "")
    assert run("delete", "digits:1")[0] == 0
    assert run("list")[1] == f"store {store.root} is empty\n"


# --- register


def test_register_answers_scripts_with_the_record(run, model, store):
    code, out, _ = run("register", model, "--name", "m", "--json")
    about = json.loads(out)
    assert code == 0
    assert (about["name"], about["version"], about["format"]) == ("m", 1, "synthetic")
    assert about["signatures"]["serving_default"]["inputs"]["x"]["shape"] == [-1, 2]
    assert about["path"] == str(store.root / "m" / "1")


def test_every_mistake_of_a_registration_is_told_at_once(run, model, store):
    code, _, err = run(
        *("register", model, "--name", "no/name", "--tag", "=x", "--tag", "a=1", "--tag", "a=2", "--parent", "m"),
        *("--sample", "nowhere.jpg"),
    )
    assert code == 2
    for part in ("no/name", "--tag '=x': want KEY=VALUE", "a is given twice", "want NAME:VERSION", "nowhere.jpg"):
        assert part in err, part
    assert len(err.splitlines()) == 5
    assert not store.root.exists()


def test_a_model_that_does_not_load_is_refused_with_the_reason_and_the_way_around(run, tmp_path, store):
    broken = onnx_affine(tmp_path / "broken.onnx")
    broken.write_bytes(broken.read_bytes().replace(b"Mul", b"Mux"))
    code, out, err = run("register", broken, "--name", "broken.net")
    assert (code, out) == (3, "")
    assert "broken.net:1 does not load" in err
    assert "Mux" in err
    assert "it is not registered (--no-check registers a model without loading it)" in err
    assert store.names() == ()
    code, out, _ = run("register", broken, "--name", "broken.net", "--no-check")
    assert code == 0
    assert "signatures     unknown" in out
    assert store.find("broken.net").signatures is None


def test_what_only_a_script_opens_is_registered_as_it_is(run, tmp_path, store):
    folder = tmp_path / "outputs" / "model"
    folder.mkdir(parents=True)
    (folder / "checkpoint").write_bytes(b"where")
    code, _, err = run("register", folder, "--name", "mnist")
    assert (code, store.names()) == (3, ())
    assert err.endswith("--custom registers what only an entry script opens\n")
    code, out, err = run("register", folder, "--name", "mnist", "--custom", "--framework", "TensorFlow")
    assert (code, err) == (0, "")
    assert "content        custom, 5 B" in out
    assert "framework      TensorFlow" in out
    assert "opened by      entry scripts, with get_model_path(name); no server loads it" in out
    code, out, _ = run("show", "mnist")
    assert code == 0
    assert "opened by      entry scripts" in out
    assert run("path", "mnist")[1].strip() == str(store.root / "mnist" / "1")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "add --entry-script"),
        (("--entry-script", "score.py", "--serve-model"), "which no server loads"),
    ],
)
def test_a_service_of_what_only_a_script_opens_needs_one(run, tmp_path, store, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELSERVE_SERVICES", str(tmp_path / "services"))
    (tmp_path / "weights.pkl").write_bytes(b"weights")
    (tmp_path / "score.py").write_text("def init(): pass\ndef run(raw_data): return 1\n")
    store.register("weights", tmp_path / "weights.pkl", Registration(custom=True))
    code, _, err = run("deploy", "weights-service", "--model", "weights", *arguments)
    assert code == 2
    assert told in err
    assert not (tmp_path / "services").exists()


def test_a_model_that_nothing_here_can_load_is_registered_with_a_warning(run, tmp_path, store, monkeypatch):
    from accelserve.backends.probes import onnx_runtime, synthetic, tf_session

    offers = [onnx_runtime(), tf_session(lambda _: None), synthetic()]
    monkeypatch.setattr("accelserve.backends.discovery.discover", lambda _: offers)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"graph")
    code, out, err = run("register", tmp_path / "saved", "--name", "m")
    assert code == 0
    assert "warning: m is not checked and its signatures are unknown" in err
    assert "pip install 'accelserve[tensorflow]'" in err
    assert store.find("m").signatures is None
    code, out, _ = run("show", "m")
    assert code == 0
    assert "signatures     unknown" in out


def test_an_onnx_model_with_external_data_is_loaded_from_its_copy(run, tmp_path, store):
    model = onnx_external(tmp_path / "net.onnx", "net.data")
    code, out, _ = run("register", model, "--name", "m")
    assert code == 0
    assert "images: float32[-1,784]" in out
    assert {file.name for file in store.find("m").path.iterdir()} == {"model.onnx", "net.data"}
    (tmp_path / "net.data").unlink()
    code, _, err = run("register", model, "--name", "m")
    assert code == 3
    assert "its external data is missing: net.data" in err


def test_labels_that_do_not_fit_the_model_are_refused_at_registration(run, tmp_path, store):
    (tmp_path / "few.txt").write_text("one\ntwo\n")
    (tmp_path / "few.toml").write_text('labels = "few.txt"\n')
    code, _, err = run("register", digits_path(), "--name", "digits", "--manifest", tmp_path / "few.toml")
    assert code == 3
    assert "2 labels, but the model has 10 classes" in err
    assert store.names() == ()


def test_what_cannot_be_registered_ends_with_its_own_code(run, model, tmp_path):
    assert run("register", tmp_path / "nowhere.onnx", "--name", "m")[0] == 4
    assert run("register", model, "--name", "m", "--parent", "base:1")[0] == 4
    (tmp_path / "file").touch()
    assert run("register", model, "--name", "m", "--store", tmp_path / "file" / "store")[0] == 5


@pytest.mark.tensorflow
def test_a_saved_model_is_registered_with_its_tensor_names(run, tmp_path, store):
    code, out, _ = run("register", saved_model_matrix_half_plus_two(tmp_path / "saved"), "--name", "m", "--json")
    assert code == 0
    about = json.loads(out)
    assert (about["framework"], about["format"]) == ("TensorFlow", "saved_model")
    assert about["signatures"]["serving_default"]["inputs"]["x"]["tensor_name"] == "x:0"
    code, out, _ = run("show", "m")
    assert "x: float32[-1,3,3] (also x:0)" in out


# --- list


@pytest.fixture
def several(store, model):
    from accelserve.models.store import Registration

    store.register("a", model, Registration({"stage": "test", "owner": "ann"}))
    store.register("a", model, Registration({"stage": "production"}))
    store.register("b", model, Registration({"stage": "production", "owner": ""}, framework="PyTorch"))


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((), ["a:2", "a:1", "b:1"]),
        (("a",), ["a:2", "a:1"]),
        (("--latest",), ["a:2", "b:1"]),
        (("--tag", "owner"), ["a:1", "b:1"]),
        (("--tag", "owner="), ["b:1"]),
        (("--tag", "owner", "--tag", "stage=test"), ["a:1"]),
        (("--tag", "stage=test", "--latest"), ["a:1"]),
        (("--framework", "pytorch"), ["b:1"]),
        (("--tag", "stage=none"), []),
    ],
)
def test_list_finds_by_name_tag_framework_and_age(run, several, arguments, found):
    code, out, _ = run("list", *arguments, "--json")
    assert code == 0
    assert [f"{model['name']}:{model['version']}" for model in json.loads(out)["models"]] == found


def test_a_list_without_a_hit_says_so_and_an_unknown_name_is_not_found(run, several, store):
    assert run("list", "--tag", "none")[1] == f"store {store.root} has no such model\n"
    code, _, err = run("list", "c")
    assert code == 4
    assert "it has: a, b" in err


# --- show, update, delete, path


def test_a_path_that_exists_is_shown_before_a_registered_name(run, several, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digits_path(), tmp_path / "a")
    assert "a:1 (onnx) from a/1/model.onnx" in run("show", "a")[1]
    assert run("show", "a:2")[1].startswith("a:2 registered ")


def test_show_without_loading_tells_what_the_store_knows(run, several):
    code, out, _ = run("show", "b", "--no-load", "--json")
    about = json.loads(out)
    assert code == 0
    assert (about["framework"], about["loaded"], about["referred_to_by"]) == ("PyTorch", None, [])


def test_show_of_a_registered_model_that_does_not_load_tells_its_record_first(run, tmp_path):
    broken = synthetic_model(tmp_path / "b.synthetic.toml", 'load_error = "the flux"\n[inputs.x]\nshape = [-1, 2]\n')
    run("register", broken, "--name", "b", "--no-check")
    code, out, err = run("show", "b")
    assert code == 3
    assert out.startswith("b:1 registered ")
    assert "the flux" in err


@pytest.mark.parametrize("text", ["nowhere", "nowhere:3", "no/where", "a:0"])
def test_what_is_neither_a_path_nor_registered_is_not_found(run, several, text):
    code, _, err = run("show", text)
    assert code == 4
    assert "no such file or folder" in err


def test_what_the_file_system_refuses_is_told_in_a_line(run, several):
    name = "n" * 300
    code, _, err = run("show", name)
    assert (code, err) == (4, f"accelserve: model {name!r}: {name}: File name too long\n")
    for flag in ("--sample", "--manifest"):
        code, _, err = run("register", "a", "--name", "a", flag, name)
        assert (code, err) == (2, f"accelserve: {flag[2:]} {name}: File name too long\n")


def test_show_on_a_device_that_is_missing_ends_with_6(run, several):
    code, _, err = run("show", "a", "--device", "gpu")
    assert code == 6
    assert "gpu" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("update", "a", "--tag", "x=1"), "which version?"),
        (("update", "a:1"), "nothing to change"),
        (("update", "a:1", "--tag", "x=1", "--remove-tag", "x"), "it is given by --tag too"),
        (("delete", "a"), "want NAME:VERSION"),
        (("delete", "a:"), "want NAME or NAME:VERSION"),
        (("path", "a/b"), "want NAME or NAME:VERSION"),
        (("list", "a b"), "want NAME or NAME:VERSION"),
        (("list", "a:1"), "accelserve show a:1"),
    ],
)
def test_a_command_that_is_not_understood_ends_with_2_and_changes_nothing(run, several, store, arguments, told):
    before = [store.versions(name) for name in store.names()]
    code, _, err = run(*arguments)
    assert code == 2
    assert told in err
    assert [store.versions(name) for name in store.names()] == before


def test_the_store_can_be_named_by_a_flag(run, model, tmp_path, store):
    other = tmp_path / "other"
    assert run("register", model, "--name", "m", "--store", other)[0] == 0
    assert run("path", "m", "--store", other) == (0, f"{other}/m/1\n", "")
    assert store.names() == ()


def test_a_version_that_a_process_holds_is_not_deleted(run, several, store):
    hold = store.hold("a", 1, "a server on port 8501")
    code, _, err = run("delete", "a:1")
    assert code == 5
    assert "in use by a server on port 8501" in err
    assert "referred to    in use by a server on port 8501" in run("show", "a:1", "--no-load")[1]
    hold.release()
    assert run("delete", "a:1")[0] == 0


def test_list_needs_no_model_library():
    code = "import sys; from accelserve.cli import main; main(['list'])\n"
    code += "print({'grpc', 'fastapi', 'onnxruntime', 'tensorflow', 'cv2', 'onnx'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.endswith("set()\n")


# --- progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def progress_on(stream, times):
    ticks = iter(times)
    line = ProgressLine(stream, lambda: next(ticks))
    for done in range(1, len(times)):
        line("copying", done * 2**20, 4 * 2**20)
    line.end()
    return stream.getvalue()


def test_progress_on_a_terminal_is_one_line_that_goes_away():
    said = progress_on(Terminal(), [0, 0.4, 0.6, 0.65, 0.8])
    assert said == "\r\033[Kcopying: 2 of 4 MiB, 50 %\r\033[Kcopying: 4 of 4 MiB, 100 %\r\033[K"


def test_progress_in_a_log_is_a_line_every_five_seconds():
    assert progress_on(io.StringIO(), [0, 4, 5.5, 8, 11]) == "copying: 2 of 4 MiB, 50 %\ncopying: 4 of 4 MiB, 100 %\n"


def test_quick_work_is_not_told():
    assert progress_on(Terminal(), [0, 0.1, 0.2]) == ""
