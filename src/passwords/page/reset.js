"use strict";

// The page behind a password-reset link: ask for a code, use it, done. The link's code and the new password leave this
// page in the body of one POST and in no other way.

const find = (id) => document.getElementById(id);
const [ask, use, done] = ["ask", "use", "done"].map(find);
const [email, code, password, reveal] = ["email", "code", "password", "reveal"].map(find);
const intro = find("intro");
const inputs = new Map([["email", email], ["code", code], ["new_password", password]]);
const words = new Map(Array.from(find("words").content.children, (word) => [word.dataset.word, word.textContent]));

let flow = ""; // what the code belongs to
let busy = false; // a request is on its way: a second press would spend the code twice, or a try

// The replacement is a function, as a text would have "$&" in it replaced.
const say = (word, values = {}) => words.get(`say_${word}`).replace(/\{(\w+)\}/g, (_, name) => values[name]);

const duration = (seconds) => {
  const [count, unit] = seconds < 120 ? [seconds, "second"] : [Math.ceil(seconds / 60), "minute"];
  const { lang } = document.documentElement;
  return new Intl.NumberFormat(lang, { style: "unit", unit, unitDisplay: "long" }).format(count);
};

const show = (step, focus) => {
  for (const other of [ask, use, done]) other.hidden = other !== step;
  for (const fault of document.querySelectorAll("[role=alert]")) fault.textContent = "";
  for (const input of inputs.values()) input.removeAttribute("aria-invalid");
  focus.focus();
};

const setRevealed = (revealed) => {
  reveal.setAttribute("aria-pressed", String(revealed));
  password.type = revealed ? "text" : "password";
};

const wipe = () => {
  setRevealed(false);
  password.value = "";
  code.value = "";
};

// What a person reads about an answer that is not the wanted one, and the name of the input that it is about.
const explain = (response, problem) => {
  const time = duration(Number(response.headers.get("retry-after")) || 60);
  if (response.status === 429) return { text: say("limited", { time }) };
  if (response.status === 503) return { text: say("busy", { time }) };
  if (problem.code === "invalid_code") return { text: say("invalid_code"), field: "code" };
  const reasons = problem.errors ?? [];
  if (reasons.length === 0) return { text: say("failed") };
  // A reason newer than our words comes with English of the server's own.
  const text = reasons.map((reason) => words.get(`say_${reason.code}`) ?? reason.detail).join("\n");
  return { text, field: reasons[0].field };
};

// The body of the wanted answer, or a fault.
const send = async (path, body, wanted) => {
  const response = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    credentials: "omit",
    redirect: "error",
    signal: AbortSignal.timeout?.(30_000),
  }).catch(() => null);
  if (!response) return { fault: { text: say("offline") } };
  // A 204 has no body, and what a proxy answers in the server's place is no JSON.
  const answer = (await response.json().catch(() => null)) ?? {};
  return response.status === wanted ? { answer } : { fault: explain(response, answer) };
};

// `work` resolves to a fault, or to nothing when the next step is shown.
const onSubmit = (step, work) => {
  const form = step.querySelector("form");
  const alert = form.querySelector("[role=alert]");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    form.setAttribute("aria-busy", "true");
    // Emptied first, so that the same words are read out again.
    alert.textContent = "";
    for (const input of inputs.values()) input.removeAttribute("aria-invalid");
    const fault = await work().catch(() => ({ text: say("failed") }));
    busy = false;
    form.removeAttribute("aria-busy");
    if (!fault) return;
    alert.textContent = fault.text;
    const input = inputs.get(fault.field);
    input?.setAttribute("aria-invalid", "true");
    input?.focus();
    alert.scrollIntoView({ block: "nearest" });
  });
};

onSubmit(ask, async () => {
  const address = email.value.trim();
  if (!address) return { text: say("invalid_email"), field: "email" };
  const { answer, fault } = await send("/password/forgot", { email: address }, 202);
  if (fault) return fault;
  flow = answer.flow_id;
  wipe();
  find("whose").value = address;
  intro.textContent = say("sent", { email: address, time: duration(answer.expires_in) });
  show(use, code);
});

onSubmit(use, async () => {
  // As people type and paste it: in groups, with dashes, in full-width digits.
  const digits = code.value.normalize("NFKC").replace(/[\s\p{Pd}]/gu, "");
  if (!/^\d{8}$/.test(digits)) return { text: say("no_code"), field: "code" };
  if (!password.value) return { text: say("no_password"), field: "new_password" };
  // Browsers keep what was typed into a field of plain text.
  setRevealed(false);
  const { fault } = await send("/password/reset", { flow_id: flow, code: digits, new_password: password.value }, 204);
  if (fault) return fault;
  flow = "";
  wipe();
  show(done, done.querySelector("h1"));
});

reveal.addEventListener("click", () => setRevealed(password.type === "password"));
find("again").addEventListener("click", () => show(ask, email));

// A page that is left may be kept, as it is, for the way back.
addEventListener("pagehide", wipe);

const start = () => {
  const link = new URLSearchParams(location.hash.slice(1));
  // Out of the address bar and of this tab's history, where others may look later.
  if (location.hash) history.replaceState(null, "", location.pathname);
  if (!link.get("flow") || !link.get("code")) return show(ask, email);
  flow = link.get("flow");
  wipe();
  code.value = link.get("code");
  find("whose").value = "";
  intro.textContent = say("linked");
  show(use, password);
};

// A link that is opened where this page is already open only changes the fragment.
addEventListener("hashchange", () => location.hash && start());
start();
