import { parseDeb822, parseSourcesList } from "../bases/apt-sources.js";

/** What installs packages in a sandbox, and what it asks for them. */
export interface PackageManager {
  readonly name: "apt" | "apk";
  /** a shell command that prints which servers it is set up for */
  readonly showSources: string;
  /** Addresses of those servers. */
  readonly parseSources: (text: string) => string[];
  /** Steps that install packages: what each is called, and its program with arguments. */
  readonly install: (
    packages: readonly string[],
    settings: readonly string[],
  ) => readonly { readonly title: string; readonly argv: readonly string[] }[];
}

/** parts the formats of apt, which one file cannot mix */
const divider = "=== deb822 ===";
/** kept out of a module as they are kept out of a base; Java's own, since its package fails where it cannot link to them in a folder for manual pages */
const unneeded = [
  "/usr/share/man/*",
  "/usr/lib/jvm/*/man/*",
  "/usr/share/info/*",
  "/usr/share/doc/*",
  "/usr/share/locale/*",
];

const apt: PackageManager = {
  name: "apt",
  showSources: [
    "for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do",
    '[ ! -f "$file" ] || { cat "$file"; echo; }; done;',
    `echo "${divider}";`,
    'for file in /etc/apt/sources.list.d/*.sources; do [ ! -f "$file" ] || { cat "$file"; echo; echo; }; done',
  ].join(" "),
  parseSources: (text) => {
    const [lists = "", stanzas = ""] = text.split(`${divider}\n`);
    return [...parseSourcesList(lists), ...parseDeb822(stanzas)].map(({ uri }) => uri);
  },
  install: (packages, settings) => {
    const dpkg = [
      ...unneeded.map((pattern) => `--path-exclude=${pattern}`),
      "--path-include=/usr/share/doc/*/copyright",
      "--force-confold",
      "--force-unsafe-io",
    ];
    const own = [
      // it is in a sandbox already, where its own cannot always be made
      "APT::Sandbox::User=root",
      "Acquire::Retries=3",
      "Acquire::http::Timeout=60",
      "Acquire::Languages=none",
      "APT::Install-Recommends=false",
      "Dpkg::Use-Pty=false",
      ...dpkg.map((option) => `DPkg::Options::=${option}`),
    ];
    const options = [...own, ...settings].flatMap((setting) => ["-o", setting]);
    return [
      {
        title: "reading the lists of packages",
        argv: ["apt-get", ...options, "-o", "APT::Update::Error-Mode=any", "update"],
      },
      {
        title: `installing ${packages.join(", ")}`,
        argv: ["apt-get", ...options, "--yes", "install", "--", ...packages],
      },
    ];
  },
};

const apk: PackageManager = {
  name: "apk",
  showSources: "cat /etc/apk/repositories",
  parseSources: (text) =>
    text
      .split("\n")
      .map((line) => /^\s*(?:@\S+\s+)?([a-z]+:\/\/\S+)/.exec(line)?.[1])
      .filter((uri) => uri !== undefined),
  install: (packages) => [
    {
      title: `installing ${packages.join(", ")}`,
      argv: ["apk", "add", "--no-cache", "--no-progress", ...packages],
    },
  ],
};

export const packageManagers: readonly PackageManager[] = [apt, apk];

/** A shell command that prints the names of those that are there. */
export const findManagers = "for name in apt-get apk; do command -v $name >/dev/null && echo $name; done; true";

/** null where there is none. */
export function managerOf(found: string): PackageManager | null {
  const names = found.split("\n");
  return names.includes("apt-get") ? apt : names.includes("apk") ? apk : null;
}

/** Names of packages as apt and apk have them; nothing that could be an option or a path. */
export function isPackageName(name: string): boolean {
  return /^[a-z0-9][a-z0-9+._-]{0,127}$/.test(name);
}
