"""What Dockerfile.fpga promises besides: its own network, its ports, one holder of a device."""

import json
from dataclasses import replace
from pathlib import Path

from image_check.checks import ImageChecks, Subject
from image_check.container import HARDENED, Container, run_to_end
from image_check.progress import require, step
from image_check.workplace import Workplace

_MODEL = "resnet50"
_PORTS = {"50051/tcp", "8501/tcp"}
_GRPC = """
import os
import numpy as np
from accelserve.client.grpc_client import GrpcClient
with GrpcClient(f"127.0.0.1:{os.environ['ACCELSERVE_GRPC_PORT']}") as client:
    answer = client.predict({"InputImage:0": np.zeros((2, 224, 224, 3), np.float32)})
print(*[list(tensor.shape) for tensor in answer.values()])
"""


def seeded_network(place: Workplace, image: str, pictures: Path) -> Subject:
    """ResNet-50 with seeded weights, made in the image itself; its labels are those of the first answers."""
    models = place.folder / "models"
    models.mkdir()
    labels = models / "classes.txt"
    labels.write_text("".join(f"class-{number}\n" for number in range(1000)))
    words = ["recipes", "build", _MODEL, "--weights=seeded", "--labels=/out/classes.txt", f"--output=/out/{_MODEL}"]
    with step(f"making {_MODEL} with the image's own `accelserve recipes build`"):
        command = "--entrypoint=" + json.dumps(["accelserve", *words])
        code, said = run_to_end(place, image, *HARDENED, "--user=0", f"--volume={models}:/out", command)
        require(code == 0, "a recipe is built", said)
    subject = Subject(
        models, _MODEL, pictures, (), "fpga-emulator", "fpga-emulator:0; emulated", ("fpga", "no AMD FPGA card")
    )
    environ = {"MODEL_NAME": _MODEL}
    with step("asking it for the first time"), Container(place, image, models, *HARDENED, environ=environ) as container:
        found = tuple(container.best_label(subject.picture(digit)) for digit in range(10))
        require(all(label.startswith("class-") for label in found), "ten JPEGs get an answer", found)
        shapes = container.python(_GRPC)
        require("[2, 1000]" in shapes, "two rows over gRPC are answered, one after the other", shapes)
    return replace(subject, labels=found)


class FpgaImageChecks:
    """Those of every image, and its own."""

    def __init__(self, place: Workplace, image: str, subject: Subject) -> None:
        self._place = place
        self._image = image
        self._subject = subject

    def run(self) -> None:
        ImageChecks(self._place, self._image, self._subject).run()
        self._ports()
        self._one_holder()

    def _ports(self) -> None:
        about = json.loads(self._place.text("podman", "image", "inspect", self._image))[0]["Config"]
        told = dict(each.partition("=")[::2] for each in about["Env"])
        exposed = set(about["ExposedPorts"])
        held = (exposed, told["ACCELSERVE_GRPC_PORT"], told["ACCELSERVE_DEVICE"])
        require(held == (_PORTS, "50051", "fpga-emulator"), "gRPC is at 50051, and the card is an emulated one", held)

    def _one_holder(self) -> None:
        shared = (*HARDENED, "--volume=fpga-leases:/leases")  # new: the image says who may write there
        models, model = self._subject.models, self._subject.model
        here = {"ACCELSERVE_HOST": "127.0.0.1", "ACCELSERVE_HTTP_PORT": "0", "ACCELSERVE_GRPC_PORT": "0"}
        environ = {"MODEL_NAME": model, "ACCELSERVE_LEASE_DIR": "/leases"}
        with (
            step("running a second one with the same volume of leases"),
            Container(self._place, self._image, models, *shared, environ=environ) as first,
        ):
            options = (*shared, f"--volume={models}:/models:ro", "--user=1234560000:0")
            told = (f"--env={name}={value}" for name, value in {**here, **environ}.items())
            code, said = run_to_end(self._place, self._image, *options, *told)
            require(code == 5 and f"held by {model}" in said, "it ends with 5 and names the holder", (code, said))
            label = first.best_label(self._subject.picture(1))
            require(label == self._subject.labels[1], "the first serves on", label)
