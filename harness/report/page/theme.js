// Runs before anything is drawn, so that the page doesn't flash in the wrong colours.
try {
  const chosen = localStorage.getItem("pplcnet-bench-theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
} catch (error) { /* a page from a file may have no storage */ }
document.documentElement.classList.add("script");
