"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const key = (row) => {
      const cell = row.cells[column];
      const text = cell.dataset.value ?? cell.textContent.trim().replace("−", "-").replaceAll(",", "");
      const number = text === "" ? NaN : Number(text);
      return Number.isNaN(number) ? cell.textContent.trim() : number;
    };
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        const numbers = typeof x === "number" && typeof y === "number";
        return (up ? 1 : -1) * (numbers ? x - y : String(x).localeCompare(String(y)));
      });
      table.tBodies[0].append(...rows);
    });
  });
}
for (const plot of document.querySelectorAll(".plot")) {
  const svg = plot.querySelector("svg"), output = plot.querySelector("output"), whole = svg.getAttribute("viewBox");
  for (const circle of svg.querySelectorAll("circle")) {
    circle.addEventListener("pointerenter", () => { output.textContent = circle.textContent; });
  }
  svg.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;  // without it the wheel scrolls the page; pinching sends it
    event.preventDefault();
    const box = svg.viewBox.baseVal, area = svg.getBoundingClientRect(), full = whole.split(" ").map(Number);
    const factor = Math.min(Math.exp(event.deltaY / 400), full[2] / box.width);
    const u = (event.clientX - area.left) / area.width, v = (event.clientY - area.top) / area.height;
    box.x += u * box.width * (1 - factor);
    box.y += v * box.height * (1 - factor);
    box.width *= factor;
    box.height *= factor;
    const radius = 3 * box.width / full[2];
    svg.querySelectorAll("circle").forEach((circle) => circle.setAttribute("r", radius));
  }, { passive: false });
  svg.addEventListener("dblclick", () => {
    svg.setAttribute("viewBox", whole);
    svg.querySelectorAll("circle").forEach((circle) => circle.setAttribute("r", 3));
  });
}
