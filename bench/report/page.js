"use strict";
const method = document.getElementById("method"), data = document.getElementById("data");
function filter() {
  const shown = [method.value, method.value.split(/[+@]/)[0]];  // a variant keeps its baseline
  for (const part of document.querySelectorAll("[data-method]")) {
    const named = part.dataset.method.split(" ");
    part.classList.toggle("off", method.value !== "" && !named.some(name => shown.includes(name)));
  }
  for (const part of document.querySelectorAll("[data-data]"))
    part.classList.toggle("off", data.value !== "" && part.dataset.data !== data.value);
}
method.addEventListener("change", filter);
data.addEventListener("change", filter);
function unfold() {  // a link to a closed part opens it
  const part = location.hash && document.getElementById(location.hash.slice(1));
  for (let box = part; box; box = box.parentElement) if (box.tagName === "DETAILS") box.open = true;
  if (part) part.scrollIntoView();
}
window.addEventListener("hashchange", unfold);
unfold();
const UNITS = {d: 86400, h: 3600, min: 60, s: 1, ms: .001, E: 1e18, P: 1e15, T: 1e12, G: 1e9, M: 1e6, k: 1e3};
function value(row, column) {
  const text = row.cells[column].textContent;
  const found = text.match(/^[^\d+-]{0,12}([+-]?\d[\d.]*(?:e[+-]?\d+)?)\s*(d|h|min|ms|s|E|P|T|G|M|k)?(?![\w.])/);
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
