"""Adam without PyTorch's compiler, and the averaged copy of a network.

`torch.optim.Adam` imports torch._dynamo at its first step: 72 MB of memory and one to two seconds in every process (see
docs/performance-log.md). `Adam` calls the same fused kernel, so the steps are the same to the bit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

FUSED = ("cpu", "cuda", "meta")  # the devices for which there is a kernel of a whole step


def share_of(batch: int, halflife_kimg: float) -> float:
    """What new weights count in an average after `batch` images, if the old ones count half after a half-life.

    halflife_kimg: in thousand images; 0 for the new weights alone
    """
    return 1 - 0.5 ** (batch / (halflife_kimg * 1000)) if halflife_kimg > 0 else 1.0


@torch.no_grad()
def track(average: nn.Module, model: nn.Module, share: float | Tensor) -> None:
    """Move the averaged weights towards the model's (an exponential moving average), and copy the buffers.

    share: what the model's weights count, see `share_of`; a number, or float32 [] on their device
    """
    old: list[Tensor] = list(average.parameters())
    new: list[Tensor] = list(model.parameters())
    if isinstance(share, Tensor):
        steps = torch._foreach_sub(new, old)
        torch._foreach_mul_(steps, share)
        torch._foreach_add_(old, steps)
    else:
        torch._foreach_lerp_(old, new, share)
    if buffers := list(average.buffers()):
        torch._foreach_copy_(buffers, list(model.buffers()))


class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1), with the learning rate as an argument of each step.

    state: `step`, `exp_avg` and `exp_avg_sq` of each parameter that was updated since the last `forget`.
    """

    def __init__(self, params: Iterable[nn.Parameter], betas: tuple[float, float], eps: float):
        self.params = list(params)
        self.betas = betas
        self.eps = eps
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    def zero_grad(self) -> None:
        """Remove the gradients."""
        for p in self.params:
            p.grad = None

    @torch.no_grad()
    def step(self, lr: float, skip: Tensor | None = None) -> None:
        """Update every parameter that has a gradient.

        skip: float32 [], on their device: where it is 1, nothing changes, whatever the gradients are. It is not read.
        """
        moving: list[Tensor] = [p for p in self.params if p.grad is not None]
        if not moving:
            return
        fused = moving[0].device.type in FUSED
        if not fused and skip is not None and skip > 0:  # elsewhere it has to be read
            return
        for p in moving:
            if p not in self.state:
                step = torch.zeros((), device=p.device if fused else "cpu")
                self.state[p] = {"step": step, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        entries = [self.state[p] for p in moving]
        grads = [p.grad for p in moving if p.grad is not None]
        averages, squares, steps = ([e[name] for e in entries] for name in ("exp_avg", "exp_avg_sq", "step"))
        adam(
            moving, grads, averages, squares, [], steps, found_inf=skip if fused else None, lr=lr,
            beta1=self.betas[0], beta2=self.betas[1], eps=self.eps, fused=fused, foreach=not fused, amsgrad=False,
            weight_decay=0.0, maximize=False,
        )  # fmt: skip

    def forget(self) -> None:
        """Forget the moments and the number of steps."""
        self.state.clear()

    def state_dict(self) -> dict[str, Any]:
        """Returns the moments by the index of the parameter."""
        return {"state": {i: self.state[p] for i, p in enumerate(self.params) if p in self.state}}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Load the moments that `state_dict` returned.

        Raises KeyError, ValueError or RuntimeError if they belong to other parameters.
        """
        found: dict[Tensor, dict[str, Tensor]] = {}
        for i, entry in saved["state"].items():
            if not 0 <= i < len(self.params):
                raise ValueError(f"there is no parameter {i}, only {len(self.params)}")
            p = self.params[i]
            found[p] = {"step": entry["step"].to(p.device, copy=True)}
            for name in ("exp_avg", "exp_avg_sq"):
                found[p][name] = torch.empty_like(p).copy_(entry[name].reshape(p.shape))
        self.state = found
