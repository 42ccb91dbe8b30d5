// Numbers of a crop {x, y, width, height}, in whole pixels, as lua_demo's metrics give them for arrays cut to the same crop.
// Each function is a generator that pauses after every band of rows, where a newer question may take over; its return value is the
// result. The innermost loops are those of metrics.c, whose compiled form is METRICS_WASM.
const IDENTICAL = 100, PEAK = 255; // dB of identical pictures; the largest value
const BAND = 32; // rows, beside those that a window reaches beyond them
let compiled = null;

function kernels() {
  if (compiled) return compiled;
  const module = new WebAssembly.Module(Uint8Array.from(atob(METRICS_WASM), (byte) => byte.charCodeAt(0)));
  return (compiled = new WebAssembly.Instance(module).exports);
}

// The bands of a crop: {rows, at: where each picture's are in the memory of the kernels, spare: where `floats` more begin}. A band has
// `reach` rows more on either side; beyond the crop's edges stand those that `outside` names.
function* bandsOf(pictures, { x, y, width, height }, reach, outside, floats) {
  const { memory, __heap_base: heap } = kernels(), bytes = 4 * width * (BAND + 2 * reach);
  const at = pictures.map((_, i) => heap.value + i * bytes), spare = heap.value + pictures.length * bytes;
  const missing = spare + 4 * floats - memory.buffer.byteLength;
  if (missing > 0) memory.grow(Math.ceil(missing / 65536));
  const held = new Uint8Array(memory.buffer);
  for (let top = 0; top < height; top += BAND) {
    const rows = Math.min(BAND, height - top);
    pictures.forEach(({ data, width: stride }, i) => {
      for (let row = -reach; row < rows + reach; row += 1) {
        const from = 4 * ((y + outside(top + row, height)) * stride + x);
        held.set(data.subarray(from, from + 4 * width), at[i] + 4 * width * (row + reach));
      }
    });
    yield { rows, at, spare };
  }
}
const mirrored = (row, height) => (row < 0 ? -row : row >= height ? 2 * height - 2 - row : row);
const repeated = (row, height) => Math.min(height - 1, Math.max(0, row));

// Peak signal-to-noise ratio over all RGB values, in dB.
function* psnr(a, b, crop) {
  const { squared_error } = kernels(), { width, height } = crop;
  let sum = 0;
  for (const { rows, at } of bandsOf([a, b], crop, 0, repeated, 0)) {
    for (let row = 0; row < rows; row += 1) sum += squared_error(...at.map((start) => start + 4 * width * row), width) >>> 0;
    yield;
  }
  return sum ? Math.min(IDENTICAL, 10 * Math.log10((PEAK * PEAK * 3 * width * height) / sum)) : IDENTICAL;
}

// SSIM (Wang et al. 2004) over RGB with an 11 x 11 Gaussian window of 1.5 px and mirrored edges, as torchmetrics computes it.
// Null where a side is shorter than the window.
const REACH = 5;
function* ssim(a, b, crop) {
  const { width, height } = crop;
  if (Math.min(width, height) <= 2 * REACH) return null;
  let sum = 0;
  for (const { rows, at, spare } of bandsOf([a, b], crop, REACH, mirrored, kernels().ssim_floats(width))) {
    sum += kernels().ssim(...at, width, rows, spare);
    yield;
  }
  return sum / (3 * width * height);
}

// Energy of the luma above a Gaussian low-pass of 1 px, with repeated edges, as a share of the reference's.
function* sharpness(a, reference, crop) {
  const energies = [yield* highPassEnergy(a, crop), yield* highPassEnergy(reference, crop)];
  return (energies[0] + 1e-6) / (energies[1] + 1e-6);
}

const LOW_REACH = 2;
function* highPassEnergy(picture, crop) {
  const { width, height } = crop;
  let sum = 0;
  for (const { rows, at, spare } of bandsOf([picture], crop, LOW_REACH, repeated, kernels().energy_floats(width))) {
    sum += kernels().high_pass_energy(...at, width, rows, spare);
    yield;
  }
  return sum / (width * height);
}

const LUMA = [0.299, 0.587, 0.114]; // ITU-R 601
// How many pixels have each value: [red, green, blue, luma], 256 counts each.
function* histogram({ data, width: stride }, { x, y, width, height }) {
  const counts = [0, 1, 2, 3].map(() => new Uint32Array(256)), [red, green, blue, luma] = counts;
  for (let row = y; row < y + height; row += 1) {
    for (let i = 4 * (row * stride + x), end = i + 4 * width; i < end; i += 4) {
      const r = data[i], g = data[i + 1], b = data[i + 2];
      red[r] += 1;
      green[g] += 1;
      blue[b] += 1;
      luma[(LUMA[0] * r + LUMA[1] * g + LUMA[2] * b + 0.5) | 0] += 1;
    }
    yield;
  }
  return counts;
}
