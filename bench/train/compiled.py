"""Forward and backward passes compiled by ``torch.compile``: the same numbers up to rounding."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from bench.errors import UsageError
from bench.machine.compiler import check_compiler
from bench.streams import hide_from_compilers

MOST_TIMES = 256
"""How often one function may be compiled, over all layers, shapes and modes that call it."""


def compiled(module: Any, device: torch.device, backend: str = "inductor") -> Callable[..., Any]:
    """A function that does what ``module`` does, compiled anew for each shape it meets.

    The module keeps its weights and their names. Draws of library code come from the same
    generators as without.

    Raises:
        UsageError: if this machine has nothing to compile with, or when called if every step would
            be compiled anew, because the module computes with a number that changes each time.
    """
    check_compiler(device.type)
    _settle()
    fast = torch.compile(module, dynamic=False, backend=backend)

    def run(*arguments: Any) -> Any:
        try:
            return fast(*arguments)
        except torch._dynamo.exc.FailOnRecompileLimitHit as error:
            raise UsageError(
                f"{type(module).__name__} computes with a number that changes from step to step "
                "(Batch.progress?), and would be compiled anew each time: leave --compile away."
            ) from error

    return run


@cache
def _settle() -> None:
    """Once a process: draws as without compiling, and no silent end of it."""
    import torch._dynamo
    import torch._inductor.config

    hide_from_compilers()
    torch._inductor.config.fallback_random = True
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    torch._dynamo.config.accumulated_recompile_limit = MOST_TIMES
