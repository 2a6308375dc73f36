#!/bin/sh
# The vectors of proofs and evidence, and of what they are made of, by a second
# verifier: tests/clients/verify.py, which was written from spec/ alone.
set -eu
cd "$(dirname "$0")/../.."
. tests/clients/venv.sh

"$venv/bin/python" tests/clients/verify.py --vectors tests/vectors
