"""Records what azureml-inference-server-http answers to tests/azure_probes.py, into azure_probes.json.

usage: python -m tests.golden.record_azure_probes [PYTHON]
PYTHON: of an environment with the original, .venv-azml/bin/python by default (scripts/compat-env makes it).
"""

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "e2e")]

from azml_original import ORIGINAL_PYTHON, original_outcomes  # noqa: E402

GOLDEN = HERE / "azure_probes.json"


def main() -> None:
    python = Path(sys.argv[1]) if len(sys.argv) > 1 else ORIGINAL_PYTHON
    with tempfile.TemporaryDirectory() as folder:
        recorded = {key: asdict(outcome) for key, outcome in original_outcomes(python, Path(folder)).items()}
    GOLDEN.write_text(json.dumps(recorded, indent=1) + "\n")
    print(f"{len(recorded)} answers are in {GOLDEN}")


if __name__ == "__main__":
    main()
