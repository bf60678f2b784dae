#!/usr/bin/env bash
# Tests each door with the library it leads to, each in an environment of its own, since their pins exclude each other.
#
#   scripts/test_doors.sh [DOOR ...]          (default: all; environments go to .venvs/door-NAME, by uv where it is found)
set -euo pipefail
cd "$(dirname "$0")/.."

declare -A packages=(
    [trl]="trl==1.16.0 datasets -e .[models,parquet]"
    [minari]="minari[hdf5] pillow d3rlpy -e .[agents]"
    [torchrl]="torchrl tianshou sb3-contrib -e .[agents]"
    [trackers]="trackio wandb mlflow -e .[agents,tensorboard]"
    [openenv]="-e .[openenv,http]"
    [verifiers]="-e .[verifiers,models,http]"
    [prime]="verifiers==0.1.14 datasets -e .[parquet]" # the last whose environments read tables
    [verl]="verl==0.9.1 -e .[models,parquet]"
    [puffer]="psutil nvidia-ml-py rich rich-argparse -e ."
    [prompts]="-e .[models,parquet,prompts]"
    [skyrl]="skyrl==0.3.0 skyrl-gym==0.4.0 loguru -e .[models,parquet]" # the newest that Python 3.11 may install
)
declare -A tests=(
    [trl]="trl formats" [minari]="minari" [torchrl]="trainers" [trackers]="trackers" [openenv]="openenv"
    [verifiers]="verifiers" [verl]="verl" [skyrl]="skyrl" [prime]="prime_rl" [puffer]="puffer"
    [prompts]="prompt_sources"
)
declare -A examples=(
    [trl]="trl_grpo" [minari]="minari_cloning" [torchrl]="torchrl_ppo or tianshou_dqn or sb3_maskable"
    [openenv]="openenv_learns" [verifiers]="verifiers_learns"
)
install() { # install ENVIRONMENT WORD ...
    local here=$1 links=()
    shift
    if ! command -v uv >/dev/null; then
        "$here/bin/pip" install --quiet "$@"
        return
    fi
    for folder in ${PIP_FIND_LINKS:-}; do links+=(--find-links "$folder"); done
    uv pip install --quiet --python "$here/bin/python" "${links[@]}" "$@"
}

doors=("$@")
[[ $# -gt 0 ]] || doors=("${!packages[@]}")
for door in "${doors[@]}"; do
    here=".venvs/door-$door"
    if [[ ! -f $here/.done ]]; then
        "${PYTHON:-python3.11}" -m venv "$here"
        # shellcheck disable=SC2086 # the list is words
        install "$here" "torch==2.13.0" pytest pytest-timeout ${packages[$door]}
        # d3rlpy pins a gymnasium that is older than what the suite asks for; it works with a newer one
        [[ $door != minari ]] || install "$here" --no-deps "gymnasium==1.4.0"
        # pufferlib-core pins torch 2.9 for its compiled trainer; its wrappers and vector environments work with a newer one
        [[ $door != puffer ]] || install "$here" --no-deps "pufferlib-core==3.0.23"
        touch "$here/.done"
    fi
    files=()
    for name in ${tests[$door]}; do files+=("tests/integrations/test_$name.py"); done
    OMP_NUM_THREADS=1 "$here/bin/python" -m pytest -q "${files[@]}"
    [[ -z ${examples[$door]:-} ]] || "$here/bin/python" -m pytest -q -m "" -k "${examples[$door]}" tests/docs/test_examples.py
done
