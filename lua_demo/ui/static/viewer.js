// What the viewer shows and what the reader does with it; viewport.js stands before it in the same function.
// value: [{key, label, detail, image: {url} | null}]. Text reaches the page through textContent only.
const make = (tag, className = "") => Object.assign(document.createElement(tag), { className });
const divider = ref("divider");
const selects = { left: ref("left"), right: ref("right") };
// The pair shown until the reader picks one: the two ways of upscaling, or what has arrived of them.
const PREFERRED = { left: ["swinir", "native", "bicubic", "base"], right: ["lua", "native", "bicubic"] };

const images = new Map(); // url -> HTMLImageElement
let entries = [];

const loaded = (entry) => {
  const image = entry?.image && images.get(entry.image.url);
  return image?.isReady ? image : null;
};
const shown = () => entries.filter((entry) => loaded(entry));
const entryOf = (key) => entries.find((entry) => entry.key === key);
const largest = () => shown().map(loaded).reduce((a, b) => (b.naturalWidth > (a?.naturalWidth ?? 0) ? b : a), null); // viewport.js draws all in its frame

function choosePair() {
  const keys = shown().map((entry) => entry.key);
  for (const side of ["left", "right"]) {
    const taken = side === "right" ? view.left : view.picked.right && view.right;
    const wanted = [view.picked[side] && view[side], ...PREFERRED[side], ...keys].filter((key) => keys.includes(key));
    view[side] = (view.picked[side] ? wanted[0] : wanted.find((key) => key !== taken) ?? wanted[0]) ?? null;
  }
}

function fillSelects() {
  for (const [side, select] of Object.entries(selects)) {
    select.replaceChildren(...entries.map((entry) => {
      const option = new Option(entry.label, entry.key);
      option.disabled = !loaded(entry);
      return option;
    }));
    select.value = view[side] ?? "";
  }
}

function setTag(tag, entry) {
  tag.hidden = !entry;
  tag.firstElementChild.textContent = entry?.label ?? "";
  tag.lastElementChild.textContent = entry?.detail ?? "";
}

function buildGrid() {
  const box = stage.getBoundingClientRect(), image = largest();
  const ratio = image ? image.naturalWidth / image.naturalHeight : 1;
  const area = (columns) => {
    const rows = Math.ceil(entries.length / columns);
    return Math.min(box.width / columns, (box.height / rows) * ratio);
  };
  const columns = entries.map((_, i) => i + 1).reduce((best, n) => (area(n) > area(best) ? n : best), 1);
  grid.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
  grid.style.gridAutoRows = "minmax(0, 1fr)";
  grid.replaceChildren(...entries.map((entry) => {
    const pane = make("div", "pane"), tag = make("div", "tag left");
    pane.dataset.key = entry.key;
    tag.append(make("b"), make("span"));
    setTag(tag, loaded(entry) ? entry : { label: entry.label });
    const body = loaded(entry) ? make("canvas") : make("div", "wait");
    if (loaded(entry)) { body.setAttribute("role", "img"); body.setAttribute("aria-label", entry.label); } else body.textContent = entry.detail;
    pane.append(body, tag);
    return pane;
  }));
}

function draw() {
  const frame = largest();
  const slider = view.mode === "slider";
  ref("empty").hidden = Boolean(frame);
  sliderPane.hidden = !frame || !slider;
  grid.hidden = !frame || slider;
  ref("bar").classList.toggle("idle", !frame);
  ref("hint").hidden = !frame;
  ref("pair").classList.toggle("away", !frame || !slider);
  stage.classList.toggle("gridded", Boolean(frame) && !slider);
  if (!frame) return;
  stage.style.setProperty("--ratio", frame.naturalWidth / frame.naturalHeight);
  const size = paneSize(), zoom = zoomNow(frame, size), fit = fitZoom(frame, size);
  if (!size.width || !size.height) return;
  clampCentre(frame, size, zoom);
  if (slider) {
    const left = entryOf(view.left), right = entryOf(view.right);
    const canvas = sliderPane.querySelector("canvas");
    paint(canvas, [[loaded(left), 0, view.split], [loaded(right), view.split, 1]], frame, size, zoom);
    canvas.setAttribute("aria-label", left === right ? left.label : `${left.label} on the left, ${right.label} on the right`);
    setTag(sliderPane.querySelector(".tag.left"), left);
    setTag(sliderPane.querySelector(".tag.right"), left === right ? null : right);
    divider.hidden = left === right;
    divider.style.left = `${view.split * 100}%`;
    divider.setAttribute("aria-valuenow", Math.round(view.split * 100));
    divider.setAttribute("aria-valuetext", `${Math.round(view.split * 100)} % ${left.label}`);
  } else {
    for (const pane of grid.querySelectorAll(".pane")) {
      const canvas = pane.querySelector("canvas");
      if (canvas) paint(canvas, [[loaded(entryOf(pane.dataset.key)), 0, 1]], frame, size, zoom);
    }
  }
  for (const pane of element.querySelectorAll(".pane")) pane.classList.toggle("still", zoom <= fit);
  for (const button of element.querySelectorAll("[data-zoom]")) {
    button.setAttribute("aria-pressed", String(view.zoom) === button.dataset.zoom);
  }
  for (const button of element.querySelectorAll("[data-mode]")) button.setAttribute("aria-pressed", button.dataset.mode === view.mode);
  ref("smooth").setAttribute("aria-pressed", view.smooth);
  ref("scale").textContent = `Now ${Math.round(zoom * 100)} % of ${frame.naturalWidth} × ${frame.naturalHeight} px.`;
}

function update() {
  choosePair();
  fillSelects();
  buildGrid();
  draw();
}

function load() {
  entries = Array.isArray(props.value) ? props.value : [];
  const urls = new Set(entries.map((entry) => entry.image?.url).filter(Boolean));
  for (const url of images.keys()) if (!urls.has(url)) images.delete(url);
  for (const url of urls) {
    if (images.has(url)) continue;
    const image = new Image();
    images.set(url, image);
    image.onload = () => { image.isReady = true; update(); };
    image.src = url;
  }
  update();
}

const setSplit = (split) => { view.split = Math.min(1, Math.max(0, split)); redraw(); };

const pointers = new Map();
let dragging = false;
stage.addEventListener("pointerdown", (event) => {
  if (event.button || !event.target.closest(".pane")) return;
  dragging = Boolean(event.target.closest(".divider"));
  pointers.set(event.pointerId, [event.clientX, event.clientY]);
  event.target.setPointerCapture(event.pointerId);
});
stage.addEventListener("pointermove", (event) => {
  const last = pointers.get(event.pointerId);
  if (!last) return;
  const box = sliderPane.getBoundingClientRect();
  if (dragging) setSplit((event.clientX - box.left) / box.width);
  else if (pointers.size === 2) {
    const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
    const distance = (x, y) => Math.hypot(x - other[0], y - other[1]);
    const middle = [(event.clientX + other[0]) / 2, (event.clientY + other[1]) / 2];
    const growth = distance(event.clientX, event.clientY) / Math.max(1, distance(...last));
    setZoom(zoomNow() * growth, fromCentre(event.target.closest(".pane"), ...middle));
    pan((event.clientX - last[0]) / 2 * devicePixelRatio, (event.clientY - last[1]) / 2 * devicePixelRatio);
  } else pan((event.clientX - last[0]) * devicePixelRatio, (event.clientY - last[1]) * devicePixelRatio);
  pointers.set(event.pointerId, [event.clientX, event.clientY]);
});
for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, (event) => { pointers.delete(event.pointerId); });

stage.addEventListener("wheel", (event) => {
  const pane = event.target.closest(".pane");
  // Zooming out of a picture that already fits is left to the page, which scrolls.
  if (!pane || (view.zoom === "fit" && event.deltaY > 0 && !event.ctrlKey)) return;
  event.preventDefault();
  const step = Math.exp(-Math.max(-80, Math.min(80, event.deltaY)) * (event.ctrlKey ? 0.01 : 0.003));
  setZoom(zoomNow() * step, fromCentre(pane, event.clientX, event.clientY));
}, { passive: false });
stage.addEventListener("dblclick", (event) => {
  const pane = event.target.closest(".pane");
  if (pane && !event.target.closest(".divider")) setZoom(view.zoom === "fit" ? 1 : "fit", fromCentre(pane, event.clientX, event.clientY));
});

const KEYS = {
  "+": () => setZoom(zoomNow() * 1.25), "=": () => setZoom(zoomNow() * 1.25), "-": () => setZoom(zoomNow() / 1.25),
  0: () => setZoom("fit"), 1: () => setZoom(1),
  ArrowLeft: () => pan(80, 0), ArrowRight: () => pan(-80, 0), ArrowUp: () => pan(0, 80), ArrowDown: () => pan(0, -80),
};
const DIVIDER_KEYS = {
  ArrowLeft: (step) => setSplit(view.split - step), ArrowDown: (step) => setSplit(view.split - step),
  ArrowRight: (step) => setSplit(view.split + step), ArrowUp: (step) => setSplit(view.split + step),
  Home: () => setSplit(0), End: () => setSplit(1),
};
stage.addEventListener("keydown", (event) => {
  const action = event.ctrlKey || event.metaKey || event.altKey ? null : (event.target === divider && DIVIDER_KEYS[event.key]) || KEYS[event.key];
  if (!action) return;
  event.preventDefault();
  action(event.shiftKey ? 0.1 : 0.02);
});

element.addEventListener("click", (event) => {
  const { zoom, mode } = event.target.dataset;
  if (zoom) setZoom(zoom === "fit" ? "fit" : Number(zoom));
  if (mode) { view.mode = mode; buildGrid(); draw(); }
});
for (const [side, select] of Object.entries(selects)) {
  select.addEventListener("change", () => { view[side] = select.value; view.picked[side] = true; redraw(); });
}
ref("swap").addEventListener("click", () => {
  [view.left, view.right] = [view.right, view.left];
  view.picked = { left: true, right: true };
  fillSelects();
  redraw();
});
ref("smooth").addEventListener("click", () => { view.smooth = !view.smooth; redraw(); });
ref("full").hidden = !stage.requestFullscreen;
ref("full").addEventListener("click", () => (document.fullscreenElement ? document.exitFullscreen() : stage.requestFullscreen()));

new ResizeObserver(() => { buildGrid(); redraw(); }).observe(stage);
watch("value", load);
load();
