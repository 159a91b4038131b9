// Fresh pages every two seconds while something happens, and keys for buttons. The pages work without both.
"use strict";
(() => {
  const EVERY = 2000; // milliseconds

  // keys: an element with data-key is pressed by that key
  let leaving = false;
  document.addEventListener("submit", (event) => {
    if (leaving) event.preventDefault(); // a second key for a page that has been answered
    leaving = true;
  });
  document.addEventListener("click", (event) => { // Back and Skip, by key or mouse: the page is left as by an answer
    const link = event.target.closest("a[data-key]");
    if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) leaving = true; // these open another window
  });
  window.addEventListener("pageshow", () => { leaving = false; });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || leaving) return;
    if (event.target.closest && event.target.closest("input, textarea, select")) return;
    const target = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    if (!target) return;
    event.preventDefault();
    target.click();
  });

  // the live part of the page is fetched again and put in the old one's place
  const gone = (away) => {
    const note = document.getElementById("gone");
    if (note) note.hidden = !away;
  };
  const refresh = async () => {
    const old = document.getElementById("live");
    if (!old || !old.dataset.refresh || document.hidden || leaving) return;
    let answer;
    try {
      answer = await fetch(location.href, { credentials: "same-origin" });
    } catch {
      gone(true);
      return;
    }
    gone(!answer.ok);
    if (!answer.ok || leaving) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("live");
    if (!fresh || fresh.outerHTML === old.dataset.last) return;
    const last = fresh.outerHTML, focus = document.activeElement && document.activeElement.id;
    const name = (box) => box.id || box.querySelector("summary").textContent;
    const open = new Set([...old.querySelectorAll("details[open]")].map(name));
    for (const box of fresh.querySelectorAll("details")) box.open = open.has(name(box));
    fresh.dataset.last = last;
    old.replaceWith(fresh);
    fresh.dispatchEvent(new Event("fresh", { bubbles: true })); // page.js makes its tables sortable
    if (focus && document.getElementById(focus)) document.getElementById(focus).focus();
  };
  setInterval(refresh, EVERY);
})();
