// Numbers and histograms of what is visible, for every picture, in the panel below the stage and on the pictures' labels.
const PATIENCE_MS = 40; // for an answer when there is a newer view; what was computed of it is kept
const REST_MS = 250; // without a newer view until those that are not on show are measured
let numbers = new Map(); // key of a picture -> {psnr, ssim, sharpness, histogram} of the crop {x, y, width, height} in the frame
let measured = "", shownCrop = null, wanted = null, working = false, asked = [], askedAt = 0, patience = PATIENCE_MS, wake = () => {};

const wantsNumbers = () => view.measure || view.histogram;
const referenceKey = () => view.reference ?? props.value?.truth ?? "";
const referenceEntry = () => (loaded(entryOf(referenceKey())) ? entryOf(referenceKey()) : null);
const sameSize = (a, b) => pictureOf(a).width === pictureOf(b).width && pictureOf(a).height === pictureOf(b).height;

// The pixels that are wholly or partly visible.
function cropIn(picture, place, size) {
  const part = visiblePart(picture, place, size), low = (value) => Math.max(0, Math.floor(value + 1e-6));
  const x = low(part.x), y = low(part.y);
  const right = Math.min(picture.width, Math.ceil(part.x + part.width - 1e-6)), bottom = Math.min(picture.height, Math.ceil(part.y + part.height - 1e-6));
  return { x, y, width: right - x, height: bottom - y };
}

function measureFrame(frame, place, size) {
  if (!wantsNumbers()) return;
  const shown = new Set(entriesOnShow()), reference = referenceEntry(), crop = cropIn(frame, place, size);
  if (crop.width <= 0 || crop.height <= 0) return;
  const everyone = entries.filter(loaded).sort((a, b) => shown.has(b) - shown.has(a));
  const tasks = everyone.map((entry) => ({
    entry, crop: cropIn(loaded(entry), place, size), on: shown.has(entry),
    reference: reference && reference !== entry && sameSize(reference, entry) ? reference : null,
  }));
  const same = JSON.stringify([reference?.key, view.histogram, everyone.map((entry) => pictureOf(entry).id)]), key = JSON.stringify([crop, same]);
  if (wanted?.key === key) return;
  wanted = { key, same, crop, tasks, since: performance.now() };
  measured = "";
  element.dataset.measured = ""; // what is shown until the answer comes is of the view before, and dimmed
  if (working && performance.now() - askedAt > patience) asked.forEach(withdraw);
  wake();
  if (!working) work();
}

async function work() {
  working = true;
  while (measured !== wanted.key) {
    const { key, same, crop, tasks, since } = wanted, fresh = new Map();
    const on = await answers(tasks.filter((task) => task.on), fresh);
    patience = on ? PATIENCE_MS : 2 * patience; // a view that never rests gets its numbers, too
    if (on && wanted.same === same) {
      // What is not on show waits until the view rests; until then it has no numbers rather than old ones.
      numbers = fresh;
      element.dataset.took = Math.round(performance.now() - since); // milliseconds from the view to its numbers
      showNumbers(crop, false);
    }
    const others = tasks.filter((task) => !task.on && (task.reference || view.histogram));
    if (on && wanted.key === key && others.length) await Promise.race([rest(), new Promise((go) => { wake = go; })]);
    if (on && wanted.key === key) await answers(others, fresh);
    if (on && wanted.key === key) measured = key;
    if (wanted.key === key) showNumbers(crop, true);
  }
  working = false;
}

const rest = () => new Promise((go) => setTimeout(go, REST_MS));

// Whether all were answered.
async function answers(tasks, into) {
  askedAt = performance.now();
  asked = tasks.map((task, i) => ask(i, "measure", {
    picture: sourceOf(task.entry), reference: task.reference && sourceOf(task.reference), crop: task.crop, wanted: { histogram: view.histogram },
  }));
  const results = await Promise.allSettled(asked.map((question) => question.answer));
  results.forEach(({ status, value, reason }, i) => {
    if (status === "fulfilled") into.set(tasks[i].entry.key, value);
    else grumble(reason);
  });
  return results.every(({ status, reason }) => status === "fulfilled" || reason.message !== "withdrawn");
}

const METRICS = [["psnr", "PSNR dB", 2], ["ssim", "SSIM", 4], ["sharpness", "Sharpness", 3]];
const figure = (value, digits) => (value === undefined || value === null ? "·" : value.toFixed(digits));

// For a picture's label.
function numbersOf(entry) {
  const row = view.measure && numbers.get(entry?.key);
  if (!row) return "";
  if (entry === referenceEntry()) return "reference";
  return row.psnr === undefined ? "" : `${row.psnr.toFixed(2)} dB · SSIM ${figure(row.ssim, 4)} · sharpness ${figure(row.sharpness, 3)}`;
}

let telling = 0;
function showNumbers(crop, complete) {
  element.dataset.measured = complete ? [crop.x, crop.y, crop.width, crop.height].join(" ") : "";
  clearTimeout(telling);
  if (complete && view.measure) telling = setTimeout(() => say(spokenNumbers()), 900); // once the view rests
  shownCrop = crop;
  fillPanel(crop);
  redraw();
}

function spokenNumbers() {
  const told = entriesOnShow().filter((entry) => numbers.get(entry.key)?.psnr !== undefined);
  return told.length ? `In the visible crop: ${told.map((entry) => `${entry.label} ${numbers.get(entry.key).psnr.toFixed(2)} decibels`).join(", ")}` : "";
}
