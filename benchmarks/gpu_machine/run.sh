#!/usr/bin/env bash
# On the GPU machine, from the checkout's root: bash FOLDER/run.sh [arguments of benchmarks.gpu]
# Unpacks and installs once, beside what is there, then runs. FOLDER is what benchmarks/gpu_carry.py made.
# PYTHON: the interpreter. TARGET: where it is installed. SELF_TEST=no: leave the packed build's own test out.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3} target=${TARGET:-/tmp/accelserve_gpu}
# shellcheck source=/dev/null
source "$here/settings" # python_version, commit

if [[ ! -f benchmarks/gpu.py ]]; then
  echo "run.sh: call it from the checkout's root, where benchmarks/gpu.py is" >&2
  exit 2
fi
found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [[ $found != "$python_version" ]]; then
  echo "run.sh: the wheels are for Python $python_version, and $python is $found" >&2
  exit 2
fi

if [[ ! -f $target/ready ]]; then
  rm -rf "$target"
  mkdir -p "$target/ort"
  if [[ -d $here/ort ]]; then
    self_test=()
    [[ ${SELF_TEST:-yes} == yes ]] || self_test=(--no-test)
    PY=$python KEEP=$target/parts bash "$here/ort/unpack_ort_gpu.sh" "$here/ort" "$target/ort" "${self_test[@]}"
    cp -rn "$here/left_out/." "$target/ort/onnxruntime/"
  fi
  "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile \
    --target "$target/site" "$here"/wheels/*.whl
  touch "$target/ready"
fi

# The CUDA libraries lie in Python packages, where no loader looks by itself.
libraries=$(
  "$python" - "$target/site" <<'P'
import glob, os, site, sys, sysconfig
roots = {sysconfig.get_paths()["purelib"], *site.getsitepackages(), *sys.argv[1:]}
found = [path for root in roots for path in glob.glob(f"{root}/nvidia/*/lib/lib*.so*")]
print(":".join(sorted({os.path.dirname(path) for path in found})))
P
)
export PYTHONPATH=$target/ort:$target/site PYTHONUNBUFFERED=1 BENCHMARK_COMMIT=$commit CUDA_MODULE_LOADING=LAZY
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
exec "$python" -m benchmarks.gpu "$@"
