// Numbers of a crop {x, y, width, height}, in whole pixels, as lua_demo's metrics give them for arrays cut to the same crop.
// Each function is a generator that pauses after every row, where a newer question may take over; its return value is the result.
const IDENTICAL = 100, PEAK = 255; // dB of identical pictures; the largest value
const LUMA = [0.299, 0.587, 0.114]; // ITU-R 601

function gaussian(radius, sigma) {
  const taps = Array.from({ length: radius + 1 }, (_, i) => Math.exp(-(i * i) / (2 * sigma * sigma)));
  const sum = taps.reduce((total, tap, i) => total + (i ? 2 : 1) * tap, 0);
  return taps.map((tap) => tap / sum); // of the middle and one side
}

// Peak signal-to-noise ratio over all RGB values, in dB.
function* psnr(a, b, { x, y, width, height }) {
  let sum = 0;
  for (let row = y; row < y + height; row += 1) {
    for (let i = 4 * (row * a.width + x), end = i + 4 * width; i < end; i += 4) {
      const red = a.data[i] - b.data[i], green = a.data[i + 1] - b.data[i + 1], blue = a.data[i + 2] - b.data[i + 2];
      sum += red * red + green * green + blue * blue;
    }
    yield;
  }
  return sum ? Math.min(IDENTICAL, 10 * Math.log10((PEAK * PEAK * 3 * width * height) / sum)) : IDENTICAL;
}

// SSIM (Wang et al. 2004) over RGB with an 11 x 11 Gaussian window of 1.5 px and mirrored edges, as torchmetrics computes it.
// Null where a side is shorter than the window.
const REACH = 5, [W0, W1, W2, W3, W4, W5] = gaussian(REACH, 1.5);
const C1 = (0.01 * PEAK) ** 2, C2 = (0.03 * PEAK) ** 2;

// Rows go through the window two at a time, which halves what is read.
function* ssim(a, b, crop) {
  const { width, height } = crop, even = width + (width % 2);
  if (Math.min(width, height) <= 2 * REACH) return null;
  const mirror = (i) => (i < 0 ? -i : i >= height ? 2 * height - 2 - i : i);
  const padded = [0, 1, 2, 3].map(() => new Float64Array(even + 2 * REACH)); // a, b, a² + b², ab of one row
  const lines = padded.map(() => Array.from({ length: 2 * REACH + 2 }, () => new Float64Array(even))); // the oldest first
  const first = padded.map(() => new Float64Array(even)), second = padded.map(() => new Float64Array(even));
  let sum = 0;
  for (let channel = 0; channel < 3; channel += 1) {
    for (let row = -REACH; row < height + REACH + (height % 2); row += 1) {
      readRow(a, b, crop, mirror(row), channel, padded);
      for (let i = 0; i < 4; i += 1) {
        lines[i].push(lines[i].shift());
        acrossRow(padded[i], lines[i].at(-1), even);
      }
      const top = row - REACH - 1; // of the two rows whose windows are complete
      if (top < 0 || top % 2) continue;
      for (let i = 0; i < 4; i += 1) downRows(lines[i], first[i], second[i], width);
      sum += rowOfSsim(...first, width) + (top + 1 < height ? rowOfSsim(...second, width) : 0);
      yield;
    }
  }
  return sum / (3 * width * height);
}

function readRow(a, b, { x, y, width }, row, channel, [one, two, squares, product]) {
  for (let i = 0, at = 4 * ((y + row) * a.width + x) + channel; i < width; i += 1, at += 4) {
    const p = a.data[at], q = b.data[at];
    one[i + REACH] = p;
    two[i + REACH] = q;
    squares[i + REACH] = p * p + q * q;
    product[i + REACH] = p * q;
  }
  for (const line of [one, two, squares, product]) {
    for (let i = 1; i <= REACH; i += 1) {
      line[REACH - i] = line[REACH + i];
      line[REACH + width - 1 + i] = line[REACH + width - 1 - i];
    }
  }
}

function acrossRow(from, to, width) {
  for (let i = 0; i < width; i += 2) {
    const a = from[i], b = from[i + 1], c = from[i + 2], d = from[i + 3], e = from[i + 4], f = from[i + 5];
    const g = from[i + 6], h = from[i + 7], j = from[i + 8], k = from[i + 9], l = from[i + 10], m = from[i + 11];
    to[i] = W0 * f + W1 * (e + g) + W2 * (d + h) + W3 * (c + j) + W4 * (b + k) + W5 * (a + l);
    to[i + 1] = W0 * g + W1 * (f + h) + W2 * (e + j) + W3 * (d + k) + W4 * (c + l) + W5 * (b + m);
  }
}

function downRows([r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11], first, second, width) {
  for (let i = 0; i < width; i += 1) {
    const b = r1[i], c = r2[i], d = r3[i], e = r4[i], f = r5[i], g = r6[i], h = r7[i], j = r8[i], k = r9[i], l = r10[i];
    first[i] = W0 * f + W1 * (e + g) + W2 * (d + h) + W3 * (c + j) + W4 * (b + k) + W5 * (r0[i] + l);
    second[i] = W0 * g + W1 * (f + h) + W2 * (e + j) + W3 * (d + k) + W4 * (c + l) + W5 * (b + r11[i]);
  }
}

function rowOfSsim(one, two, squares, product, width) {
  let sum = 0;
  for (let i = 0; i < width; i += 1) {
    const both = one[i] * two[i], each = one[i] * one[i] + two[i] * two[i];
    sum += ((2 * both + C1) * (2 * (product[i] - both) + C2)) / ((each + C1) * (Math.max(0, squares[i] - each) + C2));
  }
  return sum;
}

// Energy of the luma above a Gaussian low-pass of 1 px, with repeated edges, as a share of the reference's.
function* sharpness(a, reference, crop) {
  const energies = [yield* highPassEnergy(a, crop), yield* highPassEnergy(reference, crop)];
  return (energies[0] + 1e-6) / (energies[1] + 1e-6);
}

function* highPassEnergy({ data, width: stride }, { x, y, width, height }) {
  const [w0, w1, w2] = gaussian(2, 1), line = new Float64Array(width + 4);
  const lumas = Array.from({ length: 5 }, () => new Float64Array(width)), blurs = lumas.map((row) => row.slice());
  let sum = 0;
  for (let row = -2; row < height + 2; row += 1) {
    const slot = (row + 2) % 5, luma = lumas[slot], blur = blurs[slot];
    let at = 4 * ((y + Math.min(height - 1, Math.max(0, row))) * stride + x);
    for (let i = 0; i < width; i += 1, at += 4) {
      luma[i] = line[i + 2] = LUMA[0] * data[at] + LUMA[1] * data[at + 1] + LUMA[2] * data[at + 2];
    }
    line[0] = line[1] = luma[0];
    line[width + 2] = line[width + 3] = luma[width - 1];
    for (let i = 0; i < width; i += 1) blur[i] = w0 * line[i + 2] + w1 * (line[i + 1] + line[i + 3]) + w2 * (line[i] + line[i + 4]);
    if (row < 2) continue;
    const [a, b, c, d, e] = [1, 2, 3, 4, 5].map((k) => blurs[(slot + k) % 5]), middle = lumas[(slot + 3) % 5];
    for (let i = 0; i < width; i += 1) {
      const high = middle[i] - (w0 * c[i] + w1 * (b[i] + d[i]) + w2 * (a[i] + e[i]));
      sum += high * high;
    }
    yield;
  }
  return sum / (width * height);
}

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
