#!/bin/sh
# What a machine may run out of. A disk that really fills up (a tmpfs of 64 MiB):
# what was acknowledged stays, what does not fit is refused and named, and room
# makes the store go on by itself, with its index. File descriptors, and the
# right to write: refused, and nothing is harmed. Needs the right to mount (root,
# or user namespaces).
set -eu
cd "$(dirname "$0")/.."
if [ -z "${LEDGER_BIN_DIR:-}" ]; then
    cargo build --release --locked
    LEDGER_BIN_DIR="${CARGO_TARGET_DIR:-$PWD/target}/release"
fi
PATH="$LEDGER_BIN_DIR:$PATH"
export PATH

if [ "${1:-}" != inside ]; then
    unshare -rm true 2> /dev/null || { echo 'scarce: skipped, mounting is not allowed here'; exit 0; }
    LEDGER_BIN_DIR="$LEDGER_BIN_DIR" exec unshare -rm sh "$0" inside
fi

work="$(mktemp -d)"
trap 'umount "$work/disk"; rm -rf "$work"' EXIT
mkdir "$work/disk"
mount -t tmpfs -o size=64m tmpfs "$work/disk"
data="$work/disk/store"
fail() { echo "scarce: FAILED: $*" >&2; exit 1; }
entries() { converge-ledger audit --data "$data" --json | sed 's/.*"entries":\([0-9]*\).*/\1/'; }
# Batches of 1,000 lines of about 1,100 bytes.
lines() {
    awk -v from="$1" -v count="$2" 'BEGIN {
        pad = sprintf("%1000s", ""); gsub(/ /, "x", pad)
        for (i = from; i < from + count; i++)
            printf "{\"context\":\"c%d\",\"key\":\"k\",\"payload\":\"%d %s\",\"request_id\":\"r%d\"}\n", i % 50, i, pad, i
    }'
}

converge-ledger init --data "$data" --name full > /dev/null
lines 0 10000 > "$work/first"
converge-ledger append --data "$data" --ndjson "$work/first" > /dev/null
before="$(entries)"
[ "$before" = 10000 ] || fail "$before entries instead of 10000"
[ -f "$data/index.redb" ] || fail 'no index'

# Fills up in the middle of this.
lines 10000 90000 > "$work/second"
status=0
converge-ledger append --data "$data" --ndjson "$work/second" > "$work/out" 2> "$work/err" || status=$?
cat "$work/err"
[ "$status" = 3 ] || fail "append ended with $status"
grep -q 'disk is full' "$work/err" || fail 'the error does not say that the disk is full'
after="$(entries)"
[ "$after" -gt "$before" ] || fail 'nothing was stored before the disk was full'
stored="$(sed -n 's/.*[Ll]ines 1 to \([0-9]*\) .*/\1/p' "$work/err" | head -1)"
[ -z "$stored" ] || [ "$after" = $((before + stored)) ] || fail "$stored lines told, $after entries there"

# Not a byte is left: reading, auditing and opening go on.
dd if=/dev/zero of="$work/disk/filler" bs=4096 2> /dev/null || :
[ "$(entries)" = "$after" ] || fail 'a full disk costs entries'
converge-ledger get --data "$data" --context c1 --limit 3 > /dev/null
lines 10000 1000 > "$work/third"
status=0
converge-ledger append --data "$data" --ndjson "$work/third" > /dev/null 2> "$work/err" || status=$?
cat "$work/err"
[ "$(entries)" -ge "$after" ] || fail 'appending to a full disk costs entries'

# Room again: it goes on by itself, and the index is whole. (Request ids: what
# was stored before is not stored twice.)
rm "$work/disk/filler"

room=$((100000 - $(entries)))
rm -f "$data"/cut/*
lines 200000 1000 > "$work/fourth"
status=0
converge-ledger append --data "$data" --ndjson "$work/fourth" > /dev/null 2> "$work/err" || status=$?
cat "$work/err"
echo "scarce: $before entries, then $after, $room would not fit; appending with room ended with $status"
now="$(entries)"
[ "$status" != 0 ] || [ "$now" -ge $((after + 1000)) ] || fail 'told as stored, and not there'
# The index needs room of its own to be made anew.
mount -o remount,size=128m "$work/disk"
converge-ledger rebuild-index --data "$data"
converge-ledger audit --data "$data" > /dev/null

# Too few file descriptors for anything, then for some things: never harm.
few="$work/few"
converge-ledger init --data "$few" --name few > /dev/null
converge-ledger append --data "$few" --context c --key k --payload first > /dev/null
acknowledged=1
for limit in 3 4 5 6 7 8 9 10 11 12 13 14 16 18 20 24 28 32; do
    if (ulimit -n "$limit"; exec converge-ledger append --data "$few" --context c --key k \
        --payload "$limit") > /dev/null 2> "$work/err"; then
        acknowledged=$((acknowledged + 1))
    fi
done
[ "$acknowledged" -gt 1 ] || fail 'no append succeeded with 32 file descriptors'
data="$few"
[ "$(entries)" -ge "$acknowledged" ] || fail 'file descriptors cost entries'
converge-ledger append --data "$few" --context c --key k --payload last > /dev/null
echo "scarce: $acknowledged of 19 appends acknowledged with 3 to 32 file descriptors"

# A directory that may only be read: reading goes on, writing is refused.
mount --bind "$few" "$few" && mount -o remount,bind,ro "$few" || { echo 'scarce: no read-only mount here'; exit 0; }
converge-ledger audit --data "$few" > /dev/null || fail 'audit of a read-only store'
converge-ledger get --data "$few" --context c > /dev/null || fail 'get from a read-only store'
status=0
converge-ledger append --data "$few" --context c --key k --payload no > /dev/null 2> "$work/err" || status=$?
cat "$work/err"
umount "$few"
[ "$status" = 3 ] || fail "append to a read-only store ended with $status"
echo 'scarce: done'
