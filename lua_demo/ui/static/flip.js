// The FLIP map of the pair, in tiles of the frame that the workers compute when they are visible.
const TILE = 256;
let flips = { pair: "", tiles: new Map(), open: 0 }; // "x y" -> {x, y, width, height, bitmap, errors, sum}, or null while it is computed

function flipTiles(left, right, frame) {
  const name = [left.id, right.id, frame.width, frame.height].join(" ");
  if (flips.pair !== name) {
    for (const tile of flips.tiles.values()) tile?.bitmap.close();
    flips = { pair: name, tiles: new Map(), open: 0 };
  }
  return flips;
}

function paintFlip(pen, left, right, frame, place) {
  const set = flipTiles(loaded(left), loaded(right), frame), { x, y, width, height } = cropIn(frame, place, pen.canvas);
  const edge = (value, length, from) => Math.round(from + value * length), missing = [];
  pen.imageSmoothingEnabled = view.smooth || place.zoom < 1;
  for (let top = y - (y % TILE); top < y + height; top += TILE) {
    for (let start = x - (x % TILE); start < x + width; start += TILE) {
      const tile = set.tiles.get(`${start} ${top}`);
      if (tile === undefined) missing.push({ x: start, y: top, width: Math.min(TILE, frame.width - start), height: Math.min(TILE, frame.height - top) });
      if (!tile) continue;
      const [l, r] = [start, start + tile.width].map((value) => edge(value, place.zoom, place.left));
      const [t, b] = [top, top + tile.height].map((value) => edge(value, place.zoom, place.top));
      pen.drawImage(tile.bitmap, l, t, r - l, b - t);
    }
  }
  const distance = (tile) => Math.hypot(tile.x + TILE / 2 - x - width / 2, tile.y + TILE / 2 - y - height / 2);
  missing.sort((a, b) => distance(a) - distance(b));
  for (const tile of missing.slice(0, 2 * LANES_OF_LAB - set.open)) computeTile(set, left, right, frame, tile);
  return missing.length || set.open ? null : meanFlip(set, { x, y, width, height });
}

async function computeTile(set, left, right, frame, tile) {
  const name = `${tile.x} ${tile.y}`, size = { width: frame.width, height: frame.height };
  set.open += 1;
  set.tiles.set(name, null);
  try {
    const question = ask(tile.x / TILE + tile.y / TILE, "flip", { picture: sourceOf(left), reference: sourceOf(right), frame: size, tile });
    const { errors, sum } = await question.answer, bitmap = await createImageBitmap(heat(errors, tile));
    if (set === flips) set.tiles.set(name, { ...tile, errors, sum, bitmap });
    else bitmap.close();
  } catch (error) {
    grumble(error);
  }
  set.open -= 1;
  if (set === flips) redraw();
}

function heat(errors, { width, height }) {
  const image = new ImageData(width, height), { data } = image;
  for (let i = 0, at = 0; i < errors.length; i += 1) {
    for (let channel = 0; channel < 3; channel += 1, at += 1) data[at] = MAGMA[3 * errors[i] + channel];
    data[at] = 255;
    at += 1;
  }
  return image;
}

// Of the visible pixels.
function meanFlip({ tiles }, crop) {
  let sum = 0;
  for (const tile of tiles.values()) {
    const x = Math.max(crop.x, tile.x), y = Math.max(crop.y, tile.y);
    const right = Math.min(crop.x + crop.width, tile.x + tile.width), bottom = Math.min(crop.y + crop.height, tile.y + tile.height);
    if (right <= x || bottom <= y) continue;
    if (right - x === tile.width && bottom - y === tile.height) { sum += tile.sum; continue; }
    for (let row = y; row < bottom; row += 1) {
      const at = (row - tile.y) * tile.width - tile.x;
      for (let column = x; column < right; column += 1) sum += tile.errors[at + column] / 255;
    }
  }
  return sum / (crop.width * crop.height);
}
