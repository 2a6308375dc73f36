#!/bin/sh
# The gRPC API from Python, against a server of the built binary. Makes a virtual
# environment under target/ once, from pinned packages. Builds the binary first
# unless LEDGER_BIN_DIR names where it is.
set -eu
cd "$(dirname "$0")/../.."
. tests/clients/venv.sh

if [ -z "${LEDGER_BIN_DIR:-}" ]; then
    cargo build --release --locked
    LEDGER_BIN_DIR="$target/release"
fi
PATH="$LEDGER_BIN_DIR:$PATH"
export PATH

work="$(mktemp -d)"
trap 'status=$?; kill "${serve:-}" 2> /dev/null || :; rm -rf "$work"; exit $status' EXIT
fail() { echo "clients: FAILED: $*" >&2; exit 1; }

converge-ledger --data "$work/store" init --name clients.example > /dev/null
converge-ledger --data "$work/store" serve --grpc 127.0.0.1:0 > "$work/serve.out" &
serve=$!
until address="$(sed -n 's/^grpc listening on //p' "$work/serve.out")"; [ -n "$address" ]; do
    kill -0 "$serve" || fail 'the server ended'
    sleep 0.1
done
# What the stubs leave behind goes with the rest.
TMPDIR="$work" "$venv/bin/python" tests/clients/grpc_client.py "$address" spec/proto ||
    fail 'the client'
kill "$serve"
status=0
wait "$serve" || status=$?
serve=
[ "$status" = 0 ] || fail "the server ended with exit status $status"
converge-ledger --data "$work/store" audit
