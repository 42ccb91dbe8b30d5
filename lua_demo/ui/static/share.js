// Gradio runs this once, when the component is mounted; `element`, `props`, `watch` and `trigger` are its arguments.
const ref = (name) => element.querySelector(`[data-ref="${name}"]`);
const viewState = () => document.querySelector("#viewer [data-view]")?.dataset.view ?? "";
let made = ""; // mark of the file that was handed over last

function address(base, kept = []) {
  const url = new URL(base, location.href), state = viewState(), words = new URLSearchParams(kept);
  words.set("run", props.value.run);
  if (state) words.set("view", state);
  url.search = words;
  url.hash = "";
  return url.href;
}

function refresh() {
  const value = props.value;
  if (!value?.run) return;
  ref("link").value = address(value.base || location.pathname);
  if (!value.go) return; // the example that a fresh page opens with: nobody asked for it
  // Gradio's own words stay (the theme), settings of a parameter link go.
  const own = [...new URLSearchParams(location.search)].filter(([name]) => name.startsWith("__"));
  history.replaceState(history.state, "", address(location.pathname, own));
}

function show() {
  const value = props.value ?? {};
  ref("rows").hidden = !value.run;
  if (!value.run) return;
  ref("note").textContent = value.note;
  const before = ref("kind").value, names = value.files.map(([name]) => name);
  ref("kind").replaceChildren(...value.files.map(([name, label]) => new Option(label, name)));
  if (names.includes(before)) ref("kind").value = before;
  ready();
  refresh();
  if (value.file?.url && value.made !== made) hand(value.file);
  made = value.made;
}

// A file that was asked for has been made.
function hand(file) {
  const link = Object.assign(document.createElement("a"), { href: file.url, download: file.orig_name });
  document.body.append(link);
  link.click();
  link.remove();
}

function ready() {
  ref("download").disabled = false;
  ref("download").textContent = "Download";
}

let telling = 0;
async function copy() {
  ref("link").select();
  let done = false;
  try {
    await navigator.clipboard.writeText(ref("link").value); // not there on plain http
    done = true;
  } catch {
    ref("link").select();
    done = document.execCommand("copy");
  }
  ref("copy").textContent = done ? "Copied" : "Press Ctrl+C";
  clearTimeout(telling);
  telling = setTimeout(() => { ref("copy").textContent = "Copy link"; }, 2000);
}

function download() {
  ref("download").disabled = true;
  ref("download").textContent = "Making it";
  trigger("submit", { run: props.value.run, go: props.value.go, name: ref("kind").value, state: viewState() });
}

ref("copy").addEventListener("click", copy);
ref("link").addEventListener("focus", () => ref("link").select());
ref("download").addEventListener("click", download);
ref("download").addEventListener("failed", ready);
document.addEventListener("viewchange", refresh);
watch("value", show);
show();
