// The list of queries: what is asked, why, how far the budget is, which model asks.

import { $, ago, make, percent } from "./dom.js";

const TABS = [
  ["queried", "To label"],
  ["held", "Held"],
  ["labelled", "Labelled"],
  ["skipped", "Skipped"],
];
let tab = "queried";
let shown = "";
let latest = null;

export const openQueries = () => (latest ? latest.queries.filter((query) => query.state === "queried" && !query.taken_by) : []);

export function showList(state) {
  latest = state;
  showProgress(state.progress);
  showModel(state.model, state.label_space);
  const counts = Object.fromEntries(TABS.map(([name]) => [name, state.queries.filter((query) => query.state === name).length]));
  $("#tabs").replaceChildren(
    ...TABS.map(([name, words]) =>
      make("button", { role: "tab", "aria-selected": String(name === tab), onclick: () => { tab = name; showList(latest); } },
        words, make("span", { class: "count" }, String(counts[name])))),
  );
  showCards(state.queries.filter((query) => query.state === tab));
}

function showProgress(progress) {
  const share = progress.budget ? progress.labelled / progress.budget : 0;
  $("#progress-words").textContent = `${progress.labelled} of ${progress.budget} frames labelled`;
  $("#progress-rest").textContent = `${progress.queried} to label · ${progress.held} held · ${progress.skipped} skipped`;
  $("#progress-bar").value = share;
}

function showModel(model, space) {
  const miou = typeof model.miou === "number" ? `${model.miou.toFixed(1)} mIoU` : "";
  const gain = typeof model.gain === "number" ? `${model.gain >= 0 ? "+" : ""}${model.gain.toFixed(1)} by the last round` : "";
  $("#model").textContent = model.version ? `Model ${model.version}` : "No model has been asked yet";
  $("#model-figures").textContent = [miou, gain].filter(Boolean).join(" · ") || `${space.classes.length} classes (${space.name})`;
  $("#model").parentElement.title = model.words || "";
}

function showCards(queries) {
  const key = JSON.stringify(queries.map((query) => [query.id, query.state, query.draft, query.taken_by, Math.floor(query.age_s / 60)]));
  if (key === shown) return; // thumbnails are not fetched again and the focus stays
  shown = key;
  const focused = document.activeElement?.dataset?.id;
  $("#cards").replaceChildren(...queries.map(card));
  $("#empty").hidden = queries.length > 0;
  $("#empty").textContent = tab === "queried" ? "Nothing to label right now. New questions appear here by themselves." : "None.";
  if (focused) document.querySelector(`[data-id="${focused}"]`)?.focus();
}

function card(query) {
  const tags = [
    query.taken_by && make("span", { class: "tag taken" }, `${query.taken_by} is on it`),
    query.draft && make("span", { class: "tag draft" }, "draft"),
    query.audit && make("span", { class: "tag audit", title: "Drawn at random; it judges models, so every pixel counts" }, "audit"),
    query.state === "held" && make("span", { class: "tag held" }, "held: look again"),
  ].filter(Boolean);
  const unsure = query.unsure_classes?.length
    ? `Unsure of ${query.unsure_classes.join(", ")} · ${percent(query.unsure_share)} of the area`
    : "No prediction: label it from scratch";
  return make("a", { class: "card", href: `#/q/${query.id}`, "data-id": query.id },
    make("div", { class: "thumb" },
      make("img", { src: `/api/queries/${query.id}/thumbnail`, alt: "", loading: "lazy" }), make("div", { class: "tags" }, ...tags)),
    make("div", { class: "facts" },
      make("strong", {}, unsure),
      make("span", {}, query.reason || (query.score === null ? "" : `score ${query.score.toFixed(3)}`)),
      make("span", { class: "soft" },
        [query.camera, query.vehicle, ago(query.age_s), query.annotator && `by ${query.annotator}`].filter(Boolean).join(" · "))));
}
