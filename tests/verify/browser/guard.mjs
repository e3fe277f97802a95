// A browser that reaches one server and nothing else, and tells of everything that should not happen.
import { chromium } from "playwright-core";

export const patience = 20_000;
export const faults = [];
export let requests = 0;

export const fault = (text) => {
  if (!faults.includes(text)) faults.push(text);
};

export const step = async (what, work) => {
  try {
    await work();
  } catch (error) {
    // The first line says what went wrong, those after it with which values.
    fault(`${what}: ${error.message.split("\n").filter(Boolean).slice(0, 4).join(" ")}`);
  }
};

// `hosts` are the names it may reach.
export const launch = (executablePath, hosts = ["localhost"]) =>
  chromium.launch({
    executablePath,
    headless: true,
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
      `--host-resolver-rules=MAP * ~NOTFOUND${hosts.map((host) => `, EXCLUDE ${host}`).join("")}`,
    ],
  });

// A context of its own: `options` are Playwright's. `mayFail` are paths that may be answered with a refusal.
export const guarded = async (browser, origin, options = {}, mayFail = []) => {
  // A data: or blob: URL is no request to anybody.
  const isOurs = (url) => ["data:", "blob:"].includes(new URL(url).protocol) || new URL(url).origin === origin;
  const failures = mayFail.map((path) => origin + path);

  const context = await browser.newContext({ serviceWorkers: "block", ...options });
  context.setDefaultTimeout(patience);
  context.on("request", (request) => {
    requests += 1;
    if (!isOurs(request.url())) fault(`a request to ${request.url()}`);
  });
  context.on("response", (response) => {
    if (response.status() >= 400 && !failures.includes(response.url())) {
      fault(`${response.status()} for ${response.url()}`);
    }
  });
  context.on("console", (message) => {
    const text = message.text();
    if (text.startsWith("Failed to load resource") && failures.includes(message.location().url)) return;
    if (message.type() === "error" || /content.security.policy/i.test(text)) fault(`on the console: ${text}`);
  });
  context.on("weberror", (error) => fault(`not caught: ${error.error().message}`));
  await context.route("**/*", (route) => (isOurs(route.request().url()) ? route.continue() : route.abort()));
  await context.routeWebSocket("**/*", (socket) => {
    fault(`a web socket to ${socket.url()}`);
    socket.close();
  });
  // A script that catches its own violation leaves nothing on the console.
  await context.addInitScript(() => {
    addEventListener("securitypolicyviolation", ({ effectiveDirective, blockedURI, sourceFile, lineNumber }) => {
      console.error(
        `Content Security Policy: ${effectiveDirective} forbids ${blockedURI || "inline"}, ${sourceFile}:${lineNumber}`,
      );
    });
  });
  return context;
};

// Prints the faults, and sets the exit code.
export const conclude = (name) => {
  for (const text of faults) console.log(`${name}: ${text}`);
  const watched = requests > 0 ? `, ${requests} requests, none to another origin` : "";
  const sum = faults.length > 0 ? "FAILED" : `ok${watched}`;
  console.log(`${name}: ${sum}`);
  process.exitCode = faults.length > 0 ? 1 : 0;
};
