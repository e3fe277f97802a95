// The pages under /docs in a browser that reaches this server and nothing else.
//
//     node check.mjs ORIGIN CHROMIUM SCREENSHOT
//
// SCREENSHOT is the file to write. Exit code 1 if anything is wrong.
import { conclude, fault, guarded, launch, step } from "../browser/guard.mjs";

const [origin, executablePath, screenshot] = process.argv.slice(2);

const browser = await launch(executablePath);
const context = await guarded(browser, origin, { viewport: { width: 1280, height: 900 } });
const page = await context.newPage();
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
conclude("docs");
