// Figures as people read them, and elements.  Names come from strangers: they become text nodes,
// never markup.

const PAGE_BYTES = 4096;  // cow::kPageSize
const UNKNOWN = "\u2013";

const isKnown = (value) => value !== null && value !== undefined;

// Rounds a tie to the even digit, as the text on a terminal does.
function fixed(value, digits) {
  const scaled = value * 10 ** digits;
  const isTie = scaled % 1 === 0.5 && Math.floor(scaled) % 2 === 0;
  return (isTie ? Math.floor(scaled) / 10 ** digits : value).toFixed(digits);
}

function bytesText(bytes) {
  if (!isKnown(bytes)) return UNKNOWN;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let value = Math.abs(bytes);
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    ++unit;
  }
  const digits = unit === 0 || value >= 1000 ? 0 : 1;
  return `${bytes < 0 ? "\u2212" : ""}${fixed(value, digits)} ${units[unit]}`;
}

const pagesText = (pages) => bytesText(isKnown(pages) ? pages * PAGE_BYTES : null);
const countText = (count) => (isKnown(count) ? count.toLocaleString("en") : UNKNOWN);
const percentText = (ratio, digits = 1) =>
  isKnown(ratio) ? `${fixed(ratio * 100, digits)}%` : UNKNOWN;
const plural = (count, one, many = one + "s") => `${countText(count)} ${count === 1 ? one : many}`;

// Without the unit, which the column's title has.
function millisecondsText(ns) {
  if (!isKnown(ns)) return UNKNOWN;
  return fixed(ns / 1e6, ns < 1e6 ? 2 : ns < 1e7 ? 1 : 0);
}

function secondsText(seconds) {
  if (!isKnown(seconds)) return UNKNOWN;
  if (seconds < 120) return `${fixed(seconds, seconds < 10 ? 2 : 1)} s`;
  if (seconds < 7200) return `${(seconds / 60).toFixed(1)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

// element("td", {class: "number", title: "..."}, "text", child): attributes whose name begins with
// "on" are listeners.
function element(tag, attributes, ...children) {
  const result = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) result.addEventListener(name.slice(2), value);
    else result.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children) if (isKnown(child) && child !== "") result.append(child);
  return result;
}

const tile = (text, label, attributes = {}) => element("div", { class: "tile", ...attributes }, element("b", {}, text), element("span", {}, label));

function meter(ratio, kind = "") {
  const bar = element("i");
  bar.style.width = `${Math.max(0, Math.min(1, ratio || 0)) * 100}%`;
  return element("span", { class: `meter ${kind}` }, bar);
}

// As many of a few fixed buttons of which one is pressed.
function choice(label, names, chosen, onChoose) {
  const buttons = names.map((name, i) =>
    element("button", { type: "button", "aria-pressed": String(i === chosen), onclick: () => choose(i) }, name));
  const choose = (i) => {
    buttons.forEach((button, j) => button.setAttribute("aria-pressed", String(i === j)));
    onChoose(i);
  };
  return element("span", { class: "choice", role: "group", "aria-label": label }, ...buttons);
}
