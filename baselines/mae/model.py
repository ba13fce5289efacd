"""MAE: "Masked Autoencoders Are Scalable Vision Learners", arXiv 2111.06377.

The encoder sees only the visible patches; a small decoder sees them together with mask tokens
and predicts the pixels of the hidden ones. B images, N patches, V visible, M hidden, P pixel
values a patch, D encoder width, E decoder width.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from baselines import masking
from baselines.carry import carry
from baselines.entering import entering
from baselines.init import init_mae, initialise
from baselines.linear import Linear
from baselines.mae.config import MAEConfig
from baselines.mae.official import from_mae
from baselines.patches import normalise_patches, patchify, pixels_first, pixels_last, unpatchify
from baselines.places import split, take
from baselines.positions import sincos_positions
from baselines.vit import (
    EPS,
    Block,
    Style,
    VisionTransformer,
    ViTClassifier,
    run_blocks,
    run_carried,
)
from bench.api import (
    Batch,
    ClassifierOptions,
    GeneratorFor,
    MethodOutput,
    SampleStream,
    TokenHook,
    VisionShape,
)

STYLE = Style(positions="sincos")


class MAE(nn.Module):
    """Masked autoencoder; mask tokens live in the decoder only."""

    Config = MAEConfig

    def __init__(self, shape: VisionShape, config: MAEConfig) -> None:
        super().__init__()
        self.shape, self.config = shape, config
        width = config.decoder_width
        self.vit = VisionTransformer(shape, STYLE)
        self.decoder_embed = Linear(shape.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        table = sincos_positions(width, shape.grid)
        self.decoder_pos_embed = nn.Parameter(table, requires_grad=False)
        self.decoder_blocks = nn.ModuleList(
            Block(width, config.decoder_heads, 4.0, STYLE) for _ in range(config.decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(width, eps=EPS)
        self.decoder_pred = Linear(width, shape.patch_size**2 * shape.channels)

    def forward(self, batch: Batch, hook: TokenHook | None = None) -> MethodOutput:
        """Mean squared error of the hidden patches' (normalised) pixels, models_mae.py:198-214."""
        patches = patchify(batch.images, self.shape.patch_size)
        visible, _ = split(batch.hidden, batch.most or self.hidden_count)
        latent = self.encode(take(patches, visible), visible, batch.noise)
        decoded, predicted = self.decode(latent, visible, batch, hook)
        prediction = self.decoder_pred(self.decoder_norm(decoded))
        target = self.target(take(patches, predicted))
        loss = (prediction.float() - target).square().mean()
        return MethodOutput(loss, terms={"mim": loss.detach()}, prediction=prediction)

    @property
    def hidden_count(self) -> int:
        """M, the number of hidden patches of every image."""
        return self.shape.patches - int(self.shape.patches * (1 - self.config.mask_ratio))

    def encode(self, patches: Tensor, visible: Tensor, noise: SampleStream | None) -> Tensor:
        """Visible patches [B, V, P] at places [B, V] to latent tokens [B, 1 + V, D]."""
        tokens = self.vit.prepend_class(self.embed(patches, visible))
        normed: Tensor = self.vit.norm(self.vit.run(tokens, noise)[-1])
        return normed

    def embed(self, patches: Tensor, visible: Tensor) -> Tensor:
        """Visible patches [B, V, P] embedded with their positions, [B, V, D]."""
        places = take(self.vit.pos_embed[:, 1:].expand(len(patches), -1, -1), visible)
        tokens: Tensor = self.vit.patch_embed(patches)
        return tokens + places.to(tokens.dtype)

    def decode(
        self, latent: Tensor, visible: Tensor, batch: Batch, hook: TokenHook | None
    ) -> tuple[Tensor, Tensor]:
        """Latent tokens [B, 1 + V, D] and mask tokens through the decoder.

        Returns the masked ones [B, M, E] and their places [B, M]. Tokens that are carried in an
        order of their own need not be put in their places first.
        """
        x = self.decoder_embed(latent).to(self.decoder_embed.weight.dtype)  # see PatchEmbed
        hidden = batch.hidden
        full = entering(hook, x[:, 1:], self.mask_token, hidden)
        full = full.to(x.dtype).expand(len(x), self.shape.patches, -1)
        table = self.decoder_pos_embed.to(x.dtype)
        carried = carry(hook, hidden, len(self.decoder_blocks))
        if carried is not None:
            masked = carried.order[:, carried.columns :]
            x = torch.cat([x, take(full, masked - 1)], dim=1) + table[0][carried.order]
            x = run_carried(self.decoder_blocks, x, carried)[-1]
            return x[:, carried.columns :], masked - 1
        full = full.scatter(1, visible[:, :, None].expand(-1, -1, x.shape[2]), x[:, 1:])
        x = torch.cat([x[:, :1], full], dim=1) + table
        watch = None if hook is None else (hook, nn.functional.pad(hidden, (1, 0)))
        x = run_blocks(self.decoder_blocks, x, watch=watch)[-1]
        places = split(hidden, batch.most or self.hidden_count)[1]
        return take(x[:, 1:], places), places

    def target(self, patches: Tensor) -> Tensor:
        """What is predicted: the pixels, each patch normalised if so configured, MAE's order."""
        patches = pixels_last(patches.float(), self.shape.channels)
        return normalise_patches(patches) if self.config.norm_pix_loss else patches

    def reconstruct(self, batch: Batch, prediction: Tensor) -> Tensor:
        """A forward pass's prediction as pixels [B, C, S, S]; visible patches are the image's.

        With ``norm_pix_loss`` each predicted patch is scaled back by the mean and deviation of the
        true one, which the model did not see.
        """
        patches = patchify(batch.images, self.shape.patch_size)
        _, hidden = split(batch.hidden, batch.most or self.hidden_count)
        prediction = prediction.float()
        if self.config.norm_pix_loss:
            variance, mean = torch.var_mean(take(patches, hidden), dim=-1, keepdim=True)
            prediction = prediction * (variance + 1e-6).sqrt() + mean
        pixels = pixels_first(prediction, self.shape.channels).to(patches.dtype)
        index = hidden[:, :, None].expand(-1, -1, patches.shape[2])
        full = patches.scatter(1, index, pixels)
        return unpatchify(full, self.shape.patch_size, self.shape.channels)

    def reset_parameters(self, generator_for: GeneratorFor) -> None:
        """Initialises as models_mae.py:65-93, each parameter from its own stream."""
        pixels = self.shape.channels * self.shape.patch_size**2
        initialise(self, partial(init_mae, patch_pixels=pixels), generator_for)

    def import_official(self, official: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a released MAE checkpoint under the names of this method."""
        return from_mae(official, self.state_dict())

    def draw_hidden(self, stream: SampleStream) -> Tensor:
        """Random masks, bool [B, N]."""
        return masking.random_patches(stream, self.shape.patches, self.config.mask_ratio)

    def mask_tokens(self) -> Mapping[str, nn.Parameter]:
        """The decoder's mask token."""
        return {"mask_token": self.mask_token}

    def no_weight_decay(self) -> set[str]:
        """Nothing: the official groups decay class and mask token (main_pretrain.py:179)."""
        return set()

    def after_step(self, step: int, total_steps: int) -> None:
        """MAE has no teacher."""

    def encoder(self) -> nn.Module:
        """The encoder, timm's ``VisionTransformer`` names."""
        return self.vit

    def classifier(self, options: ClassifierOptions) -> ViTClassifier:
        """A fresh classifier of this architecture."""
        style = Style(positions="sincos", drop_path=options.drop_path)
        return ViTClassifier(self.shape, style, options)
