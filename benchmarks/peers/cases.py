"""Cases: one model and one request each, and who is measured with it."""

from dataclasses import dataclass

TUNED = ("mosec_tuned", "mosec_tuned_malloc")
SLOW = (
    "litserve_fastqueue", "litserve_unbatched", "bentoml_quiet", "mlserver", "kserve_quiet", "pytriton", "azureml",
    "naive_fastapi",
)  # fmt: skip
WITH_JPEG = ("litserve_fastqueue", "bentoml_quiet", "azureml", "naive_fastapi")
GRPC_PEERS = ("grpcio_sync", "grpcio_sync_malloc", "grpcio_aio", "grpcio_aio_malloc")
EXACT = 1e-4  # of the answer's length
RESIZED, SHRUNK = 0.02, 0.1  # other ways of resizing move the answer, most where much is averaged away or not


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked of whom.

    kind: json, jpeg, raw or grpc. tolerance: |answer - expected| / |expected|. peers are measured in every round,
    slow_peers in the first SLOW_ROUNDS, quick_peers in a run with --quick. bare: beside a session
    without a server, and what is under way at the end counts too, because requests are long.
    """

    claim: str
    model: str
    kind: str
    body: str
    tolerance: float = EXACT
    clients: tuple[int, ...] = (8, 32)
    peers: tuple[str, ...] = ()
    slow_peers: tuple[str, ...] = ()
    quick_peers: tuple[str, ...] = ()
    seconds: int = 2
    rounds: int = 5
    bare: bool = False


SLOW_ROUNDS = 2

CASES = {
    "tiny": Case(
        "What a request to a tiny model as JSON costs, beside every peer",
        "tiny", "json", "tiny", clients=(1, 8, 32), peers=("mosec", "mosec_tuned", "mosec_tuned_unbatched"),
        slow_peers=SLOW, quick_peers=("mosec_tuned", "naive_fastapi"),
    ),
    "tiny_ray": Case(
        "The same beside Ray Serve, whose many processes would disturb the others",
        "tiny", "json", "tiny", clients=(1, 8, 32), slow_peers=("ray",), rounds=SLOW_ROUNDS,
    ),
    "connections": Case(
        "Rate, latency and cost from 1 to 1,000 connections that all ask",
        "tiny", "json", "tiny", clients=(1, 8, 32, 128, 512, 1000), peers=("mosec_tuned",),
        slow_peers=("naive_fastapi",), quick_peers=("mosec_tuned",), rounds=3,
    ),
    "mlp": Case(
        "784 numbers as JSON through three dense layers, beside every peer",
        "mlp", "json", "mlp", clients=(32,), peers=("mosec", "mosec_tuned"), slow_peers=SLOW,
        quick_peers=("mosec_tuned",),
    ),
    "jpeg220_u8": Case(
        "A JPEG of 220 pixels to 1,000 scores, around a nearly free model that takes uint8",
        "gap_u8", "jpeg", "jpeg220", RESIZED, peers=("mosec", *TUNED), slow_peers=WITH_JPEG,
        quick_peers=("mosec_tuned",),
    ),
    "jpeg220": Case(
        "The same around a model that takes float32: the server normalises",
        "gap", "jpeg", "jpeg220", RESIZED, peers=TUNED, quick_peers=("mosec_tuned",), rounds=3,
    ),
    "jpeg1000_u8": Case(
        "A JPEG of 1,000 pixels to 1,000 scores, around a nearly free model that takes uint8",
        "gap_u8", "jpeg", "jpeg1000", SHRUNK, clients=(8,), peers=TUNED, quick_peers=("mosec_tuned",), rounds=2,
    ),
    "resnet50_u8": Case(
        "ResNet-50 over HTTP from JPEGs on one core, beside the bare model in a process of its own",
        "resnet50_u8", "jpeg", "jpeg220", RESIZED, clients=(1, 4, 8), peers=("mosec_tuned_unbatched",), seconds=5,
        rounds=3, bare=True,
    ),
    "resnet50": Case(
        "The same around a model that takes float32: the server normalises",
        "resnet50", "jpeg", "jpeg220", RESIZED, clients=(1, 4, 8), seconds=5, rounds=2, bare=True,
    ),
    "raw_600k": Case(
        "A raw tensor of 600 KB over HTTP to 1,000 scores",
        "gap", "raw", "raw_600k", clients=(1, 8), peers=("mosec_tuned_malloc", "naive_fastapi"),
        quick_peers=("mosec_tuned_malloc",),
    ),
    "grpc_600k": Case(
        "Predict with a tensor of 600 KB over gRPC, beside grpcio with the same model",
        "gap", "grpc", "grpc_600k", clients=(1, 8), peers=GRPC_PEERS[:2], slow_peers=GRPC_PEERS[2:],
        quick_peers=("grpcio_sync_malloc",),
    ),
    "grpc_1k": Case(
        "Predict with a tensor of 1 KB over gRPC, beside grpcio with the same model",
        "vec256", "grpc", "grpc_1k", clients=(1, 8, 32), peers=GRPC_PEERS[::2], quick_peers=("grpcio_sync",), rounds=3,
    ),
    "grpc_mlp": Case(
        "Predict with 784 numbers through three dense layers over gRPC, beside grpcio with the same model",
        "mlp", "grpc", "grpc_mlp", peers=GRPC_PEERS[::2], quick_peers=("grpcio_sync",), rounds=2,
    ),
}  # fmt: skip
