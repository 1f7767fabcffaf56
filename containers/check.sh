#!/usr/bin/env bash
# Checks the Dockerfile: hadolint reads it, and buildah builds the CPU image and imports the engines in it.
# What this machine cannot do is left out, with the reason; --lint leaves the build out. Needs 5 GB for the build.
#
# Where no registry can be reached, debootstrap makes the base image. What pip is configured with on this machine
# (its configuration file, local folders of packages, a certificate) is lent to the build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { echo "containers: $*"; }
skip() { say "not built: $*"; exit 0; }

lint() {
    local hadolint
    if hadolint=$(command -v hadolint || command -v .venv/bin/hadolint); then
        "$hadolint" Dockerfile
        say "hadolint finds nothing in Dockerfile"
    else
        say "not linted: hadolint is not installed; run make setup"
    fi
}

# Prints how layers can be stored here: vfs copies gigabytes for each, but works in any container.
storage_driver() {
    local place=$work/overlay
    mkdir -p "$place"/{lower,upper,work,merged}
    if mount -t overlay overlay -o "lowerdir=$place/lower,upperdir=$place/upper,workdir=$place/work" "$place/merged" \
        2>/dev/null; then
        umount "$place/merged"
        echo overlay
    else
        echo vfs
    fi
}

# Prints the name of an image to start from, made here where the wanted one cannot be pulled.
base_image() {
    local wanted folder container
    wanted=$(sed -n 's/^ARG CPU_BASE=//p' Dockerfile)
    if "${buildah[@]}" pull -q "$wanted" >/dev/null 2>&1; then
        echo "$wanted"
        return
    fi
    command -v debootstrap >/dev/null || return 1
    folder=$work/base
    debootstrap --variant=minbase bookworm "$folder" >"$work/debootstrap.log" 2>&1 || return 1
    container=$("${buildah[@]}" from scratch)
    "${buildah[@]}" add -q "$container" "$folder" / >/dev/null
    "${buildah[@]}" commit -q "$container" local/bookworm >/dev/null
    "${buildah[@]}" rm "$container" >/dev/null
    rm -rf "$folder"
    echo local/bookworm
}

# Prints the options that lend this machine's pip configuration to the build; writes $work/pip.conf for it.
lend_pip() {
    python3 - "$work/pip.conf" <<'END'
import os, pathlib, subprocess, sys

listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
settings = {}
for line in listed.splitlines():
    name, _, value = line.partition("=")
    settings[name.rpartition(".")[2]] = value.strip("'\"")
lent = {name: settings[name] for name in ("find-links", "index-url", "extra-index-url", "timeout") if name in settings}
for word in " ".join(lent.values()).split():
    path = pathlib.Path(word.removeprefix("file://"))
    if path.is_dir():
        path = path.parent if word.startswith("file://") else path  # an index of files has them beside it
        print(f"--volume={path}:{path}:ro")
certificate = settings.get("cert") or os.environ.get("SSL_CERT_FILE", "")
if pathlib.Path(certificate).is_file():  # not in its own place, which ca-certificates writes to
    print(f"--volume={certificate}:/lent.crt:ro")
    lent["cert"] = "/lent.crt"
pathlib.Path(sys.argv[1]).write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in lent.items()))
print(f"--volume={sys.argv[1]}:/etc/pip.conf:ro")
END
}

lint
[[ "${1:-}" != --lint ]] || exit 0
command -v buildah >/dev/null || skip "buildah is not installed; apt-get install buildah debootstrap"
[[ $EUID -eq 0 ]] || skip "a build without isolation needs root"
work=$(mktemp -d)
buildah=(buildah --root "$work/storage" --runroot "$work/run" --storage-driver "$(storage_driver)")
trap '"${buildah[@]}" rm --all >/dev/null 2>&1; rm -rf "$work"' EXIT
"${buildah[@]}" from scratch >/dev/null 2>"$work/error" || skip "buildah does not work here: $(tail -n 1 "$work/error")"
base=$(base_image) || skip "no base image: the registry is out of reach, and debootstrap is missing or failed"
mapfile -t lent < <(lend_pip)
say "building the CPU image on $base"
"${buildah[@]}" bud -q --isolation chroot --target cpu --build-arg "CPU_BASE=$base" "${lent[@]}" -t cpu . >"$work/log" 2>&1 ||
    { tail -n 40 "$work/log"; say "the CPU image could not be built"; exit 1; }
container=$("${buildah[@]}" from cpu)
"${buildah[@]}" run --isolation chroot "$container" -- megatron-rl doctor
say "the CPU image is built and has what a run needs"
