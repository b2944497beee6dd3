#!/usr/bin/env bash
# Times distill against PyTorch on this machine, side by side: the same networks with the same weights, after a check
# that both compute the same outputs and gradients. Options are those of scripts/bench_vs_torch.py:
#
#     scripts/bench_vs_torch.sh [--json FILE] [--seconds S] [--only TEXT] [--modes TEXT] [--dtype f32]
#         [--device cuda:0]
#
# DISTILL_PEER_PYTHON names a Python with PyTorch; without it PyTorch is installed into a virtual environment in the
# user's cache. DISTILL_BIN names a distill that is built already.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${DISTILL_PEER_PYTHON:-}
if [ -z "$python" ]; then
    venv=${XDG_CACHE_HOME:-$HOME/.cache}/distill/peer
    python=$venv/bin/python
    if ! "$python" -c 'import torch' 2>/dev/null; then
        echo "installing torch into $venv ..." >&2
        python3 -m venv "$venv"
        "$venv/bin/pip" install -q torch numpy >&2
    fi
elif ! "$python" -c 'import torch'; then
    echo "DISTILL_PEER_PYTHON=$python: expected a Python that imports torch, found the error" \
        "above; install them there, or unset the variable" >&2
    exit 2
fi
[ -n "${DISTILL_BIN:-}" ] || cargo build --release --locked
exec "$python" scripts/bench_vs_torch.py "$@"
