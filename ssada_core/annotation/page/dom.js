// Small helpers for elements; text is always set as text.

export const $ = (selector, root = document) => root.querySelector(selector);

/** An element: make("button", {class: "x", onclick: f}, "text", child, …). */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

let toastTimer = 0;

export function toast(words, kind = "") {
  const element = $("#toast");
  element.textContent = words;
  element.className = `shown ${kind}`;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (element.className = ""), 5000);
}

/** A question; resolves to the chosen button's value, or to the text where one is asked for; null if cancelled. */
export function ask({ title, text = "", buttons, input = null, suggestions = [] }) {
  return new Promise((resolve) => {
    const dialog = make("dialog", { class: "ask", "aria-label": title });
    const field = input === null ? null : make("input", { type: "text", placeholder: input, maxlength: 200, "aria-label": input });
    const done = (value) => {
      dialog.close();
      dialog.remove();
      resolve(value);
    };
    const answer = (value) => (field && value !== null ? field.value.trim() || field.focus() || undefined : value);
    const chips = suggestions.map((words) =>
      make("button", { type: "button", class: "chip", onclick: () => { field.value = words; field.focus(); } }, words));
    const row = buttons.map(({ label, value, kind = "" }) =>
      make("button", { type: "button", class: kind, onclick: () => { const result = answer(value); if (result !== undefined) done(result); } }, label));
    dialog.append(make("h2", {}, title), make("p", {}, text), ...(field ? [field] : []),
      ...(chips.length ? [make("div", { class: "chips" }, ...chips)] : []), make("div", { class: "row" }, ...row));
    dialog.addEventListener("cancel", () => done(null));
    dialog.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Enter" && event.target === field) row.at(-1).click();
    });
    document.body.append(dialog);
    dialog.showModal();
    (field || row.at(-1)).focus();
  });
}

export function ago(seconds) {
  const steps = [[86400, "day"], [3600, "hour"], [60, "minute"]];
  for (const [size, unit] of steps) {
    const count = Math.floor(seconds / size);
    if (count) return `${count} ${unit}${count > 1 ? "s" : ""} ago`;
  }
  return "just now";
}

export const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;
