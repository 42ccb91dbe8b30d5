// Gradio runs this once, when the component is mounted; `element`, `trigger` and `upload` are its arguments.
const cue = element.querySelector(".cue");
const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");

document.addEventListener("dragover", (event) => {
  if (!holdsFiles(event)) return;
  cue.hidden = event.defaultPrevented; // the viewer takes it as one more picture
  event.preventDefault(); // else the browser would leave the page for the file
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) cue.hidden = true; // out of the window, not from one element to the next
});
// The capturing listener hears of drops on gradio's own fields, too, which go no further.
document.addEventListener("drop", () => { cue.hidden = true; }, true);
document.addEventListener("drop", async (event) => {
  if (!holdsFiles(event) || event.defaultPrevented) return; // a field has taken it
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (!file) return;
  const sent = await upload(file).catch(() => null);
  trigger("upload", { name: file.name, path: sent?.path ?? "" });
});
