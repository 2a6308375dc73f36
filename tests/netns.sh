#!/bin/sh
# A mirror behind 1 Mbit/s: two network namespaces, a link between them, `tc tbf`
# on both ends. A sync of 1 MiB takes as long as the link does, and no deadline
# passes. Needs iproute2 and the right to make namespaces (root, or user
# namespaces).
set -eu
cd "$(dirname "$0")/.."
if [ "${1:-}" != inside ]; then
    for tool in ip tc unshare; do
        command -v "$tool" > /dev/null || { echo "netns: skipped, there is no $tool here"; exit 0; }
    done
    # What the test needs of the kernel, tried out.
    try='mount -t tmpfs tmpfs /run && mkdir /run/netns && ip netns add try &&
        ip link add try0 type veth peer name try1 &&
        tc qdisc add dev try0 root tbf rate 1mbit burst 16kbit latency 400ms'
    unshare -rnm sh -c "$try" 2> /dev/null ||
        { echo 'netns: skipped, namespaces or tbf are not to be had here'; exit 0; }
    if [ -z "${LEDGER_BIN_DIR:-}" ]; then
        cargo build --release --locked
        LEDGER_BIN_DIR="${CARGO_TARGET_DIR:-$PWD/target}/release"
    fi
    LEDGER_BIN_DIR="$LEDGER_BIN_DIR" exec unshare -rnm sh "$0" inside
fi

PATH="$LEDGER_BIN_DIR:$PATH"
export PATH
work="$(mktemp -d)"
server=
trap '[ -z "$server" ] || kill "$server" 2> /dev/null; rm -rf "$work"' EXIT
fail() { echo "netns: FAILED: $*" >&2; exit 1; }

mount -t tmpfs tmpfs /run
mkdir /run/netns
for name in source mirror; do ip netns add "$name"; done
ip link add to-mirror netns source type veth peer name to-source netns mirror
ip -n source address add 10.77.0.1/24 dev to-mirror
ip -n mirror address add 10.77.0.2/24 dev to-source
ip -n source link set lo up
ip -n source link set to-mirror up
ip -n mirror link set to-source up
for end in 'source to-mirror' 'mirror to-source'; do
    set -- $end
    ip netns exec "$1" tc qdisc add dev "$2" root tbf rate 1mbit burst 16kbit latency 400ms
done

# Payloads that nobody can compress.
od -An -v -tx1 -w512 -N524288 /dev/urandom | tr -d ' ' |
    awk '{ printf "{\"context\":\"c%d\",\"key\":\"k\",\"payload\":\"%s\"}\n", NR % 5, $0 }' > "$work/lines"
converge-ledger init --data "$work/s" --name slow.test > /dev/null
converge-ledger append --data "$work/s" --ndjson "$work/lines" > /dev/null
field() { sed "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/"; }
keys="$(converge-ledger keys --data "$work/s" --json)"
origin="$(echo "$keys" | field origin_vkey)"
peer="$(echo "$keys" | field node_key)"
converge-ledger init --data "$work/m" --mirror "$origin" > /dev/null
node="$(converge-ledger keys --data "$work/m" --json | field node_key)"

mkfifo "$work/said"
GRPC_PORT=0 ip netns exec source converge-ledger serve --data "$work/s" \
    --listen 10.77.0.1:7447 --allow "$node" > "$work/said" 2> "$work/log" &
server=$!
exec 3< "$work/said"
while read -r line <&3; do
    case "$line" in quic*) break ;; esac
done
report="$(ip netns exec mirror converge-ledger mirror --data "$work/m" --from 10.77.0.1:7447 \
    --peer "$peer" --origin "$origin" --once --json)" || fail "the sync: $report"
bytes="$(echo "$report" | field bytes)"
seconds="$(echo "$report" | field seconds)"
[ "$bytes" -ge 1048576 ] || fail "only $bytes bytes"
# 1 Mbit/s is 125,000 bytes a second: the link was as slow as it should be.
echo "$bytes $seconds" | awk '{ exit !($2 >= $1 / 125000 * 0.9) }' || fail "$bytes bytes in $seconds s"
[ "$(converge-ledger head --data "$work/m")" = "$(converge-ledger head --data "$work/s")" ] ||
    fail 'the heads differ'
converge-ledger audit --data "$work/m" > /dev/null
kill -TERM "$server"
wait "$server" || fail 'the source did not end well'
server=
echo "netns: $bytes bytes in $seconds s over 1 Mbit/s"
