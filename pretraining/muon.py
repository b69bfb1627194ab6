"""The Muon optimizer: momentum with matrix updates orthogonalised by Newton-Schulz iterations.

Source: Jordan et al. 2024 for the quintic coefficients; Liu et al., arXiv 2502.16982, for the scale
0.2·√max(rows, columns), which preserves AdamW's learning rates. `torch.optim.Muon` supports only
matrices, and half of the parameters here are convolutions.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch

NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: torch.Tensor, steps: int = 4) -> torch.Tensor:
    """The approximately nearest semi-orthogonal matrix `[rows, columns]`, computed in bfloat16.

    Its singular values lie in about [0.7, 1.2].
    """
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    x = matrix.bfloat16()
    x = x / (x.norm() + 1e-7)
    transposed = x.shape[0] > x.shape[1]
    x = x.T if transposed else x
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: torch.Tensor = (x.T if transposed else x).to(matrix.dtype)
    return result


class Muon(torch.optim.Optimizer):
    """Muon for parameters of two or more axes; the first axis is the row.

    Args:
        params: Matrices and convolution kernels.
        lr: Learning rate on AdamW's scale.
        momentum: Nesterov momentum.
        share: Rank, world size and all-reduce function of this process. Each process
            orthogonalises every world-th matrix, and the all-reduce sums the results.
    """

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        share: tuple[int, int, Callable[[torch.Tensor], Any]] = (0, 1, lambda tensor: None),
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})
        self._share = share

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Updates the parameters; no closure is supported."""
        rank, world, all_reduce = self._share
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            flat = torch.zeros(sum(p.numel() for p in params))
            offset = 0
            for index, param in enumerate(params):
                buffer = self.state[param].setdefault("momentum_buffer", torch.zeros_like(param))
                buffer.mul_(group["momentum"]).add_(param.grad)
                if index % world == rank:
                    update = orthogonalise((param.grad + group["momentum"] * buffer).flatten(1))
                    scaled = update.flatten() * 0.2 * max(update.shape) ** 0.5
                    flat[offset : offset + param.numel()] = scaled
                offset += param.numel()
            all_reduce(flat)
            offset = 0
            for param in params:
                param.sub_(flat[offset : offset + param.numel()].view_as(param), alpha=group["lr"])
                offset += param.numel()
