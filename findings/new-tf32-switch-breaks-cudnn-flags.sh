#!/usr/bin/env bash
# Whether PyTorch's newer switches for TensorFloat-32 can be used beside the older ones.
#
# Guess: they set the same thing, so an older flag that is read afterwards is False where the newer one says "ieee".
# Found with torch 2.13.0 (CPU, Python 3.11): once torch.backends.cudnn.fp32_precision, or that of conv, is "ieee",
# reading torch.backends.cudnn.allow_tf32 raises RuntimeError, and so does `with torch.backends.cudnn.flags(...)`, which
# reads it: code of others that asks only for deterministic kernels fails. That holds without any GPU, and even if all
# newer switches of cuDNN say the same. Of matrix products (torch.backends.cuda.matmul) both can be read.
# Output seen:
#   torch 2.13.0
#   nothing set: allow_tf32 can be read, flags() works, matmul.allow_tf32 can be read
#   conv set:    allow_tf32 raises RuntimeError, flags() raises RuntimeError, matmul.allow_tf32 can be read
#   all set:     allow_tf32 raises RuntimeError, flags() raises RuntimeError, matmul.allow_tf32 can be read
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$folder/flags.py" <<'PY'
import sys

import torch

for setting in sys.argv[1:]:
    exec(f"torch.backends.{setting} = 'ieee'")


def outcome(what, works):
    try:
        what()
    except RuntimeError:
        return "raises RuntimeError"
    return works


def flags():
    with torch.backends.cudnn.flags(enabled=True, deterministic=True):
        pass


print(", ".join([
    "allow_tf32 " + outcome(lambda: torch.backends.cudnn.allow_tf32, "can be read"),
    "flags() " + outcome(flags, "works"),
    "matmul.allow_tf32 " + outcome(lambda: torch.backends.cuda.matmul.allow_tf32, "can be read"),
]))
PY
"$folder/venv/bin/python" -c 'import torch; print("torch", torch.__version__.split("+")[0])'
look() { # name, what is expected, settings
    name=$1 expected=$2
    shift 2
    found=$("$folder/venv/bin/python" "$folder/flags.py" "$@")
    printf '%-12s %s\n' "$name:" "$found"
    [ "$found" = "$expected" ] || { echo "changed: expected $expected"; exit 1; }
}
look "nothing set" "allow_tf32 can be read, flags() works, matmul.allow_tf32 can be read"
raises="allow_tf32 raises RuntimeError, flags() raises RuntimeError, matmul.allow_tf32 can be read"
look "conv set" "$raises" cudnn.conv.fp32_precision cuda.matmul.fp32_precision
look "all set" "$raises" cudnn.fp32_precision cudnn.conv.fp32_precision cudnn.rnn.fp32_precision cuda.matmul.fp32_precision
