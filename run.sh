#!/usr/bin/env bash
# Everything that this project does, in one place; `./run.sh help` lists it.
set -euo pipefail

ROOT="$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
LOCK="$ROOT/requirements.lock"
CPU_PART="# PyTorch's CPU build"
CUDA_PART="# PyTorch's CUDA build, and what it needs"
IS_CUDA='/^(cuda-|nvidia-|torch=|triton=)/ && !/^nvidia-pytriton=/'

# A release of PyTorch, and the SHA-256 of its CPU builds for CPython 3.11 and 3.12 on x86-64, which are not on
# PyPI: https://download.pytorch.org/whl/cpu/torch/ lists them.
TORCH_CPU=(
    2.13.0
    6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b
    4ca4a9394b0c771238a4f73590fdbbc4debad85ed0fa63d026ae1b085da7d6e2
)

usage() {
    cat <<'TEXT'
usage: ./run.sh COMMAND [OPTIONS]

  setup                     install what is needed into .venv (done by every other command when it has to be)
  demo                      the four MLPerf scenarios and accuracy, briefly, with no download: about 5 minutes
  bench --model M ...       benchmark one model on one platform; `bench --help` lists the options
  check                     are the answers right? every model, every platform, a few samples in every scenario
  local [WORDS] [OPTIONS]   as bench, asked as the MLPerf reference's run_local.sh; WORDS are, in any order:
                              tf onnxruntime pytorch tflite openvino          (tf if none is given)
                              resnet50 mobilenet ssd-mobilenet ssd-resnet34   (resnet50)
                              cpu gpu                                         (cpu)
  docker [WORDS] [OPTIONS]  as local, in containers, as its run_and_time.sh: NVIDIA's Triton and a client
  kubernetes COMMAND ...    many servers on a cluster: render, up, bench, down; `kubernetes --help`
  report RUN                a finished run's page again, or a picture of it
  compare RUN RUN ...       finished runs side by side
  tune --model M ...        a server's own best settings, measured once, for all later runs
  limits                    how close serving comes to the hardware: bare framework, this harness, plain client
  fetch MODEL|DATA          download a model's published weights, or a data set: coco2017, imagenet (labels)
  convert MODEL [PLATFORM]  build a model repository entry (every platform of the model if none is named)
  tritonserver-up           start the Triton server and leave it running
  tritonserver-status       where it is and what it serves
  tritonserver-logs         what it printed
  tritonserver-down         stop it
  lock [--upgrade]          bring requirements.lock up to requirements.txt: every package, every file's digest
  test [PYTEST OPTIONS]     linter, type checker, tests; with `-m nightly` the long ones alone
  help                      this text

Every command but setup and help takes --help. $PYTHON names the interpreter for .venv: 3.11 or 3.12.
$DATA_DIR is the folder of the images, $MODEL_DIR that of published weights; $EXTRA_OPS has more options for
local and docker. All that is made goes into this folder, or that of $MLPERF_TRITON_HOME; where this one cannot
be written, into ${XDG_STATE_HOME:-~/.local/state}/mlperf-triton-vision.
TEXT
}

fail() {
    printf 'run.sh: %s\n' "$2" >&2
    exit "$1"
}

# "3.11", or nothing where the command is missing or broken.
version_of() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

is_supported() {
    [[ "$1" == 3.11 || "$1" == 3.12 ]]
}

use_venv_in() {
    HOME_DIR="$1"
    VENV="$HOME_DIR/.venv"
    STAMP="$VENV/.requirements-installed"
}

# .venv is the checkout's, unless that cannot be written and has none: then it is where all else is made
# (harness/machine/paths.py).
find_home() {
    use_venv_in "$ROOT"
    [[ ! -w "$ROOT" ]] && ! is_set_up || return 0
    local state="${XDG_STATE_HOME:-${HOME:-/nowhere}/.local/state}"
    use_venv_in "${MLPERF_TRITON_HOME:-$state/mlperf-triton-vision}"
}

find_python() {
    local candidate version
    if [[ -n "${PYTHON:-}" ]]; then
        version="$(version_of "$PYTHON")"
        is_supported "$version" ||
            fail 2 "\$PYTHON is $PYTHON, ${version:-not a working Python}; Python 3.11 or 3.12 is needed"
        printf '%s\n' "$PYTHON"
        return
    fi
    for candidate in python3 python3.12 python3.11; do
        if is_supported "$(version_of "$candidate")"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    version="$(version_of python3)"
    fail 2 "Python 3.11 or 3.12 is needed (python3 is ${version:-missing}); install one, or name it in \$PYTHON"
}

# What the stamp says when .venv is up to date: the lock's digest and the Python version.
fingerprint() {
    printf '%s %s\n' "$(sha256sum <"$LOCK" | cut -d ' ' -f 1)" "$(version_of "$VENV/bin/python")"
}

is_set_up() {
    [[ -f "$STAMP" && "$(<"$STAMP")" == "$(fingerprint)" ]] || return 1
    [[ -z "${PYTHON:-}" || "$(version_of "$PYTHON")" == "$(version_of "$VENV/bin/python")" ]]
}

# What a sed script leaves of the lock; nothing whose digest is another, and nothing that runs code to be built.
install_locked() {
    sed "$1" "$LOCK" >"$VENV/part.lock"
    "$VENV/bin/python" -m pip install --disable-pip-version-check --quiet --no-deps --require-hashes \
        --only-binary :all: -r "$VENV/part.lock" >&2
}

install_requirements() {
    local python
    is_set_up && return # by whoever held the lock before us
    python="$(find_python)"
    printf 'run.sh: installing into %s (the first time takes a few minutes)\n' "$VENV" >&2
    rm -f "$STAMP"
    if [[ "$(version_of "$VENV/bin/python")" != "$(version_of "$python")" ]] ||
        ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        "$python" -m venv --clear "$VENV" >&2 ||
            fail 2 "$python cannot make a virtual environment; on Debian: apt-get install python3-venv"
    fi
    install_locked "/^$CPU_PART/q" || fail 2 "pip could not install requirements.lock (its message is above)"
    # The smaller build where pip is configured to find it, the one on PyPI elsewhere.
    install_locked "1,/^$CPU_PART/d; /^$CUDA_PART/,\$d" 2>/dev/null || install_locked "1,/^$CUDA_PART/d" ||
        fail 2 "pip could not install PyTorch and CUDA (its message is above)"
    fingerprint >"$STAMP.draft"
    mv "$STAMP.draft" "$STAMP"
}

setup() {
    is_set_up && return
    { mkdir -p "$HOME_DIR/.state" && [[ -w "$HOME_DIR/.state" ]]; } 2>/dev/null ||
        fail 2 "cannot write $HOME_DIR/.state: set MLPERF_TRITON_HOME to a folder that can be written"
    # The lock's descriptor ends with the parentheses: a server started later must not hold it.
    (
        flock 9
        install_requirements
    ) 9>"$HOME_DIR/.state/setup.lock"
}

# Not `cd`: paths on the command line are relative to the user's folder, from where nothing may be imported.
run_python() {
    setup
    PYTHONPATH="$ROOT" PYTHONSAFEPATH=1 exec "$VENV/bin/python" "$@"
}

# One of our own commands; by its file, as `-m` has Python import much before.
run_command() {
    run_python "$ROOT/harness/start.py" "$@"
}

# Sets WORDS to options of the harness, from the reference's words at the start, and REST to what follows.
read_words() {
    local backend=tf model=resnet50 device=cpu
    while [[ $# -gt 0 && "$1" != -* ]]; do
        case "$1" in
            tf | tensorflow | onnxruntime | pytorch | tflite | openvino) backend="$1" ;;
            resnet50 | mobilenet | ssd-mobilenet | ssd-resnet34) model="$1" ;;
            cpu | gpu) device="$1" ;;
            *) fail 2 "unknown word '$1': a backend, a model, cpu or gpu; ./run.sh help lists them" ;;
        esac
        shift
    done
    local extra=()
    read -r -a extra <<<"${EXTRA_OPS:-}" || true
    # By --model-name, so that --model FILE can follow.
    WORDS=(--model-name "$model" --platform "$backend" --device "$device")
    REST=("${extra[@]}" "$@")
    DEVICE="$device"
}

run_local() {
    read_words "$@"
    run_command harness "${WORDS[@]}" "${REST[@]}"
}

run_docker() {
    read_words "$@"
    # No engine is needed to read them.
    [[ " ${REST[*]} " != *" --help "* && " ${REST[*]} " != *" -h "* ]] || run_command harness --help
    command -v docker >/dev/null ||
        fail 3 "no Docker engine: the command \`docker\` is not installed; ./run.sh local needs none"
    docker compose version >/dev/null 2>&1 ||
        fail 3 "no Docker engine: \`docker compose version\` fails; install its compose plugin, and start Docker"
    COMPOSE=(docker compose -f "$ROOT/docker/compose.yaml")
    [[ "$DEVICE" == cpu ]] || COMPOSE+=(-f "$ROOT/docker/compose.gpu.yaml")
    # The server that the client waits for is started with it, and does not end with it.
    trap '"${COMPOSE[@]}" down >&2' EXIT
    "${COMPOSE[@]}" run --rm --build client "${WORDS[@]}" "${REST[@]}"
}

# It needs nothing but kubectl, so nothing is set up.
run_kubernetes() {
    local python
    python="$(find_python)"
    PYTHONPATH="$ROOT" PYTHONSAFEPATH=1 exec "$python" -m harness.server.kubernetes "$@"
}

convert() {
    [[ $# -gt 0 ]] || fail 2 "convert needs a model: ./run.sh convert MODEL [PLATFORM]"
    [[ "$1" != -* ]] || run_command converters "$@"
    local model="$1"
    shift
    if [[ $# -gt 0 && "$1" != -* ]]; then
        local platform="$1"
        shift
        run_command converters --model "$model" --platform "$platform" "$@"
    fi
    run_command converters --model "$model" "$@"
}

# For Python 3.11 and 3.12 alike. What is locked keeps its version where it can, unless options of uv's say
# otherwise; digests are those of all files that the index lists for a version.
lock() {
    setup
    local release
    release="$(sed -n 's/^torch==\([^ ]*\).*/\1/p' "$ROOT/requirements.txt")"
    [[ "$release" == "${TORCH_CPU[0]}" ]] ||
        fail 2 "requirements.txt has torch $release, TORCH_CPU in run.sh the digests of ${TORCH_CPU[0]}"
    cd "$ROOT"
    sed -n 's/^\([a-z][^ ]*\).*/\1/p' "$LOCK" | grep -v '+cpu' >"$VENV/all.lock"
    "$VENV/bin/uv" pip compile --quiet --no-header --generate-hashes --only-binary :all: --python-version 3.11 \
        --python-platform x86_64-manylinux_2_35 --output-file "$VENV/all.lock" "$@" requirements.txt ||
        fail 2 "uv could not lock requirements.txt (its message is above)"
    {
        awk '/^[a-z]/ { is_cuda = '"$IS_CUDA"' } !is_cuda' "$VENV/all.lock"
        printf '%s\ntorch==%s+cpu \\\n' "$CPU_PART" "$release"
        printf '    --hash=sha256:%s \\\n    --hash=sha256:%s\n    # via -r requirements.txt\n' "${TORCH_CPU[@]:1}"
        printf '%s\n' "$CUDA_PART"
        awk '/^[a-z]/ { is_cuda = '"$IS_CUDA"' } is_cuda' "$VENV/all.lock"
    } >"$VENV/part.lock"
    mv "$VENV/part.lock" "$LOCK"
}

check_code() {
    "$VENV/bin/python" -m ruff check . &&
        "$VENV/bin/python" -m ruff format --check . &&
        "$VENV/bin/python" -m mypy
}

# In the project's folder, where the tools' settings are: paths are relative to it.
run_tests() {
    setup
    cd "$ROOT"
    if [[ $# -gt 0 ]]; then
        check_code
        run_python -m pytest "$@"
    fi
    # A file's tests share what they build, so a file is one worker's; the long ones are begun first.
    local beside=(-n 2 --dist loadfile --no-loadscope-reorder --durations 10)
    local checks checks_pid code=0
    # Beside the unit tests, which do not always have work for two cores; what they say is shown afterwards.
    exec {checks}< <(check_code 2>&1)
    checks_pid=$!
    (run_python -m pytest "${beside[@]}" tests/unit) || code=$?
    cat <&"$checks"
    wait "$checks_pid" || code=$?
    [[ $code -eq 0 ]] || exit "$code"
    run_python -m pytest "${beside[@]}" tests/integration
}

main() {
    local command="${1:-help}"
    [[ $# -eq 0 ]] || shift
    case "$command" in
        help | -h | --help) usage ;;
        setup)
            [[ $# -eq 0 ]] || fail 2 "setup takes no options"
            setup
            ;;
        demo) run_command harness.demo "$@" ;;
        bench) run_command harness "$@" ;;
        check) run_command harness --all --quick "$@" ;;
        local) run_local "$@" ;;
        docker) run_docker "$@" ;;
        kubernetes) run_kubernetes "$@" ;;
        report | compare | tune) run_command "harness.$command" "$@" ;;
        limits) run_command harness.bench "$@" ;;
        fetch) run_command converters.fetch "$@" ;;
        convert) convert "$@" ;;
        tritonserver-up | tritonserver-status | tritonserver-logs | tritonserver-down)
            run_command harness.server "${command#tritonserver-}" "$@"
            ;;
        lock) lock "$@" ;;
        test) run_tests "$@" ;;
        *) fail 2 "unknown command '$command'; ./run.sh help lists the commands" ;;
    esac
}

find_home
main "$@"
