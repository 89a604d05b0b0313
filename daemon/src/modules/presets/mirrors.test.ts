import { describe, expect, it } from "vitest";
import { mirrorPolicy, readMachineMirrors, type MachineMirrors } from "./mirrors.js";

const machine = (more: Partial<MachineMirrors> = {}): MachineMirrors => ({
  urls: [],
  settings: [],
  resolve: () => Promise.resolve([]),
  ...more,
});
const reason = (urls: readonly string[], own: MachineMirrors): Promise<string> =>
  mirrorPolicy(urls, own).then(
    (entries) => `allowed ${entries.join(" ")}`,
    (error: Error) => error.message,
  );

describe("mirrorPolicy()", () => {
  it("allows the servers that the base names, each port of them alone", async () => {
    const urls = [
      "http://a.example/debian",
      "https://b.example/x",
      "http://a.example/security",
      "http://c.example:81/",
    ];
    expect(await mirrorPolicy(urls, machine())).toEqual(["a.example:80", "b.example:443", "c.example:81"]);
  });

  it("takes public addresses as they are", async () => {
    expect(await mirrorPolicy(["http://8.8.8.8/", "http://[2606:2800:220:1::1]:8080/"], machine())).toEqual([
      "8.8.8.8:80",
      "[2606:2800:220:1::1]:8080",
    ]);
  });

  it("opens private addresses only where the machine itself is set up for that server", async () => {
    for (const host of ["10.0.0.5", "169.254.169.254", "[fd00::1]"]) {
      const url = `http://${host}/debian`;
      expect(await reason([url], machine())).toMatch(/which is not public; allow it with allow_net$/);
      expect(await reason([url], machine({ urls: [url] }))).toBe(`allowed ${host}:80`);
    }
    const resolve = (host: string) => Promise.resolve(host === "mirror.corp" ? ["10.0.0.5", "8.8.8.8", "fd00::5"] : []);
    const url = "http://mirror.corp/debian";
    expect(await reason([url], machine({ resolve }))).toBe("allowed mirror.corp:80");
    expect(await reason([url], machine({ resolve, urls: ["https://mirror.corp/other"] }))).toBe(
      "allowed 10.0.0.5:80 [fd00::5]:80 mirror.corp:80",
    );
  });

  it("does without addresses of a name that cannot be resolved", async () => {
    const url = "http://mirror.corp/debian";
    const resolve = () => Promise.reject(new Error("no such name"));
    expect(await mirrorPolicy([url], machine({ resolve, urls: [url] }))).toEqual(["mirror.corp:80"]);
  });

  it("allows the machine's proxy, too", async () => {
    const own = machine({
      urls: ["http://proxy.corp:3142/"],
      settings: ["Acquire::http::Proxy=http://proxy.corp:3142/", "Acquire::Check-Date=false"],
      resolve: () => Promise.resolve(["10.9.9.9"]),
    });
    expect(await mirrorPolicy(["http://a.example/"], own)).toEqual([
      "10.9.9.9:3142",
      "a.example:80",
      "proxy.corp:3142",
    ]);
  });

  it.each([[[]], [["cdrom:[Debian]/", "file:///srv/debian", "mirror+file:/etc/x", "not an address"]]])(
    "refuses a base that names no server: %j",
    async (urls) => {
      expect(await reason(urls, machine())).toMatch(/names no package server that is asked by HTTP/);
    },
  );

  it("refuses a base that names very many", async () => {
    const urls = Array.from({ length: 33 }, (_, at) => `http://m${at}.example/`);
    expect(await reason(urls, machine())).toMatch(/more than 32/);
  });
});

describe("readMachineMirrors()", () => {
  it("takes apt's settings, but none with a password", async () => {
    const dump =
      'Acquire::http::Proxy "http://proxy.corp:3142/";\nAcquire::https::Proxy "http://me:secret@proxy.corp/";\nAcquire::Check-Date "false";\n';
    const { settings, urls } = await readMachineMirrors(() => Promise.resolve(dump.replaceAll(/"(.*)";/g, "$1")));
    expect(settings).toEqual(["Acquire::http::Proxy=http://proxy.corp:3142/", "Acquire::Check-Date=false"]);
    expect(urls).toContain("http://proxy.corp:3142/");
    expect(JSON.stringify([settings, urls])).not.toContain("secret");
  });

  it("finds nothing where there is no apt", async () => {
    expect(await readMachineMirrors(() => Promise.reject(new Error("not installed")))).toMatchObject({ settings: [] });
  });
});
