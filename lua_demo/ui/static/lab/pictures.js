// In a worker of its own, so that the page stays free to draw: pictures, decoded to 8-bit RGBA. The files of lab/ make one script.
let budget = 40e6; // pixels that are kept decoded, 4 bytes each; the picture in use is always kept
const decoded = new Map(); // url -> {width, height, data}, the least recently used first

// `beside`: another that the same question needs, which is kept too.
async function open({ url, blob }, beside) {
  const known = decoded.get(url), picture = known ?? await decode(blob);
  decoded.delete(url);
  decoded.set(url, picture);
  let held = [...decoded.values()].reduce((sum, { width, height }) => sum + width * height, 0);
  for (const [old, { width, height }] of decoded) {
    if (held <= budget || old === url || old === beside?.url) break;
    decoded.delete(old);
    held -= width * height;
  }
  return picture;
}

async function decode(blob) {
  const bitmap = await createImageBitmap(blob), { width, height } = bitmap;
  const pen = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  pen.drawImage(bitmap, 0, 0);
  bitmap.close();
  return { width, height, data: pen.getImageData(0, 0, width, height).data };
}

// Red, green and blue of points [x, y], fractions of the picture.
function pixelsAt({ width, height, data }, points) {
  return points.map(([x, y]) => {
    const column = Math.min(width - 1, Math.floor(x * width)), row = Math.min(height - 1, Math.floor(y * height));
    const at = 4 * (row * width + column);
    return [data[at], data[at + 1], data[at + 2]];
  });
}
