// How each kind of thing looks. What came from a sandbox goes through `visible`.

import { make, setText } from "./dom.js";
import { age, bytes, commandText, duration, outcome, reachOf, took, visible } from "./format.js";

const maxOutput = 70_000;
const tones = { ready: "good", creating: "busy", recovering: "busy", destroying: "busy", lost: "bad", failed: "bad" };

/** One row of the sandboxes: `select` and `destroy` are told its id. */
export function sandboxRow({ id }, { select, destroy }) {
  const name = make("button", { type: "button", class: "link", click: () => select(id) }, visible(id));
  const owner = make("div", { class: "quiet clip" });
  const state = make("span", { class: "pill" });
  const reason = make("div", { class: "quiet clip" });
  const layers = make("span", { class: "clip" });
  const commands = make("span");
  const disk = make("span");
  const meter = make("meter", { min: "0", "aria-label": "disk used" });
  const limits = make("span");
  const reach = make("div", { class: "quiet clip" });
  const created = make("span", { class: "whole" });
  const remove = make(
    "button",
    { type: "button", class: "danger small", "aria-label": `Destroy ${visible(id)}`, click: () => destroy(id) },
    "Destroy",
  );
  const element = make(
    "tr",
    {},
    make("th", { scope: "row" }, name, owner),
    cell("State", state, reason),
    cell("Layers", layers),
    cell("Commands", commands),
    cell("Disk", disk, meter),
    cell("Limits", limits, reach),
    cell("Age", created),
    make("td", { class: "end" }, remove),
  );
  return { element, update };

  function update(sandbox) {
    const whose = [sandbox.owner, sandbox.task].filter((text) => text !== "").join(" · ");
    setText(owner, visible(whose, { limit: 80 }));
    owner.title = visible(whose, { limit: 500 });
    setText(state, visible(sandbox.state, { limit: 20 }));
    state.className = `pill ${tones[sandbox.state] ?? ""}`;
    const remarks = [
      sandbox.reason ?? "",
      sandbox.restarts > 0 ? `rebuilt ${sandbox.restarts}×` : "",
      sandbox.oom_kills > 0 ? `${sandbox.oom_kills} killed for memory` : "",
    ].filter((text) => text !== "");
    setText(reason, visible(remarks.join("; "), { limit: 160 }));
    setText(layers, visible(sandbox.layers.join(", "), { limit: 160 }));
    setText(
      commands,
      sandbox.running > 0 ? `${sandbox.exec_count}, ${sandbox.running} running` : `${sandbox.exec_count}`,
    );
    setText(disk, `${bytes(sandbox.upper_bytes)} of ${bytes(sandbox.upper_limit_bytes)}`);
    meter.max = Math.max(1, sandbox.upper_limit_bytes);
    meter.high = meter.max * 0.8;
    meter.value = sandbox.upper_bytes;
    setText(limits, `${sandbox.cpu} CPU, ${bytes(sandbox.memory_mb * 1024 ** 2)}`);
    setText(reach, visible(reachOf(sandbox), { limit: 80 }));
    reach.title = visible(`${sandbox.address ?? "no address"}: ${reachOf(sandbox)}`, { limit: 1_000 });
    setText(created, age(sandbox.created, Date.now()));
    created.title = visible(sandbox.created);
    remove.disabled = sandbox.state === "destroying";
  }
}

/** Marks the row of the sandbox that the other parts of the page are about. */
export function markSelected(row, isSelected) {
  row.classList.toggle("selected", isSelected);
  const button = row.querySelector("button");
  if (isSelected) button.setAttribute("aria-current", "true");
  else button.removeAttribute("aria-current");
}

function cell(label, ...children) {
  return make("td", { "data-label": label }, make("div", {}, ...children));
}

/** A command that has ended, folded unless `isOpen`; its output enters the page when it is folded out. */
export function logEntry(result, isOpen = false) {
  const { text, isGood } = outcome(result);
  const body = make("div", { class: "outputs" });
  const fill = () => {
    if (body.childElementCount === 0) body.append(...outputs(result));
  };
  const details = make(
    "details",
    { class: "entry", toggle: fill },
    make(
      "summary",
      {},
      make("span", { class: `pill ${isGood ? "good" : "bad"}` }, text),
      make("code", { class: "clip hostile" }, visible(commandText(result.cmd), { limit: 300 })),
      make("span", { class: "quiet" }, `#${result.seq} · ${took(result.duration_ms)}`),
    ),
    body,
  );
  if (isOpen) {
    details.open = true;
    fill();
  }
  return details;
}

function outputs(result) {
  const started = new Date(result.started);
  const when = Number.isNaN(started.getTime()) ? "?" : started.toLocaleString();
  const parts = [make("p", { class: "quiet" }, `${when}, in ${visible(result.workdir)}`)];
  const command = commandText(result.cmd);
  if (command.length > 100 || command.includes("\n")) parts.push(output("command", command, false));
  if (result.stdout !== "") parts.push(output("output", result.stdout, result.stdout_truncated));
  if (result.stderr !== "") parts.push(output("errors", result.stderr, result.stderr_truncated));
  if (result.stdout === "" && result.stderr === "") parts.push(make("p", { class: "quiet" }, "It wrote nothing."));
  return parts;
}

function output(name, text, isCut) {
  return make(
    "figure",
    {},
    make("figcaption", {}, isCut ? `${name}, the end is missing` : name),
    make(
      "pre",
      { class: "hostile", tabindex: "0", "aria-label": name },
      visible(text, { limit: maxOutput, lines: true }),
    ),
  );
}

export function moduleItem({ name }) {
  const facts = make("span", { class: "quiet" });
  const element = make("li", {}, make("code", { class: "clip" }, visible(name)), facts);
  const update = ({ size, format, location }) =>
    setText(facts, visible(`${format}, ${location === "remote" ? "remote" : bytes(size)}`));
  return { element, update };
}

export function routeItem({ method, path, summary }) {
  return make(
    "li",
    { class: "route" },
    make("code", {}, make("b", {}, visible(method)), ` ${visible(path)}`),
    make("span", { class: "quiet" }, visible(summary)),
  );
}

/** The figures of the daemon, as pairs of a name and a text. */
export function figuresOf(health) {
  return [
    ["Sandboxes", String(health.sandboxes)],
    ["Modules", String(health.modules)],
    ["Base", health.base_ready ? "ready" : "missing"],
    ["Cells waiting", `${health.pool.ready} of ${health.pool.size}`],
    ["Up", duration(health.uptime_s)],
  ];
}
