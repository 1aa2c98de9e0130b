// Makes pages nicer; everything works without it. Copy buttons beside what has `data-copy`; parts of a page that have
// `data-live` are fetched anew every so many seconds, until they no longer have it, and their `data-told` is said aloud
// when it changes; times in the reader's own zone. What somebody has opened, scrolled, selected or focused in such a part
// stays so.
"use strict";
(() => {
  const told = document.createElement("p");
  told.className = "hidden";
  told.setAttribute("role", "status");

  function addCopyButtons(root) {
    if (!navigator.clipboard) return;
    for (const element of root.querySelectorAll("[data-copy]")) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "copy";
      button.textContent = "Copy";
      if (element.dataset.copy) button.setAttribute("aria-label", "Copy " + element.dataset.copy);
      button.addEventListener("click", async () => {
        try {
          await navigator.clipboard.writeText(element.textContent);
          button.textContent = told.textContent = "Copied";
        } catch {
          button.textContent = told.textContent = "Could not copy";
        }
        setTimeout(() => { button.textContent = "Copy"; told.textContent = ""; }, 2000);
      });
      element.after(button);
    }
  }

  function addLocalTimes(root) {
    for (const element of root.querySelectorAll("time[datetime]")) {
      const at = new Date(element.dateTime);
      if (!isNaN(at) && element.dateTime.includes("T")) element.title = at.toLocaleString() + " (your time)";
    }
  }

  // Live parts as they came, by id: what has not changed is left alone.
  const served = new Map();
  for (const part of document.querySelectorAll("[data-live]")) served.set(part.id, part.outerHTML);

  function isInUse(part) {
    const selection = document.getSelection();
    if (selection && !selection.isCollapsed && part.contains(selection.anchorNode)) return true;
    return part.contains(document.activeElement) && document.activeElement.matches("input, select, textarea");
  }

  function replace(old, fresh) {
    const reached = (root) => [...root.querySelectorAll("a, button, summary, [tabindex]")];
    const named = (element) => [element.getAttribute("href"), element.getAttribute("aria-label"), element.textContent].join("|");
    const place = reached(old).indexOf(document.activeElement);
    const name = place < 0 ? "" : named(document.activeElement);
    const opened = [...old.querySelectorAll("details")].map((element) => element.open);
    const scrolled = [...old.querySelectorAll(".scroll")].map((element) => element.scrollLeft);
    old.replaceWith(fresh);
    fresh.querySelectorAll("details").forEach((element, n) => { element.open = opened[n] ?? element.open; });
    fresh.querySelectorAll(".scroll").forEach((element, n) => { element.scrollLeft = scrolled[n] ?? 0; });
    if (place >= 0) {
      const again = reached(fresh).find((element) => named(element) === name) || reached(fresh)[place];
      if (again) again.focus({ preventScroll: true });
    }
    if (fresh.dataset.told && fresh.dataset.told !== old.dataset.told) told.textContent = fresh.dataset.told;
  }

  async function refresh() {
    const page = await fetch(location.href, { headers: { Accept: "text/html", "X-Live": "1" } });
    if (!page.ok || page.redirected) return;
    const fresh = new DOMParser().parseFromString(await page.text(), "text/html");
    for (const old of document.querySelectorAll("[data-live]")) {
      const now = old.id && fresh.getElementById(old.id);
      if (!now || now.outerHTML === served.get(old.id) || isInUse(old)) continue;
      served.set(old.id, now.outerHTML);
      const open = document.adoptNode(now);
      addCopyButtons(open);
      addLocalTimes(open);
      replace(old, open);
    }
  }

  function keepLive() {
    const live = document.querySelector("[data-live]");
    if (!live) return;
    const seconds = Math.max(1, Number(live.dataset.live) || 3);
    setTimeout(async () => {
      if (!document.hidden) {
        try { await refresh(); } catch { /* The next one may come through. */ }
      }
      keepLive();
    }, seconds * 1000);
  }

  document.body.append(told);
  addCopyButtons(document);
  addLocalTimes(document);
  keepLive();
})();
