"""Fixtures for the tests of the ops: implementations, published results, the tolerance, kernels for tests of the build.

data/ops contains results of the published implementations: of bias_act, upfirdn2d_helpers, design_lowpass_filter and
modulated_conv2d_sg3 every case (of the last only those with second derivatives), of upfirdn2d two of three, of
conv2d_resample those with second derivatives and every sixth other, of modulated_conv2d_sg2 nine that cover all its
arguments. Inputs are float64, results rounded to float32.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ops.upfirdn2d
from ops import build, toolchain
from ops.autograd import compute_dtype

SOURCE = '#include "answer.h"\nextern "C" __attribute__((visibility("default"))) int answer() { return ANSWER; }\n'
DATA = Path(__file__).parents[1] / "data" / "ops"


@dataclass(frozen=True)
class Case:
    """One call of a published function: its arguments, inputs and outputs."""

    name: str
    args: dict[str, Any]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]

    def agrees(self, ours: Mapping[str, Tensor | None]) -> None:
        """Compare all outputs, up to rounding. A gradient that is None counts as zeros."""
        for name, theirs in self.outputs.items():
            value = ours[name]
            value = torch.zeros_like(theirs) if value is None else value.detach().to(theirs.dtype)
            scale = float(theirs.abs().max()) if theirs.numel() else 0.0
            torch.testing.assert_close(
                value, theirs, rtol=0, atol=1e-6 * max(scale, 1e-3), msg=lambda m, name=name: f"{self}, {name}: {m}"
            )

    def __str__(self) -> str:
        return f"{self.name} {self.args}"


def read(name: str) -> Iterator[Case]:
    with np.load(DATA / f"{name}.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files if key != "cases"}
        cases = json.loads(file["cases"].tobytes())
    for case in cases:
        key = f"c{case['case']:03d}/"
        given = {k.removeprefix(f"{key}in/"): v for k, v in arrays.items() if k.startswith(f"{key}in/")}
        outputs = {k.split("/")[-1]: v for k, v in arrays.items() if k.startswith(key) and "/in/" not in k}
        yield Case(f"{name} {case['case']}", case.get("args", case), given, outputs)


@pytest.fixture
def published() -> Callable[[str], Iterator[Case]]:
    return read


@pytest.fixture(params=["ref", "cpu"])
def impl(request: pytest.FixtureRequest) -> str:
    """Each implementation; the kernels are skipped if they are not available."""
    if request.param == "cpu" and not build.available("cpu"):
        pytest.skip("no kernels for the CPU")
    return str(request.param)


@pytest.fixture
def impl_within(impl: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each implementation, for functions that call upfirdn2d themselves."""
    monkeypatch.setattr(ops.upfirdn2d, "use_kernel", lambda asked, x: impl == "cpu")
    return impl


@pytest.fixture(scope="session")
def kernels() -> None:
    """Skips tests of the kernels if they are not available."""
    if not build.available("cpu"):
        pytest.skip("no kernels for the CPU")


Function = Callable[..., Tensor]


def derivatives(function: Function, inputs: list[Tensor | None], dtype: torch.dtype | None = None) -> list[Tensor]:
    """The result, its first derivatives and those of their sum of squares, always along the same random directions."""
    leaves = [None if t is None else t.detach().to(dtype or t.dtype).requires_grad_() for t in inputs]
    wanted = [t for t in leaves if t is not None]
    y = function(*leaves)
    generator = torch.Generator().manual_seed(y.numel())
    cotangent = torch.randn(y.shape, generator=generator, dtype=torch.float64).bfloat16().to(y).requires_grad_()
    first = torch.autograd.grad(y, wanted, cotangent, create_graph=True)
    loss = sum((g.to(torch.promote_types(g.dtype, torch.float32)).square().sum() for g in first), y.new_zeros(()))
    second = torch.autograd.grad(loss, [*wanted, cotangent], allow_unused=True, materialize_grads=True)
    return [y, *first, *second]


@pytest.fixture
def no_worse_than_torch() -> Callable[[Function, Function, list[Tensor | None]], None]:
    """The tolerance: the error of a kernel is at most twice that of plain PyTorch with the same number format.

    Errors are differences from the reference in float64, for values, first and second derivatives.
    """
    return _no_worse_than_torch


def _no_worse_than_torch(kernel: Function, reference: Function, inputs: list[Tensor | None]) -> None:
    x = next(t for t in inputs if t is not None)
    exact = derivatives(reference, inputs, torch.float64)
    rows = list(zip(derivatives(kernel, inputs), derivatives(reference, inputs), exact, strict=True))
    # If plain PyTorch happens to be exact, some roundings of the largest number are still allowed, separately for the
    # result with its first derivatives and for the second: some are sums of hundreds of terms that cancel.
    first = 1 + sum(t is not None for t in inputs)
    largest = [max((float(t.detach().abs().max()) for t in part if t.numel()), default=0.0)
               for part in (exact[:first], exact[first:])]  # fmt: skip
    rounding = max(4 * torch.finfo(x.dtype).eps, 256 * torch.finfo(compute_dtype(x)).eps)
    for index, (ours, theirs, truth) in enumerate(rows):
        if not truth.numel() or not theirs.isfinite().all():  # plain float16 may overflow, and then nothing is required
            continue
        budget = (theirs.double() - truth).abs().max() * 2 + rounding * largest[index >= first] + 1e-12
        error = (ours.double() - truth).abs().max()
        assert error <= budget, f"result {index} {list(truth.shape)}: error {error:.2e}, budget {budget:.2e}"


@pytest.fixture(scope="session")
def arranged() -> Callable[[list[int], torch.dtype, str, int], Tensor]:
    return _arranged


def _arranged(shape: list[int], dtype: torch.dtype, layout: str, seed: int) -> Tensor:
    """Random numbers in a memory layout: contiguous, channels_last, every second column, or transposed."""
    generator = torch.Generator().manual_seed(seed)
    n, c, h, w = shape
    if layout == "strided":
        return torch.randn([n, c, h, 2 * w], generator=generator).to(dtype)[..., ::2]
    if layout == "transposed":
        return torch.randn([n, c, w, h], generator=generator).to(dtype).transpose(2, 3)
    x = torch.randn(shape, generator=generator).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if layout == "channels_last" else x


@pytest.fixture
def compiles() -> Callable[[Function, list[Tensor | None]], None]:
    """Checks that a function compiles without a graph break, with the same results and gradients."""

    def check(function: Function, inputs: list[Tensor | None]) -> None:
        torch._dynamo.reset()
        leaves = [None if t is None else t.detach().clone().requires_grad_() for t in inputs]
        wanted = [t for t in leaves if t is not None]
        results = []
        for run in (function, torch.compile(function, fullgraph=True, backend="aot_eager")):
            y = run(*leaves)
            results.append([y, *torch.autograd.grad(y.square().sum(), wanted)])
        torch.testing.assert_close(*results)

    return check


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Kernels that compile quickly: two lines in `build.CSRC`. Returns the cache folder, which does not exist yet."""
    csrc = tmp_path / "csrc"
    (csrc / "cpu").mkdir(parents=True)
    (csrc / "answer.h").write_text("#define ANSWER 42\n")
    (csrc / "cpu" / "answer.cpp").write_text(SOURCE)
    monkeypatch.setattr(build, "CSRC", csrc)
    # The header is one folder up, and the flags for speed are not needed.
    monkeypatch.setattr(toolchain, "cpu_flags", lambda: ["-O0", f"-I{csrc}"])
    monkeypatch.setenv("CPATH", str(csrc))  # for other processes
    monkeypatch.setenv("STYLEGAN_OPS_CACHE", str(tmp_path / "cache"))
    for variable in ("STYLEGAN_OPS", "CXX", "LOCAL_RANK"):
        monkeypatch.delenv(variable, raising=False)
    _forget()
    yield tmp_path / "cache"
    _forget()


@pytest.fixture
def forget() -> Callable[[], None]:
    """Makes this process forget what it has loaded and printed."""
    return _forget


def _forget() -> None:
    for function in (build._settled, build.why_not, build._announce):
        function.cache_clear()
