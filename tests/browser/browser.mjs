// The docs page and cross-origin requests in a real Chromium.

import { existsSync, mkdirSync } from "node:fs";
import { createServer } from "node:http";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { folder, must, operations, serve } from "../contract/surroundings.mjs";

const screenshots = process.env.SCREENSHOTS ?? join(dirname(fileURLToPath(import.meta.url)), "screenshots");

/** Chromium as Debian packs it, telling nobody anything. */
export async function launch() {
  const executablePath = process.env.CHROMIUM ?? process.env.PATH.split(delimiter).map((path) => join(path, "chromium")).find(existsSync);
  must(executablePath, "There is no chromium: install it (Debian: apt-get install chromium), or name it in CHROMIUM.");
  return chromium.launchPersistentContext(folder(), {
    executablePath,
    headless: true,
    viewport: { width: 1280, height: 1600 },
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync",
    ],
  });
}

export async function browser() {
  const browser = await launch();
  try {
    await docsPage(browser);
    await developmentMode(browser);
    await everyPage(browser);
    await otherOrigins(browser);
  } finally {
    await browser.close();
  }
}

/** The docs page needs nothing from elsewhere, and is enough to try out the API. */
async function docsPage(browser) {
  mkdirSync(screenshots, { recursive: true });
  const server = await serve();
  const page = await browser.newPage();
  page.setDefaultTimeout(15_000);
  const requested = [];
  const complaints = [];
  page.on("request", (request) => requested.push(request.url()));
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => message.type() === "error" && complaints.push(`${message.text()} (${message.location().url})`));

  await page.goto(`${server.url}/docs`);
  await page.locator(".opblock").first().waitFor();
  must((await page.locator(".opblock").count()) === operations().length, "the page does not show every operation");
  must((await page.locator(".errors-wrapper").count()) === 0, "the page complains of the contract");
  must(complaints.length === 0, `the page has errors: ${complaints}`);

  await page.locator(".btn.authorize").click();
  await page.locator(".modal-ux input").fill(server.token("ann"));
  await page.locator(".modal-ux .btn.authorize").click();
  await page.locator(".modal-ux .btn-done").click();

  // What the page fills in by itself is sent as it is, as somebody does who is new here.
  const title = "Try the docs page";
  const created = await tryOut(page, "createTask", JSON.stringify({ title }));
  must(created.status === "201" && created.body.includes(title), `created: ${JSON.stringify(created)}`);
  const listed = await tryOut(page, "listTasks");
  must(listed.status === "200" && listed.body.includes(title), `listed: ${JSON.stringify(listed)}`);
  await page.screenshot({ path: join(screenshots, "listed.png") });
  const told = await tryOut(page, "listChanges");
  must(told.status === "200" && told.body.includes(title) && told.body.includes("has_more"), `told: ${JSON.stringify(told)}`);
  await page.screenshot({ path: join(screenshots, "changes.png") });
  const refused = await tryOut(page, "createTask", JSON.stringify({ title: "" }));
  must(refused.status === "422" && refused.body.includes("/problems/invalid-request"), `refused: ${JSON.stringify(refused)}`);
  await page.screenshot({ path: join(screenshots, "refused.png") });

  const elsewhere = requested.filter((url) => /^(https?|wss?):/.test(url) && new URL(url).origin !== server.url);
  must(elsewhere.length === 0, `the page asked elsewhere: ${elsewhere}`);
  const seen = server.requests().map(({ operation, status }) => `${operation} ${status}`);
  for (const one of ["createTask 201", "listTasks 200", "createTask 422"]) must(seen.includes(one), `no ${one} reached the server`);
  console.log(`docs page: ${requested.length} requests, none elsewhere; screenshots in ${screenshots}`);
  await page.close();
  await server.stop();
}

/** In development mode the page is filled in with a user, says where a token is, and keeps it. */
async function developmentMode(browser) {
  const server = await serve({ BETTER_AUTH_SECRET: "" });
  const page = await browser.newPage();
  page.setDefaultTimeout(15_000);
  await page.goto(`${server.url}/docs`);
  await page.getByText("taskpact token --user dev").waitFor();
  await page.locator(".btn.authorize").click();
  await page.locator(".modal-ux input").fill(server.token("dev"));
  await page.locator(".modal-ux .btn.authorize").click();
  await page.reload();
  await page.locator(".opblock").first().waitFor();
  const listed = await tryOut(page, "listTasks", undefined, "dev");
  must(listed.status === "200", `in development mode: ${JSON.stringify(listed)}`);
  await page.close();
  await server.stop();
}

/** Every page can be read on a telephone and on a screen, by day and by night. Screenshots show it. */
async function everyPage(browser) {
  const server = await serve();
  const page = await browser.newPage();
  page.setDefaultTimeout(15_000);
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  let shown = 0;
  for (const [name, path] of [["greeting", "/"], ["problems", "/problems"], ["docs", "/docs"]]) {
    const brightness = {};
    for (const width of [390, 1280]) {
      for (const colorScheme of ["light", "dark"]) {
        await page.setViewportSize({ width, height: 844 });
        await page.emulateMedia({ colorScheme });
        await page.goto(server.url + path);
        if (name === "docs") await page.locator(".opblock").nth(8).waitFor();
        const file = join(screenshots, `${name}-${width}-${colorScheme}.png`);
        const png = await page.screenshot({ path: file, fullPage: name !== "problems" });
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
        must(wide <= 0, `${path} is ${wide} pixels too wide at ${width}`);
        brightness[colorScheme] = await page.evaluate(averageBrightness, png.toString("base64"));
        shown += 1;
      }
    }
    must(brightness.light > 180 && brightness.dark < 90, `${path} is as bright as ${JSON.stringify(brightness)}`);
  }
  must(complaints.length === 0, `the pages have errors: ${complaints}`);
  console.log(`pages: ${shown} screenshots in ${screenshots}`);
  await page.emulateMedia({ colorScheme: null });
  await page.close();
  await server.stop();
}

/** Runs in the page: how bright a picture is, of 255. */
async function averageBrightness(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const picture = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const canvas = new OffscreenCanvas(64, 64).getContext("2d");
  canvas.drawImage(picture, 0, 0, 64, 64);
  const { data } = canvas.getImageData(0, 0, 64, 64);
  return Math.round(data.reduce((sum, value, at) => (at % 4 === 3 ? sum : sum + value), 0) / (64 * 64 * 3));
}

/** Sends an operation from the docs page, and reads the answer there. In development mode the user is filled in. */
async function tryOut(page, operationId, body, filledIn) {
  const block = page.locator(`.opblock[id$="-${operationId}"]`);
  if (!(await block.locator(".opblock-body").isVisible())) await block.locator(".opblock-summary").click();
  // It opens by and by.
  await block.locator(".try-out__btn").first().waitFor();
  const tryItOut = block.locator(".try-out__btn:not(.cancel):not(.reset)");
  if (await tryItOut.isVisible()) await tryItOut.click();
  const user = block.locator('tr[data-param-name="user_id"] input');
  if (!filledIn) await user.fill("ann");
  else must((await user.inputValue()) === filledIn, `the user is filled in as ${await user.inputValue()}`);
  if (body) await block.locator("textarea.body-param__text").fill(body);
  const clear = block.locator(".btn-clear");
  if (await clear.isVisible()) await clear.click();
  await block.locator(".btn.execute").click();
  const answer = block.locator(".live-responses-table .response").first();
  await answer.waitFor();
  await block.locator(".opblock-section-header").first().evaluate((header) => header.scrollIntoView());
  const status = (await answer.locator(".response-col_status").innerText()).trim().split(/\s/)[0];
  return { status, body: await answer.locator(".response-col_description").innerText() };
}

/** A page of an allowed origin can use all of the API and read all of it, refusals too. Another page can't. */
async function otherOrigins(browser) {
  const [allowed, other] = await Promise.all([site(), site()]);
  const server = await serve({ TASKPACT_CORS__ALLOWED_ORIGINS: allowed.origin, TASKPACT_SERVER__TIMING: "true" });
  const token = server.token("ann");

  const page = await browser.newPage();
  await page.goto(allowed.origin);
  const met = await page.evaluate(useTheApi, { url: server.url, token });
  met.revalidated.push(server.requests().filter(({ operation }) => operation === "getTask").at(-1).status);
  const expected = {
    created: [201, "1", true],
    replayed: [201, "1", true, "true"],
    listed: [200, true, true, true],
    unchanged: [304],
    revalidated: [200, 304],
    updated: [200, "2"],
    late: [412, "/problems/version-mismatch", "2", "Twice a week"],
    toggled: [200, "3"],
    invalid: [422, "/problems/invalid-request"],
    anonymous: [401, "/problems/unauthorized", true],
    forbidden: [403, "/problems/forbidden"],
    nowhere: [404, "/problems/no-such-path"],
    deleted: [204],
    timed: [true, "wait,db,app"],
  };
  must(JSON.stringify(met) === JSON.stringify(expected), `the allowed page met ${JSON.stringify(met, null, 1)}`);

  await page.goto(other.origin);
  const before = server.requests().length;
  // The first asks beforehand whether it may be sent; the second is sent at once, and only its answer can be kept back.
  const attempts = [page.evaluate(useTheApi, { url: server.url, token }), page.evaluate((url) => fetch(url).then(({ status }) => status), `${server.url}/health`)];
  // Either may fail first.
  for (const met of await Promise.all(attempts.map((attempt) => attempt.catch((error) => error.message)))) {
    must(typeof met === "string" && met.includes("Failed to fetch"), `the other page met ${JSON.stringify(met)}`);
  }
  const reached = server.requests().slice(before).filter(({ operation }) => operation === "createTask");
  must(reached.length === 0, "the other page's request was served");
  console.log(`origins: ${Object.keys(met).length} answers were read by the allowed page, none by the other`);
  await page.close();
  await server.stop();
  for (const site of [allowed, other]) site.close();
}

/** Runs in the page: what it met, by the name of the step. */
async function useTheApi({ url, token }) {
  const tasks = `${url}/api/ann/tasks`;
  const send = (address, { headers, ...rest } = {}) =>
    fetch(address, { ...rest, headers: { Authorization: `Bearer ${token}`, "X-Request-Id": "from-the-page", ...headers } });
  const json = (method, body, headers) => ({ method, body: JSON.stringify(body), headers: { "Content-Type": "application/json", ...headers } });
  const type = async (answer) => (await answer.json()).type;
  const version = (answer) => /^"(\d+)-/.exec(answer.headers.get("ETag"))?.[1];
  const met = {};

  const create = json("POST", { title: "Water the plants" }, { "Idempotency-Key": '"a key"' });
  const created = await send(tasks, create);
  met.created = [created.status, version(created), created.headers.get("Location").startsWith("/api/ann/tasks/")];
  const task = url + created.headers.get("Location");
  const replayed = await send(tasks, create);
  met.replayed = [replayed.status, version(replayed), replayed.headers.has("Location"), replayed.headers.get("Idempotent-Replayed")];

  await send(tasks, json("POST", { title: "Feed the cat" }));
  const listed = await send(`${tasks}?limit=1`);
  const [{ id }] = await listed.json();
  met.listed = [listed.status, listed.headers.get("Next-Cursor") === id, listed.headers.has("Link"), listed.headers.get("X-Request-Id") === "from-the-page"];
  met.unchanged = [(await send(task, { headers: { "If-None-Match": created.headers.get("ETag") }, cache: "no-store" })).status];
  // The browser keeps the answer, and asks by itself whether it is still the same: the page sees the whole of it.
  await send(task);
  met.revalidated = [(await send(task)).status];
  const updated = await send(task, json("PUT", { description: "Twice a week" }, { "If-Match": '"1"' }));
  met.updated = [updated.status, version(updated)];
  const late = await send(task, json("PUT", { description: "On Sundays" }, { "If-Match": '"1"' }));
  const refusal = await late.json();
  met.late = [late.status, refusal.type, version(late), refusal.current.description];
  const toggled = await send(`${task}/complete`, { method: "PATCH" });
  met.toggled = [toggled.status, version(toggled)];

  const invalid = await send(tasks, json("POST", { title: "" }));
  met.invalid = [invalid.status, await type(invalid)];
  const anonymous = await fetch(tasks);
  met.anonymous = [anonymous.status, await type(anonymous), anonymous.headers.has("X-Request-Id")];
  const forbidden = await send(`${url}/api/bob/tasks`);
  met.forbidden = [forbidden.status, await type(forbidden)];
  const nowhere = await send(`${url}/nowhere`);
  met.nowhere = [nowhere.status, await type(nowhere)];
  met.deleted = [(await send(task, { method: "DELETE" })).status];
  // From the answer, and as the developer tools and the measurements of pages have it.
  const [measured] = performance.getEntriesByName(listed.url);
  met.timed = [listed.headers.has("Server-Timing"), measured.serverTiming.map(({ name }) => name).join()];
  return met;
}

/** A page on a port of its own. */
export async function site() {
  const server = createServer((_, answer) => answer.writeHead(200, { "Content-Type": "text/html" }).end("<!doctype html><title>A page</title>"));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { origin: `http://127.0.0.1:${server.address().port}`, close: () => (server.closeAllConnections(), server.close()) };
}
