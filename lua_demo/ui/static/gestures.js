// Pointers, wheel and keys.
const fromCentre = (pane, x, y) => {
  const box = pane.getBoundingClientRect();
  return [(x - box.left - box.width / 2) * devicePixelRatio, (y - box.top - box.height / 2) * devicePixelRatio];
};
const setSplit = (split) => { view.split = Math.min(1, Math.max(0, split)); redraw(); };

const pointers = new Map(); // id -> where it was last
let grip = null; // while the divider is dragged: its position minus the pointer's, in widths of the pane
ref("stage").addEventListener("pointerdown", (event) => {
  const pane = event.target.closest(".pane");
  if (event.button || !pane) return;
  // Where the whole picture is visible there is nothing to pan, so that a drag anywhere moves the divider.
  const onDivider = event.target.closest(".divider") || (view.mode === "slider" && pane.classList.contains("still"));
  grip = onDivider ? view.split - event.clientX / pane.clientWidth : null;
  pointers.set(event.pointerId, [event.clientX, event.clientY]);
  event.target.setPointerCapture(event.pointerId);
  if (view.loupe) pointLoupe(pane, event.clientX, event.clientY);
});
ref("stage").addEventListener("pointermove", (event) => {
  const pane = event.target.closest(".pane"), last = pointers.get(event.pointerId);
  if (last && pointers.size === 2) pinch(pane, event, last);
  else if (last && grip !== null) setSplit(grip + event.clientX / pane.clientWidth);
  else if (last) pan((event.clientX - last[0]) * devicePixelRatio, (event.clientY - last[1]) * devicePixelRatio);
  if (last) pointers.set(event.pointerId, [event.clientX, event.clientY]);
  if (view.loupe && pane && largest()) pointLoupe(pane, event.clientX, event.clientY);
});
for (const end of ["pointerup", "pointercancel"]) ref("stage").addEventListener(end, (event) => pointers.delete(event.pointerId));

// Called for each finger, while the other one stays: the middle moves half as far as the finger.
function pinch(pane, event, last) {
  const [x, y] = [...pointers].find(([id]) => id !== event.pointerId)[1];
  const distance = (a, b) => Math.max(1, Math.hypot(a - x, b - y));
  const middle = fromCentre(pane, (event.clientX + x) / 2, (event.clientY + y) / 2);
  zoomBy(distance(event.clientX, event.clientY) / distance(...last), middle);
  pan(((event.clientX - last[0]) / 2) * devicePixelRatio, ((event.clientY - last[1]) / 2) * devicePixelRatio);
}

ref("stage").addEventListener("wheel", (event) => {
  const pane = event.target.closest(".pane");
  // Zooming out of a picture that already fits is left to the page, which scrolls.
  if (!pane || (view.zoom === "fit" && event.deltaY > 0 && !event.ctrlKey)) return;
  event.preventDefault();
  const step = Math.exp(-Math.max(-80, Math.min(80, event.deltaY)) * (event.ctrlKey ? 0.01 : 0.003));
  zoomBy(step, fromCentre(pane, event.clientX, event.clientY));
}, { passive: false });

ref("stage").addEventListener("dblclick", (event) => {
  const pane = event.target.closest(".pane");
  if (pane && !event.target.closest(".divider")) setZoom(view.zoom === "fit" ? 1 : "fit", fromCentre(pane, event.clientX, event.clientY));
});

const STEP = 80; // screen pixels per arrow key
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const KEYS = {
  "+": () => zoomBy(1.25), "=": () => zoomBy(1.25), "-": () => zoomBy(1 / 1.25), 0: () => setZoom("fit"),
  f: () => setZoom("fit"), o: () => setZoom(1), p: () => toggle("smooth"), m: () => toggle("loupe"), x: swap,
  s: () => setMode("slider"), g: () => setMode("grid"), b: () => setMode("blink"), d: () => setMode("difference"),
  "?": () => ref("help").showModal(),
};

function arrow([dx, dy], event) {
  const onDivider = event.target === ref("divider");
  if (onDivider) setSplit(view.split + (dx - dy) * (event.shiftKey ? 0.1 : 0.02));
  else if (event.shiftKey && view.loupe) moveSpot(dx, dy);
  else pan(-dx * STEP, -dy * STEP);
}

function actionFor(event) {
  if (ARROWS[event.key]) return () => arrow(ARROWS[event.key], event);
  if (event.target === ref("divider") && event.key === "Home") return () => setSplit(0);
  if (event.target === ref("divider") && event.key === "End") return () => setSplit(1);
  if (/^[1-9]$/.test(event.key)) return () => show(entries[event.key - 1]?.key);
  // A button keeps its own space bar.
  if (event.key === " " && view.mode === "blink" && !event.target.closest("button")) return () => hold(true);
  return Object.hasOwn(KEYS, event.key.toLowerCase()) ? KEYS[event.key.toLowerCase()] : null;
}

element.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !largest() || event.target.closest("select, input, dialog")) return;
  const action = actionFor(event);
  if (!action) return;
  event.preventDefault();
  action();
});
element.addEventListener("keyup", (event) => { if (event.key === " ") hold(false); });
