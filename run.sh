#!/usr/bin/env bash
# Everything that this project does, in one place; `./run.sh help` lists it.
set -euo pipefail

ROOT="$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
VENV="$ROOT/.venv"
STAMP="$VENV/.requirements-installed"

usage() {
    cat <<'TEXT'
usage: ./run.sh COMMAND [OPTIONS]

  setup                     install what is needed into .venv (done by every other command when it has to be)
  demo                      the four MLPerf scenarios and accuracy, briefly, with no download: about 5 minutes
  bench --model M ...       benchmark one model on one platform; `bench --help` lists the options
  fetch MODEL|DATA          download a model's published weights, or a data set: coco2017, imagenet (labels)
  convert MODEL [PLATFORM]  build a model repository entry (every platform of the model if none is named)
  tritonserver-up           start the Triton server and leave it running
  tritonserver-status       where it is and what it serves
  tritonserver-logs         what it printed
  tritonserver-down         stop it
  test [PYTEST OPTIONS]     linter, type checker, tests
  help                      this text

Every command but setup and help takes --help. $PYTHON names the interpreter for .venv: 3.11 or 3.12.
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

# What the stamp says when .venv is up to date: the requirements' digest and the Python version.
fingerprint() {
    printf '%s %s\n' "$(sha256sum <"$ROOT/requirements.txt" | cut -d ' ' -f 1)" "$(version_of "$VENV/bin/python")"
}

is_set_up() {
    [[ -f "$STAMP" && "$(<"$STAMP")" == "$(fingerprint)" ]] || return 1
    [[ -z "${PYTHON:-}" || "$(version_of "$PYTHON")" == "$(version_of "$VENV/bin/python")" ]]
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
    "$VENV/bin/python" -m pip install --disable-pip-version-check --quiet -r "$ROOT/requirements.txt" >&2 ||
        fail 2 "pip could not install requirements.txt (its message is above)"
    fingerprint >"$STAMP.draft"
    mv "$STAMP.draft" "$STAMP"
}

setup() {
    is_set_up && return
    mkdir -p "$ROOT/.state"
    # The lock's descriptor ends with the parentheses: a server started later must not hold it.
    (
        flock 9
        install_requirements
    ) 9>"$ROOT/.state/setup.lock"
}

# Not `cd`: paths on the command line are relative to the user's folder, from where nothing may be imported.
run_python() {
    setup
    PYTHONPATH="$ROOT" PYTHONSAFEPATH=1 exec "$VENV/bin/python" "$@"
}

convert() {
    [[ $# -gt 0 ]] || fail 2 "convert needs a model: ./run.sh convert MODEL [PLATFORM]"
    [[ "$1" != -* ]] || run_python -m converters "$@"
    local model="$1"
    shift
    if [[ $# -gt 0 && "$1" != -* ]]; then
        local platform="$1"
        shift
        run_python -m converters --model "$model" --platform "$platform" "$@"
    fi
    run_python -m converters --model "$model" "$@"
}

# In the project's folder, where the tools' settings are: paths are relative to it.
run_tests() {
    setup
    cd "$ROOT"
    "$VENV/bin/python" -m ruff check .
    "$VENV/bin/python" -m ruff format --check .
    "$VENV/bin/python" -m mypy
    run_python -m pytest "$@"
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
        demo) run_python -m harness.demo "$@" ;;
        bench) run_python -m harness "$@" ;;
        fetch) run_python -m converters.fetch "$@" ;;
        convert) convert "$@" ;;
        tritonserver-up | tritonserver-status | tritonserver-logs | tritonserver-down)
            run_python -m harness.server "${command#tritonserver-}" "$@"
            ;;
        test) run_tests "$@" ;;
        *) fail 2 "unknown command '$command'; ./run.sh help lists the commands" ;;
    esac
}

main "$@"
