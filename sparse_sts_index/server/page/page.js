"use strict";

const DEBOUNCE = 120; // ms without a keystroke before a request
const TRIES = 20; // of a request that the server is too busy for
const PAIRS = 64; // at most, in a request to explain
const TERMS = 5; // named in a hit
const LONE = 12; // terms of one sentence alone, before "show all"
const MEMBERS = 6; // of a group, before "show all"
const VALUES = 12; // of a field, to choose from
const GROUPS = 50; // asked for at first
const MOST_GROUPS = 500;
const TOKEN = "sparse-sts-token";
const VIEWS = ["search", "compare", "collection"];
const KINDS = { both: "literal in both", one: "literal in one", none: "expansion in both" };

/** What the page knows of the index, and which view it shows. */
const state = { index: null, view: "search", groups: GROUPS };

// Elements: all text goes through textContent

const $ = (id) => document.getElementById(id);

/** An element. Properties that hold a dash or are unknown to the DOM are set as attributes; text becomes text nodes. */
function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const button = (text, click, label = text) =>
  el("button", { type: "button", "aria-label": label, on: { click } }, text);

/** A bar filled to a share of its track. */
function bar(share, className = "bar") {
  const element = el("span", { className, "aria-hidden": "true" });
  element.style.setProperty("--part", `${(100 * Math.min(Math.max(share, 0), 1)).toFixed(1)}%`);
  return element;
}

const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
const fixed = (value) => (value > 0 && value < 0.0005 ? "<0.001" : value.toFixed(3));
/** A number to read, with its full value beside it. */
const amount = (value) => el("data", { value: String(value) }, fixed(value));

function say(view, text, isError = false) {
  const status = $(`${view}-status`);
  status.classList.toggle("error", isError);
  if (status.textContent !== text) status.textContent = text;
}

// Requests

function sleep(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}

const retryAfter = (response) => Math.min(Math.max(Number(response.headers.get("Retry-After")) || 1, 0.25), 60);

/** Only the last of a row of requests counts: each call ends the one before. */
function latest() {
  let controller = new AbortController();
  return () => {
    controller.abort();
    controller = new AbortController();
    return controller.signal;
  };
}

let asking = null;

/** Ask for the token, once for however many requests wait for it. */
function askToken(refused) {
  asking ??= new Promise((resolve, reject) => {
    const dialog = $("token-dialog");
    $("token-note").textContent = refused ? "That token was refused." : "It is kept until this tab is closed.";
    $("token").value = "";
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      asking = null;
      if (dialog.returnValue !== "token") return reject(new Error("This server wants a token."));
      const token = $("token").value.trim();
      if (!/^[!-~]+$/.test(token)) return reject(new Error("A token has printable ASCII characters only."));  // or no header could hold it
      sessionStorage.setItem(TOKEN, token);
      return resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

/**
 * Send a request, again if the server is busy or wants a token.
 * @param {string} path
 * @param {{body?: object, signal?: AbortSignal, waiting?: (text: string) => void}} options
 * @returns {Promise<{response: Response, data: any}>}
 */
async function api(path, { body, signal, waiting = () => {} } = {}) {
  for (let tries = 1; ; tries++) {
    const token = sessionStorage.getItem(TOKEN);
    const headers = { Accept: "application/json" };
    if (body) headers["Content-Type"] = "application/json";
    if (token) headers.Authorization = `Bearer ${token}`;
    const request = { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal, cache: "no-store" };
    const response = await fetch(path, request).catch((error) => {
      throw signal?.aborted ? error : new Error("The server cannot be reached.");
    });
    if (response.status === 401) {
      if (token === sessionStorage.getItem(TOKEN)) await askToken(token !== null);
      signal?.throwIfAborted();
    } else if ([429, 503].includes(response.status) && tries < TRIES) {
      const seconds = retryAfter(response);
      waiting(`The server is busy; asking again in ${seconds} s.`);
      await sleep(1000 * seconds, signal);
    } else {
      const data = await response.json().catch((error) => {
        if (signal?.aborted) throw error;
        return {};
      });
      if (!response.ok) throw new Error(data.detail || data.title || `The server answered ${response.status}.`);
      return { response, data };
    }
  }
}

/** Run a view's work; what goes wrong is said in its status line, unless a later request has taken its place. */
async function attempt(view, signal, work) {
  try {
    await work({ signal, waiting: (text) => say(view, text) });
  } catch (error) {
    if (!signal.aborted) say(view, error.message, true);
  } finally {
    if (!signal.aborted) $(view).removeAttribute("aria-busy");
  }
}

/** Empty an element if what was to fill it does not come. */
const orEmpty = (id, signal, promise) => promise.catch((error) => {
  if (!signal.aborted) $(id).replaceChildren();
  throw error;
});

/** Call after a pause; `now` goes ahead at once. */
function debounced(work) {
  let timer;
  return (now = false) => {
    clearTimeout(timer);
    timer = setTimeout(work, now ? 0 : DEBOUNCE);
  };
}

const explain = async (pairs, options) => (await api("/v1/explain", { body: { pairs }, ...options })).data.results;

// Explanations

/** A sentence in which each word is as strongly marked as its share of the cosine. Offsets count code points. */
function highlighted(text, words, cosine) {
  const characters = Array.from(text);
  const fragment = document.createDocumentFragment();
  let at = 0;
  words.forEach(({ start, end, contribution }, number) => {
    fragment.append(characters.slice(at, start).join(""));
    const mark = el("mark", { "data-word": number, "data-contribution": contribution }, characters.slice(start, end).join(""));
    if (contribution > 0) mark.title = `adds ${fixed(contribution)}`;
    mark.style.setProperty("--share", `${(100 * Math.sqrt(Math.min(Math.max(contribution, 0) / (cosine || 1), 1))).toFixed(0)}%`);
    fragment.append(contribution > 0 || end > start ? mark : "");
    at = end;
  });
  fragment.append(characters.slice(at).join(""));
  return fragment;
}

const kindOf = ({ first, second }) => (first.literal && second.literal ? "both" : first.literal || second.literal ? "one" : "none");
const dot = (kind) => el("span", { className: `dot ${{ both: "full", one: "half", none: "" }[kind]}`, "aria-hidden": "true" });

/** Where a term of one sentence comes from. */
function source(side, text, words) {
  const word = side.word === null ? null : words[side.word];
  const from = word ? el("q", {}, Array.from(text).slice(word.start, word.end).join("")) : "the whole sentence";
  return el("span", { className: "side", "data-kind": side.literal ? "both" : "none" },
    dot(side.literal ? "both" : "none"),
    el("span", {}, side.literal ? "literal, " : "expansion of ", from));
}

const legend = () => el("ul", { className: "legend", "aria-label": "Kinds of terms" },
  ...Object.entries(KINDS).map(([kind, name]) => el("li", { "data-kind": kind }, dot(kind), name)));

/** Point out, in the sentences of `scope`, the words that a row's term comes from. */
function pointing(row, term, scope) {
  const point = (on) => ["first", "second"].forEach((side) => {
    const selector = `[data-side="${side}"] mark[data-word="${term[side].word}"]`;
    scope().querySelector(selector)?.classList.toggle("source", on);
  });
  row.addEventListener("pointerenter", () => point(true));
  row.addEventListener("pointerleave", () => point(false));
}

/** Two sentences with their words marked. */
function sentences(texts, names, explanation) {
  const side = (key, number) => [
    el("dt", {}, names[number]),
    el("dd", { className: "sentence", "data-side": key }, highlighted(texts[number], explanation[key].words, explanation.cosine)),
  ];
  return el("dl", { className: "both" }, ...side("first", 0), ...side("second", 1));
}

const heading = (text, properties = {}) => el("th", { scope: "col", role: "columnheader", ...properties }, text);
const cell = (properties, ...children) => el("td", { role: "cell", ...properties }, ...children);
const rows = (tag, ...children) => el(tag, { role: "rowgroup" }, ...children);
const termCell = (kind, term, ...more) =>
  el("th", { scope: "row", role: "rowheader" }, el("span", { className: "term" }, dot(kind), el("code", {}, term), ...more));

/** All shared terms of a query and a hit, and what each adds to the cosine. */
function sharedTable(texts, names, explanation) {
  const largest = explanation.shared[0]?.contribution ?? 1;
  const body = explanation.shared.map((term) => {
    const kind = kindOf(term);
    const row = el("tr", { role: "row", "data-kind": kind },
      termCell(kind, term.term, el("span", { className: "note" }, KINDS[kind])),
      cell({}, el("span", { className: "amount" }, amount(term.contribution), bar(term.contribution / largest))),
      ...["first", "second"].map((key, number) =>
        cell({ "data-side": names[number] }, source(term[key], texts[number], explanation[key].words))));
    pointing(row, term, () => row.closest(".detail"));
    return row;
  });
  return el("table", { className: "shared", role: "table", "aria-label": "Shared terms" },
    rows("thead", el("tr", { role: "row" }, heading("shared term"), heading("adds to the cosine"), ...names.map((name) => heading(`in the ${name}`)))),
    rows("tbody", ...body),
    rows("tfoot", el("tr", { role: "row" }, el("th", { scope: "row", role: "rowheader" }, "together, the cosine"),
      cell({}, amount(explanation.cosine)), cell({}), cell({}))));
}

/** All shared terms of two sentences, the weights on either side of the term. */
function twoSidedTable(texts, explanation) {
  const largest = Math.max(...explanation.shared.flatMap(({ first, second }) => [first.weight, second.weight]));
  const body = explanation.shared.map((term) => {
    const kind = kindOf(term);
    const side = (key, number) => cell({ "data-kind": term[key].literal ? "both" : "none" }, bar(term[key].weight / largest),
      el("span", { className: "from" }, el("span", { className: "number" }, fixed(term[key].weight)), source(term[key], texts[number], explanation[key].words)));
    const middle = termCell(kind, term.term);
    middle.append(el("span", { className: "note" }, "adds ", amount(term.contribution)), el("span", { className: "note" }, KINDS[kind]));
    const row = el("tr", { role: "row", "data-kind": kind }, side("first", 0), middle, side("second", 1));
    pointing(row, term, () => $("comparison"));
    return row;
  });
  return el("table", { className: "twosided", role: "table", "aria-label": "Shared terms" },
    rows("thead", el("tr", { role: "row" }, heading("weight in the first"), heading("term"), heading("weight in the second"))),
    rows("tbody", ...body));
}

/** A list cut short, and a button that shows the rest. */
function capped(list, items, most, name) {
  list.append(...items.slice(0, most));
  if (items.length <= most) return [list];
  const more = button(`Show all ${items.length}`, () => {
    list.append(...items.slice(most));
    items[most].tabIndex = -1;
    items[most].focus();
    more.remove();
  }, `Show all ${items.length} ${name}`);
  more.className = "more";
  return [list, more];
}

/** The terms that only one sentence has. */
function loneTerms(key, which, text, explanation) {
  const { alone, words } = explanation[key];
  const items = alone.map((term) => el("li", { "data-kind": term.literal ? "both" : "none" },
    el("span", { className: "term" }, dot(term.literal ? "both" : "none"), el("code", {}, term.term)),
    el("span", { className: "note" }, source(term, text, words).lastChild),
    bar(term.weight / alone[0].weight), amount(term.weight)));
  const title = el("h3", {}, `Only in the ${which}`, el("span", { className: "note" }, ` ${count(alone.length, "term")}, by weight`));
  if (!alone.length) return el("div", {}, title, el("p", { className: "note" }, "None."));
  return el("div", {}, title, ...capped(el("ul"), items, LONE, `terms only in the ${which}`));
}

// Filters

const nextCounts = latest();
/** Types of fields with values to choose from. */
const CHOSEN = ["keyword", "keywords", "boolean"];
const quoted = (value) => (typeof value === "boolean" ? String(value) : `"${value.replace(/["\\]/g, "\\$&")}"`);

/** The values chosen by chips, by field. */
function chosen() {
  const values = new Map();
  for (const { dataset } of document.querySelectorAll("#chips input:checked")) {
    values.set(dataset.field, [...(values.get(dataset.field) ?? []), JSON.parse(dataset.value)]);
  }
  return values;
}

/** Return the filter that chips and text set, or null; `without` names a field whose chips are left out. */
function where(without = null) {
  const typed = $("where").value.trim();
  const parts = [...chosen()].filter(([field]) => field !== without)
    .map(([field, values]) => `${field} in (${values.map(quoted).join(", ")})`);
  if (typed) parts.unshift(parts.length ? `(${typed})` : typed);
  return parts.length ? parts.join(" and ") : null;
}

/** What a request to search says of both, if anything. */
function filtering() {
  const given = { where: where(), group_by: choice("group_by") };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value));
}

/** Values to choose from, with how many sentences the rest of the filter leaves of each. */
async function showChips() {
  const signal = nextCounts();
  const fields = Object.keys(state.index?.fields ?? {}).filter((name) => CHOSEN.includes(state.index.fields[name]));
  const counts = (field) => api("/v1/counts", { body: { field, where: where(field), limit: VALUES }, signal });
  try {
    const all = await Promise.all(fields.map(counts));
    const { field, value } = document.activeElement?.closest("#chips input")?.dataset ?? {};
    const before = chosen();
    $("chips").replaceChildren(...all.map(({ data }) => chipsOf(data, before.get(data.field) ?? [])));
    if (field) [...document.querySelectorAll("#chips input")].find(({ dataset }) => dataset.field === field && dataset.value === value)?.focus();
  } catch (error) {
    if (!signal.aborted) say("search", error.message, true);
  }
}

function chipsOf({ field, values, shown }, before) {
  const gone = before.filter((value) => !shown.some((one) => one.value === value)).map((value) => ({ value, count: 0 }));
  const chips = [...shown, ...gone].map(({ value, count: number }) => el("label", {},
    el("input", { type: "checkbox", checked: before.includes(value), "data-field": field, "data-value": JSON.stringify(value) }),
    el("span", {}, String(value), el("span", { className: "note" }, ` ${number.toLocaleString("en")}`))));
  if (!chips.length) return "";
  const more = values > shown.length ? el("span", { className: "note" }, `and ${values - shown.length} more`) : null;
  return el("fieldset", {}, el("legend", {}, field), ...chips, more);
}

/** Conditions to begin with, by type. */
const CONDITIONS = { number: ">= 1", date: ">= 2026-01-01" };

/** Show what can be filtered by, where documents have fields. */
function describeFields(fields) {
  const names = Object.keys(fields);
  $("filters").hidden = !names.length;
  $("where").placeholder = names.slice(0, 2).map((name) => `${name} ${CONDITIONS[fields[name]] ?? "exists"}`).join(" and ");
  const single = names.filter((name) => fields[name] !== "keywords");
  $("grouping").replaceChildren($("grouping").firstElementChild, ...["", ...single].map((name) => el("label", {},
    el("input", { type: "radio", name: "group_by", value: name, checked: !name }), el("span", {}, name || "sentence"))));
}

function fieldList(fields) {
  const entries = Object.entries(fields ?? {});
  if (!entries.length) return null;
  const shown = (value) => (Array.isArray(value) ? value.join(", ") : String(value).replace(/T00:00:00Z$/, ""));
  return el("dl", { className: "fields" }, ...entries.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, shown(value))]));
}

// Search

const nextSearch = latest();
const query = () => $("query").value.trim();
const choice = (name) => document.querySelector(`input[name="${name}"]:checked`)?.value ?? "";

/** What is known of the hits as a whole, in words. */
function proof({ certified, bound }, asked) {
  const best = asked.group_by ? `the best of each ${asked.group_by} ` : "the nearest ";
  return certified ? `${best}of all${asked.where ? " that pass" : ""} (proved)` : `nearest among the candidates; no other is above ${fixed(bound)}`;
}

function search() {
  const text = query();
  const signal = nextSearch();
  remember();
  $("search-intro").hidden = text !== "";
  $("filtered").textContent = [where(), choice("group_by") && `best of each ${choice("group_by")}`].filter(Boolean).join("; ");
  if (!text) {
    $("search").removeAttribute("aria-busy");
    $("hits").replaceChildren();
    return say("search", "");
  }
  $("search").setAttribute("aria-busy", "true");
  return attempt("search", signal, async (options) => {
    const started = performance.now();
    const body = { queries: [text], k: Number(choice("k")), mode: choice("mode"), explain: false, ...filtering() };
    const { results: [result] } = (await orEmpty("hits", signal, api("/v1/search", { body, ...options }))).data;
    const took = Math.round(performance.now() - started);
    const hits = result.hits.map((hit, number) => hitItem(text, hit, number));
    $("hits").replaceChildren(...hits);
    const of = state.index ? ` of ${state.index.documents.toLocaleString("en")}` : "";
    const none = body.where ? "No sentence that passes shares a term with yours." : "No sentence shares a term with yours.";
    const found = hits.length ? `${hits.length}${of} sentences, ${proof(result, body)}, ${took} ms` : none;
    say("search", found);
    await explainHits(text, result.hits, hits, options);
    say("search", found);
  });
}

async function explainHits(text, hits, items, options) {
  let largest = 0; // the bars of all hits are to one scale
  for (let from = 0; from < hits.length; from += PAIRS) {
    const pairs = hits.slice(from, from + PAIRS).map((hit) => ({ sentence1: text, sentence2: hit.text }));
    const explanations = await explain(pairs, options);
    largest = Math.max(largest, ...explanations.map(({ shared }) => shared[0]?.contribution ?? 0));
    explanations.forEach((explanation, number) => explainHit(text, hits[from + number], items[from + number], explanation, largest));
  }
}

/** A hit as yet unexplained. */
function hitItem(text, hit, number) {
  const detail = el("div", { className: "detail", id: `detail-${number}`, hidden: true });
  const toggle = button("Why", () => {
    detail.hidden = !detail.hidden;
    toggle.setAttribute("aria-expanded", String(!detail.hidden));
  }, `Why: ${hit.text}`);
  toggle.classList.add("toggle");
  toggle.setAttribute("aria-expanded", "false");
  toggle.setAttribute("aria-controls", detail.id);
  detail.append(el("p", { className: "note" }, "Explaining…"));
  const scale = state.index?.scale;
  const score = hit.score === null ? null
    : el("span", { className: "note" }, `score ${hit.score.toFixed(2)}${scale ? ` of ${scale[1]}` : ""}`);
  return el("li", { className: "hit", "data-id": hit.id },
    el("div", { className: "cosine" }, el("b", {}, el("span", { className: "hidden" }, "cosine "), fixed(hit.cosine)), bar(hit.cosine, "bar track"), score),
    el("div", {}, el("p", { className: "sentence" }, hit.text), fieldList(hit.fields), el("ul", { className: "terms", "aria-label": "Heaviest shared terms" })),
    el("div", { className: "actions" }, toggle,
      button("Find similar", () => findSimilar(hit.text), `Find similar: ${hit.text}`),
      button("Compare", () => compareThese(text, hit.text), `Compare with the query: ${hit.text}`)),
    detail);
}

/** Fill in why a hit was found. */
function explainHit(text, hit, item, explanation, largest) {
  const { shared, second, cosine } = explanation;
  item.querySelector(".sentence").replaceChildren(highlighted(hit.text, second.words, cosine));
  item.querySelector(".terms").replaceChildren(...shared.slice(0, TERMS).map((term) => {
    const kind = kindOf(term);
    return el("li", { "data-kind": kind, title: `${KINDS[kind]}, adds ${fixed(term.contribution)}` },
      dot(kind), el("span", {}, el("code", {}, term.term), el("span", { className: "hidden" }, ` ${KINDS[kind]}, adds ${fixed(term.contribution)}`)),
      bar(term.contribution / largest));
  }));
  const names = ["query", "hit"];
  item.querySelector(".detail").replaceChildren(
    sentences([text, hit.text], names, explanation), legend(), sharedTable([text, hit.text], names, explanation));
}

function findSimilar(text) {
  $("query").value = text;
  show("search", true);
  search();
  $("query").focus();
  window.scrollTo({ top: 0 });
}

// Compare

const nextComparison = latest();
const pair = () => [$("first").value.trim(), $("second").value.trim()];

function compare() {
  const texts = pair();
  const signal = nextComparison();
  remember();
  const ready = texts.every(Boolean);
  $("compare-intro").hidden = ready;
  if (!ready) {
    $("compare").removeAttribute("aria-busy");
    $("comparison").replaceChildren();
    return say("compare", "");
  }
  $("compare").setAttribute("aria-busy", "true");
  return attempt("compare", signal, async (options) => {
    const started = performance.now();
    const [explanation] = await orEmpty("comparison", signal, explain([{ sentence1: texts[0], sentence2: texts[1] }], options));
    const took = Math.round(performance.now() - started);
    $("comparison").replaceChildren(...comparison(texts, explanation));
    say("compare", `Cosine ${fixed(explanation.cosine)}, the sum over ${count(explanation.shared.length, "shared term")}, ${took} ms`);
  });
}

function comparison(texts, explanation) {
  const { cosine, score, shared } = explanation;
  const scale = state.index?.scale;
  const figure = el("div", { className: "figure" }, el("span", { className: "note" }, "cosine"), el("b", {}, amount(cosine)), bar(cosine, "bar track big"),
    score === null || score === undefined ? null : el("span", { className: "note" }, `score ${score.toFixed(2)}${scale ? ` of ${scale[1]}` : ""}`));
  return [
    el("div", { className: "verdict" }, figure, sentences(texts, ["first", "second"], explanation)),
    el("h3", {}, "Shared terms"),
    ...(shared.length ? [legend(), twoSidedTable(texts, explanation)] : [el("p", { className: "note" }, "None, so the cosine is 0.")]),
    el("div", { className: "lone" }, loneTerms("first", "first", texts[0], explanation), loneTerms("second", "second", texts[1], explanation)),
  ];
}

function compareThese(first, second) {
  $("first").value = first;
  $("second").value = second;
  show("compare", true);
  compare();
  $("compare").focus();
  window.scrollTo({ top: 0 });
}

// Collection

const nextGroups = latest();
let again;  // the timer of the next look, where these groups are not the last word

/** The groups, when the server has compared the collection with itself. */
async function askForGroups(threshold, options) {
  for (;;) {
    const { response, data } = await api(`/v1/groups?threshold=${threshold}&limit=${state.groups}`, options);
    if (response.status !== 202) return data;
    $("comparing").hidden = false;
    $("comparing").value = data.progress;
    say("collection", "Comparing every sentence with every other; this is done once.");
    await sleep(1000 * Math.min(retryAfter(response), 5), options.signal);
  }
}

function groups() {
  clearTimeout(again);
  const signal = nextGroups();
  remember();
  return attempt("collection", signal, async (options) => {
    $("collection").setAttribute("aria-busy", "true");
    const threshold = Number($("threshold").value);
    const data = await orEmpty("groups", signal, askForGroups(threshold, options)).finally(() => {
      if (!signal.aborted) $("comparing").hidden = true;
    });
    const more = data.groups > data.shown.length && state.groups < MOST_GROUPS
      ? [el("button", { type: "button", className: "more", on: { click: () => { state.groups = MOST_GROUPS; groups(); } } }, "Show more groups")] : [];
    $("groups").replaceChildren(...data.shown.map(groupItem), ...more);
    const shown = data.groups > data.shown.length ? `; the largest ${data.shown.length} are shown` : "";
    const changed = data.current ? "" : "; the collection has changed since, and is being compared again";
    if (changed) again = setTimeout(groups, 2000);
    say("collection", data.groups ? `${count(data.groups, "group")} of ${count(data.sentences, "sentence")} in all${shown}${changed}` : `No two sentences have a cosine of ${threshold.toFixed(2)} or more.`);
  });
}

function groupItem({ size, weakest, members }) {
  const first = members[0].text;
  const items = members.map(({ id, text }, number) => el("li", { "data-id": id }, el("p", { className: "sentence" }, text),
    el("div", { className: "actions" },
      button("Find similar", () => findSimilar(text), `Find similar: ${text}`),
      number ? button("Compare", () => compareThese(first, text), `Compare with the first: ${text}`) : null)));
  const unlisted = size > members.length ? el("p", { className: "note" }, `and ${count(size - members.length, "more", "more")}`) : null;
  return el("article", { className: "group" },
    el("header", {}, el("h3", {}, count(size, "sentence")), el("p", { className: "note" }, el("span", {}, "weakest link ", amount(weakest)), bar(weakest, "bar track"))),
    ...capped(el("ul"), items, MEMBERS, "sentences of this group"), ...(unlisted ? [unlisted] : []));
}

const showThreshold = () => { $("threshold-value").value = Number($("threshold").value).toFixed(2); };

// Views, and the address that leads back to them

function parameters(view) {
  if (view === "search") return { q: query(), k: choice("k"), mode: choice("mode"), ...filtering() };
  if (view === "compare") return { a: pair()[0], b: pair()[1] };
  return { threshold: $("threshold").value };
}

/** Write the view into the address. */
function remember(push = false) {
  const address = `#${state.view}?${new URLSearchParams(parameters(state.view))}`;
  try {
    if (address !== location.hash) history[push ? "pushState" : "replaceState"](null, "", address);
  } catch {
    // Safari allows a hundred changes in half a minute; the next one counts again.
  }
  const text = state.view === "search" ? query() : state.view[0].toUpperCase() + state.view.slice(1);
  document.title = [text, state.index?.name ?? "sparse-sts"].filter(Boolean).join(" – ");
}

function show(view, push = false) {
  state.view = view;
  for (const name of VIEWS) {
    const selected = name === view;
    const tab = $(`tab-${name}`);
    tab.setAttribute("aria-selected", String(selected));
    tab.tabIndex = selected ? 0 : -1;
    $(name).hidden = !selected;
  }
  remember(push);
}

/** Show a view as its tab does: with what it held. */
function open(view, focus) {
  show(view, true);
  if (view === "collection") groups();
  if (focus) $(`tab-${view}`).focus();
}

/** Show what the address says. */
function restore() {
  const [view, rest = ""] = location.hash.slice(1).split(/\?(.*)/s);
  const given = new URLSearchParams(rest);
  const radio = (name) => document.querySelector(`input[name="${name}"][value="${CSS.escape(given.get(name) ?? "")}"]`);
  if (view === "compare") ["a", "b"].forEach((name, number) => { $(["first", "second"][number]).value = given.get(name) ?? ""; });
  else if (view === "collection") $("threshold").value = given.get("threshold") ?? $("threshold").value;
  else {
    $("query").value = given.get("q") ?? "";
    $("where").value = $("filters").hidden ? "" : given.get("where") ?? ""; // no filter that cannot be seen
    if (given.get("where") || given.get("group_by")) $("filters").open = true;
    document.querySelectorAll("#chips input").forEach((input) => { input.checked = false; });
    ["k", "mode", "group_by"].forEach((name) => { const input = radio(name); if (input) input.checked = true; });
    if ($("filters").open) showChips();
  }
  showThreshold();
  show(VIEWS.includes(view) ? view : "search");
  ({ search, compare, collection: groups })[state.view]();
}

// Keyboard

/** Move the focus among the hits; above the first is the field. */
function moveAmongHits(event) {
  const toggles = [...document.querySelectorAll(".toggle")];
  const hit = document.activeElement.closest(".hit");
  const at = hit ? toggles.indexOf(hit.querySelector(".toggle")) : -1;
  const to = at + (event.key === "ArrowDown" ? 1 : -1);
  if ((!hit && event.target.id !== "query") || to < -1 || to >= toggles.length) return;
  event.preventDefault();
  const target = to === -1 ? $("query") : toggles[to];
  target.focus();
  (target.closest(".hit") ?? target).scrollIntoView({ block: "nearest" });
}

function onKey(event) {
  if ($("token-dialog").open || event.isComposing) return;
  const typing = event.target.matches?.("input:not([type=radio], [type=checkbox], [type=range]), textarea");
  const digit = /^Digit([123])$/.exec(event.code);
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    if (state.view !== "search") open("search");
    $("query").focus();
    $("query").select();
  } else if (event.altKey && digit) {
    event.preventDefault();
    open(VIEWS[digit[1] - 1], true);
  } else if (["ArrowDown", "ArrowUp"].includes(event.key) && state.view === "search" && !event.altKey) {
    moveAmongHits(event);
  } else if (event.key === "Escape" && state.view === "search" && event.target !== $("query")) {
    $("query").focus();
  }
}

function onTabKey(event) {
  const at = VIEWS.indexOf(state.view);
  const to = { ArrowRight: at + 1, ArrowLeft: at + VIEWS.length - 1, Home: 0, End: VIEWS.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  open(VIEWS[to % VIEWS.length], true);
}

// Start

function describe(index) {
  state.index = index;
  $("name").textContent = index.name;
  const facts = [count(index.documents, "sentence"), `model ${index.model}`, `${index.bits} bits`, index.precision];
  $("about").textContent = facts.join(" · ");
  $("version").textContent = `· sparse-sts-index ${index.version}`;
  $("threshold").min = index.lowest_threshold;
  describeFields(index.fields ?? {});
}

function listen() {
  const searchSoon = debounced(search);
  const compareSoon = debounced(compare);
  const groupsSoon = debounced(groups);
  $("query").addEventListener("input", () => searchSoon());
  $("search-form").addEventListener("change", (event) => {
    if (event.target.type === "radio") searchSoon(true);
    if (event.target.type === "checkbox") { searchSoon(true); showChips(); }
  });
  const filterSoon = debounced(() => { search(); showChips(); });
  $("where").addEventListener("input", () => filterSoon());
  $("filters").addEventListener("toggle", () => { if ($("filters").open) showChips(); });
  $("search-form").addEventListener("submit", (event) => { event.preventDefault(); searchSoon(true); });
  $("compare-form").addEventListener("input", () => compareSoon());
  $("compare-form").addEventListener("submit", (event) => event.preventDefault());
  $("threshold").addEventListener("input", () => { state.groups = GROUPS; showThreshold(); groupsSoon(); });
  $("collection-form").addEventListener("submit", (event) => event.preventDefault());
  for (const view of VIEWS) $(`tab-${view}`).addEventListener("click", () => open(view));
  document.querySelector("[role=tablist]").addEventListener("keydown", onTabKey);
  document.addEventListener("keydown", onKey);
  window.addEventListener("popstate", restore);
  $("skip").addEventListener("click", (event) => { event.preventDefault(); $("panels").focus(); });
  $("token-form").addEventListener("submit", (event) => { event.preventDefault(); $("token-dialog").close("token"); });
  $("token-cancel").addEventListener("click", () => $("token-dialog").close(""));
}

async function start() {
  listen();
  try {
    describe((await api("/v1/index", { waiting: (text) => { $("about").textContent = text; } })).data);
  } catch (error) {
    $("about").textContent = error.message;
  }
  restore();
  if (state.view === "search" && !query()) $("query").focus({ preventScroll: true });
}

start();
