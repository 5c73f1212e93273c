// Asks for the status and draws it. Everything that is told is put in as text, never as markup.
"use strict";

const STATUS_EVERY = 2000;
const HISTORY_EVERY = 10000;
const CHANGES_SHOWN = 30;
const before = new Map();

const byId = (id) => document.getElementById(id);

function element(name, options = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(options)) {
    if (value !== undefined && value !== "") made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// Some reasons have more than one line.
const shown = (text) => String(text).replace(/\s/g, " ").replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu,
  (c) => "\\u{" + c.codePointAt(0).toString(16) + "}");

const grouped = (number) => Math.round(number).toLocaleString("en");

function bytes(number) {
  if (number < 1000) return `${Math.round(number)} B`;
  const units = ["kB", "MB", "GB", "TB", "PB", "EB"];
  let unit = 0;
  for (number /= 1000; number >= 999.95 && unit + 1 < units.length; unit += 1) number /= 1000;
  return `${number.toFixed(1)} ${units[unit]}`;
}

function span(seconds) {
  if (seconds < 10) return `${seconds.toFixed(2)} s`;
  seconds = Math.floor(seconds);
  const two = (large, unit, small, other) => (small ? `${large} ${unit} ${small} ${other}` : `${large} ${unit}`);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return two(Math.floor(seconds / 60), "min", seconds % 60, "s");
  if (seconds < 86400) return two(Math.floor(seconds / 3600), "h", Math.floor((seconds % 3600) / 60), "min");
  return two(Math.floor(seconds / 86400), "d", Math.floor((seconds % 86400) / 3600), "h");
}

const count = (number, one, many) => `${grouped(number)} ${number === 1 ? one : many}`;

function tone(phase) {
  if (phase === "in-sync") return "good";
  if (phase === "waiting") return "warning";
  if (["held", "halted", "ended"].includes(phase)) return "bad";
  return ["paused", "stopped"].includes(phase) ? "quiet" : "busy";
}

const labelOf = (of) => `${shown(of.mirror || of.source)} to ${shown(of.target)}`;

// Bytes or ops a second since the last look, from counters that only grow.
function rate(key, content, ops, now) {
  const last = before.get(key);
  before.set(key, { content, ops, now });
  if (!last || now <= last.now || content < last.content || ops < last.ops) return "";
  const time = (now - last.now) / 1000;
  if (content > last.content) return `${bytes((content - last.content) / time)}/s`;
  const speed = (ops - last.ops) / time;
  return speed >= 0.5 ? `${grouped(speed)} ops/s` : "";
}

// On a phone rows are no table rows any more, unless that is said.
const number = (label, text, more = "") => element("td", { role: "cell", class: `number ${more}`, "data-label": text ? label : "" }, text);

function mirrorRow(sender, now) {
  const counters = sender.counters;
  const behind = sender.behind;
  const key = JSON.stringify([sender.pid, sender.mirror, sender.source, sender.target]);
  const state = element("td", { role: "cell", class: "wide" }, element("span", { class: tone(sender.phase) },
    sender.phase === "in-sync" ? "in sync" : shown(sender.phase)));
  if (sender.reason) state.append(element("span", { class: "reason" }, shown(sender.reason)));
  const toGo = behind.entries ? `${grouped(behind.entries)}${behind.bytes ? `, ${bytes(behind.bytes)}` : ""}` : "";
  return element("tr", { role: "row" },
    element("th", { role: "rowheader", scope: "row" }, shown(sender.mirror || sender.source)),
    element("td", { role: "cell", class: "wide target" }, shown(sender.target)),
    state,
    number("Lag", behind.oldest_ms == null ? "" : span(behind.oldest_ms / 1000)),
    number("To go", toGo),
    number("Rate", rate(key, counters.content_bytes || 0, counters.ops_done || 0, now)),
    number("Failed", counters.failed ? grouped(counters.failed) : "", "bad"));
}

function moduleRows(module) {
  const name = element("th", { scope: "row" }, shown(module.name));
  if (!module.sessions.length) {
    return [element("tr", {}, name, element("td", { class: module.promoted_since ? "warning" : "quiet" },
      module.promoted_since ? "promoted: senders are refused" : "nobody is connected"),
      number("", ""), number("", ""), number("", ""))];
  }
  return module.sessions.map((session) => element("tr", {}, name.cloneNode(true),
    element("td", {}, shown(session.source)), number("Applied", grouped(session.applied)),
    number("Written", bytes(session.bytes)), number("Failed", session.failed ? grouped(session.failed) : "", "bad")));
}

function said(event) {
  switch (event.event) {
    case "connected": return ["", "connected"];
    case "disconnected": return ["warning", `disconnected${event.reason ? `: ${event.reason}` : ""}`];
    case "error": return ["bad", `error: ${event.path}: ${event.error}`];
    case "recovered": return ["good", `no error any more: ${event.path}`];
    case "held": return ["bad", `held back: ${count(event.deletions, "deletion", "deletions")}`];
    case "drift": return ["warning", "the trees differ; they are compared again"];
    case "checkpoint": return ["good", `passed checkpoint ${event.name}`];
    case "warning": return ["warning", event.text];
    case "ended": return [event.error ? "bad" : "", `ended${event.error ? `: ${event.error}` : ""}`];
    case "sender-connected": return ["", `${event.peer} connected to module ${event.module}`];
    case "sender-disconnected": return ["", `${event.peer} disconnected from module ${event.module}`];
    case "lost": return ["warning", `${count(event.events, "event was", "events were")} missed here`];
    default: return ["", event.event];
  }
}

function logLine(at, about, kind, text) {
  const time = new Date(at);
  return element("li", {},
    element("time", { datetime: time.toISOString() }, time.toLocaleTimeString()), " ",
    about ? element("span", { class: "about" }, `${about}: `) : "",
    element("span", { class: kind }, shown(text)));
}

function changeLines(event) {
  const lines = event.changes.map((change) =>
    `${change.verb} ${change.path}${change.bytes == null ? "" : ` (${bytes(change.bytes)})`}`);
  const unnamed = event.applied - lines.length;
  if (unnamed > 0) lines.push(`${grouped(unnamed)}${lines.length ? " more" : ""} ${unnamed === 1 ? "change" : "changes"}`);
  return lines.map((line) => logLine(event.at_ms, event.source ? labelOf(event) : "", "", line)).reverse();
}

const orNone = (items, text) => (items.length ? items : [element("li", { class: "quiet" }, text)]);

function drawStatus(status, now) {
  const senders = status.daemons.filter((daemon) => daemon.role === "sender");
  const receivers = status.daemons.filter((daemon) => daemon.role === "receiver");
  const modules = receivers.flatMap((receiver) => receiver.modules);
  const inSync = senders.filter((sender) => sender.phase === "in-sync").length;
  const parts = [];
  if (senders.length) parts.push(`${inSync} of ${count(senders.length, "target", "targets")} in sync`);
  if (modules.length) {
    const connected = modules.reduce((sum, module) => sum + module.sessions.length, 0);
    parts.push(`${count(connected, "sender", "senders")} connected here`);
  }
  const summary = parts.join(", ") || "nothing is mirrored here";
  if (byId("summary").textContent !== summary) byId("summary").textContent = summary;
  senders.sort((a, b) => labelOf(a).localeCompare(labelOf(b)));
  byId("mirrors").hidden = byId("charts").hidden = !senders.length;
  byId("mirror-rows").replaceChildren(...senders.map((sender) => mirrorRow(sender, now)));
  byId("modules").hidden = !modules.length;
  byId("module-rows").replaceChildren(...modules.flatMap(moduleRows));
  const errors = senders.flatMap((sender) => sender.failed.map((entry) => element("li", {},
    element("span", { class: "about" }, `${labelOf(sender)}: `),
    element("span", { class: "bad" }, `${shown(entry.path)}: ${shown(entry.error)}`))));
  byId("errors").hidden = !errors.length;
  byId("error-list").replaceChildren(...errors);
  // Directories of this machine are modules, too, which nobody has named.
  const named = new Set(modules.map((module) => module.name));
  const isShown = (event) => event.module === undefined || named.has(event.module);
  const incidents = status.incidents.filter(isShown).slice(-CHANGES_SHOWN).reverse().map((event) =>
    logLine(event.at_ms, event.source ? labelOf(event) : "", ...said(event)));
  byId("incident-list").replaceChildren(...orNone(incidents, "nothing since the daemon started"));
  const changes = status.changes.slice().reverse().flatMap(changeLines).slice(0, CHANGES_SHOWN);
  byId("change-list").replaceChildren(...orNone(changes, "none since the daemon started"));
}

const SVG = "http://www.w3.org/2000/svg";

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// The shortest of some spans that holds all points, in seconds.
const rangeOf = (points, now) => [600, 1800, 3600].find((range) => !points.length || now - points[0][0] <= range) || 3600;

// A curve that ends now, with what its height means.
function chart(points, now, what, write) {
  const range = rangeOf(points, now);
  const highest = points.reduce((most, point) => Math.max(most, point[1]), 0);
  const last = points.length ? points[points.length - 1][1] : 0;
  const text = `${what}: ${write(last)} now, ${write(highest)} at most in ${span(range)}`;
  const svg = shape("svg", { viewBox: "0 0 360 60", preserveAspectRatio: "none", role: "img", "aria-label": text });
  svg.append(shape("line", { class: "axis", x1: 0, y1: 59.5, x2: 360, y2: 59.5 }));
  if (points.length) {
    const x = (at) => Math.max(0, 360 * (1 - (now - at) / range)).toFixed(1);
    const y = (value) => (59 - (highest ? (value / highest) * 56 : 0)).toFixed(1);
    const line = points.map(([at, value]) => `${x(at)},${y(value)}`).join(" ");
    svg.append(shape("polygon", { class: "area",
      points: `${x(points[0][0])},59 ${line} ${x(points[points.length - 1][0])},59` }));
    svg.append(shape("polyline", { class: "curve", points: line }));
  }
  return [svg, element("p", {}, text)];
}

function drawHistory(history) {
  const seconds = (value) => (value ? span(value) : "0 s");
  const articles = history.targets.map((target) => {
    const samples = target.samples;
    const lag = samples.map((sample) => [sample.at, sample.lag_ms / 1000]);
    const speed = samples.slice(1).map((sample, at) => {
      const time = Math.max(1, sample.at - samples[at].at);
      return [sample.at, Math.max(0, sample.bytes - samples[at].bytes) / time];
    });
    return element("article", {}, element("h3", {}, labelOf(target)),
      ...chart(lag, history.now, "Lag", seconds),
      ...chart(speed, history.now, "Throughput", (value) => `${bytes(value)}/s`));
  });
  byId("chart-list").replaceChildren(...articles);
}

function tell(problem) {
  byId("problem").hidden = !problem;
  if (byId("problem").textContent !== problem) byId("problem").textContent = problem;
}

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(8000) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

function again(every, path, draw) {
  const look = async () => {
    // Nobody looks: then nobody asks.
    if (!document.hidden) {
      try {
        const told = await ask(path);
        draw(told);
        tell("");
      } catch (error) {
        tell(`The daemon does not answer (${error.message}). What is shown here is old.`);
      }
    }
    setTimeout(look, every);
  };
  look();
}

again(STATUS_EVERY, "status.json", (told) => drawStatus(told, performance.now()));
again(HISTORY_EVERY, "history.json", drawHistory);
