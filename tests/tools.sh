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

# dkimpy is there as source alone. What makes a wheel of it is pinned as well, so pip may not choose that by itself.
dkim_packages() {
    python_packages --requirement tests/dkim/build.txt &&
        python_packages --no-build-isolation --requirement tests/dkim/requirements.txt
}

# cargo_tool NAME VERSION: prebuilt where there is such a thing, else compiled, which takes minutes.
cargo_tool() {
    "$1" --version 2>/dev/null | grep -qwF "$2" && return
    python_packages --require-hashes --only-binary :all: --requirement tests/tools.txt ||
        cargo install --locked --root "$tools" "$1@$2"
}

# Debian's. Nothing else is removed for them, and no service of theirs starts by itself.
system_packages() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        without_services apt-get update -qq &&
            DEBIAN_FRONTEND=noninteractive without_services apt-get install -qqy --no-remove "$@" && return
    fi
    echo "$0: these packages are missing, and could not be installed: $*" >&2
    return 1
}

# As Debian has it for those who build images: while the file is there, no service is started.
without_services() (
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" || exit
    fi
    "$@"
)

# What tests/peers lets talk to the relay. Postfix is installed without a configuration of the system's, as each test
# has its own.
mail_software() {
    local missing=() program
    PATH=$PATH:/usr/sbin type -P postfix >/dev/null || missing+=(postfix)
    compgen -G '/usr/lib/*/sasl2/libplain.so' >/dev/null || missing+=(libsasl2-modules)
    swaks --support 2>/dev/null | grep -q 'TLS supported' || missing+=(swaks libnet-ssleay-perl)
    for program in curl openssl; do
        command -v $program >/dev/null || missing+=($program)
    done
    [ ${#missing[@]} != 0 ] || return 0
    ! command -v debconf-set-selections >/dev/null ||
        echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections || return
    system_packages "${missing[@]}"
}

# node_packages FOLDER INTO: npm's, as tests/FOLDER pins them, into target/tools/INTO. Anything of theirs that runs by
# itself on installing is left out.
node_packages() {
    { command -v node && command -v npm; } >/dev/null || system_packages nodejs npm || return
    local from=tests/$1 into=$tools/$2 file
    mkdir -p "$into" || return
    if ! cmp -s "$from/package-lock.json" "$into/package-lock.json" || [ ! -d "$into/node_modules" ]; then
        for file in package.json package-lock.json; do
            cp "$from/$file" "$into" || return
        done
        (cd "$into" && npm ci --ignore-scripts --no-audit --no-fund --loglevel error) ||
            { rm -f "$into/package-lock.json"; return 1; }
    fi
}

# Valgrind, and what runs benches/instructions.rs under it: of the very version that Cargo.toml names.
instruction_counter() {
    command -v valgrind >/dev/null || system_packages valgrind || return
    gungraun-runner --version 2>/dev/null | grep -qwF 0.20.0 ||
        cargo install --quiet --locked --root "$tools" gungraun-runner@0.20.0
}
