// The page: the list, and one query at a time (#/q/ID).

import { getJson, me, postJson } from "./api.js";
import { $, ask, make, toast } from "./dom.js";
import { Editor } from "./editor.js";
import { HELP } from "./keys.js";
import { openQueries, showList } from "./list.js";
import { askName } from "./panel.js";

const POLL_MS = 5000;
let state = null;
let editor = null;
let away = false;
let turn = 0; // raised with every place gone to: whatever was waited for before it is no longer wanted

async function refresh() {
  try {
    state = await getJson("state");
    if (away) toast("The server is back.", "good");
    away = false;
    if (!editor) showList(state);
  } catch (error) {
    if (!away) toast(`${error.message}; trying again`, "bad");
    away = true;
  }
}

function leave(toNext, from) {
  if (from !== editor) return; // left by another way meanwhile
  const next = toNext ? openQueries().find((query) => query.id !== from.info.id) : null;
  if (toNext) document.querySelector(`.card[data-id="${from.info.id}"]`)?.remove(); // answered; its image may be gone
  editor = null;
  location.hash = next ? `#/q/${next.id}` : "";
  if (!next) route();
}

const wanted = () => /^#\/q\/([\w-]+)$/.exec(location.hash)?.[1];

async function route() {
  const id = wanted();
  if (editor && editor.info.id !== id) editor.close();
  if (editor && editor.info.id === id && !editor.closed) return;
  editor = null;
  const mine = ++turn;
  $("#list").hidden = Boolean(id);
  $("#editor").hidden = !id;
  document.title = id ? `${id} · labelling` : "Frames to label";
  await refresh();
  if (id && state && mine === turn) await open(id);
}

async function open(id, force = false) {
  const mine = turn;
  const query = state.queries.find((each) => each.id === id);
  if (!query) {
    toast("There is no such question (any more).", "bad");
    location.hash = "";
    return;
  }
  if (!me.name) await askName(ask);
  if (mine !== turn) return;
  let opened = null;
  try {
    opened = new Editor(query, await postJson(`queries/${id}/open?force=${force}`), state, leave);
    if (mine !== turn) {
      if (wanted() !== id) opened.close(false); // else it is being opened once more, by this tab
      return;
    }
    editor = opened;
    await opened.load();
  } catch (error) {
    if (mine !== turn) return;
    opened?.close(false);
    editor = null;
    await refused(id, error, mine);
  }
}

async function refused(id, error, mine) {
  const own = error.status === 409 && error.message.includes("you, in another tab");
  const buttons = [{ label: "Back to the list", value: "back", kind: own ? "" : "primary" }];
  if (own) buttons.push({ label: "Go on here", value: "force", kind: "primary" });
  const title = error.status === 409 ? "Already being edited" : "This frame cannot be opened";
  const choice = await ask({ title, text: `${error.message[0].toUpperCase()}${error.message.slice(1)}.`, buttons });
  if (mine !== turn) return;
  if (choice === "force") await open(id, true);
  else location.hash = "";
}

function help() {
  const rows = HELP.map(([keys, words]) => make("tr", {}, make("td", {}, make("kbd", {}, keys)), make("td", {}, words)));
  const dialog = make("dialog", { class: "help", "aria-label": "Keys" },
    make("h2", {}, "How to label"),
    make("ol", {},
      make("li", {}, "The colours show what the model sees. Look for what is wrong; H marks where it is unsure itself."),
      make("li", {}, "Choose the right class, by its number or on the right."),
      make("li", {}, "Click the wrong patches. Everything can be undone, and drafts are saved by themselves."),
      make("li", {}, "Submit. What you did not touch is taken from the prediction, or left unlabelled, as you choose.")),
    make("table", {}, ...rows),
    make("div", { class: "row" }, make("button", { class: "primary", onclick: () => { dialog.close(); dialog.remove(); } }, "Close")));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

function showName() { $("#who").textContent = me.name || "Who are you?"; }

for (const button of document.querySelectorAll(".help-button")) button.addEventListener("click", help);
$("#who").addEventListener("click", () => askName(ask).then(showName));
document.addEventListener("keydown", (event) => {
  if (event.key === "?" && !document.querySelector("dialog[open]")) help();
});
window.addEventListener("hashchange", route);
window.addEventListener("pagehide", () => editor?.close());
setInterval(() => { if (!editor || away) refresh(); }, POLL_MS);
showName();
route();
