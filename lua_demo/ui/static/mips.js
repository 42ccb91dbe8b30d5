// Pictures in memory. Each keeps its compressed file, a chain of small levels (1024 px, 512 px, ...) and, only while a frame needs
// them, crops of a finer level around what is visible. So memory does not depend on how large the pictures are:
//   BUDGET pixels for all crops together + 1.4 million per picture for its small levels, 4 bytes each; the compressed files;
//   and LANES pictures at full size for as long as their decoding lasts.
const SMALL = 1024, SMALLEST = 128, LANES = 2;
const BUDGET = matchMedia("(pointer: coarse)").matches ? 32e6 : 96e6; // five of 4096 x 4096 fit whole, except on phones

const pictures = new Map(); // url -> picture
let pictureCount = 0;

// Level n has 1 / 2^n of the picture's pixels on each axis. A crop is {level, x, y, width, height, bitmap} in the picture's pixels.
const levelFor = (scale) => Math.max(0, Math.floor(-Math.log2(scale)));
const contains = (crop, part) =>
  crop.x <= part.x && crop.y <= part.y && crop.x + crop.width >= part.x + part.width && crop.y + crop.height >= part.y + part.height;

async function openPicture(url, changed) {
  const picture = { id: (pictureCount += 1), url, width: 0, height: 0, small: [], crops: [], busy: false, broken: false, gone: false };
  pictures.set(url, picture);
  try {
    const answer = await fetch(url);
    if (!answer.ok) throw new Error(`${answer.status} for ${url}`);
    picture.blob = await answer.blob();
    const size = await sizeOf(picture.blob);
    const level = Math.max(0, Math.ceil(Math.log2(Math.max(size.width, size.height) / SMALL)));
    const small = [await decode(picture.blob, { x: 0, y: 0, ...size }, level)];
    while (Math.max(small.at(-1).bitmap.width, small.at(-1).bitmap.height) > 2 * SMALLEST) small.push(await halve(small.at(-1)));
    Object.assign(picture, size, { small });
  } catch (error) {
    console.warn("CompareViewer:", error);
    picture.broken = true;
  }
  if (picture.gone) closePicture(picture);
  else changed();
}

function closePicture(picture) {
  picture.gone = true;
  for (const crop of [...picture.small, ...picture.crops]) crop.bitmap.close();
  picture.small = picture.crops = [];
}

// The header is enough: the browser decodes an <img> when it is painted, and this one never is.
async function sizeOf(blob) {
  const image = new Image(), url = URL.createObjectURL(blob);
  try {
    await new Promise((done, failed) => Object.assign(image, { onload: done, onerror: () => failed(new Error("not a picture")), src: url }));
    return { width: image.naturalWidth, height: image.naturalHeight };
  } finally {
    URL.revokeObjectURL(url);
  }
}

async function decode(blob, { x, y, width, height }, level) {
  const resizeWidth = Math.ceil(width / 2 ** level), resizeHeight = Math.ceil(height / 2 ** level);
  const options = level ? { resizeWidth, resizeHeight, resizeQuality: "medium" } : {};
  return { level, x, y, width, height, bitmap: await createImageBitmap(blob, x, y, width, height, options) };
}

async function halve(crop) {
  const resizeWidth = Math.ceil(crop.bitmap.width / 2), resizeHeight = Math.ceil(crop.bitmap.height / 2);
  const bitmap = await createImageBitmap(crop.bitmap, { resizeWidth, resizeHeight, resizeQuality: "medium" });
  return { ...crop, level: crop.level + 1, bitmap };
}

const isOpening = () => [...pictures.values()].some((picture) => !picture.small.length && !picture.broken);

// What the frame being drawn asks for. Between beginFrame and endFrame every use of a picture goes through cropsFor.
let used = new Set(), missing = [], demands = 0, decoding = 0;

function beginFrame() {
  used = new Set();
  missing = [];
  demands = 0;
}

// The crops to paint for the part of a picture, in order: the one that covers it at this level, or stand-ins until it is decoded.
function cropsFor(picture, part, level) {
  const [first] = picture.small;
  if (level >= first.level) return [picture.small[Math.min(level - first.level, picture.small.length - 1)]];
  demands += 1;
  const exact = picture.crops.find((crop) => crop.level === level && contains(crop, part));
  if (!exact) missing.push({ picture, part, level });
  const crop = exact ?? picture.crops.at(-1);
  if (crop) used.add(crop);
  return exact ? [exact] : crop ? [first, crop] : [first];
}

const pixels = ({ bitmap }) => bitmap.width * bitmap.height;

// Drops what the frame did not use and decodes what it lacked; each arrival draws a new frame.
function endFrame(changed) {
  const share = BUDGET / Math.max(1, demands);
  let spent = [...used].reduce((sum, crop) => sum + pixels(crop), 0);
  for (const picture of pictures.values()) {
    picture.crops = picture.crops.filter((crop) => {
      // What was decoded when it had fewer beside it may be more than its share now; a crop's rim is not counted.
      const keep = used.has(crop) && (spent <= BUDGET || pixels(crop) <= 1.02 * share);
      if (used.has(crop) && !keep) spent -= pixels(crop);
      if (!keep) crop.bitmap.close();
      return keep;
    });
  }
  for (const want of missing) {
    if (decoding === LANES) return;
    if (want.picture.busy || want.picture.broken) continue;
    decodeMissing(want, share).then(changed);
  }
}

async function decodeMissing({ picture, part, level }, allowance) {
  decoding += 1;
  picture.busy = true;
  try {
    const crop = await decode(picture.blob, cropAround(picture, part, level, allowance), level);
    if (picture.gone) crop.bitmap.close();
    else picture.crops.push(crop);
  } catch (error) {
    console.warn("CompareViewer:", error);
    picture.broken = true; // its small levels stay, and are shown
  }
  picture.busy = false;
  decoding -= 1;
}

// The whole picture if its level has no more pixels than allowed, else as much around the part as is allowed.
function cropAround(picture, part, level, allowance) {
  const step = 2 ** level, allowed = allowance * step * step;
  if (picture.width * picture.height <= allowed) return { x: 0, y: 0, width: picture.width, height: picture.height };
  const growth = Math.max(1, Math.sqrt(allowed / (part.width * part.height)));
  const span = (from, length, end) => {
    const low = Math.max(0, from + (length * (1 - growth)) / 2), high = Math.min(end, from + (length * (1 + growth)) / 2);
    const start = Math.floor(low / step) * step;
    return [start, Math.min(end, Math.ceil(high / step) * step) - start];
  };
  const [x, width] = span(part.x, part.width, picture.width), [y, height] = span(part.y, part.height, picture.height);
  return { x, y, width, height };
}
