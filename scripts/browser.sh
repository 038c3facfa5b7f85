#!/usr/bin/env bash
# Makes a browser available to the tests that drive the App. Without one they skip: no reason to fail here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/system.sh

command -v chromium >/dev/null && exit
apt_install chromium fonts-dejavu-core ||
    say "Chromium is missing and cannot be installed here: browser tests will be skipped." \
        "To run them, put an executable named chromium on PATH."
