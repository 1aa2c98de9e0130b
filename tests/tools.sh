# Sourced by tests/run and tests/campaign: brings what they need beside Rust and a C compiler into target/tools, which
# a CI may keep from run to run.

tools=$(realpath -m "${CARGO_TARGET_DIR:-target}")/tools
export PATH=$tools/bin:$PATH

# Python packages, in a virtual environment; the arguments are pip's.
python_packages() {
    if [ ! -x "$tools/bin/pip" ] && ! python3 -m venv "$tools"; then
        system_packages python3 python3-venv && python3 -m venv "$tools" || return
    fi
    "$tools/bin/pip" install --quiet --disable-pip-version-check "$@"
}

# cargo_tool NAME VERSION: prebuilt where there is such a thing, else compiled, which takes minutes.
cargo_tool() {
    "$1" --version 2>/dev/null | grep -qwF "$2" && return
    python_packages --require-hashes --only-binary :all: --requirement tests/tools.txt ||
        cargo install --locked --root "$tools" "$1@$2"
}

system_packages() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qqy "$@" && return
    fi
    echo "$0: these packages are missing, and could not be installed: $*" >&2
    return 1
}
