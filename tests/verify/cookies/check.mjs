// Pages of three origins that act with the refresh cookie, in a browser that reaches nothing but this machine.
//
//     node check.mjs ORIGIN CHROMIUM PORT
//
// PORT is the one of localhost whose pages the server lists. Exit code 1 if anything is wrong.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { conclude, launch, patience, step } from "../browser/guard.mjs";

const [origin, executablePath, listedPort] = process.argv.slice(2);
const name = "__Host-latchkey_refresh";
const device = "__Host-latchkey_device";
const alice = { email: "alice@example.com", password: "correct horse battery" };

// An empty page without any policy of its own, so that nothing but the server stands in its way.
const servers = [];
const pageAt = async (port, host) => {
  const server = createServer((request, response) => {
    response.setHeader("content-type", "text/html");
    response.end("<!doctype html><title>page</title><link rel=icon href=data:,>");
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  servers.push(server);
  return `http://${host}:${server.address().port}`;
};

const post = (path, body) =>
  fetch(origin + path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
assert.equal((await post("/register", alice)).status, 201);

const browser = await launch(executablePath, ["localhost", "127.0.0.1"]);
const context = await browser.newContext({ serviceWorkers: "block" });
context.setDefaultTimeout(patience);

const open = async (url) => {
  const page = await context.newPage();
  await page.goto(url);
  return page;
};
const jar = async () => Object.fromEntries((await context.cookies(origin)).map((cookie) => [cookie.name, cookie]));
const refreshCookie = async () => (await jar())[name]?.value;

// A request of a page, as a script of it sends one: what came back, or that nothing did.
const ask = (page, path, { body, mode = "cors", type = "application/json" } = {}) =>
  page.evaluate(
    async ({ url, body, mode, type }) => {
      const headers = body === undefined ? {} : { "content-type": type };
      const text = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
      try {
        const response = await fetch(url, { method: "POST", credentials: "include", mode, headers, body: text });
        return { status: response.status, body: await response.text() };
      } catch {
        return { status: "unreadable" };
      }
    },
    { url: origin + path, body, mode, type },
  );

// What the server answered to what `act` does, whether or not the page may read it. Without a cookie /refresh is a 401 and
// /logout a 400, so a 403 tells that it came along.
const wire = async (page, path, act) => {
  const [response] = await Promise.all([page.waitForResponse((response) => response.url() === origin + path), act()]);
  return response.status();
};

const signIn = { ...alice, refresh_transport: "cookie" };
const listed = await open(await pageAt(Number(listedPort), "localhost"));
const foreign = await open(await pageAt(0, "localhost"));
const abroad = await open(await pageAt(0, "127.0.0.1"));

let access;
await step("a listed page signs in", async () => {
  const answer = await ask(listed, "/login", { body: signIn });
  assert.equal(answer.status, 200);
  const tokens = JSON.parse(answer.body);
  assert.ok(tokens.access_token && !("refresh_token" in tokens) && !("device_token" in tokens), answer.body);
  access = tokens.access_token;
  for (const cookie of [(await jar())[name], (await jar())[device]]) {
    const { domain, path, httpOnly, secure, sameSite } = cookie;
    assert.deepEqual(
      { domain, path, httpOnly, secure, sameSite },
      { domain: "localhost", path: "/", httpOnly: true, secure: true, sameSite: "Strict" },
    );
  }
  for (const page of [listed, foreign]) assert.equal(await page.evaluate(() => document.cookie), "", "no script sees it");
});

await step("a listed page refreshes, with and without a body", async () => {
  for (const body of [undefined, {}]) {
    const before = await refreshCookie();
    assert.equal((await ask(listed, "/refresh", { body })).status, 200);
    assert.notEqual(await refreshCookie(), before, "the cookie was rotated");
  }
});

await step("a page that is not listed is refused, though its requests carry the cookie", async () => {
  const before = await refreshCookie();
  for (const path of ["/refresh", "/logout"]) {
    const simple = await wire(foreign, path, () => ask(foreign, path, { mode: "no-cors" }));
    assert.equal(simple, 403, `${path} without a preflight`);
    const typed = await wire(foreign, path, () => ask(foreign, path, { body: "{}", mode: "no-cors", type: "text/plain" }));
    assert.equal(typed, 415, `${path} with a body that needs none`);
    assert.equal((await ask(foreign, path, { body: {} })).status, "unreadable", `${path} with one`);
  }
  assert.equal((await ask(foreign, "/login", { body: signIn })).status, "unreadable");
  assert.equal(await refreshCookie(), before);
});

await step("nor does a form of it get further", async () => {
  const before = await refreshCookie();
  for (const path of ["/logout", "/refresh"]) {
    // Into a frame, so that the page stays where it is.
    const sent = await wire(foreign, path, () =>
      foreign.evaluate((action) => {
        document.body.innerHTML = `<iframe name=there></iframe><form action="${action}" method=post target=there></form>`;
        document.forms[0].submit();
      }, origin + path),
    );
    assert.equal(sent, 403, path);
  }
  assert.equal(await refreshCookie(), before);
});

await step("a page of another site sends no cookie", async () => {
  const sent = await wire(abroad, "/refresh", () => ask(abroad, "/refresh", { mode: "no-cors" }));
  assert.equal(sent, 401);
});

await step("after all that the session goes on, and a page of the server's own origin may act as well", async () => {
  const me = await fetch(`${origin}/me`, { headers: { authorization: `Bearer ${access}` } });
  assert.equal(me.status, 200);
  const own = await open(`${origin}/docs`);
  assert.equal((await ask(own, "/refresh")).status, 200);
  await own.close();
});

await step("a sign-in ends the session of the cookie it came with", async () => {
  const answer = await ask(listed, "/login", { body: signIn });
  assert.equal(answer.status, 200);
  const me = (token) => fetch(`${origin}/me`, { headers: { authorization: `Bearer ${token}` } });
  assert.equal((await me(access)).status, 401);
  access = JSON.parse(answer.body).access_token;
  assert.equal((await me(access)).status, 200);
});

await step("a listed page signs out, and the cookie is gone", async () => {
  assert.equal((await ask(listed, "/logout")).status, 204);
  assert.equal(await refreshCookie(), undefined);
  assert.ok((await jar())[device], "the device stays known");
  assert.equal((await ask(listed, "/refresh")).status, 401);
  const me = await fetch(`${origin}/me`, { headers: { authorization: `Bearer ${access}` } });
  assert.equal(me.status, 401);
});

await browser.close();
for (const server of servers) {
  server.close();
  server.closeAllConnections();
}
conclude("cookies");
