const night = matchMedia("(prefers-color-scheme: dark)");
const shade = () => document.documentElement.classList.toggle("dark", night.matches);
night.addEventListener("change", shade);
shade();
const data = JSON.parse(document.getElementById("data").textContent);
// Nothing changes here, so nothing is watched.
((element, props, watch) => {
$viewer
})(document.getElementById("viewer"), { value: data }, () => {});
