// Sliders, panels and a table; `networks` (name to function) and `facts` (see tools/live.py) stand above.
const section = document.querySelector("section.touch");
const [W, H] = [240, facts.panels.length === 1 ? 110 : 170];
const { sliders, panels, lines, boxes = [], axis = 0, box = [-Infinity, Infinity] } = facts;
const xs = sliders[axis].values;
const ones = (facts.spread ?? []).map(() => 1);

// The numbers of a line, one for each panel, at index i of the axis and j of the other slider.
function row(line, i, j) {
  if (!line.network) return (line.fixed ?? line.frames[j])[i];
  const x = facts.spread.map((s) => xs[i] + sliders[1 - axis].values[j] * s);
  if (x.some((c) => c < box[0] - 1e-9 || c > box[1] + 1e-9)) return panels.map(() => NaN);
  const { value, gradient, curvature } = networks[line.network](x);
  const sum = (vector, by) => vector.reduce((total, number, k) => total + number * by[k], 0);
  const found = [value, sum(gradient, facts.delta ?? ones), sum(curvature[0], ones)];
  return line.minus ? found.map((number, q) => number - line.minus[i][q]) : found;
}
const show = (number, digits) => Number.isNaN(number) ? "outside"
  : digits === null ? number.toExponential(1) : number.toFixed(digits);

const sample = (k) => `<svg viewBox="0 0 34 10" style="width:34px;display:inline-block" aria-hidden="true">` +
  `<path class="c${k}" d="M0 5H34"/></svg>`;
const rows = boxes.length ? boxes : lines;
const first = boxes.length ? lines.length : 0; // colour of the first row
section.innerHTML = `<p><strong>Try it.</strong> ${facts.introduction}</p>
  <div class="panels">${panels.map(({ title }) => `<figure><svg viewBox="0 0 ${W} ${H}" role="img"
  aria-label="${title}; the table below has the numbers"></svg>
  <figcaption>${title}</figcaption></figure>`).join("")}</div>
  ${sliders.map(({ label, values, start }, k) => `<label for="touch-${k}">${label}: <output id="touch-${k}-is">
  </output></label><input id="touch-${k}" type="range" min="0" max="${values.length - 1}" value="${start}">`).join("")}
  <div class="scroll" tabindex="0" role="region" aria-label="Numbers at the sliders"><table><thead><tr><th scope="col">
  line</th>${facts.columns.map((text) => `<th scope="col" style="text-align:right">${text}</th>`).join("")}
  </tr></thead><tbody>${rows.map(({ name, colour }, k) => `<tr><th scope="row">${sample(colour ?? first + k)} ${name}</th>${
    facts.columns.map(() => "<td></td>").join("")}</tr>`).join("")}</tbody></table></div>`;

const pictures = [...section.querySelectorAll(".panels svg")];
const cells = [...section.querySelectorAll("tbody tr")].map((line) => [...line.querySelectorAll("td")]);
const inputs = [...section.querySelectorAll("input")];
const outputs = [...section.querySelectorAll("output")];
const clip = (number, most) => Math.min(Math.max(number, -50), most + 50);
const px = (x) => clip(((x - xs[0]) / (xs.at(-1) - xs[0])) * (W - 8) + 4, W);
const py = (number, q) => {
  const [low, high] = panels[q].range;
  return clip(H - 4 - ((number - low) / (high - low)) * (H - 8), H);
};

let [known, drawn] = [-1, []]; // the lines, while the slider that is not the axis rests
function draw() {
  const at = inputs.map((input) => Number(input.value));
  const [i, j] = [at[axis], at[1 - axis]];
  sliders.forEach(({ values, digits }, k) => { outputs[k].textContent = values[at[k]].toFixed(digits); });
  if (j !== known) [known, drawn] = [j, lines.map((line) => xs.map((_, n) => row(line, n, j)))];
  const half = boxes.length ? sliders[1 - axis].values[j] : 0;
  pictures.forEach((picture, q) => {
    picture.innerHTML = `<path class="axis" d="M4 ${py(0, q).toFixed(1)}H${W - 4}M${px(xs[i]).toFixed(1)} 4V${H - 4}"/>` +
      drawn.map((line, k) => `<path class="c${lines[k].colour ?? k}" d="M${line.map((numbers, n) => [px(xs[n]), py(numbers[q], q)])
        .filter((point) => !point.some(Number.isNaN)).map((point) => point.map((c) => c.toFixed(1)).join(" "))
        .join("L")}"/>`).join("") +
      boxes.map(({ ranges }, k) => {
        const [[left, right], [low, high]] = [[px(xs[i] - half), px(xs[i] + half)], ranges[i][j]];
        return `<path class="c${first + k}" d="M${left} ${py(low, q)}H${right}V${py(high, q)}H${left}Z"/>`;
      }).join("");
  });
  rows.forEach((what, k) => {
    const range = what.ranges?.[i][j];
    (range ? [...range, range[1] - range[0]] : drawn[k][i]).forEach((number, q) => {
      cells[k][q].dataset.value = number;
      cells[k][q].textContent = show(number, panels[range ? 0 : q].digits);
    });
  });
}

let waiting = false;
const ask = () => {
  if (!waiting) requestAnimationFrame(() => { waiting = false; draw(); });
  waiting = true;
};
inputs.forEach((input) => input.addEventListener("input", ask));
const drag = (event) => { // a finger or the mouse on a panel moves the slider of its axis
  if (!event.buttons) return;
  const { left, width } = event.currentTarget.getBoundingClientRect();
  const x = xs[0] + (((event.clientX - left) * W) / width - 4) / (W - 8) * (xs.at(-1) - xs[0]);
  inputs[axis].value = xs.reduce((best, value, n) => (Math.abs(value - x) < Math.abs(xs[best] - x) ? n : best), 0);
  ask();
};
pictures.forEach((picture) => ["pointerdown", "pointermove"].forEach((kind) => picture.addEventListener(kind, drag)));
draw();
section.hidden = false;
