// Numbers of a crop {x, y, width, height}, in whole pixels, as lua_demo's metrics give them for arrays cut to the same crop.
// Each function is a generator that pauses after every row of cells, where a newer question may take over; its return value is the
// result. The innermost loops are those of metrics.c, whose compiled form is METRICS_WASM.
const IDENTICAL = 100, PEAK = 255; // dB of identical pictures; the largest value
const CELL = 64; // pixels per side of a cell, as in metrics.c
let compiled = null;

function kernels() {
  if (compiled) return compiled;
  const module = new WebAssembly.Module(Uint8Array.from(atob(METRICS_WASM), (byte) => byte.charCodeAt(0)));
  return (compiled = new WebAssembly.Instance(module).exports);
}

// What the kernel `name` gives for all cells of a crop, summed. A window reaches `reach` px beyond its pixel; `outside` names what stands
// for what lies beyond the crop. The sum of a cell that no window leaves the crop from is kept: a view that moves has few new ones.
function* sum(name, pictures, crop, reach, outside) {
  const { x, y, width, height } = crop, known = sumsOf(name, pictures), across = Math.ceil(pictures[0].width / CELL);
  let total = 0;
  for (let row = Math.floor(y / CELL); row * CELL < y + height; row += 1) {
    const top = Math.max(y, row * CELL), bottom = Math.min(y + height, (row + 1) * CELL);
    const kept = bottom - top === CELL && top - reach >= y && bottom + reach <= y + height;
    let held = null;
    for (let column = Math.floor(x / CELL); column * CELL < x + width; column += 1) {
      const left = Math.max(x, column * CELL), right = Math.min(x + width, (column + 1) * CELL), index = row * across + column;
      const whole = kept && right - left === CELL && left - reach >= x && right + reach <= x + width;
      let value = whole ? known.get(index) : undefined;
      if (value === undefined) {
        held ??= band(pictures, crop, top, bottom, reach, outside);
        value = kernels()[name](...held.at.map((start) => start + 4 * (left - x)), held.stride, right - left, bottom - top);
        if (whole) known.set(index, value);
      }
      total += value;
    }
    yield;
  }
  return total;
}

// Sums of cells by their number, which go with the pictures.
function sumsOf(name, pictures) {
  const [first, last] = [pictures[0], pictures.at(-1)];
  first.sums ??= new WeakMap();
  const sums = first.sums.get(last) ?? {};
  first.sums.set(last, sums);
  return (sums[name] ??= new Map());
}

// The rows of a crop from `top` to `bottom`, with `reach` px on every side, in the memory of the kernels: where each picture's begin,
// and pixels per row.
function band(pictures, { x, y, width, height }, top, bottom, reach, outside) {
  const { memory, __heap_base: heap } = kernels(), stride = width + 2 * reach, words = stride * (bottom - top + 2 * reach);
  const start = Math.ceil(heap.value / 4), missing = 4 * (start + pictures.length * words) - memory.buffer.byteLength;
  if (missing > 0) memory.grow(Math.ceil(missing / 65536));
  const held = new Uint32Array(memory.buffer);
  pictures.forEach((picture, i) => {
    const pixels = new Uint32Array(picture.data.buffer);
    for (let row = top - reach, to = start + i * words; row < bottom + reach; row += 1, to += stride) {
      const from = (y + outside(row - y, height)) * picture.width + x;
      held.set(pixels.subarray(from, from + width), to + reach);
      for (let k = 1; k <= reach; k += 1) {
        held[to + reach - k] = pixels[from + outside(-k, width)];
        held[to + reach + width - 1 + k] = pixels[from + outside(width - 1 + k, width)];
      }
    }
  });
  return { stride, at: pictures.map((_, i) => 4 * (start + i * words)) };
}
const mirrored = (at, length) => (at < 0 ? -at : at >= length ? 2 * length - 2 - at : at);
const repeated = (at, length) => Math.min(length - 1, Math.max(0, at));

// Peak signal-to-noise ratio over all RGB values, in dB.
function* psnr(a, b, crop) {
  const error = yield* sum("squared_error", [a, b], crop, 0, repeated);
  return error ? Math.min(IDENTICAL, 10 * Math.log10((PEAK * PEAK * 3 * crop.width * crop.height) / error)) : IDENTICAL;
}

// SSIM (Wang et al. 2004) over RGB with an 11 x 11 Gaussian window of 1.5 px and mirrored edges, as torchmetrics computes it.
// Null where a side is shorter than the window.
const REACH = 5;
function* ssim(a, b, crop) {
  if (Math.min(crop.width, crop.height) <= 2 * REACH) return null;
  return (yield* sum("ssim", [a, b], crop, REACH, mirrored)) / (3 * crop.width * crop.height);
}

// Energy of the luma above a Gaussian low-pass of 1 px, with repeated edges, as a share of the reference's.
const LOW_REACH = 2;
function* sharpness(a, reference, crop) {
  const energies = [];
  for (const picture of [a, reference]) {
    energies.push((yield* sum("high_pass_energy", [picture], crop, LOW_REACH, repeated)) / (crop.width * crop.height));
  }
  return (energies[0] + 1e-6) / (energies[1] + 1e-6);
}

// How many pixels have each value: [red, green, blue, luma], 256 counts each.
function* histogram(picture, crop) {
  let counts = 0;
  for (let top = crop.y; top < crop.y + crop.height; top += CELL) {
    const bottom = Math.min(crop.y + crop.height, top + CELL), held = band([picture], crop, top, bottom, 0, repeated);
    counts = kernels().histogram(...held.at, held.stride, crop.width, bottom - top, top === crop.y);
    yield;
  }
  return [0, 1, 2, 3].map((channel) => new Uint32Array(kernels().memory.buffer, counts + 1024 * channel, 256).slice());
}
