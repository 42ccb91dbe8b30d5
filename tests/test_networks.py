"""LUA and SwinIR: numbers, sizes, gradients, and what must not be built twice."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lua_demo import LUA, SwinIR, load_lua, load_swinir
from lua_demo.networks.skip import LinearSkip
from lua_demo.networks.swin import SwinBlock
from lua_demo.networks.windows import RASTER, layout, moved, pad_by_reflection, relative_position_index
from lua_demo.schema import UserError

GOLDEN = Path(__file__).parent / "golden"
TOY = dict(embed_dim=8, depths=(2, 2), num_heads=(2, 2), window_size=4, head_num_feat=8, scales=(2, 4))
SIZES = [(1, 1), (1, 7), (8, 8), (13, 21), (33, 5)]


def toy(kind: type = LUA, **changes) -> LUA | SwinIR:
    torch.manual_seed(0)
    return kind(**{**TOY, **changes}).eval()


@pytest.fixture(scope="module")
def golden_lua() -> LUA:
    return load_lua(GOLDEN / "lua_tiny.pth")


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("number", [0, 1])
def test_lua_gives_the_published_numbers(golden_lua, number, scale):
    vectors = load_file(GOLDEN / "lua_tiny_io.safetensors")
    with torch.inference_mode():
        out = golden_lua(vectors[f"in{number}"], scale)
    torch.testing.assert_close(out, vectors[f"out{number}_x{scale}"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("number", [0, 1])
def test_swinir_gives_the_published_numbers(number):
    vectors = load_file(GOLDEN / "swinir_tiny_io.safetensors")
    with torch.inference_mode():
        out = load_swinir(GOLDEN / "swinir_tiny.pth")(vectors[f"in{number}"], 2)
    torch.testing.assert_close(out, vectors[f"out{number}"], atol=1e-5, rtol=0)


def test_training_mode_gives_the_same_numbers(golden_lua):
    """Gradients switch scaled_dot_product_attention to another kernel."""
    vectors = load_file(GOLDEN / "lua_tiny_io.safetensors")
    out = copy.deepcopy(golden_lua).train()(vectors["in1"], 2)
    assert out.requires_grad
    torch.testing.assert_close(out, vectors["out1_x2"], atol=1e-5, rtol=0)


def test_published_sizes():
    """Millions of parameters of the published networks: LUA for FLUX.1, SwinIR-M x2 and x4."""
    with torch.device("meta"):
        networks = LUA(), SwinIR(), SwinIR(scales=(4,))
    millions = [round(sum(p.numel() for p in n.parameters()) / 1e6, 2) for n in networks]
    assert millions == [54.92, 11.75, 11.90]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("residual", [None, "bicubic"])
@pytest.mark.parametrize("kind", [LUA, SwinIR])
def test_any_size_gives_exactly_scale_times_the_input(kind, residual, size):
    network = toy(kind, residual=residual)
    x = torch.rand(2, network.in_chans, *size)
    with torch.inference_mode():
        for scale in (2, 4):
            out = network(x, scale)
            assert out.shape == (2, network.in_chans, size[0] * scale, size[1] * scale)
            assert out.isfinite().all()


@pytest.mark.parametrize("kind", [LUA, SwinIR])
def test_two_scales_of_one_trunk_pass_equal_two_calls(kind):
    network = toy(kind)
    x = torch.rand(1, network.in_chans, 6, 9)
    with torch.inference_mode():
        both = network.forward_scales(x, (4, 2))
        assert list(both) == [4, 2]
        for scale, out in both.items():
            torch.testing.assert_close(out, network(x, scale), atol=0, rtol=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("multiple", [4, 16])
def test_padding_is_numpys_reflection(size, multiple):
    x = torch.rand(1, 2, *size)
    pads = [(0, 0), (0, 0), *((0, -side % multiple) for side in size)]
    np.testing.assert_array_equal(pad_by_reflection(x, multiple).numpy(), np.pad(x.numpy(), pads, mode="reflect"))


def test_an_image_of_whole_windows_is_not_copied_for_padding():
    x = torch.rand(1, 2, 8, 16)
    assert pad_by_reflection(x, 8) is x


@pytest.mark.parametrize("kind", [LUA, SwinIR])
def test_the_bicubic_residual_starts_as_bicubic(kind):
    network = toy(kind, residual="bicubic")
    x = torch.rand(1, network.in_chans, 5, 7)
    with torch.inference_mode():
        expected = F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
        torch.testing.assert_close(network(x, 2), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("most", [None, 1, 40])
@pytest.mark.parametrize("window", [4, 5])
@pytest.mark.parametrize("size", [(1, 1), (1, 3), (3, 2)])
def test_windows_are_those_of_a_rolled_and_masked_image(size, window, most):
    """Pixels see each other if, rolled by the shift, they are in one window, and not from opposite borders."""
    torch.manual_seed(0)
    height, width = size[0] * window, size[1] * window
    windows = layout(2, height, width, window, window // 2, torch.device("cpu"), most)
    x = torch.randn(2, height, width, 8)
    for shift in (0, window // 2):
        block = SwinBlock(8, 2, window, shift, 2)
        torch.nn.init.normal_(block.attn.qkv.weight, std=0.3)

        def run(image, block=block, shift=shift):
            tokens = block(image.flatten(0, 2), windows.move(RASTER, shift), windows.pieces[shift])
            return moved(tokens, windows.move(shift, RASTER)).view_as(image)

        for y, x_ in ((0, 0), (0, width - 1), (1, 3), (height - 1, 0)):
            changed = x.clone()
            changed[1, y, x_, 0] += 1
            with torch.inference_mode():
                differs = (run(changed) - run(x)).abs().amax(-1) > 1e-6
            rows, columns = (torch.arange(side).sub(shift).floor_divide(window) for side in (height, width))
            assert not differs[0].any()
            assert torch.equal(differs[1], (rows == rows[y])[:, None] & (columns == columns[x_]))


@pytest.mark.parametrize("shift", [0, 2])
def test_moving_there_and_back_changes_nothing_and_has_the_gradient_of_a_permutation(shift):
    windows = layout(2, 8, 12, 4, 2, torch.device("cpu"))
    x = torch.randn(192, 3, requires_grad=True)
    there, back = windows.move(RASTER, shift), windows.move(shift, RASTER)
    assert torch.equal(moved(moved(x, there), back), x)
    weight = torch.randn(192, 3)
    (moved(x, there) * weight).sum().backward()
    assert torch.equal(moved(x.grad, there), weight)


def test_biases_of_a_smaller_window_are_those_of_a_part_of_a_whole_one():
    cpu = torch.device("cpu")
    whole = relative_position_index(4, 4, 4, cpu).view(4, 4, 4, 4)
    for rows, columns in ((2, 4), (4, 1), (3, 2)):
        expected = whole[4 - rows :, :columns, 4 - rows :, :columns].flatten()
        assert torch.equal(relative_position_index(4, rows, columns, cpu), expected)


def test_shift_is_part_of_the_network():
    torch.manual_seed(0)
    shifted, fixed = toy(shift=True), toy(shift=False)
    for parameter in shifted.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    fixed.load_state_dict(shifted.state_dict())
    x = torch.rand(1, 16, 8, 8)
    with torch.inference_mode():
        assert not torch.allclose(shifted(x, 2), fixed(x, 2), atol=1e-4)


@pytest.mark.parametrize("kind", [LUA, SwinIR])
def test_derived_buffers_are_not_saved(kind):
    network = toy(kind)
    assert network.state_dict().keys() == dict(network.named_parameters()).keys()


class Largest(TorchDispatchMode):
    """Records the elements of the largest tensor that any operation made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = [t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        self.elements = max([self.elements, *made])
        return out


def test_no_tensor_is_as_large_as_the_scores_of_all_windows(golden_lua):
    side, tokens, heads = 64, 64, 2
    with torch.no_grad(), Largest() as largest:
        golden_lua(torch.rand(1, 16, side, side), 2)
    assert 16 * (2 * side) ** 2 <= largest.elements < side * side // tokens * heads * tokens**2


@pytest.mark.parametrize("residual", [None, "bicubic"])
@pytest.mark.parametrize("kind", [LUA, SwinIR])
def test_gradients_reach_every_parameter(kind, residual):
    network = toy(kind, residual=residual).train()
    for head in network.heads.values():
        torch.nn.init.normal_(head.conv_last.weight, std=0.1)
    x = torch.rand(1, network.in_chans, 8, 8, requires_grad=True)
    sum(out.square().mean() for out in network.forward_scales(x, (2, 4)).values()).backward()
    assert x.grad.abs().sum() > 0
    untouched = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert untouched == []


def test_weights_changed_in_place_count(golden_lua):
    """A moving average is an eval-mode network whose weights change under it."""
    network, x = copy.deepcopy(golden_lua), torch.rand(1, 16, 8, 8)
    with torch.no_grad():
        before = network(x, 2)
        for layer in network.layers:
            for block in layer.residual_group["blocks"]:
                block.attn.relative_position_bias_table.normal_(std=10)
        assert not torch.allclose(network(x, 2), before, atol=1e-4)


def test_bf16_is_close(golden_lua):
    x = load_file(GOLDEN / "lua_tiny_io.safetensors")["in1"]
    with torch.inference_mode():
        exact = golden_lua(x, 4)
        with torch.autocast("cpu", torch.bfloat16):
            narrow = golden_lua(x, 4).float()
        whole = copy.deepcopy(golden_lua).bfloat16()(x.bfloat16(), 4).float()
    for out in (narrow, whole):
        assert 1e-4 < (out - exact).norm() / exact.norm() < 1e-2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: toy()(torch.rand(1, 16, 8, 8), 3), ["LUA", "scale 3", "2 or 4"]),
        (lambda: toy(SwinIR, scales=(2,))(torch.rand(1, 3, 8, 8), 4), ["SwinIR", "scale 4", "choose 2"]),
        (lambda: toy()(torch.rand(1, 4, 8, 8), 2), ["1 x 4 x 8 x 8", "16"]),
        (lambda: toy(SwinIR)(torch.rand(1, 4, 8, 8), 2), ["1 x 4 x 8 x 8", "3"]),
        (lambda: toy()(torch.rand(16, 8, 8), 2), ["16 x 8 x 8", "B x 16 x h x w"]),
        (lambda: toy(scales=(3,)), ["scale 3", "2 and 4"]),
        (lambda: toy(scales=(1,)), ["scale 1"]),
        (lambda: toy(num_heads=(2, 3)), ["embed_dim 8", "[2, 3]"]),
        (lambda: toy(residual="nearest"), ["'nearest'", "bicubic"]),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(call, words):
    with pytest.raises(UserError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


def test_linear_skip_starts_as_repetition():
    x = torch.randn(2, 3, 5, 4)
    torch.testing.assert_close(LinearSkip(3, 2)(x), x.repeat_interleave(2, -1).repeat_interleave(2, -2))


def test_fit_finds_the_linear_upscaler_that_made_the_targets():
    torch.manual_seed(0)
    teacher, pupil = LinearSkip(3, 2), LinearSkip(3, 2)
    torch.nn.init.normal_(teacher.conv.weight)
    torch.nn.init.normal_(teacher.conv.bias)
    inputs = [torch.randn(2, 3, 16, 16) for _ in range(3)]
    pupil.fit((x, teacher(x).detach()) for x in inputs)
    torch.testing.assert_close(pupil.conv.weight, teacher.conv.weight, atol=1e-3, rtol=0)
    torch.testing.assert_close(pupil.conv.bias, teacher.conv.bias, atol=1e-3, rtol=0)


def test_untrained_network_with_a_linear_residual_is_its_skip():
    model = toy(residual="linear")
    x = torch.randn(1, model.in_chans, 7, 9)
    torch.testing.assert_close(model(x, 4), model.skips["x4"](x))
