(() => {
  "use strict";
  const root = document.documentElement;
  const store = { get: () => { try { return localStorage.getItem("qup-theme"); } catch { return null; } }, set: v => { try { localStorage.setItem("qup-theme", v); } catch { /* a file without storage */ } } };
  const known = store.get();
  if (known === "dark" || known === "light") root.dataset.theme = known;
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    store.set(root.dataset.theme);
  });

  const row = document.querySelector("nav .row"), steps = [...document.querySelectorAll("nav .step")];
  const links = new Map([...document.querySelectorAll("nav a")].map(a => [a.hash.slice(1), a]));
  if ("IntersectionObserver" in window) {
    const watch = new IntersectionObserver(entries => {
      for (const entry of entries) if (entry.isIntersecting) {
        links.forEach(a => a.removeAttribute("aria-current"));
        const link = links.get(entry.target.id);
        if (link) {
          link.setAttribute("aria-current", "true");
          if (link.offsetLeft < row.scrollLeft || link.offsetLeft + link.offsetWidth > row.scrollLeft + row.clientWidth) row.scrollLeft = link.offsetLeft - 40;
        }
      }
    }, { rootMargin: "-15% 0px -75% 0px" });
    document.querySelectorAll("main > section").forEach(section => watch.observe(section));
  }

  const more = () => {
    const before = row.scrollLeft > 2, after = row.scrollLeft + row.clientWidth < row.scrollWidth - 2;
    row.classList.toggle("before", before);
    row.classList.toggle("after", after);
    steps.forEach(one => { one.hidden = !(before || after); one.disabled = one.dataset.by < 0 ? !before : !after; });
  };
  steps.forEach(one => one.addEventListener("click", () => row.scrollBy({ left: one.dataset.by * row.clientWidth * 0.7, behavior: "smooth" })));
  row.addEventListener("scroll", more, { passive: true });
  addEventListener("resize", more);
  more();

  const folded = () => [...document.querySelectorAll("details.fold, details.faults, details.setup")].filter(one => !one.open);
  let opened = [];
  addEventListener("beforeprint", () => { opened = folded(); opened.forEach(one => { one.open = true; }); });
  addEventListener("afterprint", () => opened.forEach(one => { one.open = false; }));
  if (matchMedia("(max-width: 640px)").matches) document.querySelector("details.setup").open = false;

  for (const table of document.querySelectorAll("table.data")) {
    const body = table.tBodies[0];
    const original = [...body.rows];
    [...table.tHead.rows[0].cells].forEach((head, column) => head.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      [...table.tHead.rows[0].cells].forEach(one => one.removeAttribute("aria-sort"));
      const way = now === "descending" ? "ascending" : now === "ascending" ? "" : "descending";
      if (!way) { body.append(...original); return; }
      head.setAttribute("aria-sort", way);
      const sign = way === "descending" ? -1 : 1;
      const value = row => { const cell = row.cells[column]; return cell.dataset.v !== undefined ? Number(cell.dataset.v) : cell.textContent.trim(); };
      body.append(...[...original].sort((a, b) => {
        const x = value(a), y = value(b);
        if (x === "" || y === "") return (x === "") - (y === "");
        return sign * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y)));
      }));
    }));
  }

  const data = document.getElementById("trace-data");
  if (!data) return;
  const students = JSON.parse(data.textContent);
  const $ = id => document.getElementById(id);
  const [whose, which, streams] = [$("b-student"), $("b-problem"), $("b-streams")];
  const make = (tag, name, text) => { const one = document.createElement(tag); if (name) one.className = name; if (text !== undefined) one.textContent = text; return one; };
  const option = (text, value) => { const one = make("option", "", text); one.value = value; return one; };
  students.forEach((one, i) => whose.append(option(one.student, i)));
  const current = () => students[whose.value];
  function fill() {
    which.replaceChildren(...current().problems.map((one, i) => option(one.id, i)));
    show();
  }
  function show() {
    const problem = current().problems[which.value];
    $("b-question").textContent = problem.question;
    streams.replaceChildren(...problem.traces.map(trace => {
      const box = make("article", "stream");
      box.style.setProperty("--a", current().colours[trace.arm] || "var(--muted)");
      const head = make("h4", "");
      head.append(make("span", "dot", current().glyphs[trace.arm] || ""), trace.arm);
      box.append(head);
      const rewards = Object.entries(trace.rewards).map(([name, score]) => `reward ${name} ${score === null ? "none" : score.toFixed(2)}`);
      const facts = [trace.correct ? "correct" : "wrong", ...(trace.status && trace.status !== "ok" ? [trace.status] : []), ...(trace.teacher ? [`by ${trace.teacher}`] : []), ...rewards, ...(trace.ppl ? [`perplexity ${trace.ppl}`] : []), `${trace.tokens.length + trace.cut} tokens`];
      box.append(make("p", "facts", facts.join(" · ")));
      const text = make("div", "trace");
      let gone = 0;
      const removed = before => { while (gone < trace.removed.length && trace.removed[gone][0] <= before) { text.append(make("del", "", trace.removed[gone][1])); gone += 1; } };
      trace.tokens.forEach(([piece, nll, edited, writer], i) => {
        removed(i);
        const span = make("span", `t${edited ? " new" : ""}${writer === undefined ? "" : writer ? " by-oracle" : " by-student"}`, piece);
        if (nll !== null) { span.style.setProperty("--s", Math.min(nll / 5, 0.75).toFixed(2)); span.title = `${nll.toFixed(2)} nats`; }
        text.append(span);
      });
      removed(Infinity);
      if (trace.cut) text.append(make("em", "", ` … ${trace.cut} more tokens`));
      box.append(text);
      return box;
    }));
  }
  const move = by => { const n = current().problems.length; which.value = (Number(which.value) + by + n) % n; show(); };
  whose.addEventListener("change", fill);
  which.addEventListener("change", show);
  $("b-prev").addEventListener("click", () => move(-1));
  $("b-next").addEventListener("click", () => move(1));
  fill();
})();
