import { SquashError } from "@squash/sdk/errors";

/** Packages that make a module, by what installs them. */
export interface Preset {
  /** what the module is called unless somebody says otherwise; null where somebody must */
  readonly module: string | null;
  readonly about: string;
  readonly apt: readonly string[];
  readonly apk: readonly string[];
  /** must succeed afterwards */
  readonly check: readonly string[] | null;
}

/** What `sq mkmod preset` knows. Numbers as for modules made by hand: languages 10x, what builds 11x, tools 20x. */
export const presets: Readonly<Record<string, Preset>> = {
  python3: {
    module: "100-python3",
    about: "Python 3 with pip and venv",
    apt: ["python3", "python3-pip", "python3-venv"],
    apk: ["python3", "py3-pip"],
    check: ["python3", "--version"],
  },
  nodejs: {
    module: "100-nodejs",
    about: "Node.js with npm",
    apt: ["nodejs", "npm"],
    apk: ["nodejs", "npm"],
    check: ["node", "--version"],
  },
  golang: {
    module: "100-golang",
    about: "Go",
    apt: ["golang-go"],
    apk: ["go"],
    check: ["go", "version"],
  },
  openjdk: {
    module: "100-openjdk",
    about: "Java with its compiler",
    apt: ["default-jdk-headless"],
    apk: ["openjdk17-jdk"],
    check: ["java", "--version"],
  },
  rust: {
    module: "100-rust",
    about: "Rust with Cargo",
    apt: ["rustc", "cargo"],
    apk: ["rust", "cargo"],
    check: ["rustc", "--version"],
  },
  ruby: { module: "100-ruby", about: "Ruby", apt: ["ruby"], apk: ["ruby"], check: ["ruby", "--version"] },
  perl: { module: "100-perl", about: "Perl", apt: ["perl"], apk: ["perl"], check: ["perl", "-v"] },
  gcc: {
    module: "110-gcc",
    about: "C and C++ compilers, make",
    apt: ["gcc", "g++", "libc6-dev", "make"],
    apk: ["gcc", "g++", "musl-dev", "make"],
    check: ["gcc", "--version"],
  },
  "build-tools": {
    module: "110-build-tools",
    about: "compilers, make, CMake, pkg-config",
    apt: ["build-essential", "cmake", "pkg-config"],
    apk: ["build-base", "cmake", "pkgconf"],
    check: ["cmake", "--version"],
  },
  git: { module: "200-git", about: "Git", apt: ["git"], apk: ["git"], check: ["git", "--version"] },
  sqlite: { module: "200-sqlite", about: "SQLite", apt: ["sqlite3"], apk: ["sqlite"], check: ["sqlite3", "--version"] },
  packages: {
    module: null,
    about: "the packages that are named, under a name of one's own",
    apt: [],
    apk: [],
    check: null,
  },
};

/** Throws `invalid_request`. */
export function presetOf(name: string): Preset {
  const preset = Object.hasOwn(presets, name) ? presets[name] : undefined;
  if (preset !== undefined) return preset;
  throw new SquashError(
    "invalid_request",
    `Cannot find preset ${JSON.stringify(name.slice(0, 80))}: known are ${Object.keys(presets).join(", ")}`,
  );
}
