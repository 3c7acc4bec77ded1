// The gallery of a run. What it shows is in the address behind "#", so that a link leads to exactly this view.
// Texts of the run go into the page as text only.
"use strict";
const gallery = (() => {
  const PAGE = 40, SIMILAR = 8, CAPTION = 3;
  const FIELDS = ["subject", "class", "stratum", "kind", "method", "label", "words", "metric", "min", "max", "sort", "of", "minus", "order"];
  const rows = [], byKey = new Map(), details = new Map(), pictures = {}, asked = new Map();
  const $ = (id) => document.getElementById(id);
  let head = null, state = {}, found = [], drawn = null, opened = "";

  // Data, as the scripts beside the page give it.
  const start = (given) => { head = given; if (!head.rows) ready(); };
  function addRows(list) {
    for (const [number, promptId, kind, prompt, image, cells] of list) {
      const row = { index: rows.length, case: head.cases[number], promptId, kind: head.kinds[kind], prompt, image, cells: [] };
      row.id = row.case.map((subject) => subject.id).join(" + ");
      row.words = `${prompt} ${row.id}`.toLowerCase();
      row.cells = cells.map(([method, key, name, pixelated, label, scores]) =>
        ({ row, method, key, src: name && `images/${name}`, pixelated, label: head.labels[label], scores }));
      for (const cell of row.cells) byKey.set(cell.key, cell);
      rows.push(row);
    }
    if (rows.length === head.rows) ready();
  }
  function addDetails(number, given) { details.set(number, given); asked.get(number)?.(); }
  function detailsOf(cell) {
    const number = Math.floor(cell.row.index / head.perDetail);
    if (details.has(number)) return Promise.resolve(details.get(number)[cell.key]);
    return new Promise((resolve) => {
      asked.set(number, () => resolve(details.get(number)[cell.key]));
      document.body.append(el("script", { src: `gallery/detail-${number}.js`, onerror: () => resolve(null) }));
    });
  }

  // What to show.
  const metricAt = (name) => head.metrics.findIndex((metric) => metric.name === name);
  const scoreOf = (cell, at) => cell?.scores[at] ?? null;
  const failing = (cell) => cell.label !== "" && cell.label !== "right" && cell.label !== "skipped";
  function cellFits(cell) {
    if (state.method && head.methods[cell.method] !== state.method) return false;
    if (state.label === "any failure" ? !failing(cell) : state.label && cell.label !== state.label) return false;
    if (!state.metric) return true;
    const score = scoreOf(cell, metricAt(state.metric));
    return score !== null && (!state.min || score >= Number(state.min)) && (!state.max || score <= Number(state.max));
  }
  function rowFits(row) {
    const { subject, stratum, kind, words } = state, noun = state.class;
    return (!kind || row.kind === kind) && (!words || row.words.includes(words.trim().toLowerCase())) &&
      (!subject || row.case.some((each) => each.id === subject)) && (!noun || row.case.some((each) => each.noun === noun)) &&
      (!stratum || row.case.some((each) => each.stratum === stratum)) && row.cells.some(cellFits);
  }
  function sortValue(row) {
    const at = metricAt(state.sort), lower = head.metrics[at].lower;
    const of = (name) => scoreOf(row.cells.find((cell) => head.methods[cell.method] === name), at);
    const all = row.cells.filter(cellFits).map((cell) => scoreOf(cell, at)).filter((score) => score !== null);
    const value = state.of ? of(state.of) : all.length ? (lower ? Math.min : Math.max)(...all) : null;
    if (!state.minus || value === null) return value;
    const other = of(state.minus);
    return other === null ? null : value - other;
  }
  function choose() {
    found = rows.filter(rowFits);
    if (metricAt(state.sort) < 0) return;
    const sign = state.order === "up" ? 1 : -1, values = new Map(found.map((row) => [row, sortValue(row)]));
    found.sort((a, b) => {
      const [x, y] = [values.get(a), values.get(b)];
      if (x === null || y === null) return (x === null) - (y === null) || a.index - b.index;
      return sign * (x - y) || a.index - b.index;
    });
    for (const [row, value] of values) row.value = value;
  }
  const visible = (row) => row.cells.filter((cell) => !state.method || head.methods[cell.method] === state.method);
  const pages = () => Math.max(1, Math.ceil(found.length / PAGE));

  // The address. Filters take the place of the last view in the browser's history, an opened picture comes on top.
  function read() {
    const given = new URLSearchParams(location.hash.slice(1));
    state = Object.fromEntries([...FIELDS, "page", "open"].map((name) => [name, given.get(name) ?? ""]));
    for (const name of FIELDS) {
      const field = $("filters").elements[name];
      field.value = state[name];
      if (field.value !== state[name]) state[name] = field.value; // no such choice in this run
    }
  }
  function address(changes = {}) {
    const entries = Object.entries({ ...state, ...changes }).filter(([, value]) => value !== "");
    return `#${new URLSearchParams(entries)}`;
  }
  function go(changes, onTop = false) {
    const to = address(changes);
    if (to === (location.hash || "#")) return;
    if (onTop) location.hash = to; else location.replace(to);
    update(); // the event for it comes late: keys may be quicker
  }

  // The page.
  function el(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name in made && name !== "style" && name !== "list") made[name] = value; else made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }
  const short = (value, digits = 3) => (value === null || value === undefined ? "–" : String(+value.toFixed(digits)));
  const dot = (cell) => el("span", { className: `c${cell.method % 8}` }, el("span", { className: "dot" }), head.methods[cell.method]);
  const image = (src, pixelated, alt) => el("img", { src: pictures[src] ?? src, alt, loading: "lazy", className: pixelated ? "pixelated" : "" });
  function label(text) {
    const known = text.match(/right|drift|blending|dominance|swap|missing/); // "identity drift" has the colour of drift
    return text ? el("span", { className: known ? `label l-${known[0]}` : "label" }, text) : null;
  }
  function shot(cell) {
    const alt = `${head.methods[cell.method]}: ${cell.row.prompt}`;
    if (!cell.src) return el("span", { className: "missing" }, cell.label === "skipped" || cell.label === "failed to draw" ? "not drawn" : "image missing");
    return image(cell.src, cell.pixelated, alt);
  }
  function captionScores(cell) {
    const wanted = [state.sort, state.metric, "identity", "dino", "clip_t", ...head.metrics.map((metric) => metric.name)];
    const at = [...new Set(wanted.map(metricAt).filter((n) => n >= 0 && scoreOf(cell, n) !== null))].slice(0, CAPTION);
    return el("span", { className: "scores" }, ...at.flatMap((n) => [el("span", {}, head.metrics[n].title), el("span", {}, scoreOf(cell, n).toFixed(2))]));
  }
  function drawCell(cell) {
    const chosen = cellFits(cell) && (state.label || state.metric);
    const button = el("button", { type: "button", className: "open", onclick: () => go({ open: cell.key }, true) }, shot(cell));
    button.dataset.key = cell.key;
    button.setAttribute("aria-label", `${head.methods[cell.method]}, ${cell.label || "no label"}: ${cell.row.prompt}`);
    return el("figure", { className: chosen ? "shot chosen" : "shot" }, button, el("figcaption", {}, dot(cell), el("br"), label(cell.label), captionScores(cell)));
  }
  function drawRow(row) {
    const references = row.case.map((subject) => {
      const [src, pixelated] = subject.references[0] ?? [];
      return el("figure", {}, src ? image(src, pixelated, `reference of ${subject.id}`) : el("span", { className: "missing" }, "no reference"), el("figcaption", {}, subject.id));
    });
    const value = state.sort && metricAt(state.sort) >= 0 ? el("p", { className: "note value" }, `${sortWords()}: ${short(row.value)}`) : null;
    const made = el("article", { className: "row" },
      el("div", { className: "what" }, el("div", { className: "references" }, ...references),
        el("div", {}, el("p", { className: "prompt" }, row.prompt), el("span", { className: "kind" }, row.kind.replaceAll("_", " ")), value)),
      el("div", { className: "shown" }, ...visible(row).map(drawCell)));
    made.dataset.row = row.index;
    return made;
  }
  function sortWords() {
    const title = head.metrics[metricAt(state.sort)].title;
    return `${title} of ${state.of || "the best"}${state.minus ? ` minus ${state.minus}` : ""}`;
  }
  function draw() {
    choose();
    const page = Math.min(Math.max(1, Number(state.page) || 1), pages()), from = (page - 1) * PAGE;
    $("rows").replaceChildren(...found.slice(from, from + PAGE).map(drawRow));
    const cells = found.reduce((sum, row) => sum + visible(row).length, 0);
    $("count").textContent = found.length ? `${found.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows, ${cells.toLocaleString("en")} pictures`
      : rows.length ? "Nothing fits these filters." : "This run has no images yet.";
    $("where").textContent = `page ${page} of ${pages()}`;
    $("before").disabled = page === 1;
    $("after").disabled = page === pages();
    $("before").parentElement.hidden = pages() === 1;
    drawn = address({ open: "" });
  }

  // One picture, large, with everything that made it.
  async function open(cell) {
    const dialog = $("large");
    const about = await detailsOf(cell);
    if (state.open !== cell.key) return;
    dialog.replaceChildren(...largeParts(cell, about).filter(Boolean));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    dialog.querySelector(".large-picture").focus({ preventScroll: true });
  }
  function largeParts(cell, about) {
    const { row } = cell;
    const close = el("button", { type: "button", className: "close", onclick: () => $("large").close() }, "Close");
    const references = row.case.flatMap((subject, place) => subject.references.map(([src, pixelated], n) =>
      el("figure", { className: `s${place % 3}` }, image(src, pixelated, `reference ${n + 1} of ${subject.id}`), n ? null : el("figcaption", {}, subject.id))));
    return [
      el("header", {}, el("h2", { id: "large-title" }, `“${row.prompt}”`), close),
      el("p", {}, dot(cell), " ", label(cell.label), " ", el("span", { className: "kind" }, row.kind.replaceAll("_", " "))),
      el("div", { className: "large" }, el("div", {}, boxed(cell, about), boxWords(about), el("div", { className: "references" }, ...references)),
        el("div", {}, about ? scoreTable(cell, about) : el("p", {}, "What made this picture is in a file that lies no longer beside this page."), about ? made(cell, about) : null)),
      similar(cell),
    ];
  }
  function boxed(cell, about) {
    const frame = el("div", { className: "large-picture", tabIndex: -1 }, shot(cell));
    if (cell.src && about?.boxes.length) {
      const [w, h] = about.size;
      const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      for (const [name, value] of Object.entries({ viewBox: `0 0 ${w} ${h}`, "aria-hidden": "true" })) svg.setAttribute(name, value);
      for (const [metric, place, , x, y, width, height] of about.boxes) {
        const box = document.createElementNS(svg.namespaceURI, "rect");
        for (const [name, value] of Object.entries({ x: x * w, y: y * h, width: width * w, height: height * h, class: `s${place % 3}${metric === "identity" ? " truth" : ""}` })) box.setAttribute(name, value);
        svg.append(box);
      }
      frame.append(svg);
    }
    return frame;
  }
  function boxWords(about) {
    if (!about?.boxes.length) return null;
    const truth = about.boxes.some(([metric]) => metric === "identity"), seen = about.boxes.some(([metric]) => metric === "several");
    return el("p", { className: "note" }, [seen ? "Boxes: where each subject was found" : "", truth ? `${seen ? "; thin: " : "Boxes: "}where the suite's own check sees it` : ""].join(""), ".");
  }
  function scoreTable(cell, about) {
    const lines = about.scores.map(([name, subject, value, why]) => {
      const at = metricAt(name), metric = head.metrics[at] ?? { title: name, protocol: "" };
      return el("tr", {}, el("th", { className: "text", scope: "row", title: metric.protocol }, metric.title, subject && caseOf(cell).length > 1 ? el("span", { className: "range" }, subject) : null),
        el("td", {}, short(value, 4)), el("td", { className: "text wrap" }, why ?? "", el("span", { className: "range" }, metric.protocol)));
    });
    if (!lines.length) return el("p", { className: "soft" }, about.reason ?? "Not scored.");
    const header = ["Score", "Value", "Why, and by which protocol"].map((words, n) => el("th", { className: n === 1 ? "" : "text", scope: "col" }, words));
    return el("div", { className: "scroll", tabIndex: 0 }, el("table", {}, el("thead", {}, el("tr", {}, ...header)), el("tbody", {}, ...lines)));
  }
  const caseOf = (cell) => cell.row.case;
  function made(cell, about) {
    const flat = (value, name = "") => (value !== null && typeof value === "object" && !Array.isArray(value)
      ? Object.entries(value).flatMap(([key, part]) => flat(part, name ? `${name}.${key}` : key)) : [[name, value]]);
    const lines = [["seed", about.seed], ["prompt", cell.row.prompt], ["as given", about.prompt !== cell.row.prompt ? about.prompt : null],
      ["what went wrong", about.scores.length ? about.reason : null], ["seconds", short(about.seconds)], ["peak, MB", short(about.peak, 0)],
      ...flat(about.arguments), ["sample", cell.key]];
    const shown = lines.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== "–");
    return el("dl", { className: "evidence" }, ...shown.flatMap(([name, value]) => [el("dt", {}, name.replaceAll("_", " ")), el("dd", {}, String(value))]));
  }
  function similar(cell) {
    if (!failing(cell)) return null;
    const noun = caseOf(cell)[0]?.noun, alike = [];
    for (const row of rows) for (const other of row.cells) if (other !== cell && other.method === cell.method && other.label === cell.label) alike.push(other);
    if (!alike.length) return el("p", { className: "note" }, `No other picture of ${head.methods[cell.method]} fails so.`);
    const near = (other) => 2 * (caseOf(other)[0]?.noun === noun) + (other.row.kind === cell.row.kind);
    const nearest = [...alike].sort((a, b) => near(b) - near(a) || a.row.index - b.row.index).slice(0, SIMILAR);
    const all = { ...Object.fromEntries(FIELDS.map((name) => [name, ""])), method: head.methods[cell.method], label: cell.label, page: "", open: "" };
    return el("section", { className: "similar" },
      el("h3", {}, "Similar failures: ", el("a", { href: address(all) }, `all ${alike.length + 1} of ${head.methods[cell.method]}`)),
      el("div", { className: "strip" }, ...nearest.map((other) => {
        const link = el("a", { href: address({ open: other.key }) }, shot(other));
        link.setAttribute("aria-label", other.row.prompt);
        return el("figure", { className: "shot" }, link, el("figcaption", {}, other.row.prompt));
      })));
  }

  // Keys: from picture to picture, on the page by focus, in the large view by opening the next.
  function neighbour(cell, key) {
    const at = found.indexOf(cell.row), own = visible(cell.row), place = own.indexOf(cell);
    if (key === "ArrowLeft" || key === "ArrowRight") {
      const step = key === "ArrowRight" ? 1 : -1;
      if (own[place + step]) return own[place + step];
      const next = found[at + step];
      return next && visible(next).at(step === 1 ? 0 : -1);
    }
    const next = found[at + (key === "ArrowDown" ? 1 : -1)];
    return next && (visible(next).find((other) => other.method === cell.method) ?? visible(next)[0]);
  }
  function onKey(event) {
    if (!/^Arrow/.test(event.key) || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const large = $("large").open, focused = document.activeElement;
    if (!large && /^(INPUT|SELECT)$/.test(focused.tagName)) return;
    const from = large ? byKey.get(state.open) : byKey.get(focused.dataset?.key) ;
    if (!from) return;
    const to = neighbour(from, event.key);
    if (!to) return;
    event.preventDefault();
    const page = String(Math.floor(found.indexOf(to.row) / PAGE) + 1);
    const changes = { page: page === "1" ? "" : page, open: large ? to.key : "" };
    if (large || address(changes) !== address()) go(changes);
    if (!large) document.querySelector(`[data-key="${CSS.escape(to.key)}"]`)?.focus();
  }

  function fill(name, values, words = (value) => value) {
    const field = $("filters").elements[name];
    field.append(...values.map((value) => el("option", { value }, words(value))));
    if (["subject", "class", "stratum", "kind", "label"].includes(name)) field.closest("label").hidden = values.length === 0;
  }
  function update() {
    read();
    if (drawn !== address({ open: "" })) draw();
    const cell = byKey.get(state.open);
    const lost = state.open && !cell ? ` The picture of this link (${state.open}) is not in this run.` : "";
    $("lost").textContent = lost;
    if (opened === state.open) return;
    opened = state.open;
    if (cell) open(cell); else if ($("large").open) $("large").close();
  }
  function ready() {
    const subjects = head.cases.flat(), unique = (values) => [...new Set(values.filter(Boolean))].sort();
    fill("subject", unique(subjects.map((subject) => subject.id)));
    fill("class", unique(subjects.map((subject) => subject.noun)));
    fill("stratum", unique(subjects.map((subject) => subject.stratum)));
    fill("kind", unique(head.kinds), (kind) => kind.replaceAll("_", " "));
    const labels = new Map();
    for (const cell of byKey.values()) labels.set(cell.label, (labels.get(cell.label) ?? 0) + 1);
    const named = unique([...labels.keys()]);
    fill("label", named.length ? ["any failure", ...named] : [], (text) => (labels.has(text) ? `${text} (${labels.get(text)})` : text));
    for (const name of ["method", "of", "minus"]) fill(name, head.methods);
    for (const name of ["metric", "sort"]) fill(name, head.metrics.map((metric) => metric.name), (metric) => head.metrics[metricAt(metric)].title);
    const form = $("filters");
    form.addEventListener("input", () => go({ ...Object.fromEntries(FIELDS.map((name) => [name, form.elements[name].value])), page: "" }));
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => go({ ...Object.fromEntries(FIELDS.map((name) => [name, ""])), page: "" }));
    for (const [id, step] of [["before", -1], ["after", 1]]) {
      $(id).addEventListener("click", () => {
        const page = Math.min(pages(), Math.max(1, (Number(state.page) || 1) + step));
        go({ page: page === 1 ? "" : String(page) });
        window.scrollTo(0, 0);
      });
    }
    $("large").addEventListener("close", () => { if (state.open) { const key = state.open; go({ open: "" }); document.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus(); } });
    $("large").addEventListener("click", (event) => { if (event.target === $("large")) $("large").close(); });
    document.addEventListener("keydown", onKey);
    window.addEventListener("hashchange", update);
    read();
    $("more").open = window.matchMedia("(min-width: 52rem)").matches || ["metric", "sort"].some((name) => state[name]);
    update();
  }
  window.addEventListener("load", () => {
    if (!head || rows.length !== head.rows) $("count").textContent = "Files of this gallery are missing: the folder “gallery” must lie beside this page.";
  });
  return { start, rows: addRows, details: addDetails, pictures: (given) => Object.assign(pictures, given) };
})();
