
"use strict";
const held = JSON.parse(document.getElementById("held").textContent);
const form = document.getElementById("filters");
const ON_PAGE = 12;
const SECTIONS = new Set([...document.querySelectorAll("section")].map((section) => section.id));
/* Places of the queries, those with pictures first. */
const ORDER = [...held.queries.keys()].sort((one, other) => (other in held.pictures) - (one in held.pictures));
const texts = held.captions.map((caption) => caption.text.toLowerCase());

function made(tag, text, name) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
}

function named(places) {
  return places.map((place) => held.classes[place]).join(", ");
}

/* A caption as text and spans: red where a phrase names a removed class, else green where it names a kept one. Phrases
   count characters, of which a string of this language has two for an emoji. */
function coloured(caption, query) {
  const line = made("li");
  const letters = Array.from(caption.text);
  const part = (start, end) => letters.slice(start, end).join("");
  let at = 0;
  for (const [start, end, classes] of caption.phrases) {
    const mark = classes.some((place) => query.removed.includes(place)) ? "wrong"
      : classes.some((place) => query.kept.includes(place)) ? "right" : "";
    if (!mark || start < at) continue;
    line.append(part(at, start), made("span", part(start, end), mark));
    at = end;
  }
  line.append(part(at));
  return line;
}

function picture(source, text) {
  const figure = made("figure");
  const image = made("img");
  image.src = source;
  image.alt = text;
  figure.append(image, made("figcaption", text));
  return figure;
}

function card(place) {
  const query = held.queries[place];
  const article = made("article");
  const heading = made("p");
  heading.append(made("span", held.states[query.state], "state"), "without ",
    made("span", named(query.removed), "wrong"), " with ", made("span", named(query.kept) || "nothing", "right"));
  const body = made("div", undefined, "body");
  const found = held.pictures[place];
  if (found) {
    const images = made("div", undefined, "images");
    images.append(picture(found[0], `query ${query.id}`), picture(found[1], `source ${query.source}`));
    body.append(images);
  } else {
    heading.append(made("small", ` (query ${query.id}, source ${query.source})`));
  }
  query.captions.forEach((captions, run) => {
    const list = made("div", undefined, "list");
    const lines = made("ol");
    lines.append(...captions.map((caption) => coloured(held.captions[caption], query)));
    list.append(made("h3", `${held.runs[run]}: ODmAP@1 ${query.scores[run]}`), lines);
    body.append(list);
  });
  article.append(heading, body);
  return article;
}

function matches(query, place, wanted) {
  if (wanted.class && !query.removed.some((index) => held.classes[index] === wanted.class)) return false;
  if (wanted.state && held.states[query.state] !== wanted.state) return false;
  if (wanted.pictures && !(place in held.pictures)) return false;
  if (!wanted.search) return true;
  const own = `${query.id} ${query.source} ${named(query.removed)} ${named(query.kept)}`.toLowerCase();
  return own.includes(wanted.search)
    || query.captions.some((captions) => captions.some((caption) => texts[caption].includes(wanted.search)));
}

/* What is shown is in the fragment of the address, such as #class=dog&state=fixed&page=2, so that it can be linked. */
function wanted() {
  const given = new URLSearchParams(location.hash.slice(1));
  const get = (name) => given.get(name) || "";
  return { class: get("class"), state: get("state"), search: get("search").toLowerCase(),
           pictures: get("pictures"), page: Math.max(1, parseInt(get("page"), 10) || 1) };
}

function show() {
  const what = wanted();
  form.elements.class.value = what.class;
  form.elements.state.value = what.state;
  form.elements.pictures.checked = Boolean(what.pictures);
  if (document.activeElement !== form.elements.search) form.elements.search.value = what.search;
  const found = ORDER.filter((place) => matches(held.queries[place], place, what));
  const pages = Math.max(1, Math.ceil(found.length / ON_PAGE));
  const page = Math.min(what.page, pages);
  document.getElementById("cards").replaceChildren(
    ...found.slice((page - 1) * ON_PAGE, page * ON_PAGE).map((place) => card(place)));
  document.getElementById("count").textContent =
    `${found.length} of ${held.queries.length} queries, page ${page} of ${pages}`;
  for (const button of document.querySelectorAll("[data-step]")) {
    const target = page + Number(button.dataset.step);
    button.disabled = target < 1 || target > pages;
    button.dataset.target = target;
  }
}

function go(page) {
  const given = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value) given.set(name, value);
  if (page > 1) given.set("page", page);
  history.replaceState(null, "", `#${given}`);  // where the browser does not scroll
  show();
}

function choices(name, values) {
  for (const value of values) {
    const option = made("option", value);
    option.value = value;
    form.elements[name].append(option);
  }
}

const removed = new Set(held.queries.flatMap((query) => query.removed));
choices("class", held.classes.filter((_, place) => removed.has(place)).sort());
choices("state", held.states);
form.addEventListener("input", () => go(1));
form.addEventListener("submit", (event) => event.preventDefault());
for (const button of document.querySelectorAll("[data-step]")) {
  button.addEventListener("click", () => go(Number(button.dataset.target)));
}
/* The address may also name a section, which leaves what is shown as it is. */
window.addEventListener("hashchange", () => SECTIONS.has(location.hash.slice(1)) || show());
show();
