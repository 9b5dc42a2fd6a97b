// What docs/FRESHNESS.md says of its page, step by step, in Chromium. Another client changes the tasks meanwhile.

import { createTaskpact, type Task } from "taskpact";
import { TaskPage } from "./task-page";

declare global {
  interface Window {
    /** What the server has answered to those who asked for lists. */
    lists(): Promise<number[]>;
    opened: TaskPage;
  }
}

function must(condition: unknown, complaint: string): asserts condition {
  if (!condition) throw new Error(complaint);
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function until(isSo: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (const end = Date.now() + 5_000; !(await isSo()); await pause(20)) must(Date.now() < end, `${what}: not within five seconds`);
}

/** The page in another tab. */
export async function open(baseUrl: string, token: string): Promise<void> {
  window.opened = new TaskPage(createTaskpact({ baseUrl, token }));
  window.opened.stayFresh();
  await createTaskpact({ baseUrl, token }).create({ title: "Before" });
  await window.opened.refresh();
  must(window.opened.view().tasks.length === 1, "the other tab shows nothing");
}

export async function fresh(baseUrl: string, token: string): Promise<number> {
  const elsewhere = createTaskpact({ baseUrl, token });
  const page = new TaskPage(createTaskpact({ baseUrl, token, attempts: 1 }));
  const shown: string[] = [];
  page.subscribe(() => shown.push(page.view().tasks.map(({ title, completed }) => `${title}${completed ? " ✓" : ""}`).join()));
  const end = page.stayFresh(3_600_000);
  const focus = () => window.dispatchEvent(new Event("focus"));
  const one = (title: string): Task => {
    const task = page.view().tasks.find((task) => task.title === title);
    must(task, `${title} is not shown`);
    return task;
  };
  let steps = 0;
  const step = async (work: () => Promise<void>) => (await work(), steps++);

  await step(async () => {
    await until(() => page.view().tasks.length === 1, "it asks when it opens");
  });

  // Another client's task appears on focus.
  await step(async () => {
    await elsewhere.create({ title: "Water the plants" });
    await pause(300);
    must(page.view().tasks.length === 1, "nobody has looked at it, and it asked");
    focus();
    await until(() => page.view().tasks.length === 2, "on focus");
  });

  // Nothing has changed: a 304, which the browser makes the same list of.
  await step(async () => {
    const before = (await window.lists()).length;
    focus();
    await until(async () => (await window.lists()).length === before + 1, "another focus");
    must((await window.lists()).at(-1) === 304, `a list that has not changed is ${await window.lists()}`);
    await until(() => page.view().tasks.length === 2, "the list is the same");
  });

  // A click shows before its answer, and a list that was asked for before it does not take it back.
  await step(async () => {
    shown.length = 0;
    const asked = page.refresh();
    const clicked = page.toggle(one("Water the plants"));
    must(one("Water the plants").completed, "the click does not show at once");
    await Promise.all([asked, clicked]);
    must(shown.every((view) => view.includes("Water the plants ✓")), `it was shown as ${shown}`);
    const { data } = await elsewhere.get(one("Water the plants").id);
    must(data?.completed && data.version === one("Water the plants").version, "it was not completed");
    await page.toggle(one("Water the plants"));
    must((await elsewhere.get(one("Water the plants").id)).data?.completed === false, "it was not reopened");
  });

  // What can't be had is taken back.
  await step(async () => {
    const gone = one("Before");
    await elsewhere.remove(gone.id);
    shown.length = 0;
    await page.toggle(gone);
    must(shown[0]?.includes("Before ✓") && shown.some((view) => view.endsWith("Before")), `it was shown as ${shown}`);
    must(page.view().tasks.length === 1 && page.view().message === "There is no such task.", JSON.stringify(page.view()));
  });

  // An edit that comes too late writes nothing, and shows what was faster.
  await step(async () => {
    const seen = one("Water the plants");
    await elsewhere.update(seen, { title: "Water them twice" });
    shown.length = 0;
    must(!(await page.edit(seen, { title: "Water them once" })), "an edit that came too late is done");
    // By the refusal itself, and then by the list.
    must(shown.filter((view) => view === "Water them twice").length === 2, `it was shown as ${shown}`);
    must(one("Water them twice").version === seen.version + 1, "the newer one is not shown");
    must(page.view().message?.includes("`If-Match`"), `it says ${page.view().message}`);
    must(await page.edit(one("Water them twice"), { title: "Water them once" }), "an edit in time is not done");
    must(one("Water them once") && page.view().message === undefined, "an edit is not shown");
  });

  // After the sign-out nothing is shown or asked.
  await step(async () => {
    const asked = page.refresh();
    page.signOut();
    await asked;
    const before = (await window.lists()).length;
    focus();
    await pause(500);
    must((await window.lists()).length === before, "it asks after the sign-out");
    must(JSON.stringify(page.view()) === '{"tasks":[]}', `after the sign-out it shows ${JSON.stringify(page.view())}`);
    end();
  });

  // A token that is refused.
  await step(async () => {
    const stranger = new TaskPage(createTaskpact({ baseUrl, token: `${token}x`, attempts: 1 }));
    await stranger.refresh();
    must(stranger.view().message === "Sign in again.", `a stranger is told ${stranger.view().message}`);
  });
  return steps;
}
