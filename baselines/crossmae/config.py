"""Hyper-parameters of CrossMAE, each default with its source. Importable without torch.

Source: [crossmae] TonyLianLong/CrossMAE 6e1b329.
"""

from __future__ import annotations

from dataclasses import dataclass

from baselines.mae.config import MAEConfig
from bench.api.rules import Layers, Part


@dataclass(frozen=True, kw_only=True)
class CrossMAEConfig(MAEConfig, section="crossmae"):
    """MAE whose mask tokens only ask, arXiv 2401.14391 ([crossmae] models_cross.py).

    ``predict_share`` is the share of the hidden patches that a step predicts, drawn for each image;
    the original states it as a share of all patches and multiplies the learning rate by it, which
    is not done here. The two attributes below are no settings.
    """

    recipe_of = "mae"  # [crossmae] README: MAE's pre-training recipe and fine-tuning code
    baseline = "mae"  # masks, order and crops are MAE's too

    decoder_depth: Layers = 12  # [crossmae] README --decoder_depth 12
    predict_share: Part = 1.0  # [crossmae] README, models: kept mask ratio 0.75 of 0.75
