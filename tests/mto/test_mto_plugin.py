"""MTO as a plug-in: what it must leave alone, what it adds, on a method it never heard of."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.api import ClassifierOptions
from bench.errors import RunError, UsageError
from mto.config import TERMS, MTOConfig
from mto.plugin import with_mto
from mto.probe import LayerProbe
from tests.mto.toy import Toy, ToyConfig, batch_for, generators, part

ALL = replace(MTOConfig.only(["all"]), init_std=1.0, sample_images=1.0, r_first=0.1)
OFF = MTOConfig.only(())
BIASED = ToyConfig()


def made(config=None, toy=BIASED):
    method = Toy(config=toy) if config is None else with_mto(Toy(config=toy), config)
    method.reset_parameters(generators())
    return method


def total(output):
    return output.loss if output.penalty is None else output.loss + output.penalty


def trained(method, steps=4):
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    losses = []
    for step in range(steps):
        output = method(batch_for(method, epoch=step))
        optimizer.zero_grad()
        total(output).backward()
        optimizer.step()
        method.after_step(step, steps)
        losses.append(output.loss.item())
    return losses


def plain(method):
    return {name.removeprefix("base."): value for name, value in method.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_switched_off_it_is_the_baseline_bit_for_bit():
    bare, wrapped = made(), made(OFF)
    assert trained(bare) == trained(wrapped)
    assert_same(plain(bare), plain(wrapped))


def test_r_of_one_and_zero_weights_are_off_too():
    config = replace(OFF, recalibration="bias", r_first=1.0)
    assert not config.acts
    assert trained(made()) == trained(made(config))


def test_switched_off_it_hands_the_outer_hook_straight_to_the_method():
    seen = []

    class Spy(Toy):
        def forward(self, batch, hook=None):
            seen.append(hook)
            return super().forward(batch, hook)

    method, probe = with_mto(Spy(), OFF), LayerProbe()
    method(batch_for(method))
    method(batch_for(method), probe)
    assert seen == [None, probe]


def test_weights_of_zero_with_hooks_on_equal_the_baseline_bit_for_bit():
    """The hooks alone, measuring but weighing nothing, move no number."""
    config = replace(OFF, lambda_spa=1e-45, lambda_e=1e-45, lambda_r=1e-45, lambda_dist=1e-45)
    assert config.acts
    assert trained(made()) == trained(made(config))


def test_shared_parameters_start_equal_and_the_mask_token_does_not():
    bare, wrapped = plain(made()), plain(made(ALL))
    moved = {name for name in bare if not torch.equal(bare[name], wrapped[name])}
    assert moved == {"mask_token"}
    assert wrapped["mask_token"].std() > 10 * bare["mask_token"].std()


def test_the_mask_token_has_a_stream_of_its_own():
    drawn = torch.randn(1, 1, 12, generator=generators()("mto.mask_token"))
    assert torch.equal(plain(made(ALL))["mask_token"], drawn)
    assert torch.equal(plain(made(replace(ALL, init_std=3.0)))["mask_token"], drawn * 3)


def test_names_map_to_the_baselines_by_one_prefix():
    bare, wrapped = made(), made(ALL)
    names = [f"base.{name}" for name, _ in bare.named_parameters()]
    assert [name for name, _ in wrapped.named_parameters()] == names
    parameters = dict(wrapped.named_parameters())
    assert wrapped.no_weight_decay() == {"base.position"}
    for name, token in wrapped.mask_tokens().items():
        assert parameters[name] is token


def test_the_rest_of_the_contract_is_the_methods_own():
    wrapped = made(ALL)
    wrapped.after_step(3, 9)
    assert wrapped.base.steps == [(3, 9)]
    assert wrapped.encoder() is wrapped.base.layers
    assert wrapped.classifier(ClassifierOptions(classes=7)).out_features == 7
    assert wrapped.shape is wrapped.base.shape


@pytest.mark.parametrize("term", ["dist", "spa", "e", "r"])
def test_each_loss_comes_alone_and_is_logged(term):
    config = replace(MTOConfig.only([term]), sample_images=1.0, rank_margin=0.5)
    output = made(config)(batch_for(Toy()))
    value = output.terms[f"mto.{term}"]
    assert {name for name in output.terms if name != "mim"} == {f"mto.{term}"}
    assert not value.requires_grad
    torch.testing.assert_close(output.penalty, 0.1 * value)
    assert value > 0


def test_all_losses_add_up_in_the_penalty():
    config = replace(ALL, lambda_spa=1.0, lambda_e=2.0, lambda_r=3.0, lambda_dist=4.0)
    output = made(config)(batch_for(Toy()))
    terms = output.terms
    expected = terms["mto.spa"] + 2 * terms["mto.e"] + 3 * terms["mto.r"] + 4 * terms["mto.dist"]
    torch.testing.assert_close(output.penalty.detach(), expected)


def test_recalibration_alone_adds_no_penalty_and_logs_its_schedule():
    output = made(replace(MTOConfig.only(["recal"]), r_first=0.25, r_depth=0.5))(batch_for(Toy()))
    assert output.penalty is None
    schedule = [output.terms[f"mto.schedule.{layer}"].item() for layer in range(3)]
    assert schedule == [0.25, 0.25, 1.0]


@pytest.mark.parametrize("kind", ["bias", "exclude"])
def test_hard_recalibration_keeps_visible_tokens_clear_of_the_mask_token(kind):
    """With r = 0 in every layer nothing of the mask token reaches a visible token."""
    config = replace(MTOConfig.only(["recal"]), r_depth=1.0, recalibration=kind, rows="visible")
    method = made(config)
    outputs = []
    method.base.layers[-1].register_forward_hook(lambda *args: outputs.append(args[2]))
    batch = batch_for(method)
    method(batch)
    with torch.no_grad():
        method.base.mask_token.add_(5.0)
    method(batch)
    visible = torch.nn.functional.pad(~batch.hidden, (1, 0), value=True)
    assert torch.equal(outputs[0][visible], outputs[1][visible])
    assert not torch.equal(outputs[0][~visible], outputs[1][~visible])


@pytest.mark.parametrize("kind", ["bias", "exclude"])
@pytest.mark.parametrize("keep_self", [True, False])
def test_recalibrated_masked_rows_hear_nothing_of_each_other(kind, keep_self):
    """With r = 0 in all rows of every layer, what one patch is told alters no other."""
    config = replace(
        MTOConfig.only(["recal"]), r_depth=1.0, recalibration=kind, rows="all", keep_self=keep_self
    )
    method, outputs = made(config), []
    method.base.layers[-1].register_forward_hook(lambda *args: outputs.append(args[2]))
    batch = batch_for(method)
    method(batch)
    first = int(batch.hidden[0].nonzero()[0, 0])
    with torch.no_grad():
        method.base.position[:, 1 + first].add_(1.0)
    method(batch)
    moved = (outputs[0][0] != outputs[1][0]).any(-1)
    assert moved.nonzero().flatten().tolist() == [1 + first]


@pytest.mark.parametrize("rows", ["masked", "all"])
def test_mass_of_rows_that_recalibration_shuts_is_nought_without_being_read(rows):
    config = replace(
        MTOConfig.only(["recal", "spa"]), r_depth=1.0, rows=rows, spa_rows="masked", r_first=0.0
    )
    assert config.shuts_spa_out
    assert made(config)(batch_for(Toy())).terms["mto.spa"] == 0
    other = replace(config, rows="visible")
    assert not other.shuts_spa_out
    assert made(other)(batch_for(Toy())).terms["mto.spa"] > 0


def test_recalibration_follows_the_run():
    config = replace(MTOConfig.only(["recal"]), r_first=0.2, r_time="falling")
    method, batch = made(config), batch_for(Toy())
    seen = [method(replace(batch, progress=p)).terms["mto.schedule.0"].item() for p in (0, 0.5)]
    assert seen == pytest.approx([1.0, 0.6])


@pytest.mark.parametrize("kind", ["bias", "exclude"])
def test_the_outer_hook_sees_the_recalibrated_attention(kind):
    config = replace(MTOConfig.only(["recal"]), recalibration=kind, rows="visible", r_depth=0.5)
    probe, bare = LayerProbe(), LayerProbe()
    made(config)(batch_for(Toy()), probe)
    made()(batch_for(Toy()), bare)
    mass = probe.summary()["mass_to_masked"]
    assert mass[:2] == [0.0, 0.0]
    assert mass[2] > 0
    assert min(bare.summary()["mass_to_masked"]) > 0


def test_the_outer_hooks_bias_counts():
    class Nudge(LayerProbe):
        def attention(self, layer):
            bias = torch.zeros(1, 1, 17, 17)
            bias[..., 3] = 2.0
            return bias

    method, batch = made(ALL), batch_for(Toy())
    assert not torch.equal(method(batch).loss, method(batch, Nudge()).loss)


def test_penalty_is_a_mean_over_images_however_the_batch_is_split():
    """World size and micro-batches do not move it, sub-sampled or not."""
    for share in (1.0, 0.4):
        method = made(replace(ALL, sample_images=share))
        batch = batch_for(method, size=12)
        mean = sum(method(part(batch, i, i + 4)).penalty for i in (0, 4, 8)) / 3
        torch.testing.assert_close(method(batch).penalty, mean)


def test_sub_sampling_images_and_heads_is_unbiased():
    config = replace(
        MTOConfig.only(["spa", "e"]), heads="each", sample_images=0.3, sample_heads=1, tau=1.0
    )
    few, full = made(config), made(replace(config, sample_images=1.0, sample_heads=0))
    with torch.no_grad():
        terms = [(few(b).terms, full(b).terms) for b in (batch_for(few, 64, e) for e in range(30))]
    for name in ("mto.spa", "mto.e"):
        drawn = torch.stack([a[name] for a, _ in terms])
        exact = torch.stack([b[name] for _, b in terms])
        error = (drawn - exact).mean() / (drawn.std() / len(drawn) ** 0.5)
        assert abs(error) < 3


def test_a_batch_with_no_image_chosen_costs_nothing():
    output = made(replace(ALL, sample_images=1e-9, lambda_dist=0.0))(batch_for(Toy()))
    assert output.penalty == 0
    output.loss.backward()


def test_without_a_stream_every_image_is_read():
    few, full = made(replace(ALL, sample_images=0.2)), made(ALL)
    batch = batch_for(few)
    torch.testing.assert_close(few(replace(batch, noise=None)).penalty, full(batch).penalty)


def test_no_global_generator_is_read():
    method = made(replace(ALL, sample_images=0.5))
    before = torch.get_rng_state()
    method(batch_for(method))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "change",
    [
        {"affinity": "tokens"},
        {"heads": "each"},
        {"heads": "each", "sample_heads": 1},
        {"heterogeneity": "cosine"},
        {"spa_form": "row_entropy"},
        {"spa_form": "row_entropy", "r_first": 0.0},
        {"rank_form": "pairwise"},
        {"distance": "isotropic"},
        {"recalibration": "exclude"},
        {"recalibration": "none"},
        {"rows": "masked"},
        {"rows": "all", "keep_self": False, "r_first": 0.0, "r_depth": 1.0},
        {"rows": "all", "recalibration": "exclude"},
        {"r_time": "falling"},
        {"spa_rows": "masked", "spa_sign": "high"},
        {"spa_form": "row_entropy", "spa_columns": "visible", "spa_rows": "all"},
        {"e_sign": "low", "rank_sign": "rising"},
        {"r_shape": "linear", "r_depth": 1.0, "r_first": 0.0},
        {"e_layers": 3},
        {"spa_layers": 2, "rank_layers": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("with_bias", [True, False])
def test_every_reading_runs_and_gives_finite_gradients(change, with_bias):
    method = made(replace(ALL, **change), ToyConfig(with_bias=with_bias))
    output = method(batch_for(method))
    total(output).backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_a_penalty_the_method_already_has_is_kept():
    class Penalised(Toy):
        def forward(self, batch, hook=None):
            return replace(super().forward(batch, hook), penalty=torch.tensor(7.0))

    method = with_mto(Penalised(), MTOConfig.only(["dist"]))
    output = method(batch_for(method))
    torch.testing.assert_close(output.penalty.detach(), 7 + 0.1 * output.terms["mto.dist"])


def test_a_method_without_mask_tokens_is_refused():
    class Bare(Toy):
        def mask_tokens(self):
            return {}

    with pytest.raises(UsageError, match="no mask tokens"):
        with_mto(Bare(), ALL)


def test_a_method_that_never_calls_the_hook_is_an_error_not_a_silent_baseline():
    class Deaf(Toy):
        def forward(self, batch, hook=None):
            return super().forward(batch)

    method = with_mto(Deaf(), ALL)
    with pytest.raises(RunError, match="hook"):
        method(batch_for(method))


@pytest.mark.parametrize("term", TERMS)
def test_autocast_to_bfloat16(term):
    method = made(replace(MTOConfig.only([term]), sample_images=1.0))
    with torch.autocast("cpu", torch.bfloat16):
        output = method(batch_for(method))
    assert total(output).isfinite()


# --- what the losses do ---------------------------------------------------------------------------


def measured_after(config, steps, lr=0.05):
    """(terms, probe summary) of one fixed batch before and after descending the penalty alone."""
    method = made(config)
    batch = batch_for(method)
    optimizer = torch.optim.Adam(method.parameters(), lr=lr)
    seen = []
    for step in range(steps + 1):
        probe = LayerProbe(tau=config.tau)
        output = method(batch, probe)
        if step in (0, steps):
            seen.append((output.terms, probe.summary()))
        optimizer.zero_grad()
        output.penalty.backward()
        optimizer.step()
    return seen


def alone(term, **changes):
    return replace(MTOConfig.only([term]), sample_images=1.0, **changes)


def test_l_spa_lowers_the_mass_on_masked_columns_in_every_layer():
    (_, before), (_, after) = measured_after(alone("spa", heads="each"), 40)
    for first, last in zip(before["mass_to_masked"], after["mass_to_masked"], strict=True):
        assert last < 0.3 * first


@pytest.mark.parametrize("measure", ["entropy", "cosine"])
def test_l_e_raises_heterogeneity_in_the_first_layer(measure):
    (_, before), (_, after) = measured_after(alone("e", heterogeneity=measure), 40)
    key = {"entropy": "heterogeneity", "cosine": "heterogeneity_cosine"}[measure]
    assert after[key][0] > before[key][0] + 0.1


def test_l_r_puts_the_layers_in_order():
    config = alone("r", rank_margin=0.05)
    (_, _), (terms, after) = measured_after(config, 80)
    h = after["heterogeneity"]
    assert terms["mto.r"] < 0.02
    assert h[0] > h[1] > h[2]


def test_the_margin_loss_carries_the_token_to_the_margin_and_stops():
    (_, before), (terms, after) = measured_after(alone("dist", dist_margin=4.0), 200)
    assert before["token_distance"] < 2
    assert 3.5 < after["token_distance"] < 8
    assert terms["mto.dist"] < 0.01
