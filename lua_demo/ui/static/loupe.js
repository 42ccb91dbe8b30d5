// The magnifier: the same spot of every picture, enlarged, side by side.
const LOUPE_GAP = 22;
const spot = { x: 0.5, y: 0.5, pane: null }; // fractions of the picture; the pane it was pointed at in

const loupeZoom = (place) => Math.min(2 * MAX_ZOOM, Math.max(4 * Math.ceil(devicePixelRatio), 4 * place.zoom));
const within = (value) => Math.min(1, Math.max(0, value));

function pointLoupe(pane, clientX, clientY) {
  const place = placeNow(), box = pane.getBoundingClientRect();
  spot.x = within(((clientX - box.left) * devicePixelRatio - place.left) / place.width);
  spot.y = within(((clientY - box.top) * devicePixelRatio - place.top) / place.height);
  spot.pane = pane;
  redraw();
}

// By whole pixels of the frame, but never by less than what can be seen to move.
function moveSpot(dx, dy) {
  const { width, height, zoom } = placeNow(), step = Math.max(1, 8 / zoom) * zoom;
  spot.x = within(spot.x + (dx * step) / width);
  spot.y = within(spot.y + (dy * step) / height);
  saySpot();
  redraw();
}

function buildLoupe() {
  ref("loupe").replaceChildren(...entries.filter(loaded).map((entry) => {
    const cell = make("figure"), name = make("figcaption");
    cell.dataset.key = entry.key;
    name.textContent = entry.label;
    cell.append(make("canvas"), name, colourNode());
    return cell;
  }));
}

function drawLoupe(frame, place) {
  const panel = ref("loupe");
  panel.hidden = !view.loupe;
  if (!view.loupe) return;
  const cells = [...panel.children];
  const side = Math.round(cells[0].clientWidth * devicePixelRatio), size = { width: side, height: side };
  const near = placeIn(size, frame, { zoom: loupeZoom(place), x: spot.x, y: spot.y, inside: false });
  for (const cell of cells) paint(clearCanvas(cell.querySelector("canvas"), size), loaded(entryOf(cell.dataset.key)), near);
  probeSpot(cells);
  const reach = (side / near.zoom) * place.zoom;
  placeMark(place, reach);
  placePanel(panel, place, reach);
}

const spotOnStage = (place) => {
  const pane = (spot.pane?.isConnected && !spot.pane.hidden && spot.pane) || activePanes()[0];
  const box = pane.getBoundingClientRect(), stage = ref("stage").getBoundingClientRect();
  return {
    x: box.left - stage.left + (place.left + spot.x * place.width) / devicePixelRatio,
    y: box.top - stage.top + (place.top + spot.y * place.height) / devicePixelRatio,
  };
};

// The outline of what is enlarged, in every pane.
function placeMark(place, reach) {
  const side = Math.max(8, reach / devicePixelRatio);
  for (const pane of activePanes()) {
    const mark = pane.querySelector(".mark");
    mark.style.width = mark.style.height = `${side}px`;
    mark.style.left = `${(place.left + spot.x * place.width) / devicePixelRatio - side / 2}px`;
    mark.style.top = `${(place.top + spot.y * place.height) / devicePixelRatio - side / 2}px`;
  }
}

// Below the spot, or above it where there is no room below; never outside the stage.
function placePanel(panel, place, reach) {
  const at = spotOnStage(place), stage = ref("stage"), gap = LOUPE_GAP + reach / devicePixelRatio / 2;
  const { offsetWidth: width, offsetHeight: height } = panel;
  const below = at.y + gap, top = below + height <= stage.clientHeight ? below : at.y - gap - height;
  panel.style.left = `${Math.max(8, Math.min(stage.clientWidth - width - 8, at.x - width / 2))}px`;
  panel.style.top = `${Math.max(8, Math.min(stage.clientHeight - height - 8, top))}px`;
}
