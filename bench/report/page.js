"use strict";
const method = document.getElementById("method"), data = document.getElementById("data");
function filter() {
  const shown = [method.value, method.value.split(/[+@]/)[0]];  // a variant keeps its baseline
  for (const row of document.querySelectorAll("tr[data-method]"))
    row.hidden = method.value !== "" && !shown.includes(row.dataset.method);
  for (const section of document.querySelectorAll("section[data-data]"))
    section.hidden = data.value !== "" && section.dataset.data !== data.value;
}
method.addEventListener("change", filter);
data.addEventListener("change", filter);
const UNITS = {d: 86400, h: 3600, min: 60, s: 1};
function value(row, column) {
  const text = row.cells[column].textContent;
  const found = text.match(/^[^\d+-]{0,12}([+-]?\d[\d.]*(?:e[+-]?\d+)?)\s*(d|h|min|s)?\b/);
  return found ? parseFloat(found[1]) * (UNITS[found[2]] || 1) : text;
}
function order(a, b) {
  if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b);
  return typeof a === "number" ? -1 : 1;
}
for (const head of document.querySelectorAll("th")) head.addEventListener("click", () => {
  const down = head.getAttribute("aria-sort") === "ascending", column = head.cellIndex;
  const body = head.closest("table").tBodies[0], rows = [...body.rows];
  rows.sort((a, b) => order(value(a, column), value(b, column)) * (down ? -1 : 1));
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.append(...rows);
});
