#!/usr/bin/env bash
# Makes .venv-compat from cuda.lock, the cluster's own versions on Python 3.12, and runs there all that starts no
# rollout engine: torch's CUDA wheel computes on a CPU, vLLM's has none of its kernels. That is every fast test, the
# actor, its checkpoints, resharding and export on several ranks, the GPU check as far as it goes without one, and of
# vLLM its configuration, its scheduler and its reload in FP8 (tests/rollout/test_cuda_wheel.py).
# --no-tests only makes the environment; other words go to pytest instead of that selection.
# Not run: whole trainings, evaluations and rehearsals (vLLM), Slurm, browsers, and what is long without asking these
# versions anything: `make test` shows those.
# Left out: Transformer Engine, whose extension is compiled with a CUDA toolkit and whose library asks for a driver.
# Downloads 4 GB and fills 8; does not install again when the lock has not changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly lock=containers/cuda.lock venv=.venv-compat
readonly left_out='^transformer-engine'
# What pip check says of the lock, which pyproject.toml overrides for it.
readonly expected='prometheus-fastapi-instrumentator'
# These start vLLM; a test holds that none is forgotten.
readonly engines=(tests/refit/test_refit.py tests/refit/test_agreement.py tests/rollout/test_engine.py
    tests/rollout/test_pieces_on_engines.py tests/rollout/test_quantization.py::test_a_reload
    tests/rollout/test_stream.py tests/slurm)
# Long for its processes, not for an engine; here it is asked for.
readonly gpu_check=tests/benchmarks/test_gpu_check.py

say() { echo "compat: $*"; }
fail() { echo "compat: $*" >&2; exit 1; }

# Prints a Python 3.12: $PYTHON where it is set, else one of the path, of pyenv or of uv.
find_python() {
    local candidate candidates=(python3.12 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12.*/bin/python3.12)
    command -v uv >/dev/null && candidates+=("$(uv python find 3.12 2>/dev/null || true)")
    [[ -z "${PYTHON:-}" ]] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        if "$candidate" -c 'import sys, venv; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.12; pyenv install 3.12, uv python install 3.12, or PYTHON=/path/to/python3.12 make compat"
}

install_lock() {
    local python
    python=$(find_python)
    say "making $venv with $("$python" -V) and $lock (4 GB to download)"
    rm -rf "$venv"
    "$python" -m venv "$venv"
    grep '==' "$lock" | grep -Ev "$left_out" |
        "$venv/bin/python" -m pip --disable-pip-version-check install -qq --no-deps --no-compile -r /dev/stdin
    check_versions
    check_extension
}

# Every package finds what it needs in the lock, but for what is known.
check_versions() {
    local complaints
    complaints=$("$venv/bin/python" -m pip --disable-pip-version-check check | grep -Ev "$expected|^No broken" || true)
    [[ -z $complaints ]] || fail "the lock contradicts itself: $complaints"
}

# The image's last step as far as it goes without a CUDA toolkit: Transformer Engine's extension reads its own settings
# and finds the torch that it would be compiled for.
check_extension() {
    NVTE_FRAMEWORK=pytorch "$venv/bin/python" -m pip --disable-pip-version-check install -qq --dry-run --no-deps \
        --no-build-isolation "$(grep '^transformer-engine-torch==' "$lock")" ||
        fail "Transformer Engine's extension does not configure for the lock's torch; see above"
}

exec 9<"$lock"
flock 9
key="$PWD $(sha256sum <"$lock")"
project_key=$(sha256sum <pyproject.toml)
if [[ "$(cat "$venv/lock.stamp" 2>/dev/null)" != "$key" ]]; then
    install_lock
    echo "$key" >"$venv/lock.stamp"
fi
if [[ "$(cat "$venv/project.stamp" 2>/dev/null)" != "$project_key" ]]; then # some commands ask for its version
    "$venv/bin/python" -m pip --disable-pip-version-check install -qq --no-deps --no-build-isolation -e .
    echo "$project_key" >"$venv/project.stamp"
fi
say "$venv has $("$venv/bin/python" -W ignore -c '
from importlib.metadata import version
print(", ".join(f"{name} {version(name)}" for name in ("torch", "megatron-core", "vllm", "transformers")))')"
[[ "${1:-}" != --no-tests ]] || exit 0
export TORCH_COMPILE_DISABLE=1 OMP_NUM_THREADS=1
readonly pytest=("$venv/bin/python" -m pytest -q)
if (($#)); then
    exec "${pytest[@]}" "$@"
fi
"${pytest[@]}" -n "${WORKERS:-2}" --dist loadfile --durations=10 -m "not slurm and not e2e and not gpu" \
    "${engines[@]/#/--deselect=}" --ignore="$gpu_check"
"${pytest[@]}" "$gpu_check"
