#!/bin/sh
# Makes .venv from a hashed lock; does nothing when .venv already holds what the lock says. Run by `make setup`.
#   GPU     1: the CUDA build of TensorFlow; 0: the CPU build; empty: the build that .venv has, CPU for a new one
#   PYTHON  the interpreter to use; empty: the first of python3.11, python3, python that is Python 3.11
set -eu
cd "$(dirname "$0")/.."
stamp=.venv/installed.sha256

fail() {
    printf 'make setup: %s\n' "$*" >&2
    exit 1
}

choose_lock() {
    case "${GPU:-}" in
        1) lock=requirements-gpu.lock needed_gb=10 ;;
        0) lock=requirements-dev.lock needed_gb=5 ;;
        '') if grep -qs requirements-gpu.lock "$stamp"; then GPU=1; else GPU=0; fi; choose_lock ;;
        *) fail "GPU=$GPU is not understood; allowed are GPU=1 (CUDA) and GPU=0 (CPU)" ;;
    esac
}

check_platform() {
    [ "$(uname -s) $(uname -m)" = "Linux x86_64" ] ||
        fail "this machine is $(uname -s) $(uname -m); the packages are for Linux x86_64 (docs/dependencies.md)"
    libc=$(getconf GNU_LIBC_VERSION 2>/dev/null) || libc=
    [ "$(printf '%s\n' 2.28 "${libc#glibc }" | sort -V | head -n 1)" = 2.28 ] ||
        fail "this machine has ${libc:-no glibc}; the locked packages need glibc 2.28 or later (Debian 10 and later)"
}

check_disk() {
    free_gb=$(df -Pk . | awk 'NR == 2 { print int($4 / 1024 / 1024) }')
    [ "$free_gb" -ge "$needed_gb" ] ||
        fail "$free_gb GB are free on the disk that holds $(pwd); about $needed_gb GB are needed for the packages"
}

find_python() {
    found=
    for python in ${PYTHON:-python3.11 python3 python}; do
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        [ "$version" != 3.11 ] || break
        found="$found${found:+, }$python is Python $version"
        version=
    done
    [ "${version:-}" = 3.11 ] || fail "Python 3.11 is needed; found: ${found:-none that runs}." \
        "Install it (Debian 12: apt-get install python3.11 python3.11-venv)" \
        "or name it: make setup PYTHON=/path/to/python3.11"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python has no venv module; install it (Debian 12: apt-get install python3.11-venv)"
}

install_packages() {
    # uv comes from the same lock, version and hashes; sync then keeps it, because the lock lists it.
    # Python compiles packages as it first imports them, unless the environment forbids it to write the result: each
    # start of TFX would then compile thousands of files again, for minutes.
    awk '/^uv==/ { on = 1 } on && /^[^ ]/ && !/^uv==/ { exit } on' "$lock" >.venv/uv.txt
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.txt &&
        .venv/bin/python -m uv pip sync --python .venv/bin/python --require-hashes \
            ${PYTHONDONTWRITEBYTECODE:+--compile-bytecode} "$lock" ||
        fail "the packages of $lock could not be installed; the reason is above"
}

choose_lock
[ "$(cat "$stamp" 2>/dev/null)" != "$(sha256sum "$lock")" ] || [ ! -x .venv/bin/python ] || exit 0
check_platform
grep -qs "$lock" "$stamp" || check_disk
.venv/bin/python -c 'import pip, sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || {
    find_python
    "$python" -m venv --clear .venv
}
rm -f "$stamp"
install_packages
sha256sum "$lock" >"$stamp"
