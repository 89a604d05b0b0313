import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { SquashError } from "@squash/sdk/errors";

/** One source of binary packages, of either format of apt. Source: sources.list(5) */
export interface AptSource {
  /** lower case names as in the one-line format, such as `signed-by` */
  readonly options: Readonly<Record<string, string>>;
  readonly uri: string;
  readonly suite: string;
  readonly components: readonly string[];
}

/** Parses the one-line format. Skips comments and sources of source packages. */
export function parseSourcesList(text: string): AptSource[] {
  const sources: AptSource[] = [];
  for (const line of text.split("\n")) {
    const match = /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*([^#]*)/.exec(line);
    const [, bracketed = "", uri, suite, components = ""] = match ?? [];
    if (uri === undefined || suite === undefined) continue;
    const options = Object.fromEntries(words(bracketed).map((option) => splitOnce(option, "=")));
    sources.push({ options, uri, suite, components: words(components) });
  }
  return sources;
}

/** Parses the deb822 format (`*.sources`). Skips disabled stanzas and source packages. Throws `build_failed` for a key written into the file. */
export function parseDeb822(text: string): AptSource[] {
  return text
    .split(/\n(?:[ \t]*\n)+/)
    .map(fieldsOf)
    .filter(
      (fields) =>
        words(fields.get("types") ?? "").includes("deb") && !/^(no|false|0|off)$/i.test(fields.get("enabled") ?? "yes"),
    )
    .flatMap((fields) => {
      const options = optionsOf(fields);
      const components = words(fields.get("components") ?? "");
      return words(fields.get("uris") ?? "").flatMap((uri) =>
        words(fields.get("suites") ?? "").map((suite) => ({ options, uri, suite, components })),
      );
    });
}

const optionFields: Readonly<Record<string, string>> = {
  architectures: "arch",
  "signed-by": "signed-by",
  trusted: "trusted",
  "check-valid-until": "check-valid-until",
  "check-date": "check-date",
  "allow-insecure": "allow-insecure",
  "by-hash": "by-hash",
};

function optionsOf(fields: ReadonlyMap<string, string>): Record<string, string> {
  const options: Record<string, string> = {};
  for (const [field, option] of Object.entries(optionFields)) {
    const value = fields.get(field);
    if (value === undefined) continue;
    if (value.includes("BEGIN PGP")) {
      const message = 'Cannot use a package source: its "Signed-By" holds a key, needed is the path of a key file';
      throw new SquashError("build_failed", message, { details: { uris: fields.get("uris") } });
    }
    options[option] = words(value).join(",");
  }
  return options;
}

function fieldsOf(stanza: string): Map<string, string> {
  const fields = new Map<string, string>();
  let last = "";
  for (const line of stanza.split("\n")) {
    if (line.startsWith("#")) continue;
    if (/^[ \t]/.test(line)) fields.set(last, `${fields.get(last) ?? ""}\n${line.trim()}`);
    const match = /^([A-Za-z0-9-]+):(.*)$/.exec(line);
    if (match?.[1] === undefined) continue;
    last = match[1].toLowerCase();
    fields.set(last, (match[2] ?? "").trim());
  }
  return fields;
}

/** The sources of a release: its own, its updates and its security updates. */
export function sourcesOf(release: string, sources: readonly AptSource[]): AptSource[] {
  const suites = [release, `${release}-updates`, `${release}-security`, `${release}/updates`];
  return sources.filter(({ suite }) => suites.includes(suite));
}

/** One line for each source. */
export function renderSources(sources: readonly AptSource[]): string {
  return sources
    .map(({ options, uri, suite, components }) => {
      const bracketed = Object.entries(options).map(([name, value]) => `${name}=${value}`);
      return ["deb", ...(bracketed.length === 0 ? [] : [`[${bracketed.join(" ")}]`]), uri, suite, ...components, ""]
        .join(" ")
        .trimEnd();
    })
    .map((line) => `${line}\n`)
    .join("");
}

/** What others may read of a source: no user name and password. */
export function withoutCredentials(source: AptSource): AptSource {
  return { ...source, uri: source.uri.replace(/:\/\/[^/@\s]*@/, "://") };
}

/** Reads the machine's own sources from `/etc/apt`. */
export async function readSources(directory = "/etc/apt"): Promise<AptSource[]> {
  const sources = parseSourcesList(await textOf(join(directory, "sources.list")));
  for (const file of (await readdir(join(directory, "sources.list.d")).catch(onlyMissing(() => []))).toSorted()) {
    const text =
      file.endsWith(".list") || file.endsWith(".sources") ? await textOf(join(directory, "sources.list.d", file)) : "";
    sources.push(...(file.endsWith(".list") ? parseSourcesList(text) : parseDeb822(text)));
  }
  return sources;
}

function textOf(path: string): Promise<string> {
  return readFile(path, "utf8").catch(onlyMissing(() => ""));
}

function onlyMissing<T>(value: () => T): (error: NodeJS.ErrnoException) => T {
  return (error) => {
    if (error.code === "ENOENT") return value();
    throw error;
  };
}

function words(text: string): string[] {
  return text.split(/\s+/).filter((word) => word !== "");
}

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}
