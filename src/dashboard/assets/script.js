// Makes pages nicer; everything works without it. Copy buttons beside what has `data-copy`; parts of a page that have
// `data-live` are fetched anew every so many seconds, until they no longer have it, and their `data-told` is said aloud
// when it changes; times in the reader's own zone.
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

  // What the server sent for each part that is live: what has not changed stays, with the focus in it.
  const sent = new WeakMap();
  for (const element of document.querySelectorAll("[data-live]")) sent.set(element, element.outerHTML);

  const reached = (root) => [...root.querySelectorAll("a, button, summary, [tabindex]")];
  const named = (element) => element.getAttribute("aria-label") || element.textContent;

  function replace(old, now) {
    const source = now.outerHTML;
    const place = reached(old).indexOf(document.activeElement);
    const name = place < 0 ? "" : named(document.activeElement);
    const open = document.adoptNode(now);
    sent.set(open, source);
    addCopyButtons(open);
    addLocalTimes(open);
    old.replaceWith(open);
    if (place >= 0) (reached(open).find((element) => named(element) === name) || reached(open)[place])?.focus();
    if (open.dataset.told && open.dataset.told !== old.dataset.told) told.textContent = open.dataset.told;
  }

  async function refresh() {
    const page = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!page.ok || page.redirected) return;
    const fresh = new DOMParser().parseFromString(await page.text(), "text/html");
    for (const old of document.querySelectorAll("[data-live]")) {
      const now = old.id && fresh.getElementById(old.id);
      if (!now || now.outerHTML === sent.get(old)) continue;
      if (old.contains(document.activeElement) && document.activeElement.matches("input, select, textarea")) continue;
      replace(old, now);
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
