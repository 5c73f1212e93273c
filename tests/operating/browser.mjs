// Looks at the status page with a real browser: node browser.mjs MODULES CHROMIUM URL SCREENSHOTS
// MODULES holds playwright-core and axe-core. Prints one JSON object.
import { createRequire } from "node:module";
import { mkdirSync } from "node:fs";

const [modules, chromium, url, screenshots] = process.argv.slice(2);
const load = createRequire(modules + "/");
const { chromium: browserType } = load("playwright-core");
const axe = load("axe-core").source;

const flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];
const browser = await browserType.launch({ executablePath: chromium, args: flags });
const sizes = { desktop: { width: 1100, height: 820 }, phone: { width: 390, height: 844 } };
const seen = [];
mkdirSync(screenshots, { recursive: true });
for (const [device, viewport] of Object.entries(sizes)) {
  for (const colorScheme of ["light", "dark"]) {
    const complaints = [];
    const requests = new Set();
    const context = await browser.newContext({ viewport, colorScheme, reducedMotion: "reduce", locale: "en-GB", timezoneId: "UTC" });
    const page = await context.newPage();
    page.on("console", (message) => { if (message.type() === "error") complaints.push(message.text()); });
    page.on("pageerror", (error) => complaints.push(String(error)));
    page.on("request", (request) => requests.add(new URL(request.url()).origin));
    await page.goto(url);
    await page.waitForSelector("#mirror-rows tr");
    await page.waitForSelector("#chart-list svg");
    await page.waitForFunction(() => document.querySelectorAll("#change-list li:not(.quiet)").length > 0);
    const measured = await page.evaluate(() => ({
      summary: document.getElementById("summary").textContent,
      text: document.body.innerText,
      overflows: document.documentElement.scrollWidth > window.innerWidth,
      scripts: document.scripts.length,
    }));
    await page.screenshot({ path: `${screenshots}/page-${device}-${colorScheme}.png` });
    // The devtools protocol evaluates this, so that the page's policy need not be given up.
    await page.evaluate(axe);
    const result = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
    const violations = result.violations.map((found) =>
      `${found.id}: ${found.help}: ${found.nodes.map((node) => node.html).slice(0, 3).join(" ")}`);
    seen.push({ device, colorScheme, ...measured, complaints, violations, checked: result.passes.length, origins: [...requests] });
    await context.close();
  }
}
await browser.close();
console.log(JSON.stringify(seen));
