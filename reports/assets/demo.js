// Asks the playground's server, and shows its two pictures or its one line.
"use strict";
const form = document.getElementById("ask"), most = Number(form.dataset.most), uploads = new Map();
const byId = (id) => document.getElementById(id);
const panels = [...form.querySelectorAll(".subject")];
const PROMPTS = ["a {subject} on a blue background", "a {subject_1} next to a {subject_2}"];

function say(line) { byId("wrong").textContent = line; }

function preview(panel, address) {
  const image = panel.querySelector(".preview"), none = panel.querySelector(".missing");
  image.hidden = !address;
  none.hidden = Boolean(address);
  none.textContent = uploads.has(panel) ? "a card" : "no picture";
  if (address) image.src = address;
}

function choose(panel) {
  const option = panel.querySelector("[name=suite]").selectedOptions[0], words = panel.querySelector("[name=words]");
  if (option.value) {
    uploads.delete(panel);
    panel.querySelector("[name=file]").value = "";
    words.value = option.dataset.words;
    preview(panel, option.dataset.picture);
  } else preview(panel, uploads.get(panel)?.shown);
}

function upload(panel) {
  const file = panel.querySelector("[name=file]").files[0];
  if (!file) return;
  say("");
  if (file.size > most * 2 ** 20) { say(`${file.name} is larger than ${most} MB; make it smaller`); return; }
  const reader = new FileReader(), kind = file.name.endsWith(".safetensors") ? "card" : "picture";
  reader.onerror = () => say(`${file.name} cannot be read`);
  reader.onload = () => {
    uploads.set(panel, { [kind]: reader.result.slice(reader.result.indexOf(",") + 1), shown: kind === "card" ? "" : reader.result });
    panel.querySelector("[name=suite]").value = "";
    if (kind === "card") panel.querySelector("[name=words]").value = "";
    choose(panel);
  };
  reader.readAsDataURL(file);
}

function subjectOf(panel) {
  const { shown, ...content } = uploads.get(panel) ?? {}, of = (name) => panel.querySelector(`[name=${name}]`).value;
  return { suite: of("suite"), words: of("words"), alpha: of("alpha"), ...content };
}

function asked(of) {
  const data = new FormData(form);
  return JSON.stringify({
    subjects: of.map(subjectOf), prompt: data.get("prompt"), steps: data.get("steps"), guidance: data.get("guidance"),
    seed: data.get("seed"), fast: data.get("fast") === "on",
  });
}

async function ask(path, body) {
  const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body });
  if (answer.ok) return answer;
  throw new Error((await answer.json()).error);
}

async function working(of, does) {
  const buttons = form.querySelectorAll("button");
  say("");
  byId("state").textContent = of;
  for (const button of buttons) button.disabled = true;
  try {
    await does();
  } catch (error) {
    say(error instanceof TypeError ? "the server does not answer; is its command still running?" : error.message);
  } finally {
    byId("state").textContent = "";
    for (const button of buttons) button.disabled = false;
  }
}

function draw() {
  return working("drawing ...", async () => {
    const told = await (await ask("/draw", asked(panels.filter((panel) => !panel.disabled)))).json();
    ["plain", "umm"].forEach((name, n) => {
      byId(name).src = told[name];
      byId(name).alt = `${name === "umm" ? "UMM" : "plain SD"}: ${told.prompt}`;
      byId(name).closest("figure").querySelector("span").textContent = `“${told.prompt}”, ${told.seconds[n].toFixed(1)} s`;
    });
    byId("drawn").hidden = false;
  });
}

function save(panel) {
  return working("making the card ...", async () => {
    const answer = await ask("/card", asked([panel])), link = document.createElement("a");
    link.href = URL.createObjectURL(await answer.blob());
    link.download = decodeURIComponent(answer.headers.get("X-File-Name"));
    link.click();
    URL.revokeObjectURL(link.href);
  });
}

for (const panel of panels) {
  panel.querySelector("[name=suite]").addEventListener("change", () => choose(panel));
  panel.querySelector("[name=file]").addEventListener("change", () => upload(panel));
  panel.querySelector(".save").addEventListener("click", () => save(panel));
  choose(panel);
}
for (const range of form.querySelectorAll("[type=range]"))
  range.addEventListener("input", () => { range.closest("label").querySelector("output").textContent = range.value; });
byId("two").addEventListener("change", (event) => {
  const both = event.target.checked, prompt = form.elements.prompt;
  panels[1].hidden = panels[1].disabled = !both;
  if (PROMPTS.includes(prompt.value)) prompt.value = PROMPTS[Number(both)];
});
byId("again").addEventListener("click", () => { form.elements.seed.value = Number(form.elements.seed.value) + 1; draw(); });
form.addEventListener("submit", (event) => { event.preventDefault(); draw(); });
