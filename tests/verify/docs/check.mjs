// The pages under /docs in a browser that reaches this server and nothing else.
//
//     node check.mjs ORIGIN CHROMIUM PROFILE SCREENSHOT
//
// PROFILE is an empty directory for the browser, SCREENSHOT the file to write. Exit code 1 if anything is wrong.
import { chromium } from "playwright-core";

const [origin, executablePath, profile, screenshot] = process.argv.slice(2);
const patience = 20_000;
const faults = [];
let requests = 0;

const fault = (text) => {
  if (!faults.includes(text)) faults.push(text);
};
const step = async (what, work) => {
  try {
    await work();
  } catch (error) {
    fault(`${what}: ${error.message.split("\n")[0]}`);
  }
};
// A data: or blob: URL is no request to anybody.
const isOurs = (url) => ["data:", "blob:"].includes(new URL(url).protocol) || new URL(url).origin === origin;

const browser = await chromium.launchPersistentContext(profile, {
  executablePath,
  headless: true,
  viewport: { width: 1280, height: 900 },
  serviceWorkers: "block",
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    // What is no request of a page, such as a name looked up ahead, gets nowhere either.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost",
  ],
});

browser.on("request", (request) => {
  requests += 1;
  if (!isOurs(request.url())) fault(`a request to ${request.url()}`);
});
browser.on("response", (response) => {
  if (response.status() >= 400) fault(`${response.status()} for ${response.url()}`);
});
browser.on("console", (message) => {
  const text = message.text();
  if (message.type() === "error" || /content.security.policy/i.test(text)) fault(`on the console: ${text}`);
});
browser.on("weberror", (error) => fault(`not caught: ${error.error().message}`));
await browser.route("**/*", (route) => (isOurs(route.request().url()) ? route.continue() : route.abort()));
await browser.routeWebSocket("**/*", (socket) => {
  fault(`a web socket to ${socket.url()}`);
  socket.close();
});
// A script that catches its own violation leaves nothing on the console.
await browser.addInitScript(() => {
  addEventListener("securitypolicyviolation", ({ effectiveDirective, blockedURI, sourceFile, lineNumber }) => {
    console.error(
      `Content Security Policy: ${effectiveDirective} forbids ${blockedURI || "inline"}, ${sourceFile}:${lineNumber}`,
    );
  });
});

const page = browser.pages()[0] ?? (await browser.newPage());
page.setDefaultTimeout(patience);
const shown = (locator) => locator.filter({ visible: true }).first().waitFor();

await step("opening /docs", () => page.goto(`${origin}/docs`));
await step("the title", () => shown(page.getByRole("heading", { name: "Latchkey", exact: true })));
await step("the operation /login", () => shown(page.getByText("/login", { exact: true })));
await page.waitForTimeout(1000);
await step("the screenshot", () => page.screenshot({ path: screenshot }));

// Its bar for developers sends the document to Scalar's own services.
if ((await page.getByText(/^(Developer Tools|Deploy API|Generate SDK)$/).count()) > 0) {
  fault("the page offers to send the document to another host");
}

// Much of the page is made when it comes into view, and the console may have other ways out.
await step("scrolling to the end", async () => {
  await page.mouse.move(800, 600);
  for (let count = 0; count < 30; count += 1) {
    await page.mouse.wheel(0, 1000);
    await page.waitForTimeout(100);
  }
});
await step("a request from the console", async () => {
  await page.getByRole("button", { name: /^Test Request.*get \/health\)/i }).first().click();
  const send = page.getByRole("button", { name: /^Send/ }).first();
  const answer = page.waitForResponse((response) => response.url() === `${origin}/health`);
  await send.click();
  if (!(await answer).ok()) fault("the console does not get /health");
});

// A window in which the row is far below.
await step("the row of weak_password", async () => {
  await page.setViewportSize({ width: 1280, height: 400 });
  await page.goto(`${origin}/docs/errors#weak_password`);
  await shown(page.locator("tr#weak_password", { hasText: "weak_password" }));
  const { scrolled, top, bottom } = await page.evaluate(() => ({
    scrolled: scrollY,
    top: document.querySelector(":target")?.getBoundingClientRect().top,
    bottom: document.querySelector(":target")?.getBoundingClientRect().bottom,
  }));
  if (!(scrolled > 0 && top > -2 && bottom <= 400)) fault(`/docs/errors#weak_password does not scroll to its row`);
});

await browser.close();
for (const text of faults) console.log(`docs: ${text}`);
console.log(faults.length > 0 ? "docs: FAILED" : `docs: ok, ${requests} requests, none to another origin`);
process.exitCode = faults.length > 0 ? 1 : 0;
