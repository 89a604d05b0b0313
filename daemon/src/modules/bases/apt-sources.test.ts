import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  parseDeb822,
  parseSourcesList,
  readSources,
  renderSources,
  sourcesOf,
  withoutCredentials,
  type AptSource,
} from "./apt-sources.js";

const uri = "http://mirror.test/debian";
const source = (suite: string, rest: Partial<AptSource> = {}): AptSource => ({
  options: {},
  uri,
  suite,
  components: ["main"],
  ...rest,
});

describe("parseSourcesList()", () => {
  it.each<[string, AptSource[]]>([
    [`deb ${uri} bookworm main`, [source("bookworm")]],
    [`  deb\t${uri}  bookworm   main contrib`, [source("bookworm", { components: ["main", "contrib"] })]],
    [`deb ${uri} bookworm main # non-free`, [source("bookworm")]],
    [
      `deb [arch=amd64 signed-by=/k.gpg] ${uri} bookworm main`,
      [source("bookworm", { options: { arch: "amd64", "signed-by": "/k.gpg" } })],
    ],
    [`deb [ trusted=yes ] ${uri} bookworm main`, [source("bookworm", { options: { trusted: "yes" } })]],
    [`deb ${uri} ./`, [source("./", { components: [] })]],
    [`# deb ${uri} bookworm main`, []],
    [`deb-src ${uri} bookworm main`, []],
    ["", []],
    ["deb", []],
    ["deb bookworm", []],
    ["debris a b c", []],
  ])("reads %j", (line, sources) => {
    expect(parseSourcesList(line)).toEqual(sources);
  });

  it("takes a medium's name with blanks for no source of the release", () => {
    const line = "deb cdrom:[Debian GNU/Linux 12.0.0 _Bookworm_ - Official amd64]/ bookworm main";
    expect(sourcesOf("bookworm", parseSourcesList(line))).toEqual([]);
  });
});

describe("parseDeb822()", () => {
  it("makes a source of each address and suite", () => {
    const text = `# the usual
Types: deb deb-src
URIs: ${uri}
  http://other.test/debian
Suites: bookworm bookworm-updates
Components: main
 contrib
# within a stanza
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
Architectures: amd64 arm64
`;
    const rest = {
      components: ["main", "contrib"],
      options: { arch: "amd64,arm64", "signed-by": "/usr/share/keyrings/debian-archive-keyring.gpg" },
    };
    expect(parseDeb822(text)).toEqual([
      source("bookworm", rest),
      source("bookworm-updates", rest),
      source("bookworm", { ...rest, uri: "http://other.test/debian" }),
      source("bookworm-updates", { ...rest, uri: "http://other.test/debian" }),
    ]);
  });

  it.each(["no", "No", "false", "0", "off"])("skips a stanza with Enabled: %s", (value) => {
    const stanza = (suite: string, more = ""): string =>
      `types: deb\nuris: ${uri}\nsuites: ${suite}\ncomponents: main\n${more}`;
    const text = `\n\n${stanza("a", `Enabled: ${value}\n`)}\n \t\n\n${stanza("b", "Enabled: yes\n")}\n${stanza("c")}`;
    expect(parseDeb822(text)).toEqual([source("b"), source("c")]);
  });

  it("skips sources of source packages, and what has no address or suite", () => {
    expect(parseDeb822(`Types: deb-src\nURIs: ${uri}\nSuites: a\n`)).toEqual([]);
    expect(parseDeb822(`Types: deb\nSuites: a\n\nTypes: deb\nURIs: ${uri}\n\n# nothing\n`)).toEqual([]);
    expect(parseDeb822("")).toEqual([]);
  });

  it("refuses a key in the file, unless the stanza is not used", () => {
    const key = "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBF\n -----END PGP PUBLIC KEY BLOCK-----\n";
    const stanza = `Types: deb\nURIs: ${uri}\nSuites: bookworm\nComponents: main\n${key}`;
    expect(() => parseDeb822(stanza)).toThrow(/holds a key, needed is the path of a key file/);
    expect(parseDeb822(`${stanza}Enabled: no\n`)).toEqual([]);
  });
});

describe("sources", () => {
  it("of a release are its own, its updates and its security updates", () => {
    const suites = [
      "bookworm",
      "bookworm-updates",
      "bookworm-security",
      "bookworm/updates",
      "bookworm-backports",
      "trixie",
    ];
    const found = sourcesOf(
      "bookworm",
      suites.map((suite) => source(suite)),
    );
    expect(found.map(({ suite }) => suite)).toEqual(suites.slice(0, 4));
  });

  it("are written in the one-line format, which reads the same", () => {
    const sources = [
      source("bookworm", { options: { arch: "amd64,arm64", "signed-by": "/k.gpg" }, components: ["main", "contrib"] }),
      source("./", { components: [] }),
    ];
    const text = renderSources(sources);
    expect(text).toBe(`deb [arch=amd64,arm64 signed-by=/k.gpg] ${uri} bookworm main contrib\ndeb ${uri} ./\n`);
    expect(parseSourcesList(text)).toEqual(sources);
    expect(renderSources([])).toBe("");
  });

  it("lose user name and password for what others may read", () => {
    const uris = ["https://eve:secret@mirror.test/debian", "https://eve@mirror.test/a@b", uri];
    expect(uris.map((each) => withoutCredentials(source("a", { uri: each })).uri)).toEqual([
      "https://mirror.test/debian",
      "https://mirror.test/a@b",
      uri,
    ]);
  });
});

describe("readSources()", () => {
  it("reads both formats in the order of their names, and nothing else", async () => {
    const etc = mkdtempSync(join(tmpdir(), "squash-apt-"));
    expect(await readSources(join(etc, "absent"))).toEqual([]);
    mkdirSync(join(etc, "sources.list.d"));
    expect(await readSources(etc)).toEqual([]);
    writeFileSync(join(etc, "sources.list"), `deb ${uri} first main\n`);
    writeFileSync(join(etc, "sources.list.d/b.list"), `deb ${uri} third main\n`);
    writeFileSync(
      join(etc, "sources.list.d/a.sources"),
      `Types: deb\nURIs: ${uri}\nSuites: second\nComponents: main\n`,
    );
    writeFileSync(join(etc, "sources.list.d/c.list.save"), `deb ${uri} no main\n`);
    expect((await readSources(etc)).map(({ suite }) => suite)).toEqual(["first", "second", "third"]);
    rmSync(etc, { recursive: true });
  });
});
