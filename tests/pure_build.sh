#!/bin/sh
# The verifier without C: no default features, BLAKE3 in Rust alone. Builds it
# for this machine with C compilers that fail and remember that they were asked,
# and for WebAssembly, where there is none and addresses have 32 bits, if Rust's
# library for that is there or can be had.
set -eu
cd "$(dirname "$0")/.."
dir="$PWD/target/pure"
mkdir -p "$dir"
fail() { echo "pure build: FAILED: $*" >&2; exit 1; }

# A compiler for one target would be taken before the one for all.
for name in $(env | sed -n 's/^\(\(HOST_\|TARGET_\)\{0,1\}\(CC\|CXX\|AR\)\(_[A-Za-z0-9_]*\)\{0,1\}\)=.*/\1/p'); do
    unset "$name"
done
asked="$dir/asked"
none="$dir/no-c-compiler"
rm -f "$asked"
printf '#!/bin/sh\necho "$@" >> "%s"\nexit 1\n' "$asked" > "$none"
chmod +x "$none"
export CC="$none" CXX="$none" AR="$none" CRATE_CC_NO_DEFAULTS=1

build() { cargo build --locked --lib --no-default-features --features pure --target-dir "$dir" "$@"; }

# BLAKE3's build looks whether there is a C compiler even if it is told not to
# use one; it must not go beyond looking.
compiled() {
    [ -e "$asked" ] || return 0
    grep -v -e detect_compiler_family -e flag_check "$asked" || :
}
no_c() { [ -z "$(compiled)" ] || fail "C was to be compiled: $(compiled | head -n 1)"; }

build || fail 'for this machine'
no_c
echo 'pure build: for this machine, with C compilers that fail'

has() { [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ]; }
for target in wasm32-wasip1 wasm32-unknown-unknown; do
    if has "$target" || { rustup target add "$target" > /dev/null 2>&1 && has "$target"; }; then
        build --target "$target" || fail "for $target"
        no_c
        echo "pure build: for $target"
        exit 0
    fi
done
echo 'pure build: WebAssembly skipped, there is no library of Rust for it here'
