"""What `accelserve package` makes of a model, a script and a conda file is built on the image, run and asked."""

import json

from image_check.build import build
from image_check.checks import Subject
from image_check.container import HARDENED, Container, run_to_end
from image_check.progress import require, step
from image_check.workplace import Workplace

_TAG = "digits-packaged:1"
_SCRIPT = """\
import ujson
import accelserve
from azureml.contrib.services.aml_request import rawhttp
from azureml.contrib.services.aml_response import AMLResponse
from azureml.core.model import Model

def init():
    global path
    path = Model.get_model_path("digits")

@rawhttp
def run(request):
    scores = accelserve.score("digits", {"image": request.get_data(False)})["scores"][0]
    return AMLResponse(ujson.dumps({"digit": int(scores.argmax()), "path": path}), 200)
"""
_CONDA = """\
name: project_environment
dependencies:
- python=3.6.2
- pip:
  - azureml-defaults==1.0.43.*
- numpy=1.16
- ujson
channels:
- conda-forge
"""
_DEAD = ("python=3.6.2", "azureml-defaults==1.0.43.*", "numpy=1.16")


class PackageChecks:
    """image: of the CPU, with the store's and the packaging commands in it."""

    def __init__(self, place: Workplace, image: str, subject: Subject) -> None:
        self._place = place
        self._image = image
        self._subject = subject
        self._folder = place.folder / "package"

    def run(self) -> None:
        self._folder.mkdir()
        (self._folder / "score.py").write_text(_SCRIPT)
        (self._folder / "myenv.yml").write_text(_CONDA)
        with step("registering and packaging a model with the image's own commands"):
            self._accelserve("register", "/builtin/digits", "--name=digits", "--store=/out/store")
            script = ("--entry-script=/out/score.py", "--conda=/out/myenv.yml")
            where = ("--store=/out/store", "--out=/out/context", f"--base={self._image}")
            said = self._accelserve("package", "digits:1", "--target=cpu", *script, *where)
            require(all(entry in said for entry in _DEAD), "every dead pin is told", said)
        build(self._place, self._folder / "context", "Dockerfile", _TAG, [], pull=False)
        with step("running it, hardened"), Container(self._place, _TAG, None, *HARDENED) as container:
            self._asked(container)
            require(container.python("import os; print(os.getuid())") == "10001", "the user is 10001", "")
            require(container.health_check() == 0, "the health check is that of the base", "")
            require(container.stop() == 0, "it ends with 0", container.logs())

    def _accelserve(self, *words: str) -> str:
        command = "--entrypoint=" + json.dumps(["accelserve", *words])
        volumes = (f"--volume={self._folder}:/out", f"--volume={self._subject.models}:/builtin:ro")
        code, said = run_to_end(self._place, self._image, *HARDENED, "--user=0", *volumes, command)
        require(code == 0, f"accelserve {words[0]} ends with 0", said)
        return said

    def _asked(self, container: Container) -> None:
        for digit in range(10):
            status, body = container.ask("POST", "/score", self._subject.picture(digit).read_bytes())
            told = json.loads(body) if status == 200 else {"digit": body}
            require(told["digit"] == digit, f"the script answers for a {digit}", (status, body))
        require(told["path"].startswith("/models/digits"), "the script finds the model", told)
        label = container.ask("POST", "/score?model=digits&top=1", self._subject.picture(7).read_bytes())
        require(json.loads(label[1])[0]["label"] == "seven", "the server has the model too, with its labels", label)
