#!/bin/sh
# Unpacks the pinned CUDA toolchain into a folder: install.sh DIR
#
# Needs Python 3 with pip on x86-64 Linux; no GPU, no CUDA. About 65 MB to download, 160 MB on disk.
set -eu

if [ $# -ne 1 ]; then
    echo "usage: $0 DIR" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
target=$1

# NVRTC 12.0 has no wheel for another platform, and pip's own message would not say so.
if [ "$(uname -sm)" != "Linux x86_64" ]; then
    echo "$0: the pinned NVRTC exists for x86-64 Linux only, this is $(uname -sm)" >&2
    exit 1
fi

# --target only unpacks: no virtual environment, nothing outside the folder. --upgrade makes
# a second call replace what an older requirements.txt left there.
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --no-compile --upgrade \
    --only-binary=:all: --require-hashes --requirement "$here/requirements.txt" --target "$target"
