// The toolbar: what its buttons do, and how it shows the state of the view.
const AUTO_MS = 700; // under three changes a second, which is where flashing becomes a hazard
const selects = { left: ref("left"), right: ref("right") };

function setMode(mode) {
  view.mode = mode;
  stopFlipping();
  buildGrid();
  redraw();
}

function toggle(name) {
  view[name] = !view[name];
  redraw();
}

function choose(side, value) {
  view[side] = value;
  view.show = value; // in blink mode: see what was just chosen
  update();
}

function swap() {
  [view.left, view.right] = [pair.right, pair.left];
  update();
}

// One picture alone.
function show(name) {
  if (!loaded(entryOf(name))) return;
  view.show = name;
  setMode("blink");
}

// Blink mode shows a picture, and its partner in the pair while something is held or every other beat.
let held = false, beat = false, timer = 0;
const shownKey = () => {
  const base = loaded(entryOf(view.show)) ? view.show : pair.left;
  return held === beat ? base : base === pair.right ? pair.left : pair.right;
};

function hold(on) {
  if (held === on) return;
  held = on;
  redraw();
}

function stopFlipping() {
  clearInterval(timer);
  timer = 0;
  held = beat = false;
}

function toggleAuto() {
  const start = !timer;
  stopFlipping();
  if (start) timer = setInterval(() => { beat = !beat; redraw(); }, AUTO_MS);
  redraw();
}

function fillControls() {
  for (const [side, select] of Object.entries(selects)) {
    select.replaceChildren(...entries.map((entry) => {
      const option = new Option(entry.label, entry.key);
      option.disabled = !loaded(entry);
      return option;
    }));
    select.value = pair[side] ?? "";
  }
  for (const [group, field] of [["picks", "show"], ["strips", "strip"]]) {
    ref(group).replaceChildren(...entries.map((entry, i) => {
      const button = Object.assign(make("button"), { type: "button", textContent: i + 1, title: entry.label, disabled: !loaded(entry) });
      button.setAttribute("aria-label", `${i + 1}: ${entry.label}`);
      button.dataset[field] = entry.key;
      return button;
    }));
  }
}

// Of the template, so found once: this runs in every frame.
const bars = all(".bar"), ofModes = all("[data-for]");
const buttons = { mode: all("button[data-mode]"), zoom: all("button[data-zoom]"), toggle: all("button[data-toggle]") };

function showControls(frame, place) {
  for (const bar of bars) bar.inert = !frame;
  ref("hint").hidden = !frame;
  for (const node of ofModes) node.hidden = !node.dataset.for.split(" ").includes(view.mode);
  for (const button of buttons.mode) press(button, button.dataset.mode === view.mode);
  for (const button of buttons.zoom) press(button, button.dataset.zoom === String(view.zoom));
  for (const button of buttons.toggle) press(button, view[button.dataset.toggle]);
  if (view.mode === "blink") for (const button of ref("picks").children) press(button, button.dataset.show === shownKey());
  const strips = frame && view.mode === "overlay" ? overlaid().map((entry) => entry.key) : [];
  if (strips.length) for (const button of ref("strips").children) press(button, strips.includes(button.dataset.strip));
  press(ref("auto"), timer);
  press(ref("flip"), held);
  ref("gain").value = view.gain;
  write(ref("times"), `×${view.gain}`);
  ref("map").value = view.map;
  ref("amount").hidden = view.mode !== "difference" || view.map === "flip"; // its colours have a scale of their own
  showPanel();
  showExposure();
  if (frame) write(ref("scale"), `${Math.round(place.zoom * 100)} % of ${frame.width} × ${frame.height} px`);
}

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const { zoom, mode, show: name, strip, toggle: field } = button.dataset;
  if (zoom) setZoom(zoom === "fit" ? zoom : Number(zoom));
  if (mode) setMode(mode);
  if (name) show(name);
  if (strip) toggleStrip(strip);
  if (field) toggle(field);
});
for (const [side, select] of Object.entries(selects)) select.addEventListener("change", () => choose(side, select.value));
ref("swap").addEventListener("click", swap);
ref("auto").addEventListener("click", toggleAuto);
ref("gain").addEventListener("input", (event) => { view.gain = Number(event.target.value); redraw(); });
ref("map").addEventListener("change", (event) => { view.map = event.target.value; redraw(); });
ref("pin").addEventListener("click", togglePin);
ref("ask").addEventListener("click", () => ref("help").showModal());
ref("full").hidden = !element.requestFullscreen;
ref("full").addEventListener("click", () => (document.fullscreenElement ? document.exitFullscreen() : element.requestFullscreen()));

// Held by pointer, space or Enter; let go wherever the pointer is by then.
ref("flip").addEventListener("pointerdown", (event) => { event.target.setPointerCapture(event.pointerId); hold(true); });
for (const end of ["pointerup", "pointercancel", "keyup", "blur"]) ref("flip").addEventListener(end, () => hold(false));
ref("flip").addEventListener("keydown", (event) => { if (event.key === " " || event.key === "Enter") hold(true); });
ref("flip").addEventListener("contextmenu", (event) => event.preventDefault()); // a long touch is a hold here
