# Read by the scripts beside it, with `name` set: what no script can install.
if [ "$(id -u)" != 0 ]; then
    echo "$name makes namespaces and containers: run it as root" >&2
    exit 1
fi
if ! command -v cargo >/dev/null; then
    # sudo forgets the PATH of the user who called it; rustup's programs need to know whose they are, too.
    home=$(getent passwd "${SUDO_USER:-root}" | cut -d: -f6)
    if [ ! -x "$home/.cargo/bin/cargo" ]; then
        echo "$name builds debuglet with Rust: install it first (https://rustup.rs)" >&2
        exit 1
    fi
    export PATH="$PATH:$home/.cargo/bin"
    export CARGO_HOME="${CARGO_HOME:-$home/.cargo}" RUSTUP_HOME="${RUSTUP_HOME:-$home/.rustup}"
fi
