// Sorting, the choice of light and dark, tooltips. The page says everything without them.
"use strict";
(() => {
  const root = document.documentElement;

  // light and dark
  const themes = ["auto", "light", "dark"];
  let kept = "auto";
  try { kept = localStorage.getItem("anacrusis-theme") || "auto"; } catch { /* a file opened from disk may have none */ }
  const button = document.querySelector(".theme");
  const show = (theme) => {
    if (theme === "auto") delete root.dataset.theme; else root.dataset.theme = theme;
    if (button) button.textContent = "Theme: " + theme;
  };
  show(themes.includes(kept) ? kept : "auto");
  if (button) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const theme = themes[(themes.indexOf(root.dataset.theme || "auto") + 1) % themes.length];
      try { localStorage.setItem("anacrusis-theme", theme); } catch { /* as above */ }
      show(theme);
    });
  }

  // tables: the heads become buttons
  const value = (row, i) => {
    const cell = row.cells[i], said = cell.dataset.v;
    return said === undefined ? cell.dataset.t || cell.textContent.trim() : said === "" ? null : Number(said);
  };
  const sortable = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, i) => {
      if (!head.textContent.trim()) return;
      const press = document.createElement("button");
      press.type = "button";
      press.className = "sort";
      press.append(...head.childNodes);
      head.append(press);
      press.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        heads.forEach((h) => h.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up === 1 ? "ascending" : "descending");
        for (const body of table.tBodies) {
          const rows = [...body.rows].sort((a, b) => {
            const x = value(a, i), y = value(b, i);
            if (x === null || y === null) return (x === null) - (y === null); // what is not known stays last
            return up * (typeof x === "number" ? x - y : x.localeCompare(y, undefined, { numeric: true }));
          });
          body.append(...rows);
        }
      });
    });
  };
  const prepare = (part) => part.querySelectorAll("table.sortable").forEach(sortable);
  prepare(document);
  document.addEventListener("fresh", (event) => prepare(event.target)); // a part of the page was put anew

  // tooltips of marks
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  tip.setAttribute("aria-hidden", "true"); // the numbers stand below each chart, too
  document.body.append(tip);
  const tell = (event) => {
    const mark = event.target.closest && event.target.closest("[data-tip]");
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.dataset.tip;
    const at = mark.getBoundingClientRect(), room = root.clientWidth - tip.offsetWidth - 8;
    tip.style.left = Math.max(8, Math.min(at.right + 8, room)) + scrollX + "px";
    tip.style.top = Math.max(8, at.top - tip.offsetHeight - 6) + scrollY + "px";
  };
  document.addEventListener("pointerover", tell);
  document.addEventListener("click", tell);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });
})();
