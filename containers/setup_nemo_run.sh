#!/usr/bin/env bash
# Makes .venv/nemo_run exactly as containers/nemo_run.lock says: NeMo-Run for slurm/launch.py, apart from the engines,
# whose packages it would change. Does nothing when the lock has not changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly lock=containers/nemo_run.lock venv=.venv/nemo_run
readonly stamp=$venv/lock.stamp
key="$PWD $(sha256sum <"$lock")"
[[ "$(cat "$stamp" 2>/dev/null)" != "$key" ]] || exit 0

python=${PYTHON:-$(command -v python3.11 || command -v python3)}
echo "setup: making $venv with $("$python" -V) and the $(grep -c '==' "$lock") packages of $lock (half a GB)"
rm -rf "$venv"
"$python" -m venv "$venv"
"$venv/bin/python" -m pip --disable-pip-version-check install -qq --no-deps -r "$lock"
"$venv/bin/python" -m pip --disable-pip-version-check install -qq --no-deps --no-build-isolation -e .
"$venv/bin/python" -c "import nemo_run"
echo "$key" >"$stamp"
echo "setup: ready: $venv/bin/python slurm/launch.py --help"
