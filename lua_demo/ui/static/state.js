// What the reader has set, and the same as a query string: element.dataset.view, always up to date.
const MODES = ["slider", "grid", "blink", "difference", "overlay"], MAPS = ["colour", "signed", "flip"], MAX_GAIN = 32;

// x, y: the centre, fractions of the picture. zoom: screen pixels per pixel of the largest picture, or "fit".
// left, right, show, reference: keys that were chosen, by hand or by a link; null while nobody chose. strips, splits: of the overlay.
// pins: [x, y]. exposure: in stops.
const view = {
  mode: "slider", left: null, right: null, show: null, x: 0.5, y: 0.5, zoom: "fit", split: 0.5,
  smooth: false, gain: 8, map: "colour", loupe: false, measure: false, histogram: false, exposure: 0, reference: null,
  strips: null, splits: null, pins: [],
};

const oneOf = (words) => (text) => (words.includes(text) ? text : undefined);
const between = (low, high) => (text) => (text.trim() && low <= Number(text) && Number(text) <= high ? Number(text) : undefined);
const flag = (text) => ({ 0: false, 1: true })[text];
const key = (text) => text || undefined;
const point = (text) => {
  const [x, y, ...more] = text.split("_").map(between(0, 1));
  return x === undefined || y === undefined || more.length ? undefined : [x, y];
};
// "a~b~c", all of them well-formed.
const list = (read, least, most) => (text) => {
  const values = text.split("~").map(read);
  return least <= values.length && values.length <= most && values.every((value) => value !== undefined) ? values : undefined;
};
const FIELDS = {
  mode: oneOf(MODES), left: key, right: key, show: key, x: between(0, 1), y: between(0, 1),
  zoom: (text) => (text === "fit" ? text : between(0.01, MAX_ZOOM)(text)), split: between(0, 1),
  smooth: flag, gain: between(1, MAX_GAIN), map: oneOf(MAPS), loupe: flag, measure: flag, histogram: flag,
  exposure: between(-6, 6), reference: (text) => text, strips: list(key, 2, 9), splits: list(between(0, 1), 1, 8), pins: list(point, 1, 8),
};

// Unknown names and broken values are left out, one by one.
function readState(text) {
  const given = new URLSearchParams(text);
  for (const [name, read] of Object.entries(FIELDS)) {
    const value = given.has(name) ? read(given.get(name)) : undefined;
    if (value !== undefined) view[name] = value;
  }
}

function inState(value) {
  if (Array.isArray(value)) return value.map((item) => (Array.isArray(item) ? item.map(inState).join("_") : inState(item))).join("~");
  return typeof value === "boolean" ? Number(value) : typeof value === "number" ? Number(value.toPrecision(5)) : value;
}

function writeState(now) {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries({ ...view, ...now })) {
    if (value === null || value.length === 0 && Array.isArray(value)) continue;
    words.set(name, inState(value));
  }
  return words.toString();
}

let announcing = 0;
function publish(now) {
  const text = writeState(now);
  if (element.dataset.view === text) return;
  element.dataset.view = text;
  clearTimeout(announcing);
  announcing = setTimeout(() => element.dispatchEvent(new CustomEvent("viewchange", { bubbles: true, detail: text })), 200);
}
