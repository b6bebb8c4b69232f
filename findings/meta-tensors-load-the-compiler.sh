#!/usr/bin/env bash
# What one computation with a tensor without contents (the meta device) loads.
#
# Guess: nothing, as there is nothing to compute; building a network there should take milliseconds.
# Found with torch 2.13.0 (CPU, Python 3.11): making a tensor loads nothing, but `x / 2`, `2 * x`, `1 + x` and
# `torch.randn` load sympy, the first three also torch._dynamo, PyTorch's compiler: 0.8 s and 75 MB here, once for each
# process. Programs that size or check a network on the meta device pay this at their start.
# Output seen:
#   torch 2.13.0
#   torch.empty       loads nothing more
#   torch.zeros       loads nothing more
#   torch.randn       loads sympy
#   x / 2             loads torch._dynamo and sympy
#   2 * x             loads torch._dynamo and sympy
#   1 + x             loads torch._dynamo and sympy
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$folder/once.py" <<'PY'
import sys

import torch

x = torch.empty(3, device="meta")
before = set(sys.modules)
eval(sys.argv[1])
print(" and ".join(name for name in ("torch._dynamo", "sympy") if name in set(sys.modules) - before) or "nothing more")
PY
"$folder/venv/bin/python" -c 'import torch; print("torch", torch.__version__.split("+")[0])'
look() { # name, expression, what is expected
    found=$("$folder/venv/bin/python" "$folder/once.py" "$2")
    printf '%-17s loads %s\n' "$1" "$found"
    [ "$found" = "$3" ] || { echo "changed: expected $3"; exit 1; }
}
look torch.empty 'torch.empty(3, device="meta")' "nothing more"
look torch.zeros 'torch.zeros(3, device="meta")' "nothing more"
look torch.randn 'torch.randn(3, device="meta")' "sympy"
look "x / 2" 'x / 2' "torch._dynamo and sympy"
look "2 * x" '2 * x' "torch._dynamo and sympy"
look "1 + x" '1 + x' "torch._dynamo and sympy"
