#!/bin/sh
# Each target on its seeds, then some seconds of fuzzing, and the canary, which
# must be found: a fuzzer that misses it would miss everything else as well.
#
#   fuzz/smoke.sh [SECONDS per target, default 10]
#
# Needs cargo-fuzz (`cargo install cargo-fuzz --locked`); works on stable Rust,
# without a sanitizer, since the crate forbids unsafe code. Finds go to
# fuzz/artifacts, new inputs to fuzz/target, so that the seeds stay as they are.
set -eu
cd "$(dirname "$0")"
seconds=${1:-10}

cargo fuzz build -s none

found=target/found
mkdir -p "$found"
for target in $(cargo fuzz list); do
    [ "$target" = canary ] && continue
    echo "fuzz: $target"
    case $target in
    # A whole segment, a frame, a file of notes and nodes or an archive with a
    # payload: longer than the default 4 KiB.
    archive_read | segment_scan | verify_file | wire_message) length=65536 ;;
    *) length=4096 ;;
    esac
    mkdir -p "$found/$target"
    cargo fuzz run -s none "$target" "$found/$target" "corpus/$target" -- \
        -runs=0 -max_len="$length" -verbosity=0
    cargo fuzz run -s none "$target" "$found/$target" "corpus/$target" -- \
        -max_total_time="$seconds" -max_len="$length" -timeout=30 -verbosity=0 -print_final_stats=1
done

echo "fuzz: canary"
rm -rf "$found/canary"
mkdir -p "$found/canary"
if cargo fuzz run -s none canary "$found/canary" -- \
    -max_total_time=120 -artifact_prefix="$found/canary/" -verbosity=0 >"$found/canary.log" 2>&1; then
    echo "the canary was not found: the fuzzer is blind" >&2
    exit 1
fi
grep -q "the canary sings" "$found/canary.log" || {
    echo "the canary target failed for another reason:" >&2
    cat "$found/canary.log" >&2
    exit 1
}
echo "fuzz: done"
