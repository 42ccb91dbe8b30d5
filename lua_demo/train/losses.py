"""Loss terms. Each takes (output, target), tensors of one shape B x C x H x W, and gives a scalar.

The equations are those of LUA (arXiv 2511.10629, section on training), weighted per stage in `upscaler.LUA_STAGES`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601
SCHARR = ((-3.0, 0.0, 3.0), (-10.0, 0.0, 10.0), (-3.0, 0.0, 3.0))
PATCH = 3
CUTOFF = 0.5


def l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference (LUA stages I to III, of latents or of pictures)."""
    return (output - target).abs().mean()


def l2(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference: what PSNR measures."""
    return (output - target).square().mean()


def gradient_l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the horizontal and vertical first differences: edges, and block borders, count."""
    difference = output - target
    return difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()


def seam_l1(output: Tensor, target: Tensor, period: int = 8) -> Tensor:
    """`gradient_l1` across the lines at multiples of `period` px alone: the borders of a latent's cells, where a grid
    shows first.
    """
    difference = output - target
    columns = difference.diff(dim=-1)[..., period - 1 :: period]
    rows = difference.diff(dim=-2)[..., period - 1 :: period, :]
    return columns.abs().mean() + rows.abs().mean()


def uneven_steps(output: Tensor, target: Tensor, period: int) -> Tensor:
    """A regular grid of any kind: RGB pictures whose steps between neighbouring pixels are larger at some places of
    a `period` px cell than at others, in all cells alike.

    At each of the `period` places, the mean squared step of the luma, of the whole batch, over that of all places; the
    mean squared difference to the target's, of rows and of columns. Fine noise all over would hide a grid: the squares
    of independent steps add up, and the mean of all places has no gradient, so that it does not pay. Blur does, a
    little: a large weight costs sharpness.
    """
    rows, columns = (
        (_by_place(output, dim, period) - _by_place(target, dim, period)).square().mean() for dim in (-1, -2)
    )
    return rows + columns


def _by_place(image: Tensor, dim: int, period: int) -> Tensor:
    """B x 3 x H x W -> `period` values: the mean squared luma step at each place of a cell, 0 on average."""
    steps = _luma(image).diff(dim=dim).square().mean(dim=(0, 1, -3 - dim))
    places = steps[: len(steps) // period * period].unflatten(0, (-1, period)).mean(0)
    mean = places.mean()
    return (places - mean) / (mean.detach() + 1e-6)


def fft_l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the magnitudes of the orthonormal 2D Fourier transform, in float32 (LUA stages I to
    III).
    """
    spectra = (torch.fft.rfft2(x.float(), norm="ortho").abs() for x in (output, target))
    return l1(*spectra)


def downsampled_l1(output: Tensor, target: Tensor, factor: int) -> Tensor:
    """L1 after bicubic antialiased downsampling by `factor`: what the input showed must be kept (LUA stage II)."""
    return l1(*(
        F.interpolate(x.float(), scale_factor=1 / factor, mode="bicubic", antialias=True) for x in (output, target)
    ))  # fmt: skip


def highpass_l1(output: Tensor, target: Tensor) -> Tensor:
    """L1 of what a Gaussian of sigma 1 px (5 x 5) takes away: the high-frequency residual (LUA stage II)."""
    return _high(output - target).abs().mean()  # the filter is linear


def faintness(output: Tensor, target: Tensor) -> Tensor:
    """Detail that is fainter than the target's: of the luma's squared high-pass (as in `highpass_l1`), averaged over
    8 px squares, what the output lacks, and nothing where it has more. RGB pictures of 8 px or more.

    A squared error alone makes detail the fainter the less certain it is. With this beside it at a weight of w < 1,
    what is best is that same detail times 1 / (1 - w), of all ways to its energy the one of least error, and no more
    than the target's energy, lest certain edges get halos.
    """
    lacking = _high(_luma(target)).square() - _high(_luma(output)).square()
    return F.avg_pool2d(lacking, 8, stride=4).relu().mean()


def eagle(output: Tensor, target: Tensor) -> Tensor:
    """Edge-aware gradient localisation (EAGLE, arXiv 2403.10695; LUA stage III), of RGB pictures in [0, 1].

    Scharr gradients of the luma; their variance in each of the non-overlapping 3 x 3 patches; the magnitude of the
    Fourier transform of that map; L1 under a Gaussian high-pass, summed over both directions. Kernel and transform are
    not normalised, as in EAGLE's public code: the paper's weight of 5e-5 belongs to that. Computed in float32.
    """
    with torch.autocast(output.device.type, enabled=False):
        maps = [_gradient_variance(x) for x in (output, target)]
        rows, columns = maps[0].shape[-2:]
        v = torch.fft.fftfreq(rows, device=output.device)[:, None]
        u = torch.fft.rfftfreq(columns, device=output.device)
        mask = 1 - torch.exp(-(u**2 + v**2) / (2 * CUTOFF**2))
        # Over the whole spectrum: of the half that rfft2 gives, all columns but the first (and the Nyquist one of an
        # even width) stand for two.
        weight = torch.full((len(u),), 2.0, device=output.device)
        weight[0] = 1
        if columns % 2 == 0:
            weight[-1] = 1
        magnitudes = [torch.fft.rfft2(x).abs() for x in maps]
        difference = ((magnitudes[0] - magnitudes[1]).abs() * mask * weight).sum((-2, -1)) / (rows * columns)
        return difference.mean(0).sum()


def _gradient_variance(image: Tensor) -> Tensor:
    """B x 3 x H x W in [0, 1] -> B x 2 x (H // 3) x (W // 3): variance of the x and y gradients of each patch."""
    luma = _luma(image)
    kernel = luma.new_tensor(SCHARR)
    gradients = F.conv2d(F.pad(luma, (1, 1, 1, 1), mode="replicate"), torch.stack([kernel, kernel.T])[:, None])
    rows, columns = (side // PATCH for side in gradients.shape[-2:])
    patches = gradients[..., : rows * PATCH, : columns * PATCH].unflatten(-1, (columns, PATCH))
    return patches.unflatten(-3, (rows, PATCH)).var(dim=(-3, -1))


def _high(image: Tensor) -> Tensor:
    """What a Gaussian of sigma 1 px (5 x 5) takes away, in float32."""
    with torch.autocast(image.device.type, enabled=False):
        image = image.float()
        window = torch.exp(-(torch.arange(-2.0, 3.0, device=image.device) ** 2) / 2)
        window = window / window.sum()
        channels = image.shape[1]
        kernel = (window[:, None] * window).expand(channels, 1, 5, 5)
        return image - F.conv2d(F.pad(image, (2, 2, 2, 2), mode="reflect"), kernel, groups=channels)


def _luma(image: Tensor) -> Tensor:
    """B x 3 x H x W -> B x 1 x H x W in float32."""
    return (image.float() * image.new_tensor(LUMA, dtype=torch.float32).view(1, 3, 1, 1)).sum(1, keepdim=True)
