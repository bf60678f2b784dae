// Without this script the page reads the same; it adds the theme button and highlights an agent's lines from the legend.
(() => {
  const root = document.documentElement;
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  const light = (scope, name) => {
    for (const group of scope.querySelectorAll(".chart .series:not(.ref)")) {
      group.classList.toggle("dim", name !== null && group.dataset.name !== name);
    }
  };
  for (const item of document.querySelectorAll(".legend li")) {
    const scope = item.closest("section");
    item.addEventListener("pointerenter", () => light(scope, item.dataset.name));
    item.addEventListener("pointerleave", () => light(scope, null));
  }
})();
