// Gradio runs this once. Its example pictures are buttons without a name: each gets that of its file. The name of its buttons that
// take files is not what they say on the page: without it, that is what they are called.
const name = () => {
  for (const button of document.querySelectorAll("#examples .gallery-item:not([aria-label])")) {
    const file = decodeURIComponent(button.querySelector("img")?.src ?? "").split("/").at(-1).replace(/\.\w+$/, "");
    if (file) button.setAttribute("aria-label", `Example: ${file.replaceAll("-", " ")}`);
  }
  for (const button of document.querySelectorAll("button.upload-container[aria-label], button[aria-label='Click to upload or drop files']")) {
    button.removeAttribute("aria-label");
  }
};
new MutationObserver(name).observe(document.querySelector(".gradio-container"), { childList: true, subtree: true });
name();
