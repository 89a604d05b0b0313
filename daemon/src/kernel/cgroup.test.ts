import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import {
  cellPath,
  findCgroups,
  listCells,
  parseCgroupMounts,
  prepareCgroups,
  readUsage,
  removeCgroups,
} from "./cgroup.js";

const home = mkdtempSync(join(tmpdir(), "cgroup-test-"));
let counter = 0;
afterAll(() => rmSync(home, { recursive: true }));

/** A directory that looks like a mounted hierarchy. */
function hierarchy(files: Readonly<Record<string, string>> = {}, name = `h${++counter}`): string {
  const path = join(home, name);
  mkdirSync(path, { recursive: true });
  for (const [file, content] of Object.entries(files)) writeFileSync(join(path, file), content);
  return path;
}

function v1Line(path: string, controllers: string): string {
  return `33 32 0:28 / ${path} rw,nosuid,nodev,noexec,relatime shared:16 - cgroup cgroup rw,${controllers}`;
}

function v2Line(path: string): string {
  return `30 24 0:26 / ${path} rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate`;
}

const noise = [
  "24 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro",
  "25 24 0:22 / /proc rw - proc proc rw",
  "26 24 0:23 / /sys/fs/cgroup-like rw - tmpfs cgroup rw,memory",
  "",
];

describe("parseCgroupMounts()", () => {
  it("finds version 2 and each hierarchy of version 1, with and without optional fields", () => {
    const text = [
      ...noise,
      v2Line("/sys/fs/cgroup/unified"),
      v1Line("/sys/fs/cgroup/cpu,cpuacct", "cpu,cpuacct"),
      "36 31 0:33 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory",
      "37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime shared:7 master:2 propagate_from:1 unbindable - cgroup cgroup rw,freezer",
    ].join("\n");
    expect(parseCgroupMounts(text)).toEqual([
      { path: "/sys/fs/cgroup/unified", version: 2, controllers: [] },
      { path: "/sys/fs/cgroup/cpu,cpuacct", version: 1, controllers: ["rw", "cpu", "cpuacct"] },
      { path: "/sys/fs/cgroup/memory", version: 1, controllers: ["rw", "memory"] },
      { path: "/sys/fs/cgroup/freezer", version: 1, controllers: ["rw", "freezer"] },
    ]);
  });

  it("undoes octal escapes: blanks, tabs, line ends, backslashes", () => {
    const [mount] = parseCgroupMounts(v2Line("/mnt/a\\040b\\011c\\012d\\134e\\134040"));
    expect(mount?.path).toBe("/mnt/a b\tc\nd\\e\\040");
  });

  it("reads what makes no sense as nothing", () => {
    expect(parseCgroupMounts("")).toEqual([]);
    expect(parseCgroupMounts("- - -\n - cgroup2\nx - cgroup cgroup rw\n - \n")).toEqual([]);
  });
});

describe("findCgroups()", () => {
  const all = "cpuset cpu io memory hugetlb pids rdma misc\n";

  it("takes pure version 2", async () => {
    const path = hierarchy({ "cgroup.controllers": all });
    expect(await findCgroups([...noise, v2Line(path)].join("\n"), "squash")).toEqual({
      version: 2,
      paths: [join(path, "squash")],
    });
  });

  it("takes version 2 at a path with a blank", async () => {
    const path = hierarchy({ "cgroup.controllers": all }, "with blank");
    const { paths } = await findCgroups(v2Line(path.replaceAll(" ", "\\040")), "squash");
    expect(paths).toEqual([join(path, "squash")]);
  });

  it("takes version 1 where version 2 is mounted beside it without controllers", async () => {
    const unified = hierarchy({ "cgroup.controllers": "\n" });
    const lines = [
      v1Line("/cg/freezer", "freezer"),
      v1Line("/cg/cpu,cpuacct", "cpu,cpuacct"),
      v1Line("/cg/pids", "pids"),
      v1Line("/cg/memory", "memory"),
      v1Line("/cg/systemd", "xattr,name=systemd"),
      v2Line(unified),
    ];
    expect(await findCgroups(lines.join("\n"), "squash")).toEqual({
      version: 1,
      paths: ["/cg/memory/squash", "/cg/cpu,cpuacct/squash", "/cg/pids/squash", "/cg/freezer/squash"],
    });
  });

  it("does not take a hierarchy for another whose name begins alike", async () => {
    const lines = [v1Line("/cg/cpuset", "cpuset"), v1Line("/cg/cpuacct", "cpuacct"), v1Line("/cg/memory", "memory")];
    await expect(findCgroups(lines.join("\n"), "squash")).rejects.toMatchObject({
      code: "kernel",
      message: /no cgroup hierarchy has cpu, pids, freezer;/,
    });
  });

  it("says which controllers a machine lacks, and what to do", async () => {
    const unified = hierarchy({ "cgroup.controllers": "cpu io\n" });
    await expect(findCgroups(v2Line(unified), "squash")).rejects.toMatchObject({
      code: "kernel",
      message: /has memory, cpu, pids, freezer; mount cgroup2/,
    });
    await expect(findCgroups("", "squash")).rejects.toMatchObject({ code: "kernel" });
  });
});

describe("prepareCgroups()", () => {
  it("makes the parent and hands the controllers down, again and again", async () => {
    const path = hierarchy({ "cgroup.subtree_control": "" });
    const layout = { version: 2, paths: [join(path, "squash")] } as const;
    await prepareCgroups(layout);
    await prepareCgroups(layout);
    expect(readFileSync(join(path, "cgroup.subtree_control"), "utf8")).toBe("+memory +cpu +pids");
    expect(readFileSync(join(path, "squash/cgroup.subtree_control"), "utf8")).toBe("+memory +cpu +pids");
  });

  it("says why the controllers cannot be handed down", async () => {
    const path = hierarchy();
    mkdirSync(join(path, "cgroup.subtree_control"));
    await expect(prepareCgroups({ version: 2, paths: [join(path, "squash")] })).rejects.toMatchObject({
      code: "kernel",
      message: /Cannot hand memory, cpu and pids .*EISDIR.*a group that holds processes cannot/,
    });
  });

  it("makes one parent for each hierarchy of version 1, and removes only empty ones", async () => {
    const paths = [hierarchy(), hierarchy()].map((path) => join(path, "squash"));
    const layout = { version: 1, paths } as const;
    await prepareCgroups(layout);
    mkdirSync(join(paths[1]!, "c3"));
    await removeCgroups(layout);
    expect(readdirSync(join(paths[0]!, ".."))).toEqual([]);
    expect(readdirSync(join(paths[1]!, ".."))).toEqual(["squash"]);
  });

  it("keeps a frozen group in the freezer of version 1, and none in version 2", async () => {
    const paths = ["memory", "cpu", "pids", "freezer"].map(() => join(hierarchy(), "squash"));
    await prepareCgroups({ version: 1, paths });
    await prepareCgroups({ version: 1, paths });
    expect(paths.map((path) => readdirSync(path))).toEqual([[], [], [], ["frozen"]]);
    expect(readFileSync(join(paths[3]!, "frozen/freezer.state"), "utf8")).toBe("FROZEN");
    rmSync(join(paths[3]!, "frozen/freezer.state")); // as in a hierarchy of the kernel, whose groups seem empty to rmdir
    await removeCgroups({ version: 1, paths });
    expect(paths.map((path) => readdirSync(join(path, "..")))).toEqual([[], [], [], []]);
  });
});

describe("listCells()", () => {
  it("lists each cell once, in the order of numbers, from any hierarchy, and nothing else", async () => {
    const paths = [hierarchy(), hierarchy()];
    for (const name of ["c10", "c2", "c", "cx", "c1x", "xc1"]) mkdirSync(join(paths[0]!, name));
    for (const name of ["c2", "c7"]) mkdirSync(join(paths[1]!, name));
    writeFileSync(join(paths[0]!, "cgroup.procs"), "");
    expect(await listCells({ version: 1, paths })).toEqual([2, 7, 10]);
  });
});

describe("readUsage()", () => {
  function cell(files: Readonly<Record<string, string>>): string {
    const path = hierarchy();
    mkdirSync(join(path, "c4"));
    for (const [name, content] of Object.entries(files)) writeFileSync(join(path, "c4", name), content);
    return path;
  }

  it("reads version 2", async () => {
    const events = "low 0\nhigh 0\nmax 17\noom 3\noom_kill 2\noom_group_kill 1\n";
    const paths = [cell({ "memory.current": "1048576\n", "memory.events": events })];
    expect(cellPath({ version: 2, paths }, 4)).toBe(join(paths[0]!, "c4"));
    expect(await readUsage({ version: 2, paths }, 4)).toEqual({ memoryBytes: 1_048_576, oomKills: 2 });
  });

  it("reads version 1, also of a kernel that does not count kills", async () => {
    const control = "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n";
    const paths = [cell({ "memory.usage_in_bytes": "4096\n", "memory.oom_control": control })];
    expect(await readUsage({ version: 1, paths }, 4)).toEqual({ memoryBytes: 4096, oomKills: 5 });
    const old = [
      cell({ "memory.usage_in_bytes": "4096\n", "memory.oom_control": "oom_kill_disable 1\nunder_oom 0\n" }),
    ];
    expect(await readUsage({ version: 1, paths: old }, 4)).toEqual({ memoryBytes: 4096, oomKills: 0 });
  });

  it("finds that a group which is gone uses nothing", async () => {
    expect(await readUsage({ version: 2, paths: [hierarchy()] }, 4)).toEqual({ memoryBytes: 0, oomKills: 0 });
  });

  it("does not hide another failure", async () => {
    const paths = [cell({})];
    mkdirSync(join(paths[0]!, "c4/memory.current"));
    await expect(readUsage({ version: 2, paths }, 4)).rejects.toMatchObject({ code: "EISDIR" });
  });
});
