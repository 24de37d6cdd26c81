// Two sliders, three curves and a table; `networks` (name to function) and `facts` stand above.
const section = document.querySelector("section.touch");
const [W, H] = [240, 170];
const names = ["exact", ...Object.keys(networks)];
const titles = ["price", "delta, all assets together", "gamma, all assets together"];
const { levels, spread, exact } = facts;

const at = (level, by) => spread.map((s) => level + by * s);
const run = (name, level, by) => {
  const { value, gradient, curvature } = networks[name](at(level, by));
  const sum = (row) => row.reduce((total, number) => total + number, 0);
  return [value, sum(gradient), sum(curvature[0])];
};

const sample = (k) => `<svg viewBox="0 0 34 10" style="width:34px;display:inline-block" aria-hidden="true">` +
  `<path class="c${k}" d="M0 5H34"/></svg>`;
const slider = (id, text, most, value) => `<label for="touch-${id}">${text}: <output id="touch-${id}-is"></output>` +
  `</label><input id="touch-${id}" type="range" min="${id === "level" ? 0 : -most}" max="${most}" value="${value}">`;
section.innerHTML = `<p><strong>Try it.</strong> These are the chapter's networks, running in this page. The exact price
  depends on the basket alone, so the second slider must not change anything.</p>
  <div class="panels">${titles.map((title) => `<figure><svg viewBox="0 0 ${W} ${H}" role="img"
  aria-label="${title} against the level of the basket; the table below has the numbers"></svg>
  <figcaption>${title}</figcaption></figure>`).join("")}</div>
  ${slider("level", "Level of the basket", levels.length - 1, 70)}
  ${slider("spread", "Third asset up, seventh down, the basket unchanged", 40, 0)}
  <div class="scroll" tabindex="0" role="region" aria-label="Numbers at the sliders"><table><thead><tr><th scope="col">
  network</th>${["price", "delta", "gamma"].map((t) => `<th scope="col" style="text-align:right">${t}</th>`).join("")}
  </tr></thead><tbody>${names.map((name, k) => `<tr><th scope="row">${sample(k)} ${name}</th><td></td><td></td><td></td>
  </tr>`).join("")}</tbody></table></div>`;

const panels = [...section.querySelectorAll(".panels svg")];
const cells = [...section.querySelectorAll("tbody tr")].map((row) => [...row.querySelectorAll("td")]);
const inputs = ["level", "spread"].map((id) => section.querySelector(`#touch-${id}`));
const outputs = ["level", "spread"].map((id) => section.querySelector(`#touch-${id}-is`));
const ranges = titles.map((_, q) => {
  const column = exact.map((row) => row[q]);
  const [low, high] = [Math.min(...column), Math.max(...column)];
  return [low - 0.15 * (high - low), high + 0.15 * (high - low)];
});
const px = (index) => (index / (levels.length - 1)) * (W - 8) + 4;
const py = (number, q) => {
  const [low, high] = ranges[q];
  return Math.min(Math.max(H - 4 - ((number - low) / (high - low)) * (H - 8), -50), H + 50);
};

function draw() {
  const [index, by] = [Number(inputs[0].value), Number(inputs[1].value) / 100];
  outputs[0].textContent = levels[index].toFixed(3);
  outputs[1].textContent = by.toFixed(2);
  const rows = names.map((name, k) => (k === 0 ? exact : levels.map((level) => run(name, level, by))));
  panels.forEach((panel, q) => {
    const zero = py(0, q).toFixed(1);
    panel.innerHTML = `<path class="axis" d="M4 ${zero}H${W - 4}M${px(index).toFixed(1)} 4V${H - 4}"/>` +
      rows.map((row, k) => `<path class="c${k}" d="M${row.map((numbers, i) =>
        `${px(i).toFixed(1)} ${py(numbers[q], q).toFixed(1)}`).join("L")}"/>`).join("");
  });
  rows.forEach((row, k) => cells[k].forEach((cell, q) => {
    cell.dataset.value = row[index][q];
    cell.textContent = row[index][q].toFixed(q === 2 ? 3 : 4);
  }));
}

let waiting = false;
const ask = () => {
  if (!waiting) requestAnimationFrame(() => { waiting = false; draw(); });
  waiting = true;
};
inputs.forEach((input) => input.addEventListener("input", ask));
draw();
section.hidden = false;
