#!/bin/sh
# Runs the walk of README.md: every block that is marked `sh walk`, in order, in
# one shell. Builds the binary first unless LEDGER_BIN_DIR names where it is.
set -eu
cd "$(dirname "$0")/.."
if [ -z "${LEDGER_BIN_DIR:-}" ]; then
    cargo build --release --locked
    LEDGER_BIN_DIR="${CARGO_TARGET_DIR:-$PWD/target}/release"
fi
PATH="$LEDGER_BIN_DIR:$PATH"
export PATH

script="$(mktemp)"
log="$(mktemp)"
trap 'rm -f "$script" "$log"' EXIT
{
    echo 'set -eu'
    # If a command fails, its server must not outlive it.
    echo 'trap '\''status=$?; kill "${SERVE:-}" "${FOLLOW:-}" 2> /dev/null || :; exit $status'\'' EXIT'
    awk '/^```sh walk$/ { on = 1; next } /^```/ { on = 0 } on' README.md
    echo 'echo "walk: done"'
} > "$script"
# Shown as it runs, and kept to be checked.
{ sh "$script" 2>&1 || echo "walk: FAILED with exit status $?"; } | tee "$log"

# What must have happened, beyond that nothing failed.
expect() {
    grep -q "$1" "$log" || { echo "walk: expected but not seen: $1" >&2; exit 1; }
}
expect '^walk: done$'
expect '^audit: exit status 1$'
expect '^audit FAILED: context packages, sequence '
expect '^get: exit status 1$'
expect '^serve: exit status 1$'
expect '^mirror: exit status 3$'
expect '^{"ok":false,"error":'
expect '^audit: exit status 3$'
expect '^audit passed; nothing was stored$'
expect '^guard: exit status 4$'
expect '^the store is frozen: '
expect '^fork: exit status 1$'
expect '^serve: exit status 4$'
expect '^proven: walk.example signed two histories'
expect '^going on with the branch of directory root '
expect '"entries":1000,'
expect '"state":"synced"'
expect '^  follower [0-9a-f]* at 127.0.0.1:[0-9]*: connected$'
expect '"entries":0,'
expect '{"ok":true,'
expect '^append: exit status 3$'
expect 'give its URL with --server'
expect '^2	facts	it stopped$'
expect '^packages: [0-9]* entries, root .* bytes$'
expect '^copy: [0-9]* entries restored'
expect '^index: matches the log, '
expect '^checkpoint: .* 64 bytes behind it$'
expect '^the index covers the log up to segment 1, '
