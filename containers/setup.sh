#!/usr/bin/env bash
# Makes .venv exactly as containers/cpu.lock says, and installs the project into it, editable.
# Does nothing when neither the lock nor pyproject.toml has changed. An unfinished .venv is made anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly lock=containers/cpu.lock venv=.venv
readonly torch_index=https://download.pytorch.org/whl/cpu

say() { echo "setup: $*"; }
fail() { echo "setup: $*" >&2; exit 1; }
readonly install_command=("$venv/bin/python" -m pip --disable-pip-version-check
    install -qq --no-deps --no-build-isolation --no-compile)
install() { "${install_command[@]}" "$@"; }
pinned() { grep -m1 "^$1==" "$lock"; }

is_wanted() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; }

# Prints the Python 3.11 to use: $PYTHON where it is set, else python3.11, else a python3 that is 3.11, else uv's.
find_python() {
    local candidate candidates=(python3.11 python3)
    [[ -z "${PYTHON:-}" ]] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        if is_wanted "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    if [[ -z "${PYTHON:-}" ]] && command -v uv >/dev/null; then
        say "no Python 3.11 here: uv gets one" >&2
        if uv python install --quiet 3.11 >&2 && candidate=$(uv python find 3.11) && is_wanted "$candidate"; then
            echo "$candidate"
            return
        fi
        fail "uv could not get Python 3.11; PYTHON=/path/to/python3.11 make setup takes another"
    fi
    fail "none of '${candidates[*]}' is Python 3.11, which the lock is made for; install uv" \
        "(https://docs.astral.sh/uv), which brings one and is found here, or apt-get install python3.11" \
        "python3.11-venv python3.11-dev where Debian has it, or PYTHON=/path/to/python3.11 make setup"
}

# +cpu builds are not on PyPI: a configured index or find-links may have them, else PyTorch's own index does.
install_torch() {
    local wanted errors
    wanted=$(pinned torch)
    errors=$(mktemp)
    if install "$wanted" 2>"$errors"; then
        say "$wanted came from the configured package index"
    elif install --index-url "$torch_index" "$wanted" 2>>"$errors"; then
        say "$wanted came from $torch_index"
    else
        cat "$errors" >&2
        fail "$wanted is neither in the configured package index nor at $torch_index;" \
            "make one of them reachable, or download the wheel and set PIP_FIND_LINKS to its folder"
    fi
    rm -f "$errors"
}

install_lock() {
    local python
    python=$(find_python)
    say "making $venv with $("$python" -V) and the $(grep -c '==' "$lock") packages of $lock (about two minutes and 1 GB)"
    rm -f "$venv"/*.stamp # first: an interrupted rm must not leave half an environment that counts as done
    rm -rf "$venv"
    "$python" -m venv "$venv" >/dev/null ||
        fail "$python cannot make a virtual environment; apt-get install python3.11-venv"
    install "$(pinned setuptools)"
    install "$(pinned pycosat)" ||
        fail "$(pinned pycosat) has no wheel and could not be compiled; apt-get install gcc python3.11-dev"
    install_torch
    # Nothing depends on the order, so two at a time: pip alone spends most of its time on one core or on the network.
    # The big ones are at the list's end, so it is taken from there.
    grep '==' "$lock" | tac | xargs -P 2 -n 24 "${install_command[@]}" ||
        fail "not all of $lock could be installed; the error is above"
    import_engines
}

# Shows that the environment works, and byte-compiles what runs import; compiling everything would take a minute more.
# Without byte code (PYTHONDONTWRITEBYTECODE is common in containers) every rank of every run would compile it again.
import_engines() {
    say "importing the engines"
    env -u PYTHONDONTWRITEBYTECODE VLLM_LOGGING_LEVEL=ERROR "$venv/bin/python" -W ignore - <<'END' ||
import logging; logging.disable(logging.WARNING)  # torch warns that triton is not there
import math_verify, matplotlib.pyplot, pytest, reasoning_gym, transformers
import megatron.core.models.gpt.gpt_layer_specs, megatron.core.optimizer, megatron.core.dist_checkpointing
import vllm.entrypoints.llm, vllm.v1.worker.cpu_worker
END
        fail "the engines do not import; the error is above"
}

[[ "$(uname -sm)" == "Linux x86_64" ]] || fail "this is $(uname -sm); the lock is made for Linux x86_64"
exec 9<"$lock"
flock 9 # a second setup in the same checkout waits here, also for what an interrupted one is still ending

# The path is part of the key: a virtual environment that was copied elsewhere still points to where it was made.
lock_key="$PWD $(sha256sum <"$lock")"
project_key=$(sha256sum <pyproject.toml)
if [[ "$(cat "$venv/lock.stamp" 2>/dev/null)" != "$lock_key" ]]; then
    install_lock
    echo "$lock_key" >"$venv/lock.stamp"
fi
if [[ "$(cat "$venv/project.stamp" 2>/dev/null)" != "$project_key" ]]; then
    install -e .
    echo "$project_key" >"$venv/project.stamp"
    say "ready in $SECONDS s: $venv/bin/megatron-rl"
fi
