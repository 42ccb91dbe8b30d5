// Pictures from outside: dropped onto the viewer or chosen, they are panes like the others. A guest has the frame's aspect; one of
// another size is resampled to it. They live in this page until `keep` (a page with a server) or with it.
const MOST_GUESTS = 4, ASPECT_SLACK = 0.005;
let guests = []; // {key, label, detail, image: {url}, file, size: of its picture}

const takesGuests = () => props.value?.guests !== false && Boolean(largest());
const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");

async function addGuest(file) {
  const frame = frameOfGuests(), name = file.name.slice(0, 80);
  if (guests.length === MOST_GUESTS) return say(`${MOST_GUESTS} pictures from outside are the most; take one away first`, true);
  try {
    const fit = await fitted(file, frame, name), detail = detailOfGuest(fit, frame);
    const key = Array.from({ length: 2 * MOST_GUESTS }, (_, i) => `guest_${i + 1}`).find((free) => !entryOf(free));
    guests.push({ key, label: name.replace(/\.[a-z0-9]{1,5}$/i, "") || name, detail, image: { url: URL.createObjectURL(fit.blob) }, file, size: `${frame.width} ${frame.height}` });
    say(`${name} is a pane now: ${detail}`, true);
    view.right = view.show = key;
    load();
  } catch (error) {
    say(error.message, true);
  }
}

const frameOfGuests = () => largest(entries.filter((entry) => !guests.includes(entry)));
const detailOfGuest = ({ width, height }, frame) =>
  `from outside, ${frame.width} × ${frame.height} px${width === frame.width && height === frame.height ? "" : `, resampled from ${width} × ${height}`}`;

// The picture upright, on white, in the frame's size. Throws what the reader is told.
async function fitted(file, frame, name) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) throw new Error(`${name} is no picture that this browser reads; use PNG, JPEG, WebP or AVIF`);
  const { width, height } = bitmap;
  if (Math.abs((width * frame.height) / (height * frame.width) - 1) > ASPECT_SLACK) {
    bitmap.close();
    throw new Error(`${name} has ${width} × ${height} px, another aspect than the ${frame.width} × ${frame.height} px here; crop it to that shape first`);
  }
  const same = width === frame.width && height === frame.height;
  const sized = same ? bitmap : await createImageBitmap(bitmap, { resizeWidth: frame.width, resizeHeight: frame.height, resizeQuality: "high" });
  const canvas = Object.assign(make("canvas"), { width: frame.width, height: frame.height }), pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, frame.width, frame.height);
  pen.drawImage(sized, 0, 0);
  bitmap.close();
  sized.close();
  return { blob: await new Promise((done) => canvas.toBlob(done, "image/png")), width, height };
}

function removeGuest(key) {
  const guest = guests.find((one) => one.key === key);
  if (!guest) return;
  guests = guests.filter((one) => one !== guest);
  say(`${guest.label} is removed`);
  load();
  URL.revokeObjectURL(guest.image.url);
}

function forgetGuests() {
  for (const guest of guests) URL.revokeObjectURL(guest.image.url);
  guests = [];
}

// Larger pictures may come later: guests follow them.
async function fitGuests() {
  const frame = frameOfGuests();
  for (const guest of guests.filter(({ size }) => frame && `${frame.width} ${frame.height}` !== size)) {
    guest.size = `${frame.width} ${frame.height}`;
    const fit = await fitted(guest.file, frame, guest.label).catch((error) => say(error.message, true));
    if (!fit || !guests.includes(guest)) continue;
    URL.revokeObjectURL(guest.image.url);
    guest.image = { url: URL.createObjectURL(fit.blob) };
    guest.detail = detailOfGuest(fit, frame);
    load();
  }
}

// The value that arrives next has them among its panes.
async function keepGuests(event) {
  event.target.disabled = true;
  const files = [];
  for (const guest of guests) {
    const sent = await upload(guest.file).catch(() => null);
    if (!sent) { say(`${guest.label} could not be uploaded; it may be too large`, true); break; }
    files.push({ name: guest.file.name, path: sent.path });
  }
  if (files.length === guests.length) trigger("upload", { files, state: element.dataset.view });
  event.target.disabled = false;
}
// `trigger` and `upload` are gradio's; a page without it has neither and keeps nothing.
const canKeep = () => Boolean(props.value?.keeps) && typeof upload === "function" && typeof trigger === "function";

function showGuests() {
  ref("guests").hidden = !guests.length;
  ref("keep").hidden = !canKeep();
  ref("outside").replaceChildren(...guests.map((guest) => {
    const line = make("li"), button = Object.assign(make("button"), { type: "button", textContent: "Remove" });
    button.setAttribute("aria-label", `Remove ${guest.label}`);
    button.addEventListener("click", () => { removeGuest(guest.key); ref("stage").focus({ preventScroll: true }); });
    return withChildren(line, [withChildren(make("span"), [`${guest.label}: ${guest.detail}`]), button]);
  }));
  ref("add").disabled = !takesGuests();
}
ref("keep").addEventListener("click", keepGuests);

element.addEventListener("dragover", (event) => {
  if (!holdsFiles(event) || !takesGuests()) return;
  event.preventDefault();
  ref("cue").hidden = false;
});
element.addEventListener("dragleave", (event) => { if (!element.contains(event.relatedTarget)) ref("cue").hidden = true; });
element.addEventListener("drop", (event) => {
  ref("cue").hidden = true;
  if (!holdsFiles(event) || !takesGuests()) return;
  event.preventDefault();
  addGuests(event.dataTransfer.files);
});
async function addGuests(files) {
  for (const file of files) await addGuest(file);
}
ref("add").addEventListener("click", () => ref("file").click());
ref("file").addEventListener("change", () => { addGuests([...ref("file").files]); ref("file").value = ""; });
