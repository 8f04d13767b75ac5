"use strict";

// With this script, details are hidden until a row is opened; without it they are all visible.
document.documentElement.classList.add("scripted");

function opens(button) {
  const detail = document.getElementById(button.getAttribute("aria-controls"));
  button.setAttribute("aria-expanded", "false");
  button.addEventListener("click", () => {
    button.setAttribute("aria-expanded", String(detail.classList.toggle("open")));
  });
}

// Each row is a tbody, so that its details move with it. Cells without a number stay last.
function key(body, column, isNumber) {
  const cell = body.rows[0].cells[column];
  const text = cell.dataset.value ?? cell.textContent.trim();
  if (!isNumber) return text || null;
  const number = parseFloat(text);
  return Number.isNaN(number) ? null : number;
}

function compare(a, b) {
  return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
}

function sort(table, original, head) {
  const next = { none: "ascending", ascending: "descending", descending: "none" };
  const order = next[head.getAttribute("aria-sort")];
  for (const other of table.tHead.querySelectorAll("th[aria-sort]")) {
    other.setAttribute("aria-sort", other === head ? order : "none");
  }
  const column = Number(head.dataset.column);
  const keyed = original.map((body) => [key(body, column, "number" in head.dataset), body]);
  if (order !== "none") {
    const sign = order === "ascending" ? 1 : -1;
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * compare(a, b);
    });
  }
  for (const [, body] of keyed) table.insertBefore(body, table.tFoot);
}

function sorts(table) {
  const original = [...table.tBodies];
  for (const head of table.tHead.querySelectorAll("th[aria-sort]")) {
    head.querySelector("button").addEventListener("click", () => sort(table, original, head));
  }
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("button.opens").forEach(opens);
  document.querySelectorAll("table.sortable").forEach(sorts);
});
