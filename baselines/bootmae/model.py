"""BootMAE: "Bootstrapped Masked Autoencoders for Vision BERT Pretraining", arXiv 2207.07116.

The encoder sees the visible patches. A pixel decoder, which also reads the encoder's first layer,
predicts the hidden pixels; a feature decoder, which also reads its last, predicts what a moving
average of the encoder makes of the whole image there. B images, N patches, V visible, M hidden,
P pixel values a patch, D encoder width, E width of the pixel decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines import masking
from baselines.bootmae.config import BootMAEConfig
from baselines.bootmae.decoder import Decoder, DecoderShape, Masked
from baselines.bootmae.init import init_bootmae
from baselines.bootmae.official import from_bootmae
from baselines.init import initialise
from baselines.linear import Linear, linear
from baselines.patches import patchify, unpatchify
from baselines.places import put, split, take
from baselines.positions import sincos_positions
from baselines.vit import EPS, Style, VisionTransformer, ViTClassifier
from bench.api import (
    Batch,
    ClassifierOptions,
    GeneratorFor,
    MethodOutput,
    SampleStream,
    TokenHook,
    VisionShape,
)

PIXEL_EPS = 1e-5
"""Epsilon under the root of the pixel target's deviation (run_pretraining.py:436-445)."""


class BootMAE(nn.Module):
    """Bootstrapped masked autoencoder; mask tokens live in its two decoders."""

    Config = BootMAEConfig

    def __init__(self, shape: VisionShape, config: BootMAEConfig) -> None:
        super().__init__()
        self.shape, self.config = shape, config
        self.vit = _encoder(shape)
        depth = config.decoder_depth
        pixel = DecoderShape(shape.width, config.decoder_width, shape.heads, depth)
        feature = DecoderShape(shape.width, shape.width, shape.heads, depth)
        self.pixel_positions = _row_first(pixel.width, shape.grid)
        self.pixel_decoder = Decoder("pixel", pixel)
        self.feature_decoder = Decoder("feature", feature)
        patch = shape.patch_size
        self.pixel_head = nn.ConvTranspose2d(pixel.width, shape.channels, patch, stride=patch)
        self.feature_head = Linear(shape.width, shape.width)
        self.teacher = _encoder(shape).requires_grad_(False)

    def forward(self, batch: Batch, hook: TokenHook | None = None) -> MethodOutput:
        """Weighted squared errors of pixels and features at the hidden places, features ramped up.

        Both are sums over hidden places divided by the number of these, not of their weights
        (run_pretraining.py:415-463).
        """
        patches = patchify(batch.images, self.shape.patch_size)
        visible, hidden = split(batch.hidden, batch.most or self.hidden_count)
        masked = Masked(visible, hidden, F.pad(batch.hidden, (1, 0)))
        low, high = self.encode(take(patches, visible), visible, batch.noise)
        latent = self.vit.norm(high)
        pixels = self.pixels(self.pixel_decoder(latent, low, self.pixel_positions, masked, hook))
        features = self.feature_head(
            self.feature_decoder(latent, high, self.vit.pos_embed, masked, hook)
        )
        weights = self.weights(batch.hidden).gather(1, hidden)
        pixel = _mean_square(pixels - self.pixel_target(take(patches, hidden)), weights)
        feature = _mean_square(_normed(features) - self.target(batch.images, hidden), weights)
        loss = pixel + self.ramp(batch.progress) * feature
        terms = {"mim": loss.detach(), "pixel": pixel.detach(), "feature": feature.detach()}
        return MethodOutput(loss, terms=terms, prediction=pixels)

    @property
    def hidden_count(self) -> int:
        """M, the number of hidden patches of every image."""
        return self.shape.patches - int(self.shape.patches * (1 - self.config.mask_ratio))

    def encode(
        self, patches: Tensor, visible: Tensor, noise: SampleStream | None
    ) -> tuple[Tensor, Tensor]:
        """Outputs of the first and the last block, [B, 1 + V, D] each, of visible patches."""
        places = take(self.vit.pos_embed[:, 1:].expand(len(patches), -1, -1), visible)
        tokens = self.vit.patch_embed(patches)
        outputs = self.vit.run(self.vit.prepend_class(tokens + places.to(tokens.dtype)), noise)
        return outputs[0], outputs[-1]

    def pixels(self, tokens: Tensor) -> Tensor:
        """Decoded tokens [B, M, E] to pixels [B, M, P], in the order (channel, row, column)."""
        weight, bias = self.pixel_head.weight, self.pixel_head.bias
        assert bias is not None
        each = bias.repeat_interleave(self.shape.patch_size**2)
        return linear(tokens, weight.flatten(1).t(), each).float()

    def pixel_target(self, patches: Tensor) -> Tensor:
        """Pixels [B, M, P]; if so configured each channel of a patch has mean 0 and variance 1."""
        if not self.config.norm_pix_loss:
            return patches.float()
        channels = patches.float().unflatten(2, (self.shape.channels, -1))
        mean, deviation = _level(channels)
        return ((channels - mean) / deviation).flatten(2)

    @torch.no_grad()
    def target(self, images: Tensor, hidden: Tensor) -> Tensor:
        """The teacher's last block on the whole image, normed without affine, [B, M, D].

        Its own final norm is not applied (modeling_pretrain_bootmae.py:441-452).
        """
        return _normed(take(self.teacher.tokens(images)[:, 1:], hidden))

    def weights(self, mask: Tensor) -> Tensor:
        """Weight of each patch [B, N]: 1 + the share of its 3 x 3 surroundings that is hidden.

        Beyond the border nothing is hidden, and the share is still of nine.
        """
        if not self.config.weight_mask:
            return torch.ones(mask.shape, device=mask.device)
        grid = self.shape.grid
        around = F.avg_pool2d(mask.float().view(-1, 1, grid, grid), 3, stride=1, padding=1)
        return 1 + around.flatten(1)

    def ramp(self, progress: float) -> float:
        """Weight of the feature loss: from 0 linearly to 1 at ``feature_share`` of the run."""
        share = self.config.feature_share
        return min(1.0, progress / share) if share else 1.0

    def reconstruct(self, batch: Batch, prediction: Tensor) -> Tensor:
        """A forward pass's prediction as pixels [B, C, S, S]; visible patches are the image's.

        With ``norm_pix_loss`` each channel of a predicted patch is scaled back by the mean and
        deviation of the true one, which the model did not see.
        """
        patches = patchify(batch.images, self.shape.patch_size)
        _, hidden = split(batch.hidden, batch.most or self.hidden_count)
        if self.config.norm_pix_loss:
            channels = self.shape.channels
            mean, deviation = _level(take(patches, hidden).unflatten(2, (channels, -1)))
            prediction = prediction.unflatten(2, (channels, -1)) * deviation + mean
            prediction = prediction.flatten(2)
        full = put(prediction.to(patches.dtype), hidden, patches)
        return unpatchify(full, self.shape.patch_size, self.shape.channels)

    def reset_parameters(self, generator_for: GeneratorFor) -> None:
        """Initialises the student as the original; the teacher starts as its copy."""
        pixels = self.shape.channels * self.shape.patch_size**2
        initialise(self, partial(init_bootmae, patch_pixels=pixels), generator_for)
        with torch.no_grad():
            for slow, fast in zip(*self._pairs(), strict=True):
                slow.copy_(fast)

    def _pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        student = dict(self.vit.named_parameters())
        teacher = dict(self.teacher.named_parameters())
        return list(teacher.values()), [student[name] for name in teacher]

    def decay(self, step: int, total_steps: int) -> float:
        """The teacher's decay at a step, scaled to the run's length if so configured."""
        decay, config = self._decay(step / total_steps), self.config
        if not config.ema_span:
            return decay
        rest = (1 - decay) / (1 - config.ema_decay_end)
        return max(0.0, 1 - rest / (config.ema_span * total_steps))

    def _decay(self, share: float) -> float:
        """The decay when this share of the run is done (utils.py:586-594)."""
        config = self.config
        if share < config.ema_share:
            start, end, done = config.ema_decay_start, config.ema_decay, share / config.ema_share
        elif share < config.ema_end_share:
            done = (share - config.ema_share) / (config.ema_end_share - config.ema_share)
            start, end = config.ema_decay, config.ema_decay_end
        else:
            return config.ema_decay_end
        return start + (end - start) * done

    @torch.no_grad()
    def after_step(self, step: int, total_steps: int) -> None:
        """Moves the teacher's parameters towards the student's."""
        slow, fast = self._pairs()
        torch._foreach_lerp_(slow, fast, 1 - self.decay(step, total_steps))

    def official_entries(self, file: str) -> tuple[str, ...]:
        """Where a released file keeps the network that evaluation receives."""
        student = ("model", "module", "state_dict")
        return ("model_ema",) if self.config.evaluate == "teacher" else student

    def import_official(self, official: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a released BootMAE checkpoint under the names of this method."""
        return from_bootmae(official, self.state_dict())

    def draw_hidden(self, stream: SampleStream) -> Tensor:
        """Rectangles, then as many others as it takes, bool [B, N]; some of a rectangle show."""
        shape, config = self.shape, self.config
        count = round(shape.patches * config.block_ratio)
        sizes = (config.min_block, config.max_block)
        blocks = masking.exact_blocks(stream, shape.grid, count, sizes, config.min_aspect)
        return masking.rolled(stream, blocks, shape.patches - self.hidden_count, config.roll)

    def mask_tokens(self) -> Mapping[str, nn.Parameter]:
        """One mask token a decoder."""
        return {
            "pixel_decoder.mask_token": self.pixel_decoder.mask_token,
            "feature_decoder.mask_token": self.feature_decoder.mask_token,
        }

    def no_weight_decay(self) -> set[str]:
        """The class token alone: both mask tokens are decayed (optim_factory.py)."""
        return {"vit.cls_token"}

    def encoder(self) -> nn.Module:
        """The encoder that is evaluated, the student's unless so configured, ``Beit`` names."""
        return self.teacher if self.config.evaluate == "teacher" else self.vit

    def classifier(self, options: ClassifierOptions) -> ViTClassifier:
        """A fresh classifier of this architecture; its positions stay as they are.

        Source: modeling_finetune_bootmae.py:308-309.
        """
        classifier = ViTClassifier(self.shape, style_of(options.drop_path), options)
        classifier.pos_embed.requires_grad_(False)
        return classifier


def style_of(drop_path: float) -> Style:
    """The encoder's style."""
    return Style(positions="sincos", split_bias=True, drop_path=drop_path)


def _encoder(shape: VisionShape) -> VisionTransformer:
    encoder = VisionTransformer(shape, style_of(0.0))
    encoder.pos_embed = _row_first(shape.width, shape.grid)
    return encoder


def _row_first(width: int, grid: int) -> nn.Parameter:
    """The original's table: MAE's with its halves exchanged, the row in the first."""
    table = sincos_positions(width, grid, row_first=True)
    return nn.Parameter(table, requires_grad=False)


def _level(channels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (biased, epsilon under the root) over the last dimension, kept as 1."""
    variance, mean = torch.var_mean(channels, dim=-1, keepdim=True, correction=0)
    return mean, (variance + PIXEL_EPS).sqrt()


def _normed(features: Tensor) -> Tensor:
    return F.layer_norm(features.float(), features.shape[-1:], eps=EPS)


def _mean_square(error: Tensor, weights: Tensor) -> Tensor:
    """Mean over all hidden places of their weight [B, M] times their mean squared error."""
    return (weights * error.square().mean(-1)).mean()
