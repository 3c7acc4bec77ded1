"use strict";
const PAGE = 48, all = JSON.parse(document.getElementById("data").textContent);
const get = id => document.getElementById(id);
let page = 0;
for (const concept of [...new Set(all.map(p => p.concept))].sort())
  get("concept").append(new Option(concept, concept));
// Captions are strangers' text: they go in as text nodes, never as markup.
const element = (tag, name, ...children) => {
  const made = document.createElement(tag);
  made.className = name;
  made.append(...children);
  return made;
};
function figure(p) {
  const image = new Image();
  image.alt = "";
  image.src = "data:image/jpeg;base64," + p.picture;
  const box = element("div", "box");
  ["left", "top", "width", "height"].forEach((side, i) => { box.style[side] = p.box[i] + "%"; });
  const about = element("div", "dim", `${p.concept} · ${p.score.toFixed(2)} · ${p.key}`);
  return element("figure", "", element("div", "image", image, box),
    element("figcaption", "", p.before, element("mark", "", p.phrase), p.after, about));
}
function draw() {
  const words = get("words").value.toLowerCase(), concept = get("concept").value;
  const least = Number(get("least").value), order = Number(get("order").value);
  let shown = all.filter(p => p.score >= least && (!concept || p.concept === concept)
    && (p.before + p.phrase + p.after).toLowerCase().includes(words));
  if (order) shown = [...shown].sort((a, b) => order * (b.score - a.score));
  const pages = Math.max(1, Math.ceil(shown.length / PAGE));
  page = Math.min(Math.max(page, 0), pages - 1);
  get("value").textContent = least.toFixed(2);
  get("where").textContent = `page ${page + 1} of ${pages}, ${shown.length} pairs`;
  get("pairs").replaceChildren(...shown.slice(page * PAGE, (page + 1) * PAGE).map(figure));
}
for (const id of ["words", "concept", "least", "order"])
  get(id).addEventListener("input", () => { page = 0; draw(); });
get("back").addEventListener("click", () => { page -= 1; draw(); });
get("next").addEventListener("click", () => { page += 1; draw(); });
draw();
