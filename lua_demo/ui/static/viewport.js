// One position and zoom for all panes: where pictures lie on a canvas, and painting them there.
const MAX_ZOOM = 32;

// All pictures are laid over the largest one, the frame. place: where the frame lies in a pane, in canvas pixels, which are the
// screen's own. The centre that is shown is kept inside the picture; `view` keeps what was asked for, since the picture may yet grow.
function placeIn(size, frame, { zoom = view.zoom, x = view.x, y = view.y, inside = true } = {}) {
  const fit = Math.min(size.width / frame.width, size.height / frame.height);
  const scale = zoom === "fit" ? fit : zoom;
  const width = frame.width * scale, height = frame.height * scale;
  const keep = (centre, pane, length) => {
    const half = pane / (2 * length);
    return !inside ? centre : half >= 0.5 ? 0.5 : Math.min(1 - half, Math.max(half, centre));
  };
  const at = { x: keep(x, size.width, width), y: keep(y, size.height, height) };
  const left = Math.round(size.width / 2 - at.x * width), top = Math.round(size.height / 2 - at.y * height);
  return { ...at, left, top, width, height, zoom: scale, fit };
}

function clearCanvas(canvas, size) {
  if (canvas.width !== size.width || canvas.height !== size.height) Object.assign(canvas, size);
  canvas.style.width = `${size.width / devicePixelRatio}px`;
  canvas.style.height = `${size.height / devicePixelRatio}px`;
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, size.width, size.height);
  return pen;
}

let drawnPixels = 0; // of all sources, in this frame

// The part of the picture that is on the canvas, in the picture's pixels.
function visiblePart(picture, place, size) {
  const across = place.width / picture.width, down = place.height / picture.height;
  const x = Math.max(0, -place.left / across), y = Math.max(0, -place.top / down);
  const width = Math.min(picture.width, (size.width - place.left) / across) - x;
  const height = Math.min(picture.height, (size.height - place.top) / down) - y;
  return { x, y, width, height, level: levelFor(Math.max(across, down)) };
}

// Of a pane without width, before it is laid out, rounding leaves a part of 1e-13 pixels, which cannot be decoded.
const hasArea = (part) => part.width > 1e-3 && part.height > 1e-3;

function paint(pen, picture, place) {
  const part = visiblePart(picture, place, pen.canvas);
  if (!hasArea(part)) return;
  const across = place.width / picture.width, down = place.height / picture.height;
  // A level is at most halved, for which bilinear interpolation is exact enough.
  pen.imageSmoothingEnabled = view.smooth || place.zoom < 1;
  pen.imageSmoothingQuality = across > 1 ? "high" : "low";
  for (const crop of cropsFor(picture, part, part.level)) {
    const { bitmap } = crop, columns = bitmap.width / crop.width, rows = bitmap.height / crop.height;
    // One pixel more on each side, so that interpolation finds its neighbours.
    const x = Math.max(0, Math.floor((part.x - crop.x) * columns) - 1), y = Math.max(0, Math.floor((part.y - crop.y) * rows) - 1);
    const width = Math.min(bitmap.width, Math.ceil((part.x + part.width - crop.x) * columns) + 1) - x;
    const height = Math.min(bitmap.height, Math.ceil((part.y + part.height - crop.y) * rows) + 1) - y;
    if (width <= 0 || height <= 0) continue;
    const left = place.left + (crop.x + x / columns) * across, top = place.top + (crop.y + y / rows) * down;
    pen.drawImage(bitmap, x, y, width, height, left, top, (width / columns) * across, (height / rows) * down);
    drawnPixels += width * height;
  }
}

// Asks for a picture as if it were painted, so that it is there at once when it is.
function reserve(picture, place, size) {
  const part = visiblePart(picture, place, size);
  if (hasArea(part)) cropsFor(picture, part, part.level);
}

const paneSize = () => {
  const box = (view.mode === "grid" && ref("grid").querySelector(".pane") || ref("stage")).getBoundingClientRect();
  return { width: Math.round(box.width * devicePixelRatio), height: Math.round(box.height * devicePixelRatio) };
};
const placeNow = () => placeIn(paneSize(), largest());

// `at`: where to hold the picture still, in screen pixels from the pane's centre.
function setZoom(zoom, at = [0, 0]) {
  const frame = largest();
  if (!frame) return;
  const { x, y, zoom: before, fit } = placeNow();
  if (!(before > 0)) return void ((view.zoom = zoom), redraw()); // not laid out yet
  const next = zoom === "fit" ? fit : Math.min(MAX_ZOOM, Math.max(Math.min(fit, 1), zoom));
  view.x = x + (at[0] / frame.width) * (1 / before - 1 / next);
  view.y = y + (at[1] / frame.height) * (1 / before - 1 / next);
  view.zoom = zoom === "fit" || (next === fit && next < 1) ? "fit" : next;
  redraw();
}
const zoomBy = (factor, at) => largest() && setZoom(placeNow().zoom * factor, at);

// In screen pixels.
function pan(dx, dy) {
  if (!largest()) return;
  const { x, y, width, height } = placeNow();
  if (!(width > 0 && height > 0)) return; // not laid out yet
  view.x = x - dx / width;
  view.y = y - dy / height;
  redraw();
}
