"""A masked-image-modelling method registered by nobody: MTO knows it through the contract only.

Two attention layers of width D over T = 1 + N tokens, mask tokens at the encoder input, ragged
masks, a bias of its own for each head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from bench.api import Batch, MaskEmbedding, MethodOutput, TokenLayer, VisionShape


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    """``with_bias`` gives each head a learned bias over token pairs."""

    with_bias: bool = True


SHAPE = VisionShape(image_size=8, patch_size=2, channels=1, width=12, depth=3, heads=2)


class ToyLayer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x, look):
        tokens = self.norm(x)
        b, t, d = x.shape
        q, k, v = self.qkv(tokens).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=look(tokens, q, k))
        return x + self.out(mixed.transpose(1, 2).reshape(b, t, d))


class Toy(nn.Module):
    """Predicts hidden pixels."""

    Config = ToyConfig

    def __init__(self, shape=SHAPE, config=None):
        super().__init__()
        config = config or ToyConfig()
        self.shape = shape
        tokens = 1 + shape.patches
        self.embed = nn.Linear(shape.patch_size**2, shape.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.position = nn.Parameter(torch.zeros(1, tokens, shape.width))
        self.bias = (
            nn.Parameter(torch.zeros(1, shape.heads, tokens, tokens)) if config.with_bias else None
        )
        self.layers = nn.ModuleList(ToyLayer(shape.width, shape.heads) for _ in range(shape.depth))
        self.head = nn.Linear(shape.width, shape.patch_size**2)
        self.steps = []

    def forward(self, batch, hook=None):
        patches = F.unfold(batch.images, self.shape.patch_size, stride=self.shape.patch_size).mT
        x = self.embed(patches)
        if hook is not None:
            hook.embedding(MaskEmbedding(x, self.mask_token, batch.hidden))
        x = torch.where(batch.hidden[:, :, None], self.mask_token, x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.position
        hidden = F.pad(batch.hidden, (1, 0))
        for index, layer in enumerate(self.layers):
            x = layer(x, lambda *args, i=index: self.look(hook, i, hidden, *args))
        error = (self.head(x[:, 1:]) - patches).square()[batch.hidden]
        loss = error.mean()
        return MethodOutput(loss, terms={"mim": loss.detach()})

    def look(self, hook, index, hidden, tokens, query, key):
        if hook is None:
            return self.bias
        scale = query.shape[-1] ** -0.5
        depth = self.shape.depth
        extra = hook.attention(
            TokenLayer(index, depth, tokens, query, key, hidden, 1, scale, self.bias)
        )
        if extra is None or self.bias is None:
            return self.bias if extra is None else extra
        return self.bias + extra

    def reset_parameters(self, generator_for):
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                drawn = torch.randn(parameter.shape, generator=generator_for(name))
                parameter.copy_(drawn * (0.02 if "token" in name else 0.2))

    def draw_hidden(self, stream):
        draws = stream.uniform(self.shape.patches + 1)
        count = 5 + (draws[:, -1:] * 5).long()
        return draws[:, :-1].argsort(1).argsort(1) < count

    def mask_tokens(self):
        return {"mask_token": self.mask_token}

    def no_weight_decay(self):
        return {"position"}

    def after_step(self, step, total_steps):
        self.steps.append((step, total_steps))

    def encoder(self):
        return self.layers

    def classifier(self, options):
        return nn.Linear(self.shape.width, options.classes)


def generators(seed=0):
    """Named generators: the same name gives the same numbers, whoever asks."""

    def generator_for(name):
        number = sum((i + 1) * byte for i, byte in enumerate(name.encode()))
        return torch.Generator().manual_seed(1000 * seed + number)

    return generator_for


class Stream:
    """Uniform draws for samples by number, one generator a sample."""

    def __init__(self, samples, epoch=0):
        self.samples, self.epoch = list(samples), epoch

    @property
    def size(self):
        return len(self.samples)

    def uniform(self, count, offset=0):
        rows = []
        for sample in self.samples:
            seed = (1000 * self.epoch + sample) * 7 + min(offset, 1)
            rows.append(torch.rand(count, generator=torch.Generator().manual_seed(seed)))
        return torch.stack(rows)


def batch_for(method, size=6, epoch=0):
    """A batch of noise images with this method's own masks."""
    shape = method.shape
    generator = torch.Generator().manual_seed(17 + epoch)
    side = shape.image_size
    images = torch.randn(size, shape.channels, side, side, generator=generator)
    stream = Stream(range(size), epoch)
    return Batch(images, method.draw_hidden(stream), stream)


def part(batch, first, last):
    """The images ``first`` to ``last - 1`` of a batch."""
    stream = Stream(batch.noise.samples[first:last], batch.noise.epoch)
    return Batch(batch.images[first:last], batch.hidden[first:last], stream)
