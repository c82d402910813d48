"use strict";
// The list of traced inputs. All text goes in by textContent: nothing that comes from data is read as HTML.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const suspicious = new Set(data.suspicious);
  const AT_ONCE = 20;
  const BARS = 5;

  const all = byId("all-suspicious");
  if (all) {
    all.addEventListener("click", () => {
      document.querySelectorAll(".suspicious .later").forEach((item) => item.classList.remove("later"));
      all.remove();
    });
  }

  const form = byId("filters");
  if (!form) return;
  const list = byId("list");
  const more = byId("more");
  let found = [];
  let shown = 0;

  const make = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const named = (label) => {
    const name = data.names[label];
    return name === undefined || name === String(label) ? String(label) : `${name} (${label})`;
  };
  const truth = (ok) => (ok === null ? "unknown" : ok ? "right" : "wrong");

  function client([id, score, responsible], first) {
    const row = make("li", first ? "traced" : "");
    const name = make("span", "client", `${id}${responsible ? " ●" : ""}`);
    if (responsible) name.title = `client ${id} ${data.words}`;
    const bar = make("span", "score");
    const fill = make("i");
    fill.style.setProperty("--score", score === null ? 0 : score);
    bar.append(fill);
    row.append(name, bar, make("span", "value", score === null ? "–" : score.toFixed(3)));
    return row;
  }

  function clients(row) {
    const box = make("div", "clients");
    const top = make("ol");
    row.k.slice(0, BARS).forEach((each, place) => top.append(client(each, place === 0)));
    box.append(top);
    const rest = row.k.slice(BARS);
    if (rest.length) {
      const details = make("details");
      const unlisted = row.n - row.k.length;
      details.append(make("summary", "", `${rest.length} more${unlisted ? `, and ${unlisted} not listed` : ""}`));
      const further = make("ol");
      rest.forEach((each) => further.append(client(each, false)));
      details.append(further);
      box.append(details);
    }
    return box;
  }

  function facts(row) {
    const box = make("div", "facts");
    const head = make("p", "where", `round ${row.r}, input ${row.i}`);
    if (suspicious.has(row.r)) head.append(" ", make("span", "flag", "⚑ suspicious round"));
    const right = row.l === row.p;
    const classes = make("p", "classes");
    if (right) classes.append("label and prediction ", make("b", "", named(row.l)));
    else classes.append("label ", make("b", "", named(row.l)), ", predicted ", make("b", "", named(row.p)));
    const chips = make("p", "chips");
    chips.append(make("span", `chip ${right ? "right" : "wrong"}`, right ? "prediction right" : "prediction wrong"));
    const ok = truth(row.ok);
    const chance = row.c === null ? "" : ` (chance ${(100 * row.c).toFixed(0)} %)`;
    chips.append(make("span", `chip ${ok}`, `localization ${ok === "unknown" ? "not known" : ok}${chance}`));
    box.append(head, classes, chips);
    if (row.first !== null) box.append(make("p", "aside", `the first client that ${data.words} is number ${row.first}`));
    if (row.x !== null && row.x !== row.k[0][0]) box.append(make("p", "aside", `by exact removal: client ${row.x}`));
    return box;
  }

  function picture(row) {
    const held = data.shown[row.i];
    if (held === undefined) return make("div", "missing", data.pictures ? "picture left out" : "text left out");
    if (!data.pictures) return make("blockquote", "", held || "(no words)");
    const image = make("img");
    image.src = held;
    image.alt = `input ${row.i}`;
    return image;
  }

  function entry(row) {
    const item = make("li", data.pictures ? "input" : "input text");
    item.append(picture(row), facts(row), clients(row));
    return item;
  }

  function showMore() {
    const part = document.createDocumentFragment();
    found.slice(shown, shown + AT_ONCE).forEach((row) => part.append(entry(row)));
    list.append(part);
    shown = Math.min(shown + AT_ONCE, found.length);
    more.hidden = shown === found.length;
    more.textContent = `show ${Math.min(AT_ONCE, found.length - shown)} more`;
    byId("count").textContent = `${shown} shown of ${found.length} that match, of ${data.rows.length}`;
  }

  function filter() {
    const value = (name) => form.elements[name].value;
    const round = value("round");
    const label = value("class");
    const prediction = value("prediction");
    const localization = value("localization");
    const only = form.elements.suspicious.checked;
    found = data.rows.filter(
      (row) =>
        (!round || row.r === Number(round)) &&
        (!label || row.l === Number(label) || row.p === Number(label)) &&
        (!prediction || (row.l === row.p) === (prediction === "right")) &&
        (!localization || truth(row.ok) === localization) &&
        (!only || suspicious.has(row.r)),
    );
    list.replaceChildren();
    shown = 0;
    showMore();
  }

  form.addEventListener("change", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  more.addEventListener("click", showMore);
  document.querySelectorAll("button[data-round]").forEach((button) =>
    button.addEventListener("click", () => {
      form.reset();
      form.elements.round.value = button.dataset.round;
      filter();
      byId("inputs").scrollIntoView();
    }),
  );
  filter();
})();
