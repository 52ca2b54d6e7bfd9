// What all parts of the page share: its sections, search, theme, tooltip, the chosen process.

const page = {
  query: "",
  chosen: null, // a process of the report
  listeners: { search: [], theme: [], choose: [], resize: [] },
  main: document.getElementById("page"),

  on(event, listener) {
    page.listeners[event].push(listener);
  },
  tell(event) {
    for (const listener of page.listeners[event]) listener();
  },
  choose(process) {
    page.chosen = process === page.chosen ? null : process;
    page.tell("choose");
  },
};

// Whether a text has all words that are searched for.
const matches = (text) => page.query === "" || page.words.every((word) => text.includes(word));
page.words = [];

// `text`, with the words that are searched for marked.
function marked(text) {
  if (page.query === "") return document.createTextNode(text);
  const lower = text.toLowerCase();
  const result = document.createDocumentFragment();
  let at = 0;
  while (at < text.length) {
    let begin = -1;
    let length = 0;
    for (const word of page.words) {
      const found = lower.indexOf(word, at);
      if (found >= 0 && (begin < 0 || found < begin)) {
        begin = found;
        length = word.length;
      }
    }
    if (begin < 0) break;
    result.append(text.slice(at, begin), element("mark", {}, text.slice(begin, begin + length)));
    at = begin + length;
  }
  result.append(text.slice(at));
  return result;
}

// A panel with a heading and, to its right, what is in `tools`.
function section(id, title, ...tools) {
  const count = element("span", { class: "count" });
  const body = element("section", { id, "aria-label": title },
    element("div", { class: "head" }, element("h2", {}, title), count, element("span", { class: "grow" }), ...tools));
  body.count = (text) => { count.textContent = text; };
  page.main.append(body);
  return body;
}

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Sizes a canvas to its place; drawing is in CSS pixels.
function fit(canvas, height) {
  const width = canvas.clientWidth;
  const ratio = window.devicePixelRatio || 1;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  return { context, width };
}

// The beginning of `text` that fits.
function clipped(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let low = 0;
  let high = text.length;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (context.measureText(text.slice(0, middle) + "\u2026").width <= width) low = middle;
    else high = middle - 1;
  }
  return low > 1 ? text.slice(0, low) + "\u2026" : "";
}

const tooltip = document.getElementById("tooltip");
function showTooltip(event, title, ...lines) {
  tooltip.replaceChildren(element("b", {}, title), ...lines.map((line) => element("div", {}, line)));
  tooltip.hidden = false;
  const box = tooltip.getBoundingClientRect();
  const left = Math.min(event.clientX + 14, window.innerWidth - box.width - 8);
  const below = event.clientY + 16;
  const top = below + box.height > window.innerHeight ? event.clientY - box.height - 12 : below;
  tooltip.style.left = `${Math.max(8, left)}px`;
  tooltip.style.top = `${Math.max(8, top)}px`;
}
const hideTooltip = () => { tooltip.hidden = true; };

// Calls what(event, x, y) as the pointer moves over a canvas, which gives what a click is to do.
function hover(canvas, what) {
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return what(event, event.clientX - box.left, event.clientY - box.top);
  };
  canvas.addEventListener("pointermove", (event) => {
    const action = at(event);
    canvas.style.cursor = action ? "pointer" : "";
    if (action === undefined) hideTooltip();
  });
  canvas.addEventListener("pointerleave", hideTooltip);
  canvas.addEventListener("click", (event) => {
    const action = at(event);
    if (action) action();
  });
}

function startTheme() {
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  let own = null;
  try {
    own = localStorage.getItem("cowtop-theme");
  } catch { /* a browser that stores nothing for files */ }
  const apply = (theme) => {
    root.dataset.theme = theme;
    page.tell("theme");
  };
  const usual = () => own || (system.matches ? "dark" : "light");
  apply(usual());
  system.addEventListener("change", () => apply(usual()));
  document.getElementById("theme").addEventListener("click", () => {
    own = root.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("cowtop-theme", own);
    } catch { /* as above */ }
    apply(own);
  });
  window.addEventListener("beforeprint", () => apply("light"));
  window.addEventListener("afterprint", () => apply(usual()));
}

function startSearch() {
  const input = document.getElementById("search");
  let pending = false;
  const search = () => {
    pending = false;
    page.query = input.value.trim().toLowerCase();
    page.words = page.query.split(/\s+/).filter((word) => word !== "");
    page.tell("search");
    document.documentElement.dataset.searched = page.query;
  };
  input.addEventListener("input", () => {
    if (!pending) setTimeout(search, 60);
    pending = true;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== input) {
      event.preventDefault();
      input.focus();
    } else if (event.key === "Escape" && document.activeElement === input) {
      input.value = "";
      search();
    }
  });
}

function startResize() {
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    page.tell("resize");
  });
}
