"""Slow definitions of MTO's formulas: Python loops over one image, one head, one row at a time."""

from __future__ import annotations

import math


def softmax(row):
    top = max(row)
    weights = [math.exp(value - top) for value in row]
    return [weight / sum(weights) for weight in weights]


def entropy(weights):
    return -sum(weight * math.log(weight) for weight in weights if weight > 0)


def logits(layer, image, head, added=None):
    """S [T][T] of one head, biases included."""
    count = layer.query.shape[2]
    shape = (*layer.query.shape[:2], count, count)
    s = [[0.0] * count for _ in range(count)]
    for i in range(count):
        for j in range(count):
            product = (layer.query[image, head, i] * layer.key[image, head, j]).sum()
            s[i][j] = float(product * layer.scale)
            for bias in (layer.bias, added):
                if bias is not None:
                    s[i][j] += float(bias.expand(shape)[image, head, i, j])
    return s


def mean_logits(layer, image, added=None):
    """S [T][T], the mean over heads."""
    heads = layer.query.shape[1]
    count = layer.query.shape[2]
    maps = [logits(layer, image, head, added) for head in range(heads)]
    return [[sum(s[i][j] for s in maps) / heads for j in range(count)] for i in range(count)]


def token_affinity(layer, image):
    x = layer.tokens[image]
    return [[float((a * b).sum() / x.shape[1] ** 0.5) for b in x] for a in x]


def sets(layer, image):
    """M and V, patches only."""
    flags = layer.hidden[image].tolist()
    masked = [t for t in range(layer.prefix, len(flags)) if flags[t]]
    visible = [t for t in range(layer.prefix, len(flags)) if not flags[t]]
    return masked, visible


def heterogeneity(s, masked, visible, tau):
    rows = [entropy(softmax([s[i][j] / tau for j in visible])) for i in masked]
    return sum(rows) / len(rows) / math.log(len(visible))


def cosine_heterogeneity(x, masked, visible):
    total = 0.0
    for i in masked:
        for j in visible:
            total += 1 - float((x[i] * x[j]).sum() / x[i].norm() / x[j].norm())
    return total / len(masked) / len(visible) / 2


def mass(s, masked, visible):
    rows = [sum(softmax(s[i])[j] for j in masked) for i in visible]
    return sum(rows) / len(rows)


def visible_row_entropy(s, visible):
    rows = [entropy(softmax(s[i])) / math.log(len(s)) for i in visible]
    return sum(rows) / len(rows)


def ranking(h, margin, pairwise):
    total = 0.0
    for early in range(len(h)):
        for late in range(early + 1, len(h)):
            if pairwise or late == early + 1:
                total += max(0.0, h[late] - h[early] + margin)
    return total


def distance(tokens, mask_token, isotropic):
    """tokens [N][D], mask_token [D], as lists."""
    count, width = len(tokens), len(mask_token)
    means = [sum(token[d] for token in tokens) / count for d in range(width)]
    spread = [sum((token[d] - means[d]) ** 2 for token in tokens) / count for d in range(width)]
    offsets = [(mask_token[d] - means[d]) ** 2 for d in range(width)]
    if isotropic:
        return math.sqrt(sum(offsets) / sum(spread))
    return math.sqrt(sum(o / s for o, s in zip(offsets, spread, strict=True)) / width)
