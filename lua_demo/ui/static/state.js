// What the reader has set, and the same as a query string: element.dataset.view, always up to date.
const MODES = ["slider", "grid", "blink", "difference"], MAPS = ["colour", "signed"], MAX_GAIN = 32;

// x, y: the centre, fractions of the picture. zoom: screen pixels per pixel of the largest picture, or "fit".
// left, right, show: keys that were chosen, by hand or by a link; null while nobody chose.
const view = {
  mode: "slider", left: null, right: null, show: null, x: 0.5, y: 0.5, zoom: "fit", split: 0.5,
  smooth: false, gain: 8, map: "colour", loupe: false,
};

const oneOf = (words) => (text) => (words.includes(text) ? text : undefined);
const between = (low, high) => (text) => (text.trim() && low <= Number(text) && Number(text) <= high ? Number(text) : undefined);
const flag = (text) => ({ 0: false, 1: true })[text];
const key = (text) => text || undefined;
const FIELDS = {
  mode: oneOf(MODES), left: key, right: key, show: key, x: between(0, 1), y: between(0, 1),
  zoom: (text) => (text === "fit" ? text : between(0.01, MAX_ZOOM)(text)), split: between(0, 1),
  smooth: flag, gain: between(1, MAX_GAIN), map: oneOf(MAPS), loupe: flag,
};

// Unknown names and broken values are left out, one by one.
function readState(text) {
  const given = new URLSearchParams(text);
  for (const [name, read] of Object.entries(FIELDS)) {
    const value = given.has(name) ? read(given.get(name)) : undefined;
    if (value !== undefined) view[name] = value;
  }
}

function writeState(now) {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries({ ...view, ...now })) {
    if (value === null) continue;
    words.set(name, typeof value === "boolean" ? Number(value) : typeof value === "number" ? Number(value.toPrecision(5)) : value);
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
