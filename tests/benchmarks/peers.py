"""What a user would pick instead: the same models from Hugging Face, lightly and timm.

Each module's ``forward(images, hidden)`` gives the loss to step on. Packages are loaded by the
modules, so that a missing one skips its own comparison alone.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.patches import patchify
from baselines.positions import sincos_positions


def _noise(hidden: Tensor) -> Tensor:
    """Noise whose argsort keeps the visible patches in their order, [B, N]."""
    places = torch.arange(hidden.shape[1], device=hidden.device) / hidden.shape[1]
    return hidden.float() + 0.5 * places


class HuggingFaceMAE(nn.Module):
    """``ViTMAEForPreTraining``, its zero position tables filled in; loss of normalised pixels.

    ``decoder`` is its width, depth and heads.
    """

    def __init__(
        self,
        shape: Any,
        attention: str = "sdpa",
        decoder: tuple[int, int, int] = (512, 8, 16),
        ratio: float = 0.75,
    ) -> None:
        super().__init__()
        transformers = pytest.importorskip("transformers")
        config = transformers.ViTMAEConfig(
            hidden_size=shape.width,
            num_hidden_layers=shape.depth,
            num_attention_heads=shape.heads,
            intermediate_size=int(shape.width * shape.mlp_ratio),
            image_size=shape.image_size,
            patch_size=shape.patch_size,
            layer_norm_eps=1e-6,
            num_channels=shape.channels,
            decoder_hidden_size=decoder[0],
            decoder_num_hidden_layers=decoder[1],
            decoder_num_attention_heads=decoder[2],
            decoder_intermediate_size=4 * decoder[0],
            mask_ratio=ratio,
            norm_pix_loss=True,
            attn_implementation=attention,
        )
        self.model = transformers.ViTMAEForPreTraining(config)
        tables = {"vit.embeddings.position_embeddings": shape.width}
        tables["decoder.decoder_pos_embed"] = config.decoder_hidden_size
        parameters = dict(self.model.named_parameters())
        for name, width in tables.items():
            parameters[name].data.copy_(sincos_positions(width, shape.grid))

    def forward(self, images: Tensor, hidden: Tensor) -> Tensor:
        """The model's own loss on these masks."""
        loss: Tensor = self.model(images, noise=_noise(hidden)).loss
        return loss


def _lightly_encoder(shape: Any) -> Any:
    modules = pytest.importorskip("lightly.models.modules")
    from timm.models.vision_transformer import VisionTransformer

    vit = VisionTransformer(
        img_size=shape.image_size,
        patch_size=shape.patch_size,
        embed_dim=shape.width,
        depth=shape.depth,
        num_heads=shape.heads,
        num_classes=0,
    )
    return modules.MaskedVisionTransformerTIMM(vit=vit)


class LightlyMAE(nn.Module):
    """MAE put together from lightly's encoder and decoder, as its documentation shows."""

    def __init__(self, shape: Any) -> None:
        super().__init__()
        modules = pytest.importorskip("lightly.models.modules")
        self.encoder, self.patch = _lightly_encoder(shape), shape.patch_size
        self.decoder = modules.MAEDecoderTIMM(
            num_patches=shape.grid**2,
            patch_size=shape.patch_size,
            embed_dim=shape.width,
            decoder_embed_dim=512,
            decoder_depth=8,
            decoder_num_heads=16,
        )

    def forward(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Mean squared error of the hidden patches' normalised pixels."""
        from lightly.models import utils

        order = _noise(hidden).argsort(1) + 1
        kept = int((~hidden[0]).sum())
        keep = F.pad(order[:, :kept], (1, 0))
        encoded = self.decoder.embed(self.encoder.encode(images=images, idx_keep=keep))
        tokens = utils.repeat_token(self.decoder.mask_token, (len(images), hidden.shape[1] + 1))
        tokens = utils.set_at_index(tokens, keep, encoded.type_as(tokens))
        decoded = utils.get_at_index(self.decoder.decode(tokens), order[:, kept:])
        patches = utils.patchify(images, self.patch)
        target = utils.get_at_index(patches, order[:, kept:] - 1)
        return F.mse_loss(self.decoder.predict(decoded), utils.normalize_mean_var(target))


class LightlySimMIM(nn.Module):
    """SimMIM put together from lightly's encoder, as its documentation shows; no position bias."""

    def __init__(self, shape: Any) -> None:
        super().__init__()
        self.encoder, self.patch = _lightly_encoder(shape), shape.patch_size
        self.decoder = nn.Linear(shape.width, shape.channels * shape.patch_size**2)

    def forward(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Mean absolute error of the hidden patches' pixels."""
        from lightly.models import utils

        masked = hidden.nonzero()[:, 1].view(len(hidden), -1) + 1
        encoded = self.encoder.encode(images=images, idx_mask=masked)
        predicted = self.decoder(utils.get_at_index(encoded, masked))
        target = utils.get_at_index(utils.patchify(images, self.patch), masked - 1)
        return F.l1_loss(predicted, target)


class TimmBlocks(nn.Module):
    """timm's blocks alone, on as many tokens as MAE's encoder and decoder see."""

    def __init__(self, shape: Any) -> None:
        super().__init__()
        from timm.models.vision_transformer import Block

        self.patch = shape.patch_size
        self.embed = nn.Linear(shape.channels * shape.patch_size**2, shape.width)
        self.encoder = nn.Sequential(
            *(Block(shape.width, shape.heads, qkv_bias=True) for _ in range(shape.depth))
        )
        self.narrow = nn.Linear(shape.width, 512)
        self.decoder = nn.Sequential(*(Block(512, 16, qkv_bias=True) for _ in range(8)))
        self.pixels = nn.Linear(512, shape.channels * shape.patch_size**2)

    def forward(self, images: Tensor, hidden: Tensor) -> Tensor:
        """A loss over all patches, so that every product has its gradients."""
        patches = patchify(images, self.patch)
        tokens = self.embed(patches[~hidden].view(len(images), -1, patches.shape[2]))
        tokens = self.narrow(self.encoder(tokens))
        rest = patches.shape[1] - tokens.shape[1]
        tokens = torch.cat([tokens, tokens[:, :1].expand(-1, rest, -1)], 1)
        return F.mse_loss(self.pixels(self.decoder(tokens)), patches)
