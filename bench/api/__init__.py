"""What methods, plug-ins and trackers are held to. Enters what outside packages may import."""

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
    needs_of,
)

__all__ = [
    "Batch",
    "Classifier",
    "ClassifierOptions",
    "GeneratorFor",
    "MaskEmbedding",
    "Method",
    "MethodOutput",
    "Needs",
    "Photometric",
    "SampleStream",
    "Sink",
    "TokenHook",
    "TokenLayer",
    "TokenPlan",
    "VisionShape",
    "needs_of",
]
