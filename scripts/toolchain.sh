# Sourced by the scripts beside it: finds Rust and a C compiler, or says how to
# get them.

if ! command -v cargo >/dev/null 2>&1 && [ -x "${CARGO_HOME:-${HOME:-/nonexistent}/.cargo}/bin/cargo" ]; then
    PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    export PATH
fi

missing=0
if ! command -v cargo >/dev/null 2>&1; then
    cat >&2 <<'EOF'
Rust is missing. To get it:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh
or see https://rustup.rs.
EOF
    missing=1
fi
if ! command -v "${CC:-cc}" >/dev/null 2>&1; then
    cat >&2 <<'EOF'
A C compiler is missing; SQLite is built with it. To get one:
    Debian, Ubuntu:  sudo apt-get install build-essential
    Fedora:          sudo dnf install gcc
    Alpine:          sudo apk add build-base
    macOS:           xcode-select --install
EOF
    missing=1
fi
[ "$missing" -eq 0 ] || exit 1
unset missing
