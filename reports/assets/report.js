// Sorting and filtering only: the page says everything without it.
"use strict";
function reachByKeys() {
  for (const box of document.querySelectorAll(".scroll, figure.chart, pre")) {
    if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) box.tabIndex = 0; else box.removeAttribute("tabindex");
  }
}
reachByKeys();
window.addEventListener("resize", reachByKeys);
document.documentElement.classList.add("js");

function sortBy(header) {
  const table = header.closest("table"), body = table.tBodies[0], column = header.cellIndex;
  const descending = header.getAttribute("aria-sort") !== "descending";
  const number = (text) => (/^[+−-]?[\d.]/.test(text) ? parseFloat(text.replaceAll(",", "").replace("−", "-")) : NaN);
  const value = (row) => row.cells[column]?.dataset.value ?? row.cells[column]?.textContent.trim() ?? "";
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)], [m, n] = [number(x), number(y)];
    return isNaN(m) || isNaN(n) ? x.localeCompare(y) : m - n;
  };
  for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  body.append(...[...body.rows].sort((a, b) => (descending ? compare(b, a) : compare(a, b))));
}
for (const header of document.querySelectorAll(".scroll > table:not(.grid, .confusion) > thead th")) {
  if (header.textContent.trim() === "") continue;
  header.dataset.sort = "";
  header.tabIndex = 0;
  header.addEventListener("click", () => sortBy(header));
  header.addEventListener("keydown", (event) => { if (event.key === "Enter") sortBy(header); });
}

for (const form of document.querySelectorAll(".filters[data-rows]")) {
  const rows = [...document.querySelectorAll(form.dataset.rows)], count = form.querySelector("output");
  const apply = () => {
    let shown = 0;
    for (const row of rows) {
      const keep = [...form.querySelectorAll("[name]")].every((field) => {
        if (field.type === "checkbox") return !field.checked || row.dataset[field.name] === "1";
        if (field.type === "search") return row.textContent.toLowerCase().includes(field.value.trim().toLowerCase());
        return field.value === "" || row.dataset[field.name] === field.value;
      });
      row.hidden = !keep;
      shown += keep;
    }
    count.textContent = `${shown} of ${rows.length}`;
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
}
