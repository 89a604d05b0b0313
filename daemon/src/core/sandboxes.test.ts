import { describe, expect, it } from "vitest";
import { isSquashError } from "@squash/sdk/errors";
import { FakeMachine } from "./testing/fake-machine.js";
import { success } from "./testing/success.js";
import { fakeSquashd } from "./testing/fake-squashd.js";

const never = new AbortController().signal;
const operations = [
  "makeDirectories",
  "mountLayer",
  "makeCell",
  "mountUpper",
  "limitCell",
  "giveRoot",
  "publishNetns",
  "writeRecord",
];

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    return isSquashError(error) ? error.code : String(error);
  }
  return "no error";
}

describe("create()", () => {
  it("brings everything up and destroy() takes everything down", async () => {
    const machine = new FakeMachine();
    const { sandboxes, layers } = fakeSquashd(machine);
    const info = await sandboxes.create({ id: "a" }, never);
    expect(info).toMatchObject({
      id: "a",
      state: "ready",
      layers: ["000-base"],
      mounted: true,
      cpu: 2,
      memory_mb: 1024,
      pids: 1024,
    });
    expect(machine.state()).toEqual([
      "cell 0",
      "directory a",
      "layer 000-base@1.squashfs",
      "netns squash-a",
      "network 0 a open",
      "record a",
      "upper /sandboxes/a/upper.0",
    ]);
    await sandboxes.destroy("a");
    expect(machine.state()).toEqual([]);
    expect(layers.mounted).toBe(0);
    expect(await codeOf(sandboxes.get("a"))).toBe("sandbox_not_found");
  });

  it.each(operations)("leaves nothing behind when %s fails, and works the next time", async (operation) => {
    const machine = new FakeMachine();
    const { sandboxes } = fakeSquashd(machine);
    machine.failing.set(operation, 1);
    expect(await codeOf(sandboxes.create({ id: "a" }, never))).toMatch(/^(create_failed|module_invalid)$/);
    expect(machine.state()).toEqual([]);
    expect(sandboxes.count).toBe(0);
    await sandboxes.create({ id: "a" }, never);
    expect((await sandboxes.get("a")).state).toBe("ready");
  });

  it("does not touch what an earlier sandbox left in the directory", async () => {
    const machine = new FakeMachine();
    const { sandboxes } = fakeSquashd(machine);
    machine.directories.add("a");
    expect(await codeOf(sandboxes.create({ id: "a" }, never))).toBe("create_failed");
  });

  it("takes a name and a place at once, so that neither is taken twice", async () => {
    const machine = new FakeMachine();
    const { sandboxes } = fakeSquashd(machine, { maxSandboxes: 3 });
    const codes = await Promise.all(["a", "a", "b", "c", "d"].map((id) => codeOf(sandboxes.create({ id }, never))));
    expect(codes).toEqual(["no error", "sandbox_exists", "no error", "no error", "sandbox_limit"]);
  });

  it("keeps the code of a missing module", async () => {
    const { sandboxes } = fakeSquashd(new FakeMachine());
    expect(await codeOf(sandboxes.create({ id: "a", layers: ["nope"] }, never))).toBe("module_not_found");
  });

  it("mounts a module once for many sandboxes", async () => {
    const machine = new FakeMachine();
    const { sandboxes, layers } = fakeSquashd(machine);
    await Promise.all(["a", "b", "c", "d"].map((id) => sandboxes.create({ id }, never)));
    expect(machine.calls.filter((call) => call === "mountLayer")).toHaveLength(1);
    await Promise.all(["a", "b", "c"].map((id) => sandboxes.destroy(id)));
    expect(layers.mounted).toBe(1);
    await sandboxes.destroy("d");
    expect(layers.mounted).toBe(0);
  });

  it("undoes everything when the caller goes away", async () => {
    const machine = new FakeMachine();
    const { sandboxes } = fakeSquashd(machine);
    const abort = new AbortController();
    const creating = codeOf(sandboxes.create({ id: "a" }, abort.signal));
    abort.abort();
    expect(await creating).toBe("cancelled");
    expect(machine.state()).toEqual([]);
  });
});

describe("destroy()", () => {
  it("can be repeated when a step failed", async () => {
    const machine = new FakeMachine();
    const { sandboxes } = fakeSquashd(machine);
    await sandboxes.create({ id: "a" }, never);
    machine.failing.set("unmountUpper", 1);
    expect(await codeOf(sandboxes.destroy("a"))).toBe("kernel");
    expect((await sandboxes.get("a")).state).toBe("failed");
    await sandboxes.destroy("a");
    expect(machine.state()).toEqual([]);
  });

  it("stops running commands", async () => {
    const machine = new FakeMachine();
    const { sandboxes } = fakeSquashd(machine);
    await sandboxes.create({ id: "a" }, never);
    machine.runCommand = (_, signal) =>
      new Promise((resolve) => signal.addEventListener("abort", () => resolve({ ...success(""), cancelled: true })));
    const running = codeOf(sandboxes.exec("a", { cmd: "sleep" }, never));
    await sandboxes.destroy("a");
    expect(await running).toBe("cancelled");
  });

  it("twice at once: one wins, the other finds nothing", async () => {
    const { sandboxes } = fakeSquashd(new FakeMachine());
    await sandboxes.create({ id: "a" }, never);
    const codes = await Promise.all([codeOf(sandboxes.destroy("a")), codeOf(sandboxes.destroy("a"))]);
    expect(codes.toSorted()).toEqual(["no error", "sandbox_not_found"]);
  });
});

describe("exec()", () => {
  it("numbers commands from 1 and logs them", async () => {
    const machine = new FakeMachine();
    const { sandboxes } = fakeSquashd(machine);
    await sandboxes.create({ id: "a" }, never);
    machine.runCommand = (command) => Promise.resolve(success(command.argv.join(" ")));
    await Promise.all([sandboxes.exec("a", { cmd: "one" }, never), sandboxes.exec("a", { cmd: "two" }, never)]);
    const logs = await sandboxes.logs("a");
    expect(logs.map(({ seq, stdout }) => [seq, stdout])).toEqual([
      [1, "one"],
      [2, "two"],
    ]);
    expect((await sandboxes.get("a")).exec_count).toBe(2);
  });

  it("starts commands as the modules said when the sandbox was made, unless asked for otherwise", async () => {
    const machine = new FakeMachine();
    const { sandboxes } = fakeSquashd(machine);
    const resolve = machine.resolve.bind(machine);
    const defaults = { env: { A: "image", B: "image" }, workdir: "/srv", user: "web", entrypoint: [], cmd: [] };
    machine.resolve = async (name) => ({ ...(await resolve(name)), defaults });
    await sandboxes.create({ id: "a" }, never);
    machine.resolve = resolve;
    machine.runCommand = ({ env, workdir, user }) => Promise.resolve(success(JSON.stringify({ env, workdir, user })));
    const plain = await sandboxes.exec("a", { cmd: "x" }, never);
    expect(JSON.parse(plain.stdout)).toEqual({ env: { A: "image", B: "image" }, workdir: "/srv", user: "web" });
    expect(plain.workdir).toBe("/srv");
    const asked = await sandboxes.exec("a", { cmd: "x", workdir: "/", user: 0, env: { A: "" } }, never);
    expect(JSON.parse(asked.stdout)).toEqual({ env: { A: "", B: "image" }, workdir: "/", user: "0" });
  });

  it("reports an out-of-memory kill once", async () => {
    const machine = new FakeMachine();
    const { sandboxes } = fakeSquashd(machine);
    await sandboxes.create({ id: "a" }, never);
    machine.runCommand = () => Promise.resolve({ ...success(""), exitCode: 137 });
    machine.oomKills = 1;
    expect((await sandboxes.exec("a", { cmd: "x" }, never)).oom_killed).toBe(true);
    expect((await sandboxes.exec("a", { cmd: "x" }, never)).oom_killed).toBe(false);
  });
});
