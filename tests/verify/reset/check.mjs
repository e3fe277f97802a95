// The page behind a password-reset link, in a browser that reaches this server and nothing else.
//
//     node check.mjs ORIGIN CHROMIUM MAIL WORDS PICTURES
//
// MAIL is the directory of the server's mail files, WORDS the file with the page's words, PICTURES a directory for
// pictures. Exit code 1 if anything is wrong.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { conclude, guarded, launch, step } from "../browser/guard.mjs";
import { mailTo } from "./mail.mjs";

const [origin, executablePath, mailDirectory, wordsFile, pictures] = process.argv.slice(2);
const policy =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; " +
  "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";
const old = "correct horse battery";
const words = JSON.parse(readFileSync(wordsFile, "utf8"));
const least = 8;

mkdirSync(pictures, { recursive: true });
const browser = await launch(executablePath);
const open = async (options) => {
  const context = await guarded(browser, origin, { locale: "en-GB", ...options }, ["/password/forgot", "/password/reset"]);
  return context.newPage();
};
const picture = (page, name) => page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true });
const say = (word, language = "en") => words[language][word].replace("{n}", least);

const post = (path, body) =>
  fetch(origin + path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
const register = async (email) => assert.equal((await post("/register", { email, password: old })).status, 201);
const signsIn = async (email, password) => (await post("/login", { email, password })).status;
const linkFor = (email) =>
  mailTo(email, mailDirectory, (text) => {
    const link = /\S+\/reset#flow=([\w-]+)&code=(\d{8})(?!\d)/.exec(text);
    return link && { url: link[0], flow: link[1], code: link[2] };
  });

const fault = (page) => page.locator("[role=alert]").filter({ visible: true });
const saysFault = async (page, text) => {
  await fault(page).filter({ hasText: /./ }).waitFor();
  assert.equal(await fault(page).textContent(), text);
};
const change = (page, language = "en") => page.getByRole("button", { name: words[language].change });
const focused = (page) => page.evaluate(() => document.activeElement.id);
const heading = (page, text) => page.getByRole("heading", { level: 1, name: text, exact: true }).waitFor();

// What one page sends to the server.
const watched = (page) => {
  const sent = [];
  page.on("request", (request) => sent.push({ url: request.url(), body: request.postData() ?? "" }));
  return sent;
};

await step("the words", () => {
  const keys = Object.keys(words.en).sort();
  for (const [language, own] of Object.entries(words)) {
    assert.deepEqual(Object.keys(own).sort(), keys, `${language} has the words of English`);
  }
});

const wanda = "wanda@example.com";
let link;
await step("a mail with a link", async () => {
  await register(wanda);
  const answer = await post("/password/forgot", { email: wanda });
  assert.equal(answer.status, 202);
  const { flow_id } = await answer.json();
  link = await linkFor(wanda);
  assert.equal(link.url, `${origin}/reset#flow=${flow_id}&code=${link.code}`);
});
// Without it nothing below can be tried.
if (link) {
  await step("a mail scanner", async () => {
    for (const method of ["GET", "HEAD", "GET"]) {
      const answer = await fetch(link.url, { method });
      assert.equal(answer.status, 200, method);
      assert.match(answer.headers.get("content-type"), /^text\/html/);
      const directives = (text) => text.split(";").map((directive) => directive.trim()).sort();
      assert.deepEqual(directives(answer.headers.get("content-security-policy") ?? ""), directives(policy));
      assert.equal(answer.headers.get("cache-control"), "no-store");
      assert.equal(answer.headers.get("referrer-policy"), "no-referrer");
      assert.equal(answer.headers.get("set-cookie"), null);
    }
    const page = await open();
    const sent = watched(page);
    await page.goto(link.url);
    await heading(page, words.en.title);
    await page.waitForTimeout(500);
    assert.deepEqual(sent.filter(({ body }) => body), [], "opening a link posts nothing");
    await page.context().close();
  });

  const good = "violet submarine harbour";
  await step("a person with a link", async () => {
    const page = await open();
    const sent = watched(page);
    await page.goto(link.url);
    await heading(page, words.en.title);
    assert.equal(page.url(), `${origin}/reset`);
    const devtools = await page.context().newCDPSession(page);
    const { entries } = await devtools.send("Page.getNavigationHistory");
    assert.ok(entries.every(({ url }) => !url.includes(link.code)), "the history has the code");
    assert.equal(await page.getByLabel(words.en.code).inputValue(), link.code);
    assert.equal(await page.locator("#intro").textContent(), say("say_linked"));
    assert.equal(await focused(page), "password");
    await picture(page, "use");

    const password = page.locator("#password");
    const reveal = page.getByRole("button", { name: words.en.reveal_password });
    await password.fill("wanda");
    await reveal.click();
    assert.equal(await password.getAttribute("type"), "text");
    assert.equal(await reveal.getAttribute("aria-pressed"), "true");
    const before = await change(page).boundingBox();
    // Slow enough for a second press to come while the first is on its way.
    await page.route("**/password/reset", async (route) => {
      await new Promise((done) => setTimeout(done, 500));
      await route.fallback();
    });
    await change(page).click();
    await change(page).click();
    await page.keyboard.press("Enter");
    await saysFault(page, say("say_too_short"));
    assert.equal(sent.filter(({ url }) => url.endsWith("/password/reset")).length, 1, "a second press is no request");
    assert.equal(await password.getAttribute("aria-invalid"), "true");
    assert.ok((await password.getAttribute("aria-describedby")).includes(await fault(page).getAttribute("id")));
    assert.equal(await password.getAttribute("type"), "password", "hidden again before it is sent");
    assert.equal(await focused(page), "password");
    assert.deepEqual(await change(page).boundingBox(), before, "the button moves when a fault comes");
    await picture(page, "weak");

    await password.fill("password");
    await change(page).click();
    await page.getByText(say("say_too_common")).waitFor();
    // Whose words these are is known once the code was right; the code works on.
    await password.fill(wanda);
    await change(page).click();
    await page.getByText(say("say_personal")).waitFor();
    await password.fill(good);
    assert.ok(!(await page.content()).includes(good), "the password is in the document");
    await change(page).click();
    await heading(page, words.en.done_title);
    await page.getByText(words.en.done_ended).waitFor();
    await picture(page, "done");
    assert.deepEqual(await page.$$eval("#code, #password", (inputs) => inputs.map(({ value }) => value)), ["", ""]);
    assert.equal(await page.evaluate(() => localStorage.length + sessionStorage.length + document.cookie.length), 0);
    assert.ok(sent.every(({ url }) => !url.includes(link.code) && !url.includes("submarine")), "a secret in a URL");
    assert.ok(sent.every(({ url, body }) => !body || url === `${origin}/password/reset`), "a POST to somewhere else");
    assert.equal(await signsIn(wanda, good), 200);
    assert.equal(await signsIn(wanda, old), 401);
    await page.context().close();
  });

  await step("a used link", async () => {
    const page = await open();
    await page.goto(link.url);
    await page.locator("#password").fill("another green umbrella");
    await change(page).click();
    await saysFault(page, say("say_invalid_code"));
    assert.equal(await focused(page), "code");
    await picture(page, "used");
    await page.getByRole("button", { name: words.en.again }).click();
    assert.equal(await focused(page), "email");
    assert.equal(await signsIn(wanda, good), 200);
    await page.context().close();
  });
}

// Somebody else: there is one mail a minute for an address.
await step("the well-known address, by keyboard", async () => {
  const xaver = "xaver@example.com";
  const good = "seven quiet lanterns";
  await register(xaver);
  const known = `${origin}/.well-known/change-password`;
  const answer = await fetch(known, { redirect: "manual" });
  assert.equal(answer.status, 303);
  assert.equal(new URL(answer.headers.get("location"), known).href, `${origin}/reset`);

  const page = await open();
  await page.goto(known);
  await heading(page, words.en.title);
  assert.equal(await focused(page), "email");
  await picture(page, "ask");
  await page.keyboard.type("xaver");
  await page.keyboard.press("Enter");
  await saysFault(page, say("say_invalid_email"));
  await page.keyboard.press("End");
  await page.keyboard.type("@example.com");
  await page.keyboard.press("Enter");
  await page.getByLabel(words.en.code).waitFor();
  const sent = say("say_sent").replace("{email}", xaver).replace("{time}", "10 minutes");
  assert.equal(await page.locator("#intro").textContent(), sent);
  assert.equal(await focused(page), "code");
  await picture(page, "sent");
  const { code } = await linkFor(xaver);
  await page.keyboard.type(`${code.slice(0, 4)} ${code.slice(4)}`);
  await page.keyboard.press("Tab");
  await page.keyboard.type(good);
  await page.keyboard.press("Enter");
  await heading(page, words.en.done_title);
  assert.equal(await signsIn(xaver, good), 200);
  await page.context().close();
});

// A link that leads nowhere, for what the page does by itself.
const nowhere = `${origin}/reset#flow=AAAAAAAAAAAAAAAAAAAAAAAAAAA&code=01234567`;

await step("refusals in words", async () => {
  const page = await open();
  await page.goto(`${origin}/reset`);
  await heading(page, words.en.title);
  // Only the fragment changes: the page is not loaded anew.
  await page.goto(nowhere);
  await page.getByLabel(words.en.code).waitFor();
  assert.equal(page.url(), `${origin}/reset`);

  const problem = (status, body, headers = {}) => ({
    status,
    headers: { "content-type": "application/problem+json", ...headers },
    body: JSON.stringify(body),
  });
  const stranger = "<img src=x> Words that this page does not know.";
  const reasons = ["too_long", "forbidden_character", "of_tomorrow"].map((code) => ({
    field: "new_password",
    code,
    detail: stranger,
  }));
  const cases = [
    [problem(429, {}, { "retry-after": "37" }), say("say_limited").replace("{time}", "37 seconds")],
    [problem(429, {}, { "retry-after": "3541" }), say("say_limited").replace("{time}", "60 minutes")],
    [problem(503, {}, { "retry-after": "1" }), say("say_busy").replace("{time}", "1 second")],
    [{ status: 503, body: "<h1>Service Unavailable</h1>" }, say("say_busy").replace("{time}", "60 seconds")],
    [problem(500, { code: "internal" }), say("say_failed")],
    [problem(422, { code: "weak_password", errors: reasons }),
      [say("say_too_long"), say("say_forbidden_character"), stranger].join("\n")],
    [null, say("say_offline")],
  ];
  await page.locator("#password").fill("seven quiet lanterns");
  for (const [answer, text] of cases) {
    await page.route("**/password/reset", (route) => (answer ? route.fulfill(answer) : route.abort()));
    await change(page).click();
    await saysFault(page, text);
    await page.unroute("**/password/reset");
  }
  await page.locator("#code").fill("123");
  await change(page).click();
  await saysFault(page, say("say_no_code"));
  await page.locator("#code").fill("0123-4567");
  await page.locator("#password").fill("");
  await change(page).click();
  await saysFault(page, say("say_no_password"));
  await page.context().close();
});

const phone = { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, hasTouch: true };
for (const [name, colorScheme] of [["light", "light"], ["dark", "dark"]]) {
  await step(`a small ${name} phone in German`, async () => {
    const page = await open({ ...phone, locale: "de-DE", colorScheme });
    const fits = async (what) => {
      await picture(page, `phone-${name}-${what}`);
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${what} is too wide`);
      for (const target of await page.locator("input, button").filter({ visible: true }).all()) {
        assert.ok((await target.boundingBox()).height >= 44, `${what}: something is too small for a thumb`);
      }
    };
    await page.goto(`${origin}/reset`);
    await heading(page, words.de.title);
    assert.equal(await page.locator("html").getAttribute("lang"), "de");
    assert.ok((await page.title()).startsWith(words.de.title));
    const [light] = await page.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/g));
    assert.equal(Number(light) > 127, colorScheme === "light");
    await fits("ask");
    await page.goto(nowhere);
    await page.getByLabel(words.de.code).waitFor();
    await fits("use");
    await page.locator("#password").fill("seven quiet lanterns");
    await change(page, "de").click();
    await saysFault(page, say("say_invalid_code", "de"));
    await fits("refused");
    await page.context().close();
  });
}

await step("a page without JavaScript", async () => {
  const page = await open({ ...phone, javaScriptEnabled: false });
  await page.goto(nowhere);
  await heading(page, words.en.title);
  assert.ok((await page.locator("main").innerText()).includes(words.en.plain_how));
  assert.equal(await page.locator("form, input, button").filter({ visible: true }).count(), 0);
  await picture(page, "plain");
  await page.context().close();
});

await browser.close();
conclude("reset");
