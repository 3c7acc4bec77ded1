// One pair after another; the answers go into a file that the voter saves.
"use strict";
const answers = new Map(), byId = (id) => document.getElementById(id);
const sides = [...document.querySelectorAll(".sides button")], questions = BALLOT.questions;
let at = 0, since = performance.now(), saved = true;

function show() {
  const question = questions[Math.min(at, questions.length - 1)], done = at >= questions.length;
  byId("progress").value = answers.size;
  byId("where").textContent = done ? "All are answered. Thank you." : `${at + 1} of ${questions.length}`;
  byId("prompt").textContent = question.prompt;
  byId("references").replaceChildren(...question.references.map((number, n) => {
    const image = new Image();
    image.src = BALLOT.pictures[number];
    image.alt = question.references.length > 1 ? `subject ${n + 1}` : "the subject";
    return image;
  }));
  for (const side of sides) {
    side.querySelector("img").src = BALLOT.pictures[question[side.dataset.answer]];
    side.classList.toggle("chosen", answers.get(question.pair)?.answer === side.dataset.answer);
  }
  byId("back").disabled = at === 0;
  byId("download").disabled = answers.size === 0;
  since = performance.now();
}

function choose(answer) {
  if (at >= questions.length) return;
  const seconds = Math.round((performance.now() - since) / 100) / 10;
  answers.set(questions[at].pair, { pair: questions[at].pair, answer, seconds });
  saved = false;
  at += 1;
  show();
  if (at >= questions.length) byId("voter").focus();
}

function back() {
  at = Math.max(0, at - 1);
  show();
}

function download() {
  const random = () => [...crypto.getRandomValues(new Uint8Array(6))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const voter = byId("voter").value.trim() || `voter-${random()}`;
  byId("voter").value = voter;
  const text = JSON.stringify({ ballot: BALLOT.ballot, voter, answers: [...answers.values()] }, null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = `votes-${BALLOT.ballot}-${voter.replace(/[^A-Za-z0-9]+/g, "-").slice(0, 40)}.json`;
  link.click();
  URL.revokeObjectURL(link.href);
  saved = true;
  byId("state").textContent = `${answers.size} of ${questions.length} answers are in ${link.download}`;
}

for (const button of document.querySelectorAll("[data-answer]")) button.addEventListener("click", () => choose(button.dataset.answer));
byId("back").addEventListener("click", back);
byId("download").addEventListener("click", download);
window.addEventListener("beforeunload", (event) => { if (!saved) event.preventDefault(); });
document.addEventListener("keydown", (event) => {
  if (event.target.tagName === "INPUT" || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const answer = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie" }[event.key];
  if (answer) choose(answer);
  else if (event.key === "Backspace") back();
  else return;
  event.preventDefault();
});
show();
