// One position and zoom for all panes: geometry and painting. Gradio runs this and viewer.js as one function, once, when the
// component is mounted; `element`, `props` and `watch` are its arguments.
const ref = (name) => element.querySelector(`[data-ref="${name}"]`);
const stage = ref("stage"), sliderPane = ref("slider"), grid = ref("grid");
const MAX_ZOOM = 32;

// Centre: fraction of the picture. Zoom: screen pixels per pixel of the largest picture.
const view = { mode: "slider", x: 0.5, y: 0.5, zoom: "fit", split: 0.5, smooth: false, picked: {}, left: null, right: null };
const paneSize = () => {
  const box = (view.mode === "grid" && grid.querySelector(".pane") || stage).getBoundingClientRect();
  return { width: Math.round(box.width * devicePixelRatio), height: Math.round(box.height * devicePixelRatio) };
};
const fitZoom = (image, size) => Math.min(size.width / image.naturalWidth, size.height / image.naturalHeight);
const zoomNow = (image = largest(), size = paneSize()) => (!image ? 1 : view.zoom === "fit" ? fitZoom(image, size) : view.zoom);

function clampCentre(image, size, zoom) {
  for (const [axis, side, pixels] of [["x", size.width, image.naturalWidth], ["y", size.height, image.naturalHeight]]) {
    const half = side / (2 * zoom * pixels);
    view[axis] = half >= 0.5 ? 0.5 : Math.min(1 - half, Math.max(half, view[axis]));
  }
}

// Paints `parts` ([image, from, to], fractions of the width) into the canvas, whose pixels are the screen's own.
function paint(canvas, parts, frame, size, zoom) {
  if (canvas.width !== size.width || canvas.height !== size.height) Object.assign(canvas, size);
  canvas.style.width = `${size.width / devicePixelRatio}px`;
  canvas.style.height = `${size.height / devicePixelRatio}px`;
  const pen = canvas.getContext("2d");
  const width = frame.naturalWidth * zoom, height = frame.naturalHeight * zoom;
  const left = Math.round(size.width / 2 - view.x * width), top = Math.round(size.height / 2 - view.y * height);
  pen.clearRect(0, 0, size.width, size.height);
  pen.imageSmoothingEnabled = view.smooth || zoom < 1;
  pen.imageSmoothingQuality = "high";
  for (const [image, from, to] of parts) {
    const start = Math.round(from * size.width), end = Math.round(to * size.width);
    pen.save();
    pen.beginPath();
    pen.rect(start, 0, end - start, size.height);
    pen.clip();
    pen.drawImage(image, left, top, width, height);
    pen.restore();
  }
}

let queued = 0;
const redraw = () => { queued ||= requestAnimationFrame(() => { queued = 0; draw(); }); };

// `at`: where to hold the picture still, in screen pixels from the pane's centre.
function setZoom(zoom, at = [0, 0]) {
  const image = largest();
  if (!image) return;
  const size = paneSize(), before = zoomNow(image, size), fit = fitZoom(image, size);
  const next = zoom === "fit" ? fit : Math.min(MAX_ZOOM, Math.max(Math.min(fit, 1), zoom));
  view.x += at[0] / image.naturalWidth * (1 / before - 1 / next);
  view.y += at[1] / image.naturalHeight * (1 / before - 1 / next);
  view.zoom = zoom === "fit" || (next === fit && next < 1) ? "fit" : next;
  redraw();
}

function pan(dx, dy) {
  const image = largest();
  if (!image) return;
  const zoom = zoomNow(image);
  view.x -= dx / (zoom * image.naturalWidth);
  view.y -= dy / (zoom * image.naturalHeight);
  redraw();
}

const fromCentre = (pane, x, y) => {
  const box = pane.getBoundingClientRect();
  return [(x - box.left - box.width / 2) * devicePixelRatio, (y - box.top - box.height / 2) * devicePixelRatio];
};

