// Runs before the first paint, so that a dark room is never lit up by a white flash.
{
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    let chosen = null;
    try {
      chosen = localStorage.getItem("flyweight.theme");
    } catch {
      // storage is blocked: the system decides
    }
    document.documentElement.dataset.theme = chosen || (dark.matches ? "dark" : "light");
  };
  apply();
  dark.addEventListener("change", apply);
  addEventListener("storage", apply);
  document.addEventListener("theme", apply); // the page's own switch
}
