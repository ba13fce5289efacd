"""What methods, plug-ins and trackers are held to. Enters what outside packages may import."""

from typing import TYPE_CHECKING, Any

from bench.api.contract import (
    Batch,
    Classifier,
    ClassifierOptions,
    GeneratorFor,
    MaskEmbedding,
    Method,
    MethodOutput,
    Needs,
    Photometric,
    SampleStream,
    Sink,
    TokenHook,
    TokenLayer,
    TokenPlan,
    VisionShape,
    asks_only,
    masks_at,
    needs_of,
)

if TYPE_CHECKING:
    from bench.api.wrapper import PassOn, Wrapper

__all__ = [
    "Batch",
    "Classifier",
    "ClassifierOptions",
    "GeneratorFor",
    "MaskEmbedding",
    "Method",
    "MethodOutput",
    "Needs",
    "PassOn",
    "Photometric",
    "SampleStream",
    "Sink",
    "TokenHook",
    "TokenLayer",
    "TokenPlan",
    "VisionShape",
    "Wrapper",
    "asks_only",
    "masks_at",
    "needs_of",
]


def __getattr__(name: str) -> Any:
    """What needs torch is imported when it is asked for."""
    if name not in ("PassOn", "Wrapper"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bench.api import wrapper

    return getattr(wrapper, name)
