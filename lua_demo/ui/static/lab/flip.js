// LDR-FLIP (Andersson et al. 2020, "FLIP: A difference evaluator for alternating images"): the error that a viewer sees when two
// pictures alternate in place, in [0, 1] per pixel, at the paper's distance: 0.7 m from a monitor 0.7 m wide with 3840 px.
const PER_DEGREE = 0.7 * (3840 / 0.7) * (Math.PI / 180);
const QC = 0.7, QF = 0.5, PC = 0.4, PT = 0.95; // exponents of colour and features; where large colour errors are compressed
const WHITE = [0.950428545, 1, 1.088900371];
const TO_XYZ = [
  [10135552 / 24577794, 8788810 / 24577794, 4435075 / 24577794],
  [2613072 / 12288897, 8788810 / 12288897, 887015 / 12288897],
  [1425312 / 73733382, 8788810 / 73733382, 70074185 / 73733382],
];
const TO_RGB = inverse(TO_XYZ);
const LINEAR = Float64Array.from({ length: 256 }, (_, i) => (i / 255 <= 0.04045 ? i / 255 / 12.92 : ((i / 255 + 0.055) / 1.055) ** 2.4));

function inverse([[a, b, c], [d, e, f], [g, h, i]]) {
  const rows = [[e * i - f * h, c * h - b * i, b * f - c * e], [f * g - d * i, a * i - c * g, c * d - a * f], [d * h - e * g, b * g - a * h, a * e - b * d]];
  const determinant = a * rows[0][0] + b * rows[1][0] + c * rows[2][0];
  return rows.map((row) => row.map((value) => value / determinant));
}

// Contrast sensitivity of the eye to lightness, red-green and blue-yellow: sums of a * sqrt(pi / b) * exp(-pi² r² / b).
const SENSITIVITY = [[[1, 0.0047]], [[1, 0.0053]], [[34.1, 0.04], [13.5, 0.025]]];
const EYE_REACH = Math.ceil(3 * Math.sqrt(0.04 / (2 * Math.PI ** 2)) * PER_DEGREE);
// Each Gaussian is one row filter and one column filter; its share of the normalised sum goes with the columns.
const EYE = SENSITIVITY.map((terms) => {
  const parts = terms.map(([a, b]) => {
    const taps = line(EYE_REACH, (i) => Math.exp((-(Math.PI ** 2) * (i / PER_DEGREE) ** 2) / b)), sum = total(taps);
    return { taps: taps.map((tap) => tap / sum), weight: a * Math.sqrt(Math.PI / b) * sum * sum };
  });
  const all = parts.reduce((sum, part) => sum + part.weight, 0);
  return parts.map(({ taps, weight }) => ({ taps, share: weight / all }));
});

// Edges and points: first and second derivative of a Gaussian, each sign with a sum of one.
const SIGMA = 0.5 * 0.082 * PER_DEGREE, FEATURE_REACH = Math.ceil(3 * SIGMA);
const BELL = line(FEATURE_REACH, (i) => Math.exp(-(i * i) / (2 * SIGMA * SIGMA)));
const SMOOTH = BELL.map((value) => value / total(BELL));
const EDGE = signed(BELL.map((value, i) => -(i - FEATURE_REACH) * value));
const POINT = signed(BELL.map((value, i) => ((i - FEATURE_REACH) ** 2 / SIGMA ** 2 - 1) * value));

function line(reach, value) {
  return Float64Array.from({ length: 2 * reach + 1 }, (_, i) => value(i - reach));
}
function total(taps) {
  return taps.reduce((sum, tap) => sum + tap, 0);
}
function signed(taps) {
  const up = total(taps.filter((tap) => tap > 0)), down = -total(taps.filter((tap) => tap < 0));
  return taps.map((tap) => tap / (tap < 0 ? down : up));
}

const RIM = Math.max(EYE_REACH, FEATURE_REACH);

// The tile {x, y, width, height} of the map, in pixels of the frame; a smaller picture gets larger pixels. The filters reach RIM px
// beyond the tile, and edges are repeated, so tiles join without a seam. Gives {errors, sum}, errors as bytes of 0 to 255.
function* flipTile(one, two, frame, tile) {
  const size = { width: tile.width + 2 * RIM, height: tile.height + 2 * RIM }, sides = [];
  for (const picture of [one, two]) sides.push(yield* perceived(opponents(picture, frame, tile, size), size, tile));
  const errors = new Uint8Array(tile.width * tile.height), [a, b] = sides;
  let sum = 0;
  for (let i = 0; i < errors.length; i += 1) {
    const distance = Math.abs(a.l[i] - b.l[i]) + Math.hypot(a.a[i] - b.a[i], a.b[i] - b.b[i]);
    const feature = Math.max(Math.abs(a.edges[i] - b.edges[i]), Math.abs(a.points[i] - b.points[i]));
    const error = compress(distance ** QC) ** (1 - (feature / Math.SQRT2) ** QF);
    errors[i] = Math.round(255 * Math.min(1, error));
    sum += error;
  }
  return { errors, sum };
}

const LARGEST = hyab(hunt([0, 1, 0]), hunt([0, 0, 1])) ** QC;
function compress(error) {
  const knee = PC * LARGEST;
  return error < knee ? (PT / knee) * error : PT + ((error - knee) / (LARGEST - knee)) * (1 - PT);
}
function hyab([l, a, b], [m, c, d]) {
  return Math.abs(l - m) + Math.hypot(a - c, b - d);
}

// CIELAB of linear RGB, with colour fading as light does (Hunt's effect).
function hunt([red, green, blue]) {
  const [x, y, z] = [0, 1, 2].map((i) => bend(xyz(i, red, green, blue))), lightness = 116 * y - 16;
  return [lightness, 0.01 * lightness * 500 * (x - y), 0.01 * lightness * 200 * (y - z)];
}
function xyz(i, red, green, blue) {
  return (TO_XYZ[i][0] * red + TO_XYZ[i][1] * green + TO_XYZ[i][2] * blue) / WHITE[i];
}
function shown(row, x, y, z) {
  return Math.min(1, Math.max(0, row[0] * x + row[1] * y + row[2] * z));
}
function bend(value) {
  return value > (6 / 29) ** 3 ? Math.cbrt(value) : value / (3 * (6 / 29) ** 2) + 4 / 29;
}

// Y, Cx and Cz of the tile and its rim.
function opponents(picture, frame, tile, { width, height }) {
  const planes = [0, 1, 2].map(() => new Float64Array(width * height));
  const clamp = (value, side) => Math.min(side - 1, Math.max(0, value));
  const columns = Int32Array.from({ length: width }, (_, i) => Math.floor(((clamp(tile.x + i - RIM, frame.width) + 0.5) * picture.width) / frame.width));
  for (let row = 0, at = 0; row < height; row += 1) {
    const start = Math.floor(((clamp(tile.y + row - RIM, frame.height) + 0.5) * picture.height) / frame.height) * picture.width;
    for (let column = 0; column < width; column += 1, at += 1) {
      const i = 4 * (start + columns[column]), r = LINEAR[picture.data[i]], g = LINEAR[picture.data[i + 1]], b = LINEAR[picture.data[i + 2]];
      const x = xyz(0, r, g, b), y = xyz(1, r, g, b), z = xyz(2, r, g, b);
      planes[0][at] = 116 * y - 16;
      planes[1][at] = 500 * (x - y);
      planes[2][at] = 200 * (y - z);
    }
  }
  return planes;
}

// What the eye makes of a tile: L, a, b after its blur, and the strength of edges and points.
function* perceived(planes, size, tile) {
  const count = tile.width * tile.height, seen = [];
  for (const [channel, parts] of EYE.entries()) {
    seen.push(new Float64Array(count));
    for (const { taps, share } of parts) {
      columnsOf(rowsOf(planes[channel], size, tile, taps), tile, taps, share, seen[channel]);
      yield;
    }
  }
  const [l, a, b] = [0, 1, 2].map(() => new Float64Array(count));
  for (let i = 0; i < count; i += 1) {
    const y = (seen[0][i] + 16) / 116, x = WHITE[0] * (y + seen[1][i] / 500), z = WHITE[2] * (y - seen[2][i] / 200);
    const red = shown(TO_RGB[0], x, y, z), green = shown(TO_RGB[1], x, y, z), blue = shown(TO_RGB[2], x, y, z);
    const fy = bend(xyz(1, red, green, blue));
    l[i] = 116 * fy - 16;
    a[i] = 5 * l[i] * (bend(xyz(0, red, green, blue)) - fy);
    b[i] = 2 * l[i] * (fy - bend(xyz(2, red, green, blue)));
  }
  yield;
  const grey = planes[0].map((value) => (value + 16) / 116);
  const edges = strength(grey, size, tile, EDGE);
  yield;
  return { l, a, b, edges, points: strength(grey, size, tile, POINT) };
}

function strength(grey, size, tile, taps) {
  const across = columnsOf(rowsOf(grey, size, tile, taps), tile, SMOOTH, 1), down = columnsOf(rowsOf(grey, size, tile, SMOOTH), tile, taps, 1);
  return across.map((value, i) => Math.hypot(value, down[i]));
}

// Filtered along the rows: tile.width wide, the rim still above and below.
function rowsOf(plane, { width, height }, tile, taps) {
  const reach = (taps.length - 1) / 2, result = new Float64Array(tile.width * height);
  for (let row = 0; row < height; row += 1) {
    for (let column = 0; column < tile.width; column += 1) {
      let sum = 0;
      for (let k = 0, at = row * width + column + RIM - reach; k < taps.length; k += 1) sum += taps[k] * plane[at + k];
      result[row * tile.width + column] = sum;
    }
  }
  return result;
}

// Filtered along the columns and added to `into`.
function columnsOf(plane, { width, height }, taps, share, into = new Float64Array(width * height)) {
  const reach = (taps.length - 1) / 2;
  for (let row = 0; row < height; row += 1) {
    for (let k = 0; k < taps.length; k += 1) {
      const tap = share * taps[k], from = (row + RIM - reach + k) * width, to = row * width;
      for (let column = 0; column < width; column += 1) into[to + column] += tap * plane[from + column];
    }
  }
  return into;
}
