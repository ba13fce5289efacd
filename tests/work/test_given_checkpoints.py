"""Checkpoints given by the user: wrappers' prefixes are no obstacle, unsound files are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor

from bench import registry
from bench.errors import UsageError
from bench.run import main
from bench.train.checkpoint import save_weights
from bench.work.released import encoder_weights, method_weights, read_weights
from tests.conftest import TINY, tiny_study

State = dict[str, Tensor]


def made(name: str = "mae", *more: str) -> Any:
    config = tiny_study(name, more=more).cells[0].config
    return registry.METHODS.load(name)(config.model, config.hyper)


def drawn(name: str = "mae", *more: str) -> State:
    return {n: torch.randn_like(v) for n, v in made(name, *more).state_dict().items()}


def encoder(state: State) -> State:
    return {n.removeprefix("vit."): v for n, v in state.items() if n.startswith("vit.")}


ENCODER = encoder(drawn())


def spoilt(value: float) -> State:
    wrong = {n: v.clone() for n, v in ENCODER.items()}
    wrong["blocks.1.mlp.fc1.bias"][3] = value
    return wrong


def pickled(path: Path, values: Any, legacy: bool = False) -> bytes:
    torch.save(values, path, _use_new_zipfile_serialization=not legacy)
    return path.read_bytes()


def flipped(path: Path) -> bytes:
    save_weights(path, ENCODER)
    data = path.read_bytes()
    return data[:-1] + bytes([data[-1] ^ 1])


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 343249461\n"
TWINS = {"model": ENCODER, "model_ema": spoilt(1.0), "epoch": 7}
TOWERS = {f"{t}.{n}": v for t in ("student", "teacher") for n, v in ENCODER.items()}
BAD: list[tuple[str, str, Callable[[Path], bytes]]] = [
    ("a.pth", "is a Git LFS pointer", lambda p: LFS),
    ("a.safetensors", "is a Git LFS pointer", lambda p: LFS),
    ("a.pth", "is a web page", lambda p: b"\n<!DOCTYPE html><html>Sign in</html>"),
    ("a.safetensors", "is a web page", lambda p: b"<html><body>404</body></html>"),
    ("a.pth", "is empty", lambda p: b""),
    ("a.pth", "is cut", lambda p: pickled(p, {"model": ENCODER})[:-700]),
    ("a.pth", "is cut", lambda p: pickled(p, {"model": ENCODER}, legacy=True)[:-700]),
    ("a.pth", "is cut", lambda p: pickled(p, ENCODER, legacy=True)[:300]),
    ("a.safetensors", "is cut", lambda p: save(ENCODER)[:-3]),
    ("a.safetensors", "is cut", lambda p: save(ENCODER)[:60]),
    ("a.safetensors", "is cut", lambda p: b"abc"),
    ("a.safetensors", "is no safetensors file", lambda p: pickled(p, ENCODER)),
    ("a.safetensors", "is damaged", lambda p: (3).to_bytes(8, "little") + b"{]}" + b"0" * 9),
    ("a.safetensors", "is damaged", flipped),
    ("a.safetensors", "holds NaN or infinity in 1 of", lambda p: save(spoilt(float("nan")))),
    ("a.pth", "first in 'blocks.1.mlp.fc1.bias'", lambda p: pickled(p, spoilt(float("-inf")))),
    ("a.pth", "several networks (model, model_ema)", lambda p: pickled(p, TWINS)),
    (
        "a.pth",
        "several networks (teacher, student)",
        lambda p: pickled(p, {"teacher": ENCODER, "student": ENCODER}),
    ),
    ("a.pth", "several networks (student., teacher.)", lambda p: pickled(p, TOWERS)),
    (
        "a.pth",
        "several networks",
        lambda p: pickled(p, ENCODER | {f"module.{n}": v for n, v in ENCODER.items()}),
    ),
    ("a.pth", "holds a Tensor, not weights", lambda p: pickled(p, torch.ones(3))),
    ("a.pth", "cannot read", lambda p: b"just some text"),
    (
        "a.safetensors",
        "is of images of 16 x 16 in patches of 2 (8 x 8 of them), the model needs",
        lambda p: save(encoder(drawn("mae", "model.image_size=16"))),
    ),
    (
        "a.safetensors",
        "in patches of 4 (2 x 2 of them)",
        lambda p: save(encoder(drawn("mae", "model.patch_size=4"))),
    ),
    (
        "a.safetensors",
        "Choose the preset of its size",
        lambda p: save(encoder(drawn("mae", "model.width=32"))),
    ),
]


@pytest.mark.parametrize(("name", "word", "content"), BAD)
def test_an_unsound_file_is_refused_before_anything_is_written(
    name: str,
    word: str,
    content: Callable[[Path], bytes],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, out = tmp_path / name, tmp_path / "out"
    path.write_bytes(content(path))
    file, given = str(path), ["--out", str(out)]
    study = ["--methods", "mae", "--epochs", "1", "--seeds", "1", "--init", file, *given]
    look = [file, "--method", "mae", "--preset", "digits", "--to", str(out / "x"), *given]
    for line in (study, [*study, "--dry-run"], ["show", *look], ["analyze", *look]):
        assert main([*line, *TINY]) == 2, line[0]
        said = capsys.readouterr().err
        assert word in " ".join(said.split()), said
        assert not out.exists()


def test_relative_positions_of_another_size_are_told() -> None:
    state = drawn("simmim", "model.image_size=16")
    with pytest.raises(UsageError, match=r"images of 16 x 16 in patches of 2.*model.image_size=16"):
        method_weights(made("simmim"), state)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "backbone.", "module._orig_mod."])
@pytest.mark.parametrize("name", ["mae", "simmim", "data2vec", "bootmae", "conmim"])
def test_prefixes_of_wrappers_are_stripped(name: str, prefix: str, tmp_path: Path) -> None:
    method, path = made(name), tmp_path / "a.pth"
    whole = {n: torch.randn_like(v) for n, v in method.state_dict().items()}
    method.load_state_dict(whole)
    ours = method.encoder().state_dict()
    for state in (whole, ours):
        torch.save({"state_dict": {prefix + n: v for n, v in state.items()}}, path)
        entries = ("state_dict",)
        if state is whole:
            found = method_weights(method, read_weights(path, entries))
            assert all(torch.equal(found[n], v) for n, v in whole.items())
        if name != "bootmae":  # whose teacher is asked for, under model_ema
            found = encoder_weights(method, path)
            assert all(torch.equal(found[n], v) for n, v in ours.items())


def test_a_prefix_on_an_official_release_is_stripped() -> None:
    official = {n.removeprefix("vit."): v for n, v in drawn().items()}
    method = made()
    found = method_weights(method, {f"module.{n}": v for n, v in official.items()})
    assert set(found) == set(method.state_dict())


def test_data2vecs_student_is_taken_where_its_teacher_lies_beside(tmp_path: Path) -> None:
    student, teacher = (encoder(drawn("data2vec")) for _ in range(2))
    torch.save({"model": student, "model_ema": teacher}, tmp_path / "a.pth")
    found = encoder_weights(made("data2vec"), tmp_path / "a.pth")
    assert torch.equal(found["cls_token"], student["cls_token"])


def test_a_sound_file_beside_its_optimiser_is_taken(tmp_path: Path) -> None:
    moments = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"model": ENCODER, "optimizer": moments, "epoch": 3}, tmp_path / "a.pth")
    save_file(ENCODER, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        found = encoder_weights(made(), tmp_path / name)
        assert torch.equal(found["cls_token"], ENCODER["cls_token"])
