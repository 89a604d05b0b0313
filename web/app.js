import * as api from "./api.js";
import { byId, make, makeList, setText } from "./dom.js";
import { createBody, execBody, matches, pauseMs, routesOf, visible } from "./format.js";
import { figuresOf, logEntry, markSelected, moduleItem, routeItem, sandboxRow } from "./views.js";

const maxRows = 200;
const maxLog = 20;

/** What the page knows; `draw` shows it. */
const state = {
  sandboxes: [],
  /** id of the sandbox that the log and the box are about */
  selected: "",
  /** what the log on the page was read for */
  logKey: "",
  failures: 0,
  isTokenWanted: false,
};

const showFigures = makeList(byId("figures"), {
  keyOf: ([name]) => name,
  create: ([name]) => {
    const value = make("dd");
    return { element: make("div", {}, make("dt", {}, name), value), update: ([, text]) => setText(value, text) };
  },
});
const rows = new Map();
const showRows = makeList(byId("sandboxes").tBodies[0], {
  keyOf: ({ id, created }) => `${id} ${created}`,
  create: (sandbox) => {
    const row = sandboxRow(sandbox, { select, destroy: confirmDestroy });
    return {
      element: row.element,
      update: (info) => {
        row.update(info);
        rows.set(info.id, row.element);
      },
    };
  },
});
const showModules = makeList(byId("modules"), { keyOf: ({ name }) => name, create: moduleItem });
const showNames = makeList(byId("module-names"), {
  keyOf: ({ name }) => name,
  create: ({ name }) => ({ element: make("option", { value: name }), update: () => {} }),
});
const showChoices = makeList(byId("run-sandbox"), {
  keyOf: ({ id }) => id,
  create: ({ id }) => ({ element: make("option", { value: id }, visible(id)), update: () => {} }),
});

function drawSandboxes() {
  const { sandboxes } = state;
  const wanted = sandboxes.filter((sandbox) => matches(sandbox, byId("filter").value));
  const newestFirst = wanted.toReversed().slice(0, maxRows);
  rows.clear();
  showRows(newestFirst);
  if (!sandboxes.some(({ id }) => id === state.selected)) state.selected = newestFirst[0]?.id ?? "";
  for (const [id, row] of rows) markSelected(row, id === state.selected);
  setText(byId("sandboxes-count"), String(sandboxes.length));
  const hidden = wanted.length - newestFirst.length;
  const remark =
    sandboxes.length === 0
      ? "There is none yet."
      : wanted.length === 0
        ? "None contains that."
        : hidden > 0
          ? `${hidden} older ones are not shown; the filter finds them.`
          : "";
  say("sandboxes-empty", remark);
  byId("sandboxes").hidden = newestFirst.length === 0;
  byId("filter").parentElement.hidden = sandboxes.length < 2 && byId("filter").value === "";

  showChoices(sandboxes.filter(({ state: now, id }) => now === "ready" || id === state.selected));
  byId("run-sandbox").value = state.selected;
  byId("run-start").disabled = state.selected === "";
}

function select(id) {
  state.selected = id;
  drawSandboxes();
  void attempt(readLog);
}

/** A log can be long: it is read again only when the sandbox has run something. */
async function readLog() {
  const sandbox = state.sandboxes.find(({ id }) => id === state.selected);
  const key = sandbox === undefined ? "" : `${sandbox.id} ${sandbox.created} ${sandbox.exec_count} ${sandbox.running}`;
  if (key === state.logKey) return;
  let results = [];
  let remark = sandbox === undefined ? "No sandbox, no commands." : "It has run nothing yet.";
  try {
    if (sandbox !== undefined) results = await api.logs(sandbox.id);
  } catch (error) {
    if (!(error instanceof api.ApiError) || error.status === 0 || error.status === 401) throw error;
    remark = visible(error.message, { limit: 500 }); // such as that it was destroyed meanwhile
  }
  if (state.selected !== (sandbox?.id ?? "")) return; // another one was chosen meanwhile
  state.logKey = key;
  showLog(
    results
      .slice(-maxLog)
      .toReversed()
      .map((result) => ({ result, key: `${sandbox.id} ${sandbox.created} ${result.seq}` })),
  );
  setText(byId("log-of"), sandbox === undefined ? "" : `of ${visible(sandbox.id)}`);
  say("log-empty", results.length > 0 ? "" : remark);
}

const showLog = makeList(byId("log"), {
  keyOf: ({ key }) => key,
  create: ({ result }) => ({ element: make("li", {}, logEntry(result)), update: () => {} }),
});

function drawHealth(health) {
  setText(byId("health"), health.status === "ok" ? "ok" : "degraded");
  byId("health").className = `pill ${health.status === "ok" ? "good" : "bad"}`;
  setText(byId("version"), `squashd ${visible(health.version, { limit: 40 })}`);
  showFigures(figuresOf(health));
}

function drawModules(modules) {
  setText(byId("modules-count"), String(modules.length));
  showModules(modules);
  showNames(modules);
  say("modules-empty", modules.length > 0 ? "" : 'There is none yet; "sq mkbase debian" makes one.');
}

let routesShown = false;
async function drawRoutes() {
  if (routesShown) return;
  byId("routes").replaceChildren(...routesOf(await api.openapi()).map(routeItem));
  routesShown = true;
}

/** One look at the daemon. Without a valid token only at what is open. */
async function look() {
  drawHealth(await api.health());
  await drawRoutes();
  if (state.isTokenWanted) return;
  const [sandboxes, modules] = await Promise.all([api.sandboxes(), api.modules()]);
  state.sandboxes = sandboxes;
  drawSandboxes();
  drawModules(modules);
  await readLog();
}

let timer, looking;

/** Looks now and then every few seconds, while the page is seen. */
function refresh() {
  clearTimeout(timer);
  looking ??= attempt(look).finally(() => {
    looking = undefined;
    if (!document.hidden) timer = setTimeout(refresh, pauseMs(state.failures));
  });
  return looking;
}

async function attempt(action) {
  try {
    await action();
    state.failures = 0;
    notice("");
  } catch (error) {
    if (!(error instanceof api.ApiError)) throw error;
    if (error.status === 401) wantToken();
    else away(error);
  }
}

function away(error) {
  state.failures += 1;
  setText(byId("health"), "away");
  byId("health").className = "pill bad";
  const seconds = Math.round(pauseMs(state.failures) / 1_000);
  notice(`${visible(error.message, { limit: 300 })}. What is below may be old. Next try in ${seconds} s.`);
}

function notice(text) {
  byId("notice").hidden = text === "";
  setText(byId("notice-text"), text);
  byId("main").classList.toggle("stale", text !== "");
}

function say(id, text) {
  setText(byId(id), text);
  byId(id).hidden = text === "";
}

// The token

function wantToken() {
  const wasRefused = api.hasToken();
  api.setToken("");
  state.isTokenWanted = true;
  state.failures = 0;
  notice("");
  state.sandboxes = [];
  drawSandboxes();
  setText(byId("sandboxes-count"), "");
  say("sandboxes-empty", "They are shown to those who have the token.");
  showTokenForm(true);
  setText(byId("token-message"), wasRefused ? "squashd refuses this token." : "squashd asks for a token.");
  byId("token").focus();
}

function showTokenForm(isShown) {
  byId("token-form").hidden = !isShown;
  byId("token-button").setAttribute("aria-expanded", String(isShown));
  byId("token-forget").hidden = !api.hasToken();
  setText(byId("token-message"), "");
}

byId("token-button").addEventListener("click", () => {
  showTokenForm(byId("token-form").hidden);
  if (!byId("token-form").hidden) byId("token").focus();
});
byId("token-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = byId("token").value.trim();
  if (!api.isToken(text)) {
    setText(byId("token-message"), "A token has no blanks, and no characters beyond ASCII.");
    return;
  }
  byId("token").value = "";
  api.setToken(text);
  state.isTokenWanted = false;
  showTokenForm(false);
  await looking;
  await refresh();
});
byId("token-forget").addEventListener("click", () => {
  api.setToken("");
  showTokenForm(false);
  void refresh();
});

// Creating and destroying

byId("create").addEventListener("submit", (event) => {
  event.preventDefault();
  const typed = (name) => byId(`create-${name}`).value;
  const body = createBody({
    id: typed("id"),
    layers: typed("layers"),
    cpu: typed("cpu"),
    memory: typed("memory"),
    lifetime: typed("lifetime"),
    reach: typed("reach"),
    owner: typed("owner"),
    task: typed("task"),
  });
  void submit(event, "create-message", async () => {
    const { id } = await api.create(body);
    byId("create-id").value = "";
    state.selected = id;
  });
});

let doomed = "";

function confirmDestroy(id) {
  doomed = id;
  setText(byId("confirm-id"), visible(id));
  byId("confirm").showModal();
}

byId("confirm-no").addEventListener("click", () => byId("confirm").close());
byId("confirm-yes").addEventListener("click", async () => {
  byId("confirm").close();
  const id = doomed;
  rows.get(id)?.classList.add("going");
  try {
    await api.destroy(id);
  } catch (error) {
    if (!(error instanceof api.ApiError)) throw error;
    if (error.status === 401) wantToken();
    else say("sandboxes-empty", visible(error.message, { limit: 500 }));
    rows.get(id)?.classList.remove("going");
    return;
  }
  await refreshAnew();
});

// Running a command

let running;

byId("run").addEventListener("submit", (event) => {
  event.preventDefault();
  if (running !== undefined) return;
  const typed = (name) => byId(`run-${name}`).value;
  const id = typed("sandbox");
  const body = execBody({
    command: typed("command"),
    workdir: typed("workdir"),
    user: typed("user"),
    timeout: typed("timeout"),
  });
  running = new AbortController();
  byId("run-stop").hidden = false;
  byId("run-result").replaceChildren();
  void submit(event, "run-message", async () => {
    const result = await api.exec(id, body, running.signal);
    byId("run-result").replaceChildren(logEntry(result, true));
  }).finally(() => {
    running = undefined;
    byId("run-stop").hidden = true;
  });
});
byId("run-stop").addEventListener("click", () => running?.abort());
byId("run-sandbox").addEventListener("change", (event) => select(event.target.value));
byId("run-command").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("run").requestSubmit();
});

/** Sends a form once, says what went wrong, and shows what has changed. */
async function submit({ target }, messageId, action) {
  const button = target.querySelector("[type=submit]");
  button.disabled = true;
  target.setAttribute("aria-busy", "true");
  setText(byId(messageId), "");
  try {
    await action();
  } catch (error) {
    if (error.name === "AbortError") setText(byId(messageId), "Stopped.");
    else if (!(error instanceof api.ApiError)) throw error;
    else if (error.status === 401) wantToken();
    else setText(byId(messageId), visible(error.message, { limit: 1_000 }));
  } finally {
    button.disabled = false;
    target.removeAttribute("aria-busy");
    await refreshAnew();
  }
}

/** A look that began after now. */
async function refreshAnew() {
  await looking;
  await refresh();
}

byId("filter").addEventListener("input", drawSandboxes);
byId("retry").addEventListener("click", () => void refresh());
document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else void refresh();
});
void refresh();
