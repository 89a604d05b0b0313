import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import Fastify, { type FastifyInstance } from "fastify";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { pageRoutes } from "./page.js";

const web = join(import.meta.dirname, "../../../web");
const names = readdirSync(web);
const read = (name: string): string => readFileSync(join(web, name), "utf8");
const html = read("index.html");
const scripts = names.filter((name) => name.endsWith(".js"));
let app: FastifyInstance;

beforeAll(async () => {
  app = Fastify();
  pageRoutes(app, web);
  await app.ready();
});
afterAll(() => app.close());

/** The matches of a pattern's only group. */
function all(text: string, pattern: RegExp): string[] {
  return [...text.matchAll(pattern)].map(([, found]) => found ?? "");
}

describe("the page's routes", () => {
  it("serve every file, index.html as /", async () => {
    for (const name of names) {
      const answer = await app.inject(name === "index.html" ? "/" : `/${name}`);
      expect([name, answer.statusCode, answer.body]).toEqual([name, 200, read(name)]);
    }
    expect((await app.inject("/../package.json")).statusCode).toBe(404);
    expect((await app.inject("/index.html")).statusCode).toBe(404);
  });

  it.each([
    ["/", "text/html; charset=utf-8"],
    ["/app.js", "text/javascript; charset=utf-8"],
    ["/style.css", "text/css; charset=utf-8"],
    ["/icon.svg", "image/svg+xml"],
  ])("tell the type of %s", async (url, type) => {
    expect((await app.inject(url)).headers["content-type"]).toBe(type);
  });

  it("forbid inline scripts and styles, other sites' files, frames and forms that leave", async () => {
    const { headers } = await app.inject("/");
    const policy = new Map(
      String(headers["content-security-policy"])
        .split("; ")
        .map((directive) => [directive.split(" ")[0], directive.split(" ").slice(1).join(" ")]),
    );
    expect(Object.fromEntries(policy)).toEqual({
      "default-src": "'none'",
      "script-src": "'self'",
      "style-src": "'self'",
      "connect-src": "'self'",
      "img-src": "'self' data:",
      "base-uri": "'none'",
      "form-action": "'none'",
      "frame-ancestors": "'none'",
    });
    expect(headers["referrer-policy"]).toBe("no-referrer");
  });
});

describe("the page's files", () => {
  it("refer only to files that are served", () => {
    const references = all(html, /(?:src|href)="([^"#]*)"/g);
    expect(references).toEqual(expect.arrayContaining(["app.js", "style.css", "icon.svg"]));
    for (const reference of references) {
      expect(["/openapi.json", ...names]).toContain(reference);
    }
    for (const script of scripts) {
      for (const imported of all(read(script), /from "([^"]*)"/g)) {
        expect([script, names.map((name) => `./${name}`)]).toEqual([script, expect.arrayContaining([imported])]);
      }
    }
  });

  it("load nothing from elsewhere", () => {
    for (const name of names) {
      const addresses = all(read(name), /((?:https?:)?\/\/[a-z0-9-]+\.[a-z0-9.]+)/gi);
      expect([name, addresses.filter((address) => address !== "http://www.w3.org" /* a namespace */)]).toEqual([
        name,
        [],
      ]);
      expect(read(name)).not.toMatch(/@import|url\(/);
    }
  });

  it("have nothing inline that the policy would refuse", () => {
    expect(html).not.toMatch(/\son\w+=/i);
    expect(html).not.toMatch(/\sstyle=/i);
    expect(html).not.toMatch(/<style|javascript:/i);
    expect(all(html, /(<script[^>]*>[^]*?<\/script>)/g)).toEqual(['<script type="module" src="app.js"></script>']);
  });

  it.each(scripts)("never turn text into markup or code: %s", (script) => {
    const text = read(script);
    expect(text).not.toMatch(/innerHTML|outerHTML|insertAdjacentHTML|document\.write|srcdoc|DOMParser|setHTML/);
    expect(text).not.toMatch(/createContextualFragment|\beval\b|\bFunction\(|\bimport\(|localStorage|document\.cookie/);
    expect(text).not.toMatch(/set(?:Timeout|Interval)\(\s*["'`]/);
    expect(text).not.toMatch(/["'](?:style|href|src|on\w+)["']?\s*[:,]/);
    expect(text).not.toMatch(/\.(?:href|src|cssText)\s*=[^=]/);
  });

  it("make elements in one place, of names that are written down", () => {
    const making = scripts.filter((script) => read(script).includes("createElement"));
    expect(making).toEqual(["dom.js"]);
    const others = scripts.filter((script) => script !== "dom.js").map(read);
    for (const text of others) expect(text).not.toMatch(/\bmake\((?!\s*")/);
  });

  it("have every element that a script looks for, and a label for every field", () => {
    const ids = all(html, /\sid="([^"]*)"/g);
    expect(new Set(ids).size).toBe(ids.length);
    for (const script of scripts) {
      const sought = all(read(script), /(?:byId|say)\("([^"]*)"/g);
      expect([script, sought.filter((id) => !ids.includes(id))]).toEqual([script, []]);
    }
    for (const [field] of html.matchAll(/<(?:input|select|textarea)[^>]*>/g)) {
      const before = html.slice(0, html.indexOf(field));
      expect([field, before.lastIndexOf("<label") > before.lastIndexOf("</label>")]).toEqual([field, true]);
    }
    for (const target of all(html, /(?:aria-labelledby|aria-controls|list)="([^"]*)"/g)) expect(ids).toContain(target);
  });
});
