// Three or more pictures in one, each in a strip of its own; the dividers between them move by pointer and keys.
const dividers = [ref("divider")]; // the first one is the slider's as well
const evenly = (count) => Array.from({ length: count - 1 }, (_, i) => (i + 1) / count);

// What was chosen, if there are three of them; else the pair and the reference, and others until there are three.
function overlaid() {
  const there = entries.filter(loaded), chosen = there.filter((entry) => view.strips?.includes(entry.key));
  if (chosen.length >= 2 && view.strips) return chosen;
  const first = [pair.left, pair.right, referenceEntry()?.key, ...there.map((entry) => entry.key)];
  const keys = [...new Set(first)].filter((name) => loaded(entryOf(name))).slice(0, 3);
  return there.filter((entry) => keys.includes(entry.key));
}

function toggleStrip(name) {
  const now = overlaid().map((entry) => entry.key);
  const next = now.includes(name) ? now.filter((other) => other !== name) : [...now, name];
  if (next.length < 2) return say("The overlay needs two pictures", true);
  view.strips = next;
  view.splits = null;
  redraw();
}

// Where the strips end, in (0, 1).
const splitsNow = (count) => (view.splits?.length === count - 1 ? view.splits : evenly(count));

// Moves one divider; it pushes its neighbours before it.
function setDivider(index, value) {
  if (view.mode !== "overlay") return setSplit(value);
  const splits = [...splitsNow(overlaid().length)], at = Math.min(1, Math.max(0, value));
  view.splits = splits.map((split, i) => (i === index ? at : i < index ? Math.min(split, at) : Math.max(split, at)));
  redraw();
}
const dividerAt = (index) => (view.mode === "overlay" ? splitsNow(overlaid().length)[index] : view.split);

// The divider that a drag anywhere moves: the nearest one.
function nearestDivider(pane, clientX) {
  if (view.mode !== "overlay") return 0;
  const box = pane.getBoundingClientRect(), at = (clientX - box.left) / box.width;
  const splits = splitsNow(overlaid().length), away = splits.map((split) => Math.abs(split - at));
  return away.indexOf(Math.min(...away));
}

function drawOverlay(place, size) {
  const shown = overlaid(), splits = splitsNow(shown.length), single = ref("single");
  const pen = clearCanvas(single.querySelector("canvas"), size), edges = [0, ...splits, 1];
  shown.forEach((entry, i) => paintStrip(pen, entry, place, Math.round(edges[i] * size.width), Math.round(edges[i + 1] * size.width)));
  placeDividers(splits, shown);
  tagSingle(null, null);
  placeStripTags(shown, edges);
  return `${shown.map((entry) => entry.label).join(", ")} from left to right`;
}

function paintStrip(pen, entry, place, from, to) {
  pen.save();
  pen.beginPath();
  pen.rect(from, 0, to - from, pen.canvas.height);
  pen.clip();
  paint(pen, loaded(entry), place);
  pen.restore();
}

function placeDividers(splits, shown) {
  while (dividers.length > Math.max(1, splits.length)) dividers.pop().remove();
  while (dividers.length < splits.length) dividers.push(ref("single").insertBefore(dividers[0].cloneNode(true), ref("single").querySelector(".mark")));
  dividers.forEach((divider, i) => {
    if (i) divider.removeAttribute("data-ref");
    divider.hidden = !(i < splits.length);
    const percent = Math.round(splits[i] * 100);
    divider.style.left = `${splits[i] * 100}%`;
    divider.setAttribute("aria-label", splits.length > 1 ? `Divider ${i + 1} of ${splits.length}` : "Divider");
    divider.setAttribute("aria-valuenow", percent);
    divider.setAttribute("aria-valuetext", splits.length > 1 ? `${percent} %, between ${shown[i].label} and ${shown[i + 1].label}` : `${percent} % ${shown[0].label}`);
  });
}

function placeStripTags(shown, edges) {
  const pane = ref("single"), tags = [...pane.querySelectorAll(".tag.strip")];
  while (tags.length > shown.length) tags.pop().remove();
  shown.forEach((entry, i) => {
    const tag = tags[i] ?? pane.insertBefore(withChildren(make("div", "tag strip"), [make("b"), make("span")]), ref("divider"));
    setTag(tag, entry.label, detailOf(entry));
    tag.style.left = `calc(${edges[i] * 100}% + 10px)`;
    tag.style.maxWidth = `calc(${(edges[i + 1] - edges[i]) * 100}% - 20px)`;
    tag.hidden = (edges[i + 1] - edges[i]) * pane.clientWidth < 60;
  });
}
