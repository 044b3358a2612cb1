"use strict";
// Molecules that can be turned. Without a script, and on paper, the picture inside is shown.
for (const holder of document.querySelectorAll(".turning")) {
  const scene = JSON.parse(holder.dataset.scene), picture = holder.querySelector("img");
  const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches || scene.kind !== "motion";
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", picture.alt + ". Drag, or use the arrow keys, to turn it.");
  holder.append(canvas);
  holder.classList.add("drawn-by-script");
  let turn = [[1, 0, 0], [0, 1, 0], [0, 0, 1]], visible = false, waiting = false;

  const times = (m, v) => m.map((row) => row[0] * v[0] + row[1] * v[1] + row[2] * v[2]);
  const rotate = (right, up) => {  // radians, around the axes of the screen
    const [c, s, d, t] = [Math.cos(right), Math.sin(right), Math.cos(up), Math.sin(up)];
    const step = [[c, 0, s], [t * s, d, -t * c], [-d * s, t, d * c]];
    const columns = [0, 1, 2].map((k) => times(step, turn.map((row) => row[k])));
    turn = [0, 1, 2].map((i) => columns.map((column) => column[i]));
    ask();
  };
  const ask = () => {
    if (!waiting) { waiting = true; requestAnimationFrame(draw); }
  };

  const draw = (time) => {
    waiting = false;
    const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const scale = Math.min(width, height) / (2 * scene.extent), phase = still ? 0 : Math.sin(time * 2 * Math.PI / 1200);
    const places = scene.atoms.map((atom, k) => {
      const move = scene.kind === "motion" ? scene.moves[k] : [0, 0, 0];
      return times(turn, atom.slice(0, 3).map((x, axis) => x + phase * move[axis]));
    });
    const onScreen = ([x, y]) => [width / 2 + scale * x, height / 2 - scale * y];
    const shapes = scene.bonds.map(([i, j]) => {  // from surface to surface
      const along = [0, 1, 2].map((axis) => places[j][axis] - places[i][axis]), length = Math.hypot(...along) || 1;
      const start = places[i].map((x, axis) => x + along[axis] * scene.atoms[i][3] / length);
      const end = places[j].map((x, axis) => x - along[axis] * scene.atoms[j][3] / length);
      return [(start[2] + end[2]) / 2, () => line(onScreen(start), onScreen(end), 0.16 * scale, "#8a9199")];
    });
    places.forEach((place, k) => shapes.push([place[2], () => ball(onScreen(place), scale * scene.atoms[k][3], scene.atoms[k][4])]));
    if (scene.kind === "arrows") {
      places.forEach((place, k) => {
        const move = times(turn, scene.moves[k]), length = Math.hypot(...scene.moves[k]);
        const end = place.map((x, axis) => x + move[axis]);
        if (length > 0.15) shapes.push([end[2] + 0.1, () => arrow(onScreen(place), onScreen(end), 0.07 * scale)]);
      });
    }
    shapes.sort((a, b) => a[0] - b[0]).forEach(([, shape]) => shape());
    if (!still && visible) ask();
  };
  const line = (start, end, thickness, color) => {
    pen.strokeStyle = color;
    pen.lineWidth = thickness;
    pen.lineCap = "round";
    pen.beginPath();
    pen.moveTo(...start);
    pen.lineTo(...end);
    pen.stroke();
  };
  const ball = ([x, y], radius, color) => {
    pen.fillStyle = color;
    pen.strokeStyle = "#1c2126";
    pen.lineWidth = 0.8;
    pen.beginPath();
    pen.arc(x, y, radius, 0, 2 * Math.PI);
    pen.fill();
    pen.stroke();
  };
  const arrow = (start, end, thickness) => {
    const [dx, dy] = [end[0] - start[0], end[1] - start[1]], length = Math.hypot(dx, dy) || 1;
    const [ux, uy] = [dx / length, dy / length], head = Math.min(3.5 * thickness, length);
    line(start, [end[0] - head * ux, end[1] - head * uy], thickness, scene.color);
    pen.fillStyle = scene.color;
    pen.beginPath();
    pen.moveTo(...end);
    pen.lineTo(end[0] - head * ux - 0.5 * head * uy, end[1] - head * uy + 0.5 * head * ux);
    pen.lineTo(end[0] - head * ux + 0.5 * head * uy, end[1] - head * uy - 0.5 * head * ux);
    pen.fill();
  };

  canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons) rotate(event.movementX / 90, event.movementY / 90);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-0.2, 0], ArrowRight: [0.2, 0], ArrowUp: [0, -0.2], ArrowDown: [0, 0.2] }[event.key];
    if (!step) return;
    event.preventDefault();
    rotate(...step);
  });
  new IntersectionObserver(([entry]) => { visible = entry.isIntersecting; ask(); }).observe(canvas);
  new ResizeObserver(ask).observe(canvas);
}
