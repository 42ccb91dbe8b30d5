// What is shown: the panes, the pair, and a frame in each mode.
let entries = [];
let pair = { left: null, right: null };

const entryOf = (name) => entries.find((entry) => entry.key === name);
const pictureOf = (entry) => entry?.image && pictures.get(entry.image.url);
const loaded = (entry) => (pictureOf(entry)?.small.length ? pictureOf(entry) : null);
const largest = (among = entries) => among.map(loaded).reduce((a, b) => ((b?.width ?? 0) > (a?.width ?? 0) ? b : a), null);
const detailOf = (entry) => [entry.detail, numbersOf(entry)].filter(Boolean).join("\n");
const activePanes = () => (view.mode === "grid" ? [...ref("grid").querySelectorAll(".pane:has(canvas)")] : [ref("single")]);

let queued = 0;
const redraw = () => { queued ||= requestAnimationFrame(() => { queued = 0; draw(); }); };

// What was chosen, if it is there; else what the value suggests; else whatever is there, two different ones if possible.
function choosePair() {
  const keys = entries.filter(loaded).map((entry) => entry.key);
  const [left, right] = props.value?.pair ?? [];
  const pick = (...wanted) => [...wanted, ...keys].find((name) => keys.includes(name)) ?? null;
  const chosenRight = keys.includes(view.right) ? view.right : null;
  const other = (taken) => (name) => (name === taken ? undefined : name);
  pair.left = pick(view.left, ...[left, ...keys].map(other(chosenRight ?? right)));
  pair.right = pick(view.right, ...[right, ...keys].map(other(pair.left)));
}

function setTag(tag, label, detail = "") {
  tag.hidden = !label;
  write(tag.firstElementChild, label ?? "");
  write(tag.lastElementChild, detail);
}

function describe(canvas, text) {
  if (canvas.getAttribute("aria-label") !== text) canvas.setAttribute("aria-label", text);
}

// How many columns give the largest pictures; more where that costs little, since it takes less of the page.
function columns(ratio) {
  const stage = ref("stage"), height = parseFloat(getComputedStyle(stage).maxHeight) || stage.clientHeight;
  const wide = (count) => Math.min(stage.clientWidth / count, (height / Math.ceil(entries.length / count)) * ratio);
  const counts = entries.map((_, i) => i + 1), best = Math.max(...counts.map(wide));
  return counts.findLast((count) => wide(count) >= 0.9 * best);
}

const waitingText = (entry) => {
  if (pictureOf(entry)?.broken) return "This picture could not be loaded.";
  return entry.image ? "Loading" : entry.detail;
};

function buildGrid() {
  const frame = largest();
  if (!frame) return;
  const ratio = frame.width / frame.height, count = columns(ratio);
  const gridRatio = (ratio * count) / Math.ceil(entries.length / count);
  ref("stage").style.setProperty("--ratio", view.mode === "grid" ? gridRatio : ratio);
  ref("grid").style.gridTemplateColumns = `repeat(${count}, minmax(0, 1fr))`;
  ref("grid").replaceChildren(...entries.map((entry) => {
    const pane = make("div", "pane"), tag = make("div", "tag left"), body = loaded(entry) ? make("canvas") : make("div", "wait");
    pane.dataset.key = entry.key;
    tag.append(make("b"), make("span"));
    setTag(tag, entry.label, loaded(entry) ? entry.detail : "");
    if (loaded(entry)) body.setAttribute("role", "img");
    if (loaded(entry)) describe(body, entry.label);
    else body.textContent = waitingText(entry);
    pane.append(body, tag, make("i", "mark"));
    return pane;
  }));
}

const DRAW = {
  grid(place, size) {
    for (const pane of activePanes()) {
      const entry = entryOf(pane.dataset.key);
      paint(clearCanvas(pane.querySelector("canvas"), size), loaded(entry), place);
      setTag(pane.querySelector(".tag"), entry.label, detailOf(entry));
    }
    return "All pictures side by side";
  },
  slider(place, size) {
    const left = entryOf(pair.left), right = entryOf(pair.right), canvas = ref("single").querySelector("canvas");
    const pen = clearCanvas(canvas, size), split = Math.round(view.split * size.width);
    paintStrip(pen, left, place, 0, split);
    paintStrip(pen, right, place, split, size.width);
    tagSingle(left, left === right ? null : right);
    placeDividers(left === right ? [] : [view.split], [left, right]);
    return left === right ? left.label : `${left.label} on the left, ${right.label} on the right`;
  },
  blink(place, size) {
    const entry = entryOf(shownKey());
    paint(clearCanvas(ref("single").querySelector("canvas"), size), loaded(entry), place);
    for (const other of entries) if (other !== entry && loaded(other)) reserve(loaded(other), place, size);
    tagSingle(entry, null);
    return entry.label;
  },
  difference(place, size) {
    const left = entryOf(pair.left), right = entryOf(pair.right), pen = clearCanvas(ref("single").querySelector("canvas"), size);
    const [label, detail] = LAYERS[view.map](pen, left, right, place);
    setTag(ref("single").querySelector(".tag.left"), label, detail);
    setTag(ref("single").querySelector(".tag.right"), "");
    return label;
  },
  overlay: drawOverlay,
};

// What difference mode paints: label and detail.
const LAYERS = {
  colour(pen, left, right, place) {
    paintDifference(pen, loaded(left), loaded(right), place);
    return [`Difference: ${left.label} − ${right.label}, ×${view.gain}`, "black where they are equal"];
  },
  signed(pen, left, right, place) {
    paintDifference(pen, loaded(left), loaded(right), place);
    return [`Difference: ${left.label} − ${right.label}, ×${view.gain}`, `orange: ${left.label} is brighter, blue: ${right.label} is`];
  },
  flip(pen, left, right, place) {
    const mean = paintFlip(pen, left, right, largest(), place);
    element.dataset.flip = mean ?? "";
    return [`FLIP: ${left.label}, ${right.label}`, mean === null ? "computing" : `mean of the visible crop ${mean.toFixed(4)}; black: no visible error`];
  },
};

function tagSingle(left, right) {
  setTag(ref("single").querySelector(".tag.left"), left?.label, left ? detailOf(left) : "");
  setTag(ref("single").querySelector(".tag.right"), right?.label, right ? detailOf(right) : "");
}

// The pictures that the mode shows now.
function entriesOnShow() {
  if (view.mode === "grid") return entries.filter(loaded);
  if (view.mode === "overlay") return overlaid();
  return (view.mode === "blink" ? [shownKey()] : [...new Set([pair.left, pair.right])]).map(entryOf);
}

function draw() {
  const frame = largest(), gridded = view.mode === "grid";
  ref("empty").hidden = Boolean(frame);
  ref("single").hidden = !frame || gridded;
  ref("grid").hidden = !frame || !gridded;
  const size = paneSize(), place = frame && placeIn(size, frame);
  showControls(frame, place);
  publish({ ...pair, ...(place && { x: place.x, y: place.y }) });
  beginFrame();
  if (frame && size.width && size.height) drawFrame(frame, place, size);
  endFrame(redraw);
  ref("stage").setAttribute("aria-busy", missing.length > 0 || isOpening() || (view.mode === "difference" && flips.open > 0));
}

function drawFrame(frame, place, size) {
  drawnPixels = 0;
  ref("single").dataset.mode = view.mode;
  const text = DRAW[view.mode](place, size);
  if (view.mode !== "grid") describe(ref("single").querySelector("canvas"), text);
  if (!timer) write(ref("live"), text);
  element.classList.toggle("magnified", view.loupe);
  drawLoupe(frame, place);
  placePins(place);
  measureFrame(frame, place, size);
  for (const pane of activePanes()) pane.classList.toggle("still", place.zoom <= place.fit);
  element.dataset.drawn = drawnPixels;
}

// Whenever a picture or the value has come.
function update() {
  choosePair();
  fillControls();
  buildGrid();
  buildLoupe();
  buildPanel();
  fillPins();
  showGuests();
  fitGuests();
  redraw();
}

let state = ""; // of the value before

function load() {
  const value = props.value ?? {};
  if (!(value.panes ?? []).some((entry) => entry.image && pictures.has(entry.image.url))) forgetGuests(); // another subject
  entries = [...(value.panes ?? []), ...guests];
  const urls = new Set(entries.map((entry) => entry.image?.url).filter(Boolean));
  // A state is set once: not again when more pictures of the same comparison arrive, since the reader may have moved on.
  const more = value.state === state && [...urls].some((url) => pictures.has(url));
  state = value.state ?? "";
  if (!more) readState(state);
  for (const [url, picture] of pictures) {
    if (urls.has(url)) continue;
    closePicture(picture);
    pictures.delete(url);
  }
  for (const url of urls) if (!pictures.has(url)) openPicture(url, update);
  update();
}

new ResizeObserver(() => { buildGrid(); redraw(); }).observe(ref("stage"));
watch("value", load);
load();
