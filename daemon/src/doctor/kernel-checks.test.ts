import { describe, expect, it } from "vitest";
import { fileLimit, kernelChecks, kernelVersion, moduleImages, seccomp, userNamespaces } from "./kernel-checks.js";

describe("kernelVersion()", () => {
  it.each(["5.19.0", "5.19", "5.19.17-custom", "6.1.0-28-amd64", "6.18.44-fc-v769", "10.0.1", "6.2-rc1"])(
    "takes %s",
    (version) => expect(kernelVersion(version)).toMatchObject({ ok: true, found: version }),
  );

  it.each(["5.18.19", "5.4.0-200-generic", "4.19.0", "3.10.0-1160.el7.x86_64", "5.2.19", "", "unknown"])(
    "refuses %s, and says what is needed",
    (version) => expect(kernelVersion(version)).toMatchObject({ ok: false, advice: /needed is 5\.19 or later/ }),
  );
});

describe("moduleImages()", () => {
  it.each([
    ["6.18.44", ["ext4", "squashfs", "erofs"], "erofs and squashfs with mapped ids"],
    ["6.2.0", ["squashfs"], "squashfs with mapped ids"],
    ["7.0.0", ["erofs", "squashfs"], "erofs and squashfs with mapped ids"],
  ])("on %s with %j finds %s", (version, filesystems, found) =>
    expect(moduleImages(version, filesystems)).toEqual({ ok: true, found }),
  );

  it.each([
    ["6.1.0-28-amd64", ["squashfs", "erofs"]],
    ["5.19.0", ["erofs"]],
    ["6.18.0", ["erofs"]],
  ])("on %s with %j takes erofs, and says that squashfs cannot be used", (version, filesystems) =>
    expect(moduleImages(version, filesystems)).toMatchObject({
      ok: true,
      found: /^erofs with mapped ids; squashfs needs 6\.2/,
    }),
  );

  it.each([
    ["6.1.0-28-amd64", ["squashfs"]],
    ["5.18.0", ["squashfs", "erofs"]],
    ["6.18.0", ["ext4", "overlay"]],
    ["6.18.0", []],
  ])("on %s with %j refuses", (version, filesystems) =>
    expect(moduleImages(version, filesystems)).toMatchObject({ ok: false, advice: /modprobe erofs/ }),
  );
});

describe("userNamespaces()", () => {
  it("takes any number but none", () => {
    expect(userNamespaces("63512")).toMatchObject({ ok: true, found: "up to 63512" });
    expect(userNamespaces("1").ok).toBe(true);
  });

  it.each([null, "0", "", "not a number"])("refuses %j", (maximum) =>
    expect(userNamespaces(maximum)).toMatchObject({ ok: false, advice: /max_user_namespaces/ }),
  );
});

describe("seccomp()", () => {
  it("takes a kernel with the actions that the filter uses", () => {
    const actions = "kill_process kill_thread trap errno user_notif trace log allow";
    expect(seccomp(actions)).toEqual({ ok: true, found: actions });
    expect(seccomp("errno\nkill_process\n").ok).toBe(true);
  });

  it.each([
    [null, "lacks errno, kill_process"],
    ["", "lacks errno, kill_process"],
    ["kill trap errno trace allow", "lacks kill_process"],
    ["kill_process errnoish", "lacks errno"],
  ])("refuses %j: %s", (actions, found) =>
    expect(seccomp(actions)).toMatchObject({ ok: false, found, advice: /CONFIG_SECCOMP_FILTER/ }),
  );
});

describe("fileLimit()", () => {
  function limits(hard: string): string {
    return [
      "Limit                     Soft Limit           Hard Limit           Units     ",
      "Max processes             127318               127318               processes ",
      `Max open files            1024                 ${hard.padEnd(20)} files     `,
      "Max locked memory         8388608              8388608              bytes     ",
    ].join("\n");
  }

  it.each(["4096", "1048576", "unlimited"])("takes a hard limit of %s", (hard) =>
    expect(fileLimit(limits(hard))).toMatchObject({ ok: true, found: `up to ${hard}` }),
  );

  it.each(["4095", "1024", "0"])("warns of a hard limit of %s", (hard) =>
    expect(fileLimit(limits(hard))).toMatchObject({ ok: false, found: `up to ${hard}`, advice: /LimitNOFILE/ }),
  );

  it("warns when the kernel says nothing that it knows", () => {
    expect(fileLimit("")).toMatchObject({ ok: false, found: "up to unknown" });
    expect(fileLimit("Max open files            1024").ok).toBe(false);
  });
});

describe("kernelChecks()", () => {
  it("names each check once, and looks without root as well", async () => {
    const checks = await kernelChecks({ cgroupRoot: "squash" });
    const names = checks.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    expect(names).toEqual(
      expect.arrayContaining(["root", "kernel", "overlayfs", "module images", "cgroups", "seccomp"]),
    );
    expect(checks.filter(({ detail }) => detail === "")).toEqual([]);
  });
});
