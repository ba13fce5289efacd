"""Hyper-parameters of ConMIM, each default with its source. Importable without torch.

Source: [conmim] TencentARC/ConMIM 4263955.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from bench.api import Needs, Photometric
from bench.api.rules import InitStd, Inside, Natural, Positive, Range, Rising, Ruled, Share, Width

Hue = Annotated[float, Range(0, 0.5)]
"""A share of the colour circle, to either side."""


@dataclass(frozen=True, kw_only=True)
class ConMIMConfig(Ruled, section="conmim"):
    """Contrastive masked image modelling, arXiv 2205.09616 ([conmim] modeling_pretrain.py).

    The settings from ``jitter`` to ``solarise_p`` make the teacher's view of an image: chances,
    ranges, and the blur's radius in pixels. ``norm_images`` images share the statistics of the
    projectors' batch norms, as those of one process do in the original; 0 is the whole batch.
    ``momentum`` counts steps; with ``momentum_span`` above 0 the teacher's first time constant
    1 / (1 - momentum) is that share of the run instead. ``evaluate`` names the network that
    evaluation receives, and that a released file is taken to hold.
    """

    mask_ratio: Inside = 0.75  # [conmim] README: 37 of 49 cells
    mask_patch_size: Width = 32  # pixels; [conmim] README --mask_type random_mps32
    layer_scale: Share = 0.1  # [conmim] --layer_scale_init_value; ViT-L: 1e-5
    rel_pos_bias: bool = True  # [conmim] --rel_pos_bias, one shared table
    projector_width: Width = 4096  # [conmim] modeling_pretrain.py:104-120
    projector_out: Width = 256  # same
    temperature: Positive = 0.1  # [conmim] run_conmim_pretraining.py
    momentum: Share = 0.996  # of the teacher, rising to 1 by a cosine; [conmim] --t_momentum
    momentum_span: Share = 0.0  # ours, for short runs: see above; 0 is the original's rule
    norm_images: Natural = 64  # [conmim] README: 32 x 64, batch norms not synchronised
    jitter: tuple[Share, Share, Share, Hue] = (0.4, 0.4, 0.2, 0.1)  # [conmim] datasets.py:62-88
    jitter_p: Share = 0.8  # same
    grey_p: Share = 0.2  # same
    blur_p: Share = 0.1  # same
    blur_radius: Annotated[tuple[Positive, Positive], Rising(equal=True)] = (0.1, 2.0)  # same
    solarise_p: Share = 0.2  # same
    evaluate: Literal["student", "teacher"] = "teacher"  # [conmim] README: checkpoint_copy
    init_std: InitStd = 0.02  # BEiT's, see baselines/init.py; made for a width of 768

    @property
    def needs(self) -> Needs:
        """A second view of each crop, and batches that are cut between groups of images alone."""
        view = Photometric(
            jitter=self.jitter,
            jitter_p=self.jitter_p,
            grey_p=self.grey_p,
            blur_p=self.blur_p,
            blur_radius=self.blur_radius,
            solarise_p=self.solarise_p,
        )
        return Needs(view=view, together=self.norm_images, setting="conmim.norm_images")

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """Settings for the small model of the conformance suite."""
        return {
            "mask_patch_size": 4,
            "projector_width": 32,
            "projector_out": 16,
            "norm_images": 2,
        }
