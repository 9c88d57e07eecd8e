#!/usr/bin/env bash
# On the GPU machine, while what run.sh installed is still there: install this folder's wheels beside it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3} target=${TARGET:-/tmp/accelserve_gpu}
if [[ ! -f $target/ready ]]; then
  echo "add.sh: nothing is installed in $target: call run.sh of the first folder first" >&2
  exit 2
fi
"$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile --upgrade \
  --target "$target/site" "$here"/wheels/*.whl
