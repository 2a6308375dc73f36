# Sourced by the scripts beside it, from the folder of the project: a virtual
# environment under target/, made once from pinned packages. Sets `target` and
# `venv`, or ends the script and says why.
target="${CARGO_TARGET_DIR:-$PWD/target}"
requirements=tests/clients/requirements.txt
venv="$target/clients/venv"

# Half an environment is none: the list is copied when all of it is installed.
if ! cmp -s "$requirements" "$venv/installed.txt"; then
    skip() { echo "clients: skipped, $*"; exit 0; }
    python3 -c 'import ensurepip, venv' 2> /dev/null || skip 'there is no python3 with venv'
    rm -rf "$venv"
    mkdir -p "$target/clients"
    python3 -m venv "$venv" || skip 'no virtual environment could be made'
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements" ||
        skip 'pip could not install the packages'
    cp "$requirements" "$venv/installed.txt"
fi
