#!/bin/sh
# The steps of the Dockerfiles: d2tune with its server, exported models and Detectron2, in a virtual environment.
#
#   sh deploy/install.sh FOLDER
#
# pip takes its usual settings, such as PIP_INDEX_URL. TORCH_INDEX names another index for torch and torchvision alone:
# PyTorch's own has builds without CUDA. PYTHON is the Python that the environment is of. It takes 5.5 GB with CUDA.
set -eu

folder=$1
source=$(cd "$(dirname "$0")/.." && pwd)
python=$folder/bin/python

"${PYTHON:-python3}" -m venv "$folder"
install() {
    "$python" -m pip install --no-cache-dir --quiet --constraint "$source/d2tune/install/constraints.txt" "$@"
}
install pip setuptools wheel
if [ -n "${TORCH_INDEX:-}" ]; then
    install --index-url "$TORCH_INDEX" torch torchvision
fi
install --no-build-isolation "${source}[serve,onnx]"
"$folder/bin/d2tune" setup
"$folder/bin/d2tune" serve --help > /dev/null
