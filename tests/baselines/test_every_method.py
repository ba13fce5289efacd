"""What holds for every method alike, beyond the conformance suite."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench import registry
from bench.api import ClassifierOptions
from bench.streams import Streams
from mto.plugin import with_mto
from mto.probe import LayerProbe
from tests.mto.arms import batch_for, made
from tests.mto.test_mto_pass import SHUT, Spread

METHODS = registry.METHODS.names()
PLANNING = ["data2vec", "mae", "simmim"]


def at(method: Any) -> Any:
    batch = batch_for(method)
    return replace(batch, noise=Spread(batch.noise))


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_a_pass_is_computed_on_the_device_of_its_batch(name: str, watched: bool) -> None:
    """So it runs on a GPU without being told."""
    method = made(name).eval()
    batch = at(method)
    expected = method(batch, LayerProbe() if watched else None)
    with torch.device("meta"):
        output = method(batch, LayerProbe() if watched else None)
        hidden = method.draw_hidden(batch.noise)
    assert torch.equal(output.loss, expected.loss)
    assert hidden.device == batch.hidden.device
    assert output.prediction.shape == expected.prediction.shape


@pytest.mark.parametrize("change", [{}, {"r_depth": 0.5}, {"enter_depth": 0.4}], ids=str)
@pytest.mark.parametrize("name", PLANNING)
def test_so_is_a_pass_that_leaves_tokens_out(name: str, change: dict[str, float]) -> None:
    method = with_mto(made(name), replace(SHUT, **change)).eval()
    batch = at(method)
    expected = method(batch)
    with torch.device("meta"):
        assert torch.equal(method(batch).loss, expected.loss)


@pytest.mark.parametrize("name", METHODS)
def test_a_pass_says_its_loss_and_its_prediction(name: str) -> None:
    output = made(name).eval()(batch_for(made(name)))
    assert output.prediction is not None
    assert output.terms
    if "mim" in output.terms:
        assert torch.equal(output.terms["mim"], output.loss.detach())


@pytest.mark.parametrize("name", METHODS)
def test_a_classifier_drops_paths_as_it_is_told_and_shares_the_encoders_make(name: str) -> None:
    """It holds what the encoder holds, but for tables of positions and what scales a branch."""
    method = made(name)
    classifier = method.classifier(ClassifierOptions(classes=3, drop_path=0.3, pool="cls"))
    assert classifier.style.drop_path == 0.3
    assert classifier.style.attn_drop == 0
    given = {n for n in method.encoder().state_dict() if "position" not in n}
    wanted = {n for n in classifier.state_dict() if "position" not in n and "head" not in n}
    assert given == wanted


@pytest.mark.parametrize("name", METHODS)
def test_first_values_do_not_depend_on_what_stood_there(name: str) -> None:
    """But for layer scale, which keeps the constant it was made with."""
    method, fresh, streams = made(name), made(name).state_dict(), Streams(0, 1)
    with torch.no_grad():
        for key, parameter in method.named_parameters():
            if "gamma" not in key and (parameter.requires_grad or "teacher" in key):
                parameter.fill_(0.5)
    method.reset_parameters(lambda key: streams.generator("init", key))
    for key, value in method.state_dict().items():
        assert torch.equal(value, fresh[key]), key


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_mixed_precision_multiplies_in_half_and_carries_tokens_in_full(
    name: str, training: bool
) -> None:
    """In every block of every network, of methods with layer scale or without, as originals do."""
    method = made(name).train(training)
    batch = batch_for(method)
    carried: list[torch.dtype] = []

    def note(module: torch.nn.Module, given: Any, out: torch.Tensor) -> None:
        carried.extend((given[0].dtype, out.dtype))

    for part, module in method.named_modules():
        if re.search(r"blocks\.\d+$", part):
            module.register_forward_hook(note)
    with torch.autocast("cpu", torch.bfloat16):
        product = method.encoder().blocks[0].mlp.fc1(torch.zeros(1, method.shape.width))
        assert product.dtype == torch.bfloat16
        method(batch)
    assert set(carried) == {torch.float32}


@pytest.mark.parametrize("name", METHODS)
def test_mixed_precision_classifies_by_logits_without_ties(name: str) -> None:
    """Two classes whose logits differ by less than half precision tells apart."""
    model = made(name).classifier(ClassifierOptions(classes=2, drop_path=0.0, pool="cls")).eval()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([1.0, 1.0 + 1e-5]))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(batch_for(made(name)).images)
    assert logits.dtype == torch.float32
    assert (logits.argmax(1) == 1).all()
