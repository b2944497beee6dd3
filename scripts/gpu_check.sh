#!/usr/bin/env bash
# Checks and times distill on this machine's card, in under nine minutes: every op against its reference, a short
# `distill run`, and the time of training, sampling and judging beside PyTorch's.
#
#     scripts/gpu_check.sh BINARY [--device cuda:0] [--out DIR] [--only PART]
#
# Ends in a table and in DIR/gpu_check.json; exit code 1 if something computes wrongly or does not run. Needs the binary,
# this folder of scripts and Python 3.9; that Python's PyTorch is measured beside ours, if it has one. DISTILL_PEER_PYTHON
# names another Python. `--device cpu` goes the same way with small batches.
set -euo pipefail
python=${DISTILL_PEER_PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
    echo "$python: expected Python 3.9 or newer, found none; install it, or name one in DISTILL_PEER_PYTHON" >&2
    exit 2
fi
exec "$python" "$(dirname "$0")/gpu_check.py" "$@"
