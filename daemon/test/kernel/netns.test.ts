import { existsSync, readdirSync, statSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { lacks } from "../../../test/support/needs.js";
import { mountsOf, useKernel } from "./test-kernel.js";

const plain = { nestedUserns: false };

describe.skipIf(lacks("root"))("a cell's network namespace", () => {
  const machine = useKernel();
  const name = `${machine.mark}-net`;
  const path = `/run/netns/${name}`;
  const mounts = (): number => mountsOf("self").filter((line) => line.path === path).length;

  it("is listed under a name until that is withdrawn", async () => {
    const { kernel } = machine;
    const { pid } = await kernel.makeCell(0, plain);
    await kernel.publishNetns(0, name);
    expect(statSync(path).ino).toBe(statSync(`/proc/${pid}/ns/net`).ino);
    expect(statSync(path).ino).not.toBe(statSync("/proc/self/ns/net").ino);
    await kernel.withdrawNetns(name);
    expect(existsSync(path)).toBe(false);
    expect(mounts()).toBe(0);
    await kernel.killCell(0);
  });

  it("can be withdrawn any number of times, and when it was never listed", async () => {
    const { kernel } = machine;
    await kernel.withdrawNetns(name);
    await kernel.makeCell(1, plain);
    await kernel.publishNetns(1, name);
    for (let times = 0; times < 3; times++) await kernel.withdrawNetns(name);
    await kernel.killCell(1);
  });

  it("does not take a name that is taken, until that is withdrawn", async () => {
    const { kernel } = machine;
    const first = await kernel.makeCell(2, plain);
    const second = await kernel.makeCell(3, plain);
    await kernel.publishNetns(2, name);
    await expect(kernel.publishNetns(3, name)).rejects.toMatchObject({ details: { errno: "EEXIST" } });
    expect(statSync(path).ino).toBe(statSync(`/proc/${first.pid}/ns/net`).ino);
    expect(mounts()).toBe(1);
    await kernel.withdrawNetns(name);
    await kernel.publishNetns(3, name);
    expect(statSync(path).ino).toBe(statSync(`/proc/${second.pid}/ns/net`).ino);
    await kernel.withdrawNetns(name);
    await Promise.all([kernel.killCell(2), kernel.killCell(3)]);
  });

  it("can be withdrawn after its cell has gone", async () => {
    const { kernel } = machine;
    await kernel.makeCell(4, plain);
    await kernel.publishNetns(4, name);
    await kernel.killCell(4);
    expect(mounts()).toBe(1);
    await kernel.withdrawNetns(name);
    expect(mounts()).toBe(0);
  });

  it("of a cell that does not exist, or has died, is not listed", async () => {
    const { kernel, deaths } = machine;
    await expect(kernel.publishNetns(9, name)).rejects.toMatchObject({ details: { errno: "ESRCH" } });
    const { pid } = await kernel.makeCell(5, plain);
    process.kill(pid, "SIGKILL");
    await expect.poll(() => deaths).toContainEqual({ index: 5, pid });
    await expect(kernel.publishNetns(5, name)).rejects.toMatchObject({ details: { errno: "ESRCH" } });
    await kernel.killCell(5);
  });

  it.each(["../escaped", "a/b", ".hidden", "..", "n".repeat(161)])("may not be named %j", async (wrong) => {
    const { kernel } = machine;
    await kernel.makeCell(6, plain);
    const before = readdirSync("/run");
    await expect(kernel.publishNetns(6, wrong)).rejects.toMatchObject({ details: { errno: "EBADMSG" } });
    await expect(kernel.withdrawNetns(wrong)).rejects.toMatchObject({ details: { errno: "EBADMSG" } });
    expect(readdirSync("/run")).toEqual(before);
    await kernel.killCell(6);
  });
});
