#!/usr/bin/env bash
# Try another Detectron2 with the journey test: tools/try_detectron2.sh REQUIREMENT [PYTEST ARGUMENT...]
#
# REQUIREMENT is what `make setup DETECTRON2=...` takes, for example a folder with a checkout of upstream's main branch,
# which is installed without its C++ extension. The environment is made in a temporary folder. It has links to the
# packages of .venv, but for d2tune and Detectron2, so nothing is downloaded twice and .venv stays as it is.
set -euo pipefail

requirement=${1:?usage: tools/try_detectron2.sh REQUIREMENT [PYTEST ARGUMENT...]}
shift
if [ -e "$requirement" ]; then requirement=$(realpath "$requirement"); fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages_of() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
.venv/bin/python -m venv --without-pip "$folder/venv"
mkdir "$folder/borrowed"
for package in "$(packages_of .venv/bin/python)"/*; do
  case "$(basename "$package")" in
    d2tune* | detectron2* | __editable__* | __pycache__) ;;
    *) ln -s "$package" "$folder/borrowed/" ;;
  esac
done
echo "$folder/borrowed" >"$(packages_of "$folder/venv/bin/python")/borrowed.pth"

make setup VENV="$folder/venv" DETECTRON2="$requirement"
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -m pytest tests/system/test_journey.py "$@"
