// The colour under the magnifier's spot in every picture, and pins: up to eight spots whose colours stay in the panel.
const MOST_PINS = 8, PIN_REACH = 12; // screen pixels within which a click takes a pin away
const dot = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
Object.assign(dot.canvas, { width: 1, height: 1 });

// [red, green, blue] at the spot (fractions); null until its part of the picture is decoded at full size.
function colourAt(picture, x, y) {
  const column = Math.min(picture.width - 1, Math.floor(x * picture.width)), row = Math.min(picture.height - 1, Math.floor(y * picture.height));
  const pixel = { x: column, y: row, width: 1, height: 1 };
  const crop = [...picture.crops, ...picture.small].find((candidate) => candidate.level === 0 && contains(candidate, pixel));
  if (!crop) return null;
  dot.drawImage(crop.bitmap, column - crop.x, row - crop.y, 1, 1, 0, 0, 1, 1);
  return [...dot.getImageData(0, 0, 1, 1).data].slice(0, 3);
}

const against = () => referenceEntry() ?? entryOf(pair.left); // what differences are taken from
const difference = (colour, other) => colour.map((value, i) => value - other[i]);
const withSign = (value) => (value > 0 ? `+${value}` : value < 0 ? `−${-value}` : "0");
const inWords = (colour, other) => `${colour.join(" ")}${other ? ` Δ ${difference(colour, other).map(withSign).join(" ")}` : ""}`;

// One line with the colour, one with its difference from the reference.
function fillColour(node, colour, other) {
  const [swatch, values, delta] = node.children;
  swatch.style.background = colour ? `rgb(${colour.join(" ")})` : "";
  write(values, colour ? colour.join(" ") : "…");
  write(delta, colour && other ? `Δ ${difference(colour, other).map(withSign).join(" ")}` : "");
}
const colourNode = () => withChildren(make("span", "colour"), [make("i"), make("span"), make("small")]);

function probeSpot(cells) {
  const base = against(), other = loaded(base) && colourAt(loaded(base), spot.x, spot.y);
  for (const cell of cells) {
    const entry = entryOf(cell.dataset.key);
    fillColour(cell.querySelector(".colour"), colourAt(loaded(entry), spot.x, spot.y), entry === base ? null : other);
  }
}

let telling2 = 0;
// For a reader who moves the spot with keys and does not see it.
function saySpot() {
  clearTimeout(telling2);
  telling2 = setTimeout(() => {
    const frame = largest(), told = entriesOnShow().map((entry) => [entry.label, colourAt(loaded(entry), spot.x, spot.y)]);
    say(`At ${where(spot, frame)}: ${told.filter(([, colour]) => colour).map(([label, colour]) => `${label} ${colour.join(" ")}`).join(", ")}`);
  }, 400);
}
const where = ({ x, y }, frame) => `${Math.floor(x * frame.width)}, ${Math.floor(y * frame.height)}`;

// A pin at the spot, or none there any more.
function togglePin() {
  const place = placeNow(), away = ([x, y]) => Math.hypot((x - spot.x) * place.width, (y - spot.y) * place.height) / devicePixelRatio;
  const near = view.pins.findIndex((pin) => away(pin) < PIN_REACH);
  if (near >= 0) return removePin(near);
  if (view.pins.length === MOST_PINS) return say(`${MOST_PINS} pins are the most; take one away first`, true);
  view.pins = [...view.pins, [spot.x, spot.y].map((value) => Number(Math.min(0.99999, value).toFixed(5)))];
  say(`Pin ${view.pins.length} at ${where(spot, largest())}`);
  changedPins();
}

function removePin(index) {
  if (!view.pins[index]) return;
  view.pins = view.pins.filter((_, i) => i !== index);
  say(`Pin ${index + 1} removed`);
  changedPins();
}

function changedPins() {
  fillPins();
  redraw();
}

const pinColours = new Map(); // id of a picture -> Map(pin -> colour)
async function fillPins() {
  ref("pinned").hidden = !view.pins.length || !largest();
  if (ref("pinned").hidden) return;
  const there = entries.filter(loaded), base = against(), pins = view.pins;
  const lines = pins.map(([x, y], i) => pinLine(i, { x, y }, there));
  ref("pins").replaceChildren(tableHead(["Pin", "At px", ...there.map((entry) => entry.label), "Remove"]), withChildren(make("tbody"), lines));
  await Promise.all(there.map(async (entry) => {
    const known = pinColours.get(pictureOf(entry).id) ?? new Map(), missing = pins.filter((pin) => !known.has(String(pin)));
    if (!missing.length) return;
    pinColours.set(pictureOf(entry).id, known);
    const colours = await ask(0, "pixels", { picture: sourceOf(entry), points: missing }).answer.catch(grumble);
    colours?.forEach((colour, i) => known.set(String(missing[i]), colour));
  }));
  const colourOf = (entry, pin) => loaded(entry) && pinColours.get(pictureOf(entry).id)?.get(String(pin));
  lines.forEach((line, i) => there.forEach((entry, k) => {
    fillColour(line.children[2 + k].firstChild, colourOf(entry, pins[i]), entry === base ? null : colourOf(base, pins[i]));
  }));
}

function pinLine(index, pin, there) {
  const line = make("tr"), head = Object.assign(make("th"), { scope: "row", textContent: index + 1 });
  const place = Object.assign(make("td"), { textContent: where(pin, largest()) });
  const remove = Object.assign(make("button"), { type: "button", textContent: "×" });
  remove.setAttribute("aria-label", `Remove pin ${index + 1}`);
  remove.addEventListener("click", () => { removePin(index); ref("stage").focus({ preventScroll: true }); });
  line.append(head, place, ...there.map(() => withChildren(make("td"), [colourNode()])), withChildren(make("td"), [remove]));
  return line;
}

let pinned = false; // there are marks
function placePins(place) {
  if (!view.pins.length && !pinned) return;
  pinned = view.pins.length > 0;
  for (const pane of activePanes()) {
    const marks = [...pane.querySelectorAll(".pin")];
    while (marks.length > view.pins.length) marks.pop().remove();
    view.pins.forEach(([x, y], i) => {
      const mark = marks[i] ?? pane.appendChild(Object.assign(make("b", "pin"), { textContent: i + 1 }));
      mark.style.left = `${(place.left + x * place.width) / devicePixelRatio}px`;
      mark.style.top = `${(place.top + y * place.height) / devicePixelRatio}px`;
    });
  }
}
