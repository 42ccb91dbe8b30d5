// Gradio runs this once, when the component is mounted. A button of the table shows what its method has missed, in the viewer.
const pick = (viewer, side, method) => {
  const select = viewer.querySelector(`[data-ref="${side}"]`);
  select.value = method;
  select.dispatchEvent(new Event("change"));
};

element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-error-map]"), viewer = document.getElementById("viewer");
  if (!button || !viewer) return;
  pick(viewer, "left", "native");
  pick(viewer, "right", button.dataset.errorMap);
  viewer.querySelector('[data-mode="difference"]').click();
  viewer.querySelector(".stage").focus({ preventScroll: true });
  requestAnimationFrame(() => viewer.scrollIntoView({ block: "nearest" })); // the toolbar may have grown by then
});
