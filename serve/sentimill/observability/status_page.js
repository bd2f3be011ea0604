"use strict";
const EVERY_MS = 2000, WIDE = 300, HIGH = 110;
// Lines whose meaning has a colour; the others take theirs in order.
const COLOUR = { negative: 2, neutral: 1, positive: 3, refused: 2 };
const byId = (id) => document.getElementById(id);

// Everything is set as text or attribute, never as markup: the name of a bundle is untrusted input.
function make(tag, text, attributes) {
  const svg = ["svg", "path", "line", "text"].includes(tag);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  if (text !== null) made.textContent = text;
  for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
  return made;
}

const number = (value) => value >= 1e6 ? (value / 1e6).toFixed(1) + "M" : value >= 1e4 ? (value / 1e3).toFixed(1) + "k"
  : value >= 100 || Number.isInteger(value) ? value.toFixed(0) : value.toFixed(value >= 1 ? 1 : 2);
const seconds = (value) => value >= 1 ? number(value) + " s" : number(value * 1000) + " ms";
const percent = (value) => (value * 100).toFixed(0) + " %";
const time = (value) => value >= 86400 ? number(value / 86400) + " days" : value >= 3600 ? number(value / 3600) + " h"
  : value >= 60 ? number(value / 60) + " min" : number(value) + " s";

function charts(shown) {
  const s = shown.series;
  return [
    ["Texts a second", number, { texts: s.texts_per_second }],
    ["Time of a call", seconds, { p50: s.p50_seconds, p95: s.p95_seconds, p99: s.p99_seconds }],
    ["Waiting texts", number, { waiting: s.waiting_texts }],
    ["Calls a second", number, { answered: s.requests_per_second.map((all, i) => Math.max(0, all - s.refused_per_second[i])),
      refused: s.refused_per_second }],
    ["Useful tokens (the rest is padding)", percent, { useful: s.useful_ratio }, 1],
    ["Label mix", percent, s.shares, 1],
  ];
}

// A missing value breaks the line: without traffic there is no latency, not one of zero.
function line(ago, span, values, top) {
  let pen = "M", path = "";
  values.forEach((value, i) => {
    if (value === null) { pen = "M"; return; }
    const x = WIDE * (1 - ago[i] / span), y = HIGH * (1 - value / top);
    path += pen + x.toFixed(1) + " " + y.toFixed(1);
    if (pen === "M") path += "h0.1";
    pen = "L";
  });
  return path;
}

const round = (value) => {
  const unit = 10 ** Math.floor(Math.log10(value));
  return unit * [1, 2, 5, 10].find((step) => step * unit >= value * 0.9999);
};

function chart(title, format, lines, fixed, ago) {
  const span = 60 * Math.max(1, Math.ceil(Math.max(0, ...ago) / 60));
  const made = make("section", null, {});
  made.append(make("h2", title));
  const legend = make("div", null, { class: "legend" });
  const svg = make("svg", null, { viewBox: `-2 -8 ${WIDE + 54} ${HIGH + 26}`, role: "img", "aria-label": title });
  const most = Math.max(0, ...Object.values(lines).flat().filter((value) => value !== null));
  const top = fixed || (most > 0 ? round(most) : 1);
  for (const part of [0, 0.5, 1]) {
    const y = HIGH * (1 - part);
    svg.append(make("line", null, { class: "grid", x1: 0, x2: WIDE, y1: y, y2: y }));
    svg.append(make("text", format(top * part), { x: WIDE + 5, y: y + 4 }));
  }
  svg.append(make("text", `${span / 60} min ago`, { x: 0, y: HIGH + 15 }));
  svg.append(make("text", "now", { x: WIDE, y: HIGH + 15, "text-anchor": "end" }));
  Object.entries(lines).forEach(([name, values], i) => {
    const last = values.length ? values[values.length - 1] : null;
    legend.append(make("span", `${name} ${last === null ? "–" : format(last)}`, { class: `c${(COLOUR[name] ?? i) % 6}` }));
    svg.append(make("path", null, { class: `c${(COLOUR[name] ?? i) % 6}`, d: line(ago, span, values, top), "data-line": name }));
  });
  made.append(legend, svg);
  return made;
}

function show(shown) {
  byId("state").textContent = shown.state;
  byId("state").className = "state " + shown.state;
  byId("try").hidden = !shown.playground;
  const model = shown.model;
  byId("model").textContent = model.name
    ? `${model.name} ${model.version} · ${model.precision} on ${model.provider} · ${model.digest.slice(0, 12)}` : "";
  byId("problems").replaceChildren(...shown.problems.map((problem) => {
    const item = make("li", null, { class: problem.severity });
    item.append(make("b", problem.what), make("span", problem.do));
    return item;
  }));
  const t = shown.totals;
  const facts = { "up for": time(shown.uptime_seconds), texts: number(t.texts), calls: number(t.requests),
    refused: number(t.refused_requests), truncated: number(t.truncated_texts), abstained: number(t.abstained_texts),
    "dropped unread": number(t.dropped_texts), "queue limit": number(shown.max_waiting_texts) + " texts",
    memory: number(t.resident_bytes / 2 ** 20) + " MiB" };
  byId("facts").replaceChildren(...Object.entries(facts).map(([name, value]) => {
    const item = make("div", null, {});
    item.append(make("dt", name), make("dd", value));
    return item;
  }));
  byId("charts").replaceChildren(...charts(shown).map(
    ([title, format, lines, fixed]) => chart(title, format, lines, fixed, shown.series.seconds_ago)));
}

async function tryText() {
  byId("ask").disabled = true;
  try {
    const answer = await fetch("/try", { method: "POST", headers: { "X-Sentimill": "1" }, body: byId("text").value });
    if (!answer.ok) throw new Error(await answer.text());
    const found = await answer.json();
    const marks = (found.abstained ? " (unsure)" : "") + (found.truncated ? " (shortened)" : "");
    byId("answer").textContent = found.error
      || `${found.label}${marks}, confidence ${percent(found.confidence)}, ${found.tokens} tokens`;
  } catch (error) {
    byId("answer").textContent = `no answer: ${error.message}`;
  }
  byId("ask").disabled = false;
}
byId("ask").addEventListener("click", tryText);

function lost(error) {
  byId("state").textContent = "no answer";
  byId("state").className = "state lost";
  const item = make("li", null, { class: "bad" });
  item.append(make("b", "The server does not answer this page any more: the figures below are old."),
    make("span", `Check whether the process runs (${error.message}): runbook Down.`));
  byId("problems").replaceChildren(item);
}

async function refresh() {
  try {
    const answer = await fetch("/status.json", { signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error("HTTP " + answer.status);
    show(await answer.json());
  } catch (error) {
    lost(error);
  }
  setTimeout(refresh, EVERY_MS);
}
refresh();
